"""The broker: gives a waiting request the healthiest account it may have, and takes the slot back.

One thread, one event loop. Every decision is a synchronous step on memory: seats (``index``), the waiting line
(``queue``), account values (``transitions``). The database is reached only by the keeper (grants) and the journal
(account changes), both behind the request's back.

Why this is one module: seats, line and timers change together in one breath; splitting them would spread one
invariant (open seats = healthy, held, unused) over files.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from poe_gateway.clock import Clock
from poe_gateway.errors import Overloaded, PointsExhausted, SessionLost
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, State
from poe_gateway.pool.index import Seat, SeatIndex
from poe_gateway.pool.journal import Journal
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Outcome, Succeeded
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.queue import Lane, Ticket, WaitingLine
from poe_gateway.pool.renewal import next_reset, reset_day
from poe_gateway.pool.store import AccountStore
from poe_gateway.telemetry.events import WaitResult

_OWN_GONE = "session_account_unavailable"
"""Code with which those who wait for one particular account are told that it left service."""
_REMEMBERED = 256
"""Kinds of wishes (offers and model) whose outlook is kept: callers choose the model's name, so it is bounded."""
_Outlook = tuple[Counter[str], datetime | None]
_HOLD_GUESS = 5.0
"""Seconds a slot is believed to be used before anything was measured."""


class _Waiting(Ticket):
    """A request in line."""

    __slots__ = ("want",)

    def __init__(self, lane: Lane, want: Want, since: float, deadline: float) -> None:
        super().__init__(lane, want.caller, since, deadline, asyncio.get_running_loop())
        self.want = want


class Allowance:
    """Slots of the pool as a whole that this process holds and uses."""

    __slots__ = ("held", "used")

    def __init__(self) -> None:
        self.held = 0
        self.used = 0


