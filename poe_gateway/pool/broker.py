"""The broker: gives a waiting request the healthiest account it may have, and takes the slot back.

One thread, one event loop. Every decision is a synchronous step on memory: the roster's seats, the waiting line, the
account values. The database is reached only by the keeper (grants) and the journal (account changes), both behind the
request's back.

Why this is one module: slots, line and timers change together in one breath; splitting them would spread one
invariant (open seats = healthy, held, unused) over files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from poe_gateway.clock import Clock
from poe_gateway.errors import GatewayError, Overloaded, SessionLost, UpstreamDown, UpstreamRefused
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account
from poe_gateway.pool.court import FENCED, Court
from poe_gateway.pool.decision import Choice
from poe_gateway.pool.guard import QUARANTINED, RATE_LIMITED, Guard, Incident, Refusal, Verdict
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Outcome, Succeeded
from poe_gateway.pool.policy import PoolPolicy, Strategy
from poe_gateway.pool.prospects import CANNOT_PAY, Outlook, Prospects
from poe_gateway.pool.queue import Lane, Place, Ticket, WaitingLine
from poe_gateway.pool.seat import Seat
from poe_gateway.pool.selector import EVERY, Selector
from poe_gateway.pool.store import AccountStore
from poe_gateway.telemetry.events import WaitResult

Waits = Callable[[Callable[[], Place | None]], None]
"""Told that the request stands in line, with a way to ask for its place; that answers None when it waits no more."""
_OWN_GONE = "session_account_unavailable"
"""Code with which those who wait for one particular account are told that it left service."""
_UNKNOWN_POINTS = 3000.0
"""Points that an account is taken to have when nobody knows."""
_FEW_SEATS = 64
"""So many seats are counted one by one."""
_DOUBT = 600.0
"""Seconds for which a price that nobody can pay is believed after a request went out all the same. Twice as long the
next time, up to the cap: where the price is true, each costs an account its rest of points."""
_DOUBT_CAP = 86_400.0
_PARTS = 64
_DOUBTS = 256
"""Models, bounded: callers may make up names."""


class Sampler(Protocol):
    """Chance, as far as it is needed here."""

    def sample(self, population: Sequence[Seat], k: int) -> list[Seat]:
        """``k`` different ones."""


class _Waiting(Ticket):
    """A request in line."""

    __slots__ = ("want",)

    def __init__(self, lane: Lane, want: Want, since: float, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(lane, want.caller, since, deadline, loop, priority=want.priority, weight=want.weight)
        self.want = want


class Allowance:
    """Slots of the pool as a whole that this process holds and uses."""

    __slots__ = ("held", "used")

    def __init__(self) -> None:
        self.held = 0
        self.used = 0


class Broker(Court):
    """Seats, line and leases of this process.

    ``grants_valid`` answers whether this process's grants may be used now; ``epoch`` is the name under which it holds
    them.
    """

    def __init__(
        self,
        *,
        store: AccountStore,
        policy: PoolPolicy,
        clock: Clock,
        changed: Callable[[Account, Account], None] = lambda old, new: None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(store=store, policy=policy, clock=clock, changed=changed, guard=guard)
        self.whole = Allowance()
        self.prospects = Prospects(self, clock, policy)
        self.line: WaitingLine[_Waiting] = WaitingLine(policy.queue_limit)
        self.leases: set[Lease] = set()
        self.grants_valid: Callable[[], bool] = lambda: False
        self.on_shortage: Callable[[], None] = lambda: None
        self.on_release: Callable[[Seat], None] = lambda seat: None
        self.on_waited: Callable[[str, float, WaitResult], None] = lambda request_id, seconds, result: None
        """Told when a request that had to stand in line waits no longer."""
        self.on_granted: Callable[[int, int], None] = lambda old, new: None
        """Told when this process's part of the whole pool's limit grew or shrank."""
        self._doubts: dict[str, tuple[float, float]] = {}
        """Model -> monotonic second until which its price, which nobody can pay, is believed; then for how long."""
        self._peaks: dict[Lane, int] = {}
        """The most points that a request needed in a lane since the line was empty."""
        self._better = False
        """An account may serve more than before the last step."""
        self._parts: dict[tuple[frozenset[str], Selector], tuple[float, int]] = {}
        """Part of the pool -> until when its size is known, and the size."""
        self._retries = 0
        """Requests in line that have tried accounts already."""

    # Slots are won and come back.

    async def lease(self, want: Want, waiting: Waits | None = None) -> Lease:
        """A slot, at once or after waiting until ``want.deadline``.

        Raises Overloaded, PointsExhausted, ModelUnsupported, UpstreamDown, UpstreamRefused or (steadfast) SessionLost.
        """
        if not want.tried or self.guard.shut(want.offers, want.key, want.fingerprint) == want.offers:
            self.admit(want)
        try:
            return await self._lease(want, waiting)
        except BaseException:
            self.guard.withdraw(want.fingerprint)  # a probe without a slot proves nothing and bars nobody
            raise

    async def _lease(self, want: Want, waiting: Waits | None) -> Lease:
        offers = want.offers
        if shut := self.guard.shut(offers, want.key, want.fingerprint):
            # Offers that are down are left out where there are others, as long as they are down.
            want = replace(want, offers=offers - shut or offers)
        since = self._clock.monotonic()
        lease = self._take(want, since)
        if lease is not None:
            return lease
        if want.affinity is not None:
            lease = await self._wait_for_own(want, since, waiting)
            if lease is not None:
                return lease
            if want.steadfast:
                raise SessionLost
            want = replace(want, affinity=None)
            lease = self._take(want, since)
            if lease is not None:
                return lease
        error = self.prospects.why_hopeless(want)
        if error is not None:
            doubting = self._doubting(want)
            if doubting is None:
                raise error
            want = doubting
            lease = self._take(want, since)
            if lease is not None:
                return lease
        if want.offers != offers:
            want = replace(want, offers=offers)
        return await self._wait(want, _lane(want), since, want.deadline, waiting)

    def comes_back(self, want: Want) -> float | None:
        """Seconds until some account may serve such a request, tried or not; None: time alone brings none back."""
        anew = replace(want, tried=frozenset(), deadline=self._clock.monotonic())
        error = self.prospects.why_hopeless(anew)
        return 1.0 if error is None else error.retry_after

    def _doubting(self, want: Want) -> Want | None:
        """Nobody will ever have the points, by the price that is known: one request at a time finds out if it is true.

        Else a wrong price could keep a model from being used for ever, and nothing would teach a better one.
        """
        outlook = self.prospects.outlook(want, self._clock.now())
        if outlook is None or outlook.soonest is not None or CANNOT_PAY not in outlook.reasons:
            return None
        now = self._clock.monotonic()
        until, gap = self._doubts.get(want.key, (now, _DOUBT))
        if until > now:
            return None
        if len(self._doubts) >= _DOUBTS:
            self._doubts.clear()
        self._doubts[want.key] = now + gap, min(2 * gap, _DOUBT_CAP)
        return replace(want, need=self.prospects.most(want))

    def admit(self, want: Want) -> None:
        """Refuse what must not go out at all: a body that accounts refuse, an upstream that is down."""
        refusal = self.guard.admits(want.offers, want.key, want.fingerprint, self._clock.monotonic())
        if refusal is not None:
            raise _told(refusal)

    async def _wait_for_own(self, want: Want, since: float, waiting: Waits | None) -> Lease | None:
        """Wait a little for the account of a session while it is healthy; None when it cannot serve."""
        seat = self.seats.get(want.affinity or "")
        if seat is None or self.prospects.why_not(seat, want, self._clock.now()) is not None:
            return None
        patience = self.policy.affinity_patience if want.patience is None else want.patience
        until = want.deadline if want.steadfast else min(want.deadline, since + patience)
        if until <= since:
            return None
        try:
            return await self._wait(want, _lane(want, want.affinity), since, until, waiting)
        except Overloaded as error:
            if want.steadfast and error.code != _OWN_GONE:
                raise
            return None

    async def _wait(self, want: Want, lane: Lane, since: float, deadline: float, waiting: Waits | None) -> Lease:
        ahead = self.line.ahead_of_newcomer(want.caller, want.priority, want.weight, want.offers)
        slots = self._slots_for(lane)
        if self.line.full:
            retry_after = self.prospects.retry_after(ahead, slots)
            raise Overloaded("Too many requests are waiting.", code="queue_full", retry_after=retry_after)
        reach = self._slots_for(lane, ever=True)
        # Slots that may be had of others are perhaps free: then only those ahead take time.
        soonest = self.prospects.expected_wait(ahead - (slots < reach), reach, want.key)
        if lane.account is None and self.prospects.unreachable(want, soonest):
            raise Overloaded(
                "The line is longer than the time that the request has.",
                code="deadline_unreachable",
                retry_after=self.prospects.retry_after(ahead, slots),
            )
        ticket = _Waiting(lane, want, since, deadline)
        if not len(self.line):
            self._peaks.clear()
        self._peaks[lane] = max(want.need, self._peaks.get(lane, 0))
        self.line.join(ticket)
        self._retries += bool(want.tried)
        if waiting is not None:
            waiting(lambda: None if ticket.granted.done() else self.place(ticket))
        self.on_shortage()
        handle = asyncio.get_running_loop().call_later(
            max(0.0, deadline - self._clock.monotonic()), self._out_of_time, ticket
        )
        result: WaitResult = "cancelled"
        try:
            lease = await ticket.granted
            result = "leased"
        except GatewayError as error:
            result = "timeout" if error.code == "saturated" else "refused"
            raise
        except BaseException:
            if ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
                self.give_up(ticket.granted.result())  # granted in the very moment of cancellation
            raise
        finally:
            handle.cancel()
            self._retries -= bool(want.tried)
            self.line.leave(ticket)
            self.on_waited(want.evidence, self._clock.monotonic() - since, result)
        assert isinstance(lease, Lease)  # noqa: S101 - only _grant resolves tickets
        lease.choice.position = ahead + 1
        return lease

    def place(self, ticket: _Waiting) -> Place:
        """Where a waiting request stands, and when it may expect its turn."""
        ahead = self.line.ahead_of(ticket)
        expected: float | None = None
        if self.prospects.pace.measured:
            expected = self._expected(ahead, ticket.want, ticket.lane)
        return Place(position=ahead + 1, expected=expected)

    def _expected(self, ahead: int, want: Want, lane: Lane) -> float:
        """Seconds until the turn of a request with so many ahead of it: while all rest, nobody has a turn."""
        return self.prospects.rest(want) + self.prospects.expected_wait(ahead, self._slots_for(lane), want.key)

    def _slots_for(self, lane: Lane, *, ever: bool = False) -> int:
        """About how many slots serve the lane at a time; ``ever``: at most, with all that may be had of others."""
        if lane.account is not None:
            seat = self.seats.get(lane.account)
            return seat.held if seat is not None else 1
        counts = self.offers()
        if sum([counts.get(offer, 0) for offer in lane.offers]) <= _FEW_SEATS:
            seats = [seat for seat in self.seats_in(lane.offers) if seat.allowed]
            slots = sum([self.policy.limit_of(seat.account) if ever else seat.held for seat in seats])
        else:
            slots = self.allowed(lane.offers) * self.policy.max_inflight
        return min(self.policy.global_inflight if ever else self.whole.held, slots)

    def _out_of_time(self, ticket: _Waiting) -> None:
        if ticket.granted.done():
            return
        ahead = self.line.ahead_of(ticket)
        self.line.leave(ticket)
        if not self.grants_valid():
            error = Overloaded(
                "The gateway has no valid capacity at the moment.",
                code="not_ready",
                retry_after=self.policy.grant_lifetime,
            )
        else:
            error = Overloaded(
                "All accounts are busy; the waiting time is over.",
                code="saturated",
                retry_after=self.prospects.retry_after(ahead, self._slots_for(ticket.lane)),
            )
        ticket.granted.set_exception(error)

    def _take(self, want: Want, since: float, *, queued: bool = False, freed: Seat | None = None) -> Lease | None:
        """Choose and take in one breath, or None. ``freed``: a seat that just opened."""
        if not queued:  # what is due may serve the line, and this one would be served twice
            self._tick_if_due()
        if self.whole.used >= self.whole.held or not self.grants_valid():
            return None
        strategy = self.policy.strategy_for(want.model)
        seat: Seat | None
        seen: list[tuple[Seat, float]] = []
        if want.affinity is not None:
            seat = self.seats.get(want.affinity)
            if seat is None or not seat.open or self._refuses(seat.account, want) or not seat.can_pay(want.need):
                return None
        else:
            seat = self._best(want, strategy, seen) or self._missed(want, strategy, freed)
            if seat is None:
                return None
        return self._grant(seat, want, strategy, seen, since, queued=queued)

    def _missed(self, want: Want, strategy: Strategy, freed: Seat | None) -> Seat | None:
        """A seat that can pay among so many which cannot that the choice gave up before it came to it."""
        if not want.need or strategy is Strategy.SINGLE:
            return None
        if sum([self._index.open_count(offer) for offer in want.offers]) <= _FEW_SEATS:
            return None
        if freed is not None and freed.open and freed.can_pay(want.need) and not self._refuses(freed.account, want):
            return freed
        return self.prospects.payer(want)

    def _best(self, want: Want, strategy: Strategy, seen: list[tuple[Seat, float]]) -> Seat | None:
        if (self.blocks or want.need) and self.prospects.known_hopeless(want):
            return None
        refuse = (lambda account: self._blocked(account, want.model)) if self.blocks else None
        return self._index.best(
            want.offers,
            strategy=strategy,
            selector=want.selector,
            need=want.need,
            refuse=refuse,
            tried=want.tried,
            score=_score,
            seen=seen,
            refusal=want.model,
        )

    def _blocked(self, account: Account, model: str) -> bool:
        return bool(account.model_blocks) and transitions.why_not(account, self._clock.now(), model) is not None

    def _refuses(self, account: Account, want: Want) -> bool:
        if account.offer not in want.offers or account.id in want.tried:
            return True
        if want.selector is not EVERY and not want.selector.matches(account):
            return True
        return self._blocked(account, want.model)

    def _grant(
        self,
        seat: Seat,
        want: Want,
        strategy: Strategy,
        seen: list[tuple[Seat, float]],
        since: float,
        *,
        queued: bool,
    ) -> Lease:
        choice = self._choice(want, strategy, seen)
        choice.account_id = seat.account.id
        if want.affinity is not None:
            choice.how = "affinity"
        else:
            choice.how = "queued" if queued else "chosen"
            self._index.chosen(seat, strategy, want.selector)
        seat.used += 1
        seat.reserved += want.need
        self.whole.used += 1
        self._place(seat)
        now = self._clock.monotonic()
        choice.wait_seconds = now - since
        lease = Lease(
            seat,
            want,
            choice,
            epoch=self.epoch,
            taken=now,
            began=self._clock.now(),
            waited=now - since,
            queued=queued,
        )
        self.leases.add(lease)
        return lease

    def settle(self, lease: Lease, outcome: Outcome, *, accepted: bool = False, again: bool = False) -> Verdict:
        """The attempt is over: the slot comes back and the account learns how it went. Once.

        ``accepted``: the upstream had taken the message although the attempt failed. ``again``: the request had failed
        at this account before, for a moment.

        What it means for accounts is judged first (``Court.judge``).
        """
        if lease.closed:
            return FENCED
        want = lease.want
        if isinstance(outcome, Succeeded) and not self.fenced(lease):
            self.prospects.pace.observe(want.key, self._clock.monotonic() - lease.taken)
            self._ramp_up(lease.seat)
            self._doubts.pop(want.key, None)
        verdict = self.judge(lease, outcome, accepted=accepted, again=again)
        self.give_up(lease)
        self._refuse_hopeless()
        return verdict

    def _incident(self, incident: Incident) -> None:
        if incident.closed_at is None:
            self._refuse_shut()
        else:
            self.serve_waiting()

    def _improved(self, seat: Seat) -> None:
        self.prospects.improved(seat)
        self._better = True

    def step(self, account_id: str, step: Callable[[Account], Account]) -> None:
        seat = self.seats.get(account_id)
        served, self._better = seat is not None and seat.allowed, False
        super().step(account_id, step)
        # Slots that come back are not the only news: balances are read, rests lifted, credentials found dead.
        if self._better:
            self.serve_waiting()
        elif served and seat is not None and not seat.allowed:
            self._refuse_hopeless()

    def _ramp_up(self, seat: Seat) -> None:
        """Slow start: after a rest the load grows with the successes."""
        if seat.ramp is not None:
            # Not by what is held: of an account on trial that is one slot.
            seat.ramp = None if 2 * seat.ramp >= self.policy.limit_of(seat.account) else 2 * seat.ramp

    def tick(self) -> None:
        super().tick()
        for account_id in self.guard.expire(self._clock.monotonic()):
            self.refresh(account_id)
            self._moved()

    def give_up(self, lease: object) -> None:
        """Return a slot without news about the account."""
        assert isinstance(lease, Lease)  # noqa: S101 - tickets are typed by object
        if lease.closed:
            return
        lease.closed = True
        self.leases.discard(lease)
        self.guard.withdraw(lease.want.fingerprint)
        seat = lease.seat
        scarce = self.whole.used >= self.whole.held
        seat.used -= 1
        seat.reserved -= lease.want.need
        self.whole.used -= 1
        seat.idle_since = self._clock.monotonic()
        self.on_release(seat)
        if seat.account.id in self.seats:
            self._place(seat)
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
        self.revoke()

    def revoke(self) -> None:
        """What runs must stop: others may use its slots from now on."""
        for lease in list(self.leases):
            lease.revoked = True
            if lease.on_revoked is not None:
                lease.on_revoked()

    # The line moves.

    def _moved(self) -> None:
        self.serve_waiting()
        self._refuse_hopeless()

    def serve_waiting(self, seat: Seat | None = None) -> None:
        """Give open seats to those who wait, in the order of turns. ``seat``: only this one opened."""
        if not len(self.line):
            return
        while self.whole.used < self.whole.held and self.grants_valid():
            if seat is not None and not seat.open:
                break
            lanes = self.line.lanes() if seat is None else self.line.lanes_of(seat.account.id, seat.account.offer)
            for lane in lanes:
                if self._serve_one(lane, seat):
                    break
            else:
                break
        if len(self.line):
            self.on_shortage()

    def _serve_one(self, lane: Lane, freed: Seat | None) -> bool:
        """Give one slot to the first in the lane who may have it."""
        refused: int | None = None
        for ticket in self.line.tickets(lane):
            if ticket.granted.done():
                continue  # gone, but its task did not run yet: those behind it must not wait for that
            want = ticket.want
            if refused is not None and want.need >= refused:
                continue  # who needs more cannot have it either
            if shut := self.guard.shut(want.offers, want.key, want.fingerprint):
                want = replace(want, offers=want.offers - shut)
            lease = self._take(want, ticket.since, queued=True, freed=freed)
            if lease is not None:
                self.line.served(ticket)
                ticket.granted.set_result(lease)
                return True
            if not want.tried and not shut:
                if not want.need:
                    return False  # what this one cannot have, nobody in the lane can
                refused = want.need
        return False

    def _refuse_shut(self) -> None:
        """An incident was opened: those in line are no probes, and are told as those are who come now."""
        for lane in self.line.lanes():
            for ticket in self.line.tickets(lane):
                want = ticket.want
                refusal = self.guard.peek(want.offers, want.key, want.fingerprint, self._clock.monotonic())
                if refusal is None or refusal.code in _OF_BODIES or ticket.granted.done():
                    continue
                self.line.leave(ticket)
                ticket.granted.set_exception(_told(refusal))

    def _refuse_hopeless(self) -> None:
        """Those in line who wait for what cannot come in time are told at once."""
        if not len(self.line):
            return
        for lane in self.line.lanes():
            if lane.account is not None:
                self._refuse_if_gone(lane)
                continue
            for number, ticket in enumerate(self.line.tickets(lane)):
                if not number and not self._retries:
                    dearest = replace(ticket.want, need=self._peaks.get(lane, 0))
                    if self.prospects.hopeful(dearest):
                        break  # what the dearest may hope for, all in the lane may
                error = self.prospects.why_hopeless(ticket.want)
                if error is not None and not ticket.granted.done():
                    self.line.leave(ticket)
                    ticket.granted.set_exception(error)

    def _refuse_if_gone(self, lane: Lane) -> None:
        seat, now = self.seats.get(lane.account or ""), self._clock.now()
        for ticket in self.line.tickets(lane):
            if seat is not None and self.prospects.why_not(seat, ticket.want, now) is None:
                continue
            self.line.leave(ticket)
            if not ticket.granted.done():
                ticket.granted.set_exception(Overloaded(code=_OWN_GONE))

    def wanted_seats(self, lane: Lane, limit: int, rng: Sampler) -> list[Seat]:
        """A bounded sample of healthy seats that the lane's requests could use."""
        if lane.account is not None:
            own = self.seats.get(lane.account)
            return [own] if own is not None and own.allowed else []
        single = self.policy.strategy_for(lane.model) is Strategy.SINGLE
        found: list[Seat] = []
        for offer in sorted(lane.offers):
            seats = self.seats_of(offer)
            if lane.selector is not EVERY:
                seats = [seat for seat in seats if lane.selector.matches(seat.account)]
            if len(seats) > limit and not single:
                seats = rng.sample(seats, limit)
            found.extend([seat for seat in seats if seat.allowed])
        return self._the_single(lane, found) if single else found

    def _the_single(self, lane: Lane, seats: list[Seat]) -> list[Seat]:
        """Of the single strategy: the one account that the next in the lane waits for."""
        ticket, now = next(self.line.tickets(lane), None), self._clock.now()
        if ticket is None:
            return []
        fit = [seat for seat in seats if self.prospects.why_not(seat, ticket.want, now) is None]
        return sorted(fit, key=lambda seat: (-seat.account.priority, seat.number))[:1]

    def price_rungs(self, prices: Sequence[int]) -> None:
        """The prices that matter for best fit: at most four, ascending."""
        self._index.price_rungs(prices)

    # The pool explains itself.

    def _choice(self, want: Want, strategy: Strategy, seen: list[tuple[Seat, float]]) -> Choice:
        total = available = idle = 0
        reasons: dict[str, int] = {}
        for offer in want.offers:
            total += len(self._offers.get(offer, ()))
            available += self._allowed[offer]
            idle += self._index.open_count(offer)
            for reason, count in self.reasons.get(offer, {}).items():
                reasons[reason] = reasons.get(reason, 0) + count
        candidates = {"all": total}
        if want.selector is not EVERY:
            candidates["selected"] = self._selected(want)
        candidates |= {"in_service": available, "open": idle}
        if want.tried:
            seats = [self.seats.get(account_id) for account_id in want.tried]
            tried = [seat for seat in seats if seat is not None and seat.open and seat.account.offer in want.offers]
            candidates["untried"] = idle - len(tried)
        return Choice(
            strategy=strategy.value,
            candidates=candidates,
            passed_over=reasons,
            scores={seat.account.id: score for seat, score in seen},
            need=want.need,
        )

    def _selected(self, want: Want) -> int:
        """Accounts that the caller's key may use; as of a second ago at most, since it is a look at all of them."""
        key, now = (want.offers, want.selector), self._clock.monotonic()
        known = self._parts.get(key)
        if known is None or known[0] <= now:
            if len(self._parts) >= _PARTS:
                self._parts.clear()
            size = sum(want.selector.matches(seat.account) for seat in self.seats_in(want.offers))
            known = self._parts[key] = (now + 1.0, size)
        return known[1]

    def refused(self, want: Want, error: GatewayError) -> Choice:
        """The record of a wish that was refused."""
        choice = self._choice(want, self.policy.strategy_for(want.model), [])
        outlook: Outlook | None = None
        if not self.prospects.hopeful(want):
            outlook = self.prospects.outlook(want, self._clock.now())
        if outlook is not None:
            choice.passed_over, choice.sample = dict(outlook.reasons), dict(outlook.sample)
        choice.how = error.code or "refused"
        return choice

    def would_choose(self, want: Want) -> Choice:
        """What would happen to this wish now. Takes nothing."""
        self._tick_if_due()
        try:
            refusal = self.guard.peek(want.offers, want.key, want.fingerprint, self._clock.monotonic())
            if refusal is not None:
                raise _told(refusal)
            strategy = self.policy.strategy_for(want.model)
            seen: list[tuple[Seat, float]] = []
            seat = None
            if self.whole.used < self.whole.held and self.grants_valid():
                seat = self._best(want, strategy, seen)
            choice = self._choice(want, strategy, seen)
            if seat is not None:
                choice.account_id, choice.how = seat.account.id, "chosen"
                return choice
            error = self.prospects.why_hopeless(want)
            if error is not None:
                raise error
        except GatewayError as error:
            return self.refused(want, error)
        ahead = self.line.ahead_of_newcomer(want.caller, want.priority, want.weight, want.offers)
        choice.position, choice.how = ahead + 1, "queued"
        choice.wait_seconds = self._expected(ahead, want, _lane(want))
        return choice

    def __repr__(self) -> str:
        return (
            f"<Broker {len(self.seats)} accounts, {self.ready_accounts()} ready, "
            f"{self.whole.used}/{self.whole.held} in flight, {len(self.line)} waiting>"
        )


_OF_BODIES = {QUARANTINED: UpstreamRefused, RATE_LIMITED: Overloaded}
"""Refusals of one body alone, and how its caller meets them; all others are incidents."""


def _lane(want: Want, account_id: str | None = None) -> Lane:
    return Lane(want.offers, want.model, account_id, want.selector)


def _told(refusal: Refusal) -> GatewayError:
    """The guard's refusal as the caller meets it."""
    kind = _OF_BODIES.get(refusal.code, UpstreamDown)
    return kind(refusal.message, code=refusal.code, retry_after=refusal.retry_after)


def _score(account: Account) -> float:
    """The seed's preference: more points, fewer recent errors."""
    points = account.balance.points
    return (_UNKNOWN_POINTS if points is None else points) - 20.0 * account.error_count