class Broker:
    """Seats, line and leases of this process.

    ``grants_valid`` answers whether this process's grants may be used now; ``changed`` is told old and new account
    values (for telemetry and for adapters that must forget).
    """

    def __init__(
        self,
        *,
        store: AccountStore,
        policy: PoolPolicy,
        clock: Clock,
        changed: Callable[[Account, Account], None] = lambda old, new: None,
    ) -> None:
        self.policy = policy
        self.whole = Allowance()
        self.seats: dict[str, Seat] = {}
        self.line: WaitingLine[_Waiting] = WaitingLine(policy.queue_limit)
        self.journal = Journal(store, self.accept)
        self.grants_valid: Callable[[], bool] = lambda: False
        self.on_shortage: Callable[[], None] = lambda: None
        self.on_release: Callable[[Seat], None] = lambda seat: None
        self.on_waited: Callable[[str, float, WaitResult], None] = lambda request_id, seconds, result: None
        """Told when a request that had to stand in line waits no longer."""
        self.on_granted: Callable[[int, int], None] = lambda old, new: None
        """Told when this process's part of the whole pool's limit grew or shrank."""
        self.on_unheld: Callable[[], None] = lambda: None
        self.leases: set[Lease] = set()
        self._clock = clock
        self._changed = changed
        self._index = SeatIndex()
        self._timers: list[tuple[datetime, str]] = []
        self._offers: dict[str, dict[str, Seat]] = {}
        self._allowed: Counter[str] = Counter()
        self._counts: dict[str, int] | None = None
        self._witness: dict[tuple[frozenset[str], str], Seat] = {}
        self._outlooks: dict[tuple[frozenset[str], str], _Outlook] = {}
        self._blocks = 0
        self._hold = _HOLD_GUESS
        self._day = reset_day(clock.now(), policy.reset)
        self._next_reset = next_reset(clock.now(), policy.reset)

    # Accounts come, change and go.

    def accept(self, accounts: Iterable[Account]) -> None:
        """Take stored accounts into the pool; news of this process that is not stored yet is kept on top."""
        now = self._clock.now()
        for stored in accounts:
            seat = self.seats.get(stored.id)
            if seat is None:
                seat = Seat(transitions.as_of(stored, now, self.policy, self._day))
                self.seats[stored.id] = seat
                self._offers.setdefault(stored.offer, {})[stored.id] = seat
                self._counts = None
                self._settle_seat(seat, None, now)
                continue
            if stored.rev < seat.account.rev:
                continue
            self._replace(seat, self.journal.on_top_of(stored))
        self.serve_waiting()
        self._refuse_hopeless()

    def remove(self, account_ids: Iterable[str]) -> None:
        """Accounts were deleted; leases on them run to their end."""
        for account_id in account_ids:
            seat = self.seats.pop(account_id, None)
            if seat is not None:
                self._unseat(seat)
                self._blocks -= bool(seat.account.model_blocks)
                self.journal.drop(account_id)
        self._refuse_hopeless()

    def note(self, account_id: str, news: transitions.News) -> None:
        """News about an account: in force here at once, written behind."""
        policy = self.policy
        self.step(account_id, lambda account: transitions.apply(account, news, policy))

    def step(self, account_id: str, step: Callable[[Account], Account]) -> None:
        """Apply a pure step to an account here and in the store."""
        seat = self.seats.get(account_id)
        if seat is None:
            return
        before = seat.account
        after = step(before)
        urgent = after.health != before.health or after.model_blocks != before.model_blocks
        self.journal.note(account_id, step, urgent=urgent)
        self._replace(seat, after)

    def _replace(self, seat: Seat, account: Account) -> None:
        now = self._clock.now()
        before = seat.account
        after = transitions.as_of(account, now, self.policy, self._day)
        if after.offer != before.offer:
            self._unseat(seat)
            self._offers.setdefault(after.offer, {})[after.id] = seat
        seat.account = after
        self._settle_seat(seat, before, now)
        if (
            after.health != before.health
            or after.intent != before.intent
            or after.credential_rev != before.credential_rev
        ):
            self._changed(before, after)

    def _unseat(self, seat: Seat) -> None:
        """Take a seat out of its offer's rows and counts."""
        self._counts = None
        self._outlooks.clear()
        account = seat.account
        self._index.remove(seat)
        if seat.allowed:
            self._allowed[account.offer] -= 1
            seat.allowed = False
        self._offers[account.offer].pop(account.id, None)

    def _settle_seat(self, seat: Seat, before: Account | None, now: datetime) -> None:
        """Bring a seat's place in line with its account; ``before`` is None for a new seat."""
        account = seat.account
        self._outlooks.clear()
        self._blocks += bool(account.model_blocks) - bool(before is not None and before.model_blocks)
        allowed = transitions.why_not(account, now) is None
        if allowed != seat.allowed:
            seat.allowed = allowed
            self._allowed[account.offer] += 1 if allowed else -1
            if allowed and seat.held == 0:
                self.on_unheld()
        self._index.place(seat)
        change = transitions.next_change(account)
        if change is not None and (before is None or change != transitions.next_change(before)):
            heapq.heappush(self._timers, (change, account.id))

    def tick(self) -> None:
        """Let due moments happen: rests that lapse, the daily reset. Cheap when nothing is due."""
        now = self._clock.now()
        if now >= self._next_reset:
            self._day = reset_day(now, self.policy.reset)
            self._next_reset = next_reset(now, self.policy.reset)
            for each in list(self.seats.values()):
                self._replace(each, each.account)
            self.serve_waiting()
        due = False
        while self._timers and self._timers[0][0] <= now:
            _, account_id = heapq.heappop(self._timers)
            seat = self.seats.get(account_id)
            if seat is not None:
                self._replace(seat, seat.account)
                due = True
        if due:
            self.serve_waiting()

    # Slots are won and come back.

    async def lease(self, want: Want) -> Lease:
        """A slot, at once or after waiting until ``want.deadline``.

        Raises Overloaded, PointsExhausted or (steadfast) SessionLost.
        """
        since = self._clock.monotonic()
        lease = self._take(want, since)
        if lease is not None:
            return lease
        if want.affinity is not None:
            lease = await self._wait_for_own(want, since)
            if lease is not None:
                return lease
            if want.steadfast:
                raise SessionLost
            want = replace(want, affinity=None)
            lease = self._take(want, since)
            if lease is not None:
                return lease
        self._raise_if_hopeless(want)
        return await self._wait(want, Lane(want.offers, want.model), since, want.deadline)

    async def _wait_for_own(self, want: Want, since: float) -> Lease | None:
        """Wait a little for the account of a session while it is healthy; None when it cannot serve."""
        seat = self.seats.get(want.affinity or "")
        if seat is None or not seat.allowed or self._refuses(seat.account, want):
            return None
        patience = want.deadline if want.steadfast else min(want.deadline, since + self.policy.affinity_patience)
        try:
            return await self._wait(want, Lane(want.offers, want.model, want.affinity), since, patience)
        except Overloaded as error:
            if want.steadfast and error.code != _OWN_GONE:
                raise
            return None

    async def _wait(self, want: Want, lane: Lane, since: float, deadline: float) -> Lease:
        if self.line.full:
            raise Overloaded("Too many requests are waiting.", code="queue_full", retry_after=self.expected_wait())
        ticket = _Waiting(lane, want, since, deadline)
        self.line.join(ticket)
        self.on_shortage()
        handle = asyncio.get_running_loop().call_later(
            max(0.0, deadline - self._clock.monotonic()), self._out_of_time, ticket
        )
        result: WaitResult = "cancelled"
        try:
            lease = await ticket.granted
            result = "leased"
        except Overloaded as error:
            result = "timeout" if error.code == "saturated" else "refused"
            raise
        except PointsExhausted:
            result = "refused"
            raise
        except BaseException:
            if ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
                self.give_up(ticket.granted.result())  # granted in the very moment of cancellation
            raise
        finally:
            handle.cancel()
            self.line.leave(ticket)
            self.on_waited(want.evidence, self._clock.monotonic() - since, result)
        assert isinstance(lease, Lease)  # noqa: S101 - only _grant resolves tickets
        return lease

    def _out_of_time(self, ticket: _Waiting) -> None:
        if ticket.granted.done():
            return
        self.line.leave(ticket)
        if not self.grants_valid():
            error = Overloaded(
                "The gateway has no valid capacity at the moment.",
                code="not_ready",
                retry_after=self.policy.grant_lifetime,
            )
        else:
            error = Overloaded(
                "All accounts are busy; the waiting time is over.", code="saturated", retry_after=self.expected_wait()
            )
        ticket.granted.set_exception(error)

    def expected_wait(self) -> float:
        """Seconds until a newcomer may expect a slot: what is in line before it, at the measured pace."""
        return min(60.0, max(1.0, self._hold * (len(self.line) + 1) / max(1, self.whole.held)))

    def _take(self, want: Want, since: float, *, queued: bool = False) -> Lease | None:
        """Choose and take in one breath, or None."""
        if self._timers or self._next_reset:
            self._tick_if_due()
        if self.whole.used >= self.whole.held or not self.grants_valid():
            return None
        seat: Seat | None
        if want.affinity is not None:
            seat = self.seats.get(want.affinity)
            if seat is None or seat.level < 0 or self._refuses(seat.account, want):
                return None
        else:
            if self._blocks and (want.offers, want.model) in self._outlooks:
                return None  # known: nobody may serve this model
            refuse = (lambda account: self._refuses(account, want)) if self._blocks else None
            seat = self._index.best(want.offers, refuse, want.tried, self._score)
            if seat is None:
                return None
        return self._grant(seat, want, since, queued=queued)

    def _tick_if_due(self) -> None:
        now = self._clock.now()
        if now >= self._next_reset or (self._timers and self._timers[0][0] <= now):
            self.tick()

    def _refuses(self, account: Account, want: Want) -> bool:
        if account.offer not in want.offers or account.id in want.tried:
            return True
        return bool(account.model_blocks) and (transitions.why_not(account, self._clock.now(), want.model) is not None)

    def _score(self, account: Account) -> float:
        """The seed's preference: more points, fewer recent errors."""
        points = account.balance.points
        return (self.policy.reset.points if points is None else points) - 20.0 * account.error_count

    def _grant(self, seat: Seat, want: Want, since: float, *, queued: bool) -> Lease:
        seat.used += 1
        self.whole.used += 1
        self._index.place(seat)
        now = self._clock.monotonic()
        lease = Lease(seat, want.model, want.evidence, now, now - since, queued=queued)
        self.leases.add(lease)
        return lease

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """The attempt is over: the slot comes back and the account learns how it went. Once; later calls do nothing."""
        if lease.closed:
            return
        if isinstance(outcome, Succeeded):
            self._hold += 0.1 * (self._clock.monotonic() - lease.taken - self._hold)
        self.note(
            lease.account.id,
            transitions.Settled(
                outcome=outcome,
                at=self._clock.now(),
                model=lease.model,
                evidence=lease.evidence,
                credential_rev=lease.account.credential_rev,
            ),
        )
        self.give_up(lease)
        self._refuse_hopeless()

    def give_up(self, lease: object) -> None:
        """Return a slot without news about the account."""
        assert isinstance(lease, Lease)  # noqa: S101 - tickets are typed by object
        if lease.closed:
            return
        lease.closed = True
        self.leases.discard(lease)
        seat = lease.seat
        scarce = self.whole.used >= self.whole.held
        seat.used -= 1
        self.whole.used -= 1
        seat.idle_since = self._clock.monotonic()
        self.on_release(seat)
        if seat.account.id in self.seats:
            self._index.place(seat)
        # Where the whole pool's limit was what they waited for, any open seat will do now.
        self.serve_waiting(None if scarce else seat)

    def regrant(self, held: Mapping[str, int], whole: int | None = None) -> None:
        """The keeper reports what this process holds now."""
        if whole is not None and whole != self.whole.held:
            self.on_granted(self.whole.held, whole)
            self.whole.held = whole
        for key, slots in held.items():
            seat = self.seats.get(key)
            if seat is not None:
                seat.held = slots
                self._index.place(seat)
        self.serve_waiting()

    def lose_grants(self) -> None:
        """This process was declared dead: nothing is held, and what runs on lost slots must stop."""
        self.whole.held = 0
        for seat in self.seats.values():
            seat.held = 0
            self._index.place(seat)
        for lease in list(self.leases):
            lease.revoked = True
            if lease.on_revoked is not None:
                lease.on_revoked()

    # The line moves.

    def serve_waiting(self, seat: Seat | None = None) -> None:
        """Give open seats to those who wait, oldest lane first, callers in turn. ``seat``: only this one opened."""
        if not len(self.line):
            return
        progress = True
        while progress and self.whole.used < self.whole.held and self.grants_valid():
            progress = False
            for lane in self.line.lanes():
                if seat is not None and (seat.level < 0 or seat.account.offer not in lane.offers):
                    continue
                progress |= self._serve_one(lane)
        if len(self.line):
            self.on_shortage()

    def _serve_one(self, lane: Lane) -> bool:
        """Give one slot to the first in the lane who may have it."""
        for ticket in self.line.tickets(lane):
            if ticket.granted.done():
                continue  # gone, but its task did not run yet: those behind it must not wait for that
            lease = self._take(ticket.want, ticket.since, queued=True)
            if lease is not None:
                self.line.served(ticket)
                ticket.granted.set_result(lease)
                return True
            if not ticket.want.tried:
                return False  # what this one cannot have, nobody in the lane can
        return False

    def _raise_if_hopeless(self, want: Want) -> None:
        error = self.why_hopeless(want)
        if error is not None:
            raise error

    def _refuse_hopeless(self) -> None:
        """Those in line who wait for what cannot come in time are told at once."""
        if not len(self.line):
            return
        for lane in self.line.lanes():
            if lane.account is not None:
                seat = self.seats.get(lane.account)
                if (
                    seat is None
                    or seat.account.offer not in lane.offers
                    or transitions.why_not(seat.account, self._clock.now(), lane.model) is not None
                ):
                    for ticket in self.line.tickets(lane):
                        self.line.leave(ticket)
                        if not ticket.granted.done():
                            ticket.granted.set_exception(Overloaded(code=_OWN_GONE))
                continue
            if self._hopeful(lane.offers, lane.model):
                continue
            for ticket in self.line.tickets(lane):
                error = self.why_hopeless(ticket.want)
                if error is not None and not ticket.granted.done():
                    self.line.leave(ticket)
                    ticket.granted.set_exception(error)

    def why_hopeless(self, want: Want) -> Overloaded | PointsExhausted | None:
        """None when a slot may come free before the deadline, else the typed refusal with an honest Retry-After."""
        usable = sum(self._allowed[offer] for offer in want.offers)
        if usable > len(want.tried) and not self._blocks:
            return None
        if not want.tried and self._hopeful(want.offers, want.model):
            return None
        now = self._clock.now()
        outlook = self._outlook(want, now)
        if outlook is None:
            return None
        reasons, soonest = outlook
        if soonest is not None:
            left = want.deadline - self._clock.monotonic()
            if soonest <= now + timedelta(seconds=left):
                return None
        wait = None if soonest is None else max(1.0, (soonest - now).total_seconds())
        if reasons[State.COOLDOWN.value] or reasons["model_blocked"]:
            return Overloaded("All accounts are resting.", code="all_cooling", retry_after=wait)
        if reasons[State.DEPLETED.value]:
            return PointsExhausted(retry_after=wait)
        return Overloaded("No account is in service for this model.", code="no_accounts", retry_after=wait)

    def _hopeful(self, offers: frozenset[str], model: str) -> bool:
        """Whether some account may serve the model now, busy or not. Constant time as a rule."""
        if not any(self._allowed[offer] > 0 for offer in offers):
            return False
        if not self._blocks:
            return True
        now = self._clock.now()
        witness = self._witness.get((offers, model))
        if (
            witness is not None
            and witness.allowed
            and witness.account.offer in offers
            and transitions.why_not(witness.account, now, model) is None
        ):
            return True
        for offer in offers:
            for seat in self._offers.get(offer, {}).values():
                if transitions.why_not(seat.account, now, model) is None:
                    if len(self._witness) >= _REMEMBERED:
                        self._witness.clear()
                    self._witness[offers, model] = seat
                    return True
        return False

    def _outlook(self, want: Want, now: datetime) -> _Outlook | None:
        """Why nobody may serve, and when time alone may change that; None when somebody may.

        A look at every account, so what it found is kept until an account changes: a pool that is used up refuses
        its callers at no cost.
        """
        key = (want.offers, want.model)
        if not want.tried and (known := self._outlooks.get(key)) is not None:
            return known
        reasons: Counter[str] = Counter()
        soonest: datetime | None = None
        for offer in want.offers:
            for seat in self._offers.get(offer, {}).values():
                account = seat.account
                if account.id in want.tried:
                    continue
                reason = transitions.why_not(account, now, want.model)
                if reason is None:
                    return None
                reasons[reason] += 1
                moment = self._available_at(account, want.model)
                if moment is not None and (soonest is None or moment < soonest):
                    soonest = moment
        if not want.tried:
            if len(self._outlooks) >= _REMEMBERED:
                self._outlooks.clear()
            self._outlooks[key] = (reasons, soonest)
        return reasons, soonest

    def _available_at(self, account: Account, model: str) -> datetime | None:
        """When time alone may return the account to service, or None."""
        if transitions.why_not(account, self._clock.now()) in ("paused", State.INVALID.value):
            return None
        gates = [block.until for block in account.model_blocks if block.model == model]
        if account.health.until is not None and account.health.state is not State.ACTIVE:
            gates.append(account.health.until)
        return max(gates, default=None)

    # The pool explains itself.

    def account(self, account_id: str) -> Account | None:
        """The account as of now, or None."""
        seat = self.seats.get(account_id)
        return seat.account if seat is not None else None

    def ready_accounts(self) -> int:
        """How many accounts may serve now."""
        self._tick_if_due()
        return sum(count for count in self._allowed.values() if count > 0)

    def offers(self) -> dict[str, int]:
        """Number of accounts by offer."""
        if self._counts is None:
            self._counts = {offer: len(seats) for offer, seats in self._offers.items() if seats}
        return self._counts

    def seats_of(self, offer: str) -> list[Seat]:
        return list(self._offers.get(offer, {}).values())

    def __repr__(self) -> str:
        return (
            f"<Broker {len(self.seats)} accounts, {self.ready_accounts()} ready, "
            f"{self.whole.used}/{self.whole.held} in flight, {len(self.line)} waiting>"
        )
