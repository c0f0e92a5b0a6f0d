"""The roster: all accounts of the pool as this process knows them, each on its seat, in line with time and news.

Synchronous and in memory. Accounts come from the store, change by pure steps (``transitions``), and leave; time alone
changes them too. What is derived from an account (may it serve, what may it spend, where it stands in the orders of
choice) is brought in line here and nowhere else.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from poe_gateway.clock import Clock
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account
from poe_gateway.pool.index import SeatIndex
from poe_gateway.pool.journal import Journal
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.renewal import next_reset, reset_day, trusted
from poe_gateway.pool.reset_clock import next_renewal
from poe_gateway.pool.seat import NEVER, Seat
from poe_gateway.pool.store import AccountStore

HELD_BACK = "held_back"
"""Reason of an account that is not chosen until it is clear who was at fault."""
_GONE = 10_000


class Roster:
    """Accounts and their seats. ``changed`` is told old and new values of an account (telemetry, adapters)."""

    def __init__(
        self,
        *,
        store: AccountStore,
        policy: PoolPolicy,
        clock: Clock,
        changed: Callable[[Account, Account], None] = lambda old, new: None,
    ) -> None:
        self.policy = policy
        self.seats: dict[str, Seat] = {}
        self.journal = Journal(store, self.accept)
        self.blocks = 0
        """Accounts with blocks of single models."""
        self.reasons: dict[str, Counter[str]] = {}
        """Offer -> why accounts are not in service -> how many."""
        self.on_unheld: Callable[[], None] = lambda: None
        """Told when an account of which nothing is held came into service."""
        self.on_unfit: Callable[[Seat], None] = lambda seat: None
        """Told when an account left service, or came back on trial, of which slots are held."""
        self.on_step: Callable[[Account, Account], None] = lambda old, new: None
        """Told of every change that this process itself brought about."""
        self._clock = clock
        self._changed = changed
        self._index = SeatIndex()
        self._timers: list[tuple[datetime, str]] = []
        self._offers: dict[str, dict[str, Seat]] = {}
        self._allowed: Counter[str] = Counter()
        self._counts: dict[str, int] | None = None
        self._numbers = 0
        self._gone: dict[str, None] = {}
        """Accounts removed lately: late news must not bring them back. Ids are never used again."""
        self._day = reset_day(clock.now(), policy.reset)
        self._next_reset = next_reset(clock.now(), policy.reset)

    # Accounts come, change and go.

    def accept(self, accounts: Iterable[Account]) -> None:
        """Take stored accounts into the pool; news of this process that is not stored yet is kept on top."""
        now = self._clock.now()
        for stored in sorted(accounts, key=_age):
            seat = self.seats.get(stored.id)
            if seat is None:
                if stored.id in self._gone:
                    continue
                self._numbers += 1
                seat = Seat(transitions.as_of(stored, now, self.policy, self._day), self._numbers)
                self.seats[stored.id] = seat
                self._offers.setdefault(stored.offer, {})[stored.id] = seat
                self._counts = None
                self._bring_in_line(seat, None, now)
                continue
            if stored.rev < seat.account.rev:
                continue
            self._replace(seat, self.journal.on_top_of(stored))
        self._moved()

    def remove(self, account_ids: Iterable[str]) -> None:
        """Accounts were deleted; leases on them run to their end."""
        for account_id in account_ids:
            self._gone[account_id] = None
            if len(self._gone) > _GONE:
                del self._gone[next(iter(self._gone))]
            seat = self.seats.pop(account_id, None)
            if seat is not None:
                self._unseat(seat)
                self.blocks -= bool(seat.account.model_blocks)
                self.journal.drop(account_id)
        self._moved()

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
        self.on_step(before, seat.account)

    def refresh(self, account_id: str) -> None:
        """Something beside the account itself changed what it may do."""
        seat = self.seats.get(account_id)
        if seat is not None:
            self._bring_in_line(seat, seat.account, self._clock.now())

    def tick(self) -> None:
        """Let due moments happen: rests that lapse, the daily reset. Cheap when nothing is due."""
        now = self._clock.now()
        due = False
        if now >= self._next_reset:
            self._day = reset_day(now, self.policy.reset)
            self._next_reset = next_reset(now, self.policy.reset)
            for each in list(self.seats.values()):
                self._replace(each, each.account)
                if each.renews_at <= now.timestamp():
                    self._bring_in_line(each, each.account, now)
            due = True
        while self._timers and self._timers[0][0] <= now:
            _, account_id = heapq.heappop(self._timers)
            seat = self.seats.get(account_id)
            if seat is not None:
                self._replace(seat, seat.account)
                if seat.renews_at <= now.timestamp():
                    self._bring_in_line(seat, seat.account, now)
                due = True
        if due:
            self._moved()

    def _tick_if_due(self) -> None:
        now = self._clock.now()
        if now >= self._next_reset or (self._timers and self._timers[0][0] <= now):
            self.tick()

    def _moved(self) -> None:
        """Accounts came, went or changed by more than one request's news."""

    def held_until(self, account_id: str) -> float | None:
        """The monotonic second until which an account is not chosen for a reason beside its own state; None: it is."""
        return None

    def _improved(self, seat: Seat) -> None:
        """The account may serve more than before."""

    # What follows from an account.

    def _replace(self, seat: Seat, account: Account) -> None:
        now = self._clock.now()
        before = seat.account
        after = transitions.as_of(account, now, self.policy, self._day)
        if after is before:
            return
        if (
            after.offer != before.offer
            or after.labels != before.labels
            or after.priority != before.priority
            or after.weight != before.weight
        ):
            self._unseat(seat)
            self._offers.setdefault(after.offer, {})[after.id] = seat
        seat.account = after
        self._bring_in_line(seat, before, now)
        if (
            after.health != before.health
            or after.intent != before.intent
            or after.credential_rev != before.credential_rev
        ):
            self._changed(before, after)

    def _unseat(self, seat: Seat) -> None:
        """Take a seat out of its offer's orders and counts."""
        self._counts = None
        account = seat.account
        self._index.remove(seat)
        if seat.allowed:
            self._allowed[account.offer] -= 1
            seat.allowed = False
        self._count_reason(seat, None)
        self._offers[account.offer].pop(account.id, None)

    def _bring_in_line(self, seat: Seat, before: Account | None, now: datetime) -> None:
        """Derive a seat's figures from its account; ``before`` is None for a new seat."""
        account = seat.account
        self.blocks += bool(account.model_blocks) - bool(before is not None and before.model_blocks)
        reason = transitions.why_not(account, now)
        if reason is None and self.held_until(account.id) is not None:
            reason = HELD_BACK
        allowed = reason is None
        if reason != seat.reason:
            self._count_reason(seat, reason)
        funds, known = _funds(account, self.policy), seat.funds
        better = allowed and (
            not seat.allowed
            or before is None
            or account.model_blocks != before.model_blocks
            or (known is not None and (funds is None or funds > known))
        )
        seat.funds = funds
        if account.health.trial:
            seat.ramp = 1
        if allowed != seat.allowed:
            seat.allowed = allowed
            self._allowed[account.offer] += 1 if allowed else -1
            if allowed and seat.held == 0:
                self.on_unheld()
            elif seat.held and (not allowed or account.health.trial):
                self.on_unfit(seat)
        self._note_renewal(seat, now)
        self._place(seat)
        change = transitions.next_change(account)
        if change is not None and (before is None or change != transitions.next_change(before)):
            heapq.heappush(self._timers, (change, account.id))
        if better:
            self._improved(seat)

    def _note_renewal(self, seat: Seat, now: datetime) -> None:
        """When the account's points are renewed next. It is looked at then; who goes by the pool's day, with all."""
        account = seat.account
        clock, moment = account.reset_clock, self._next_reset
        own = clock is not None and trusted(clock)
        if own or account.balance.next_grant_at is not None or not account.renews_daily:
            renewal = next_renewal(account, now, self.policy.reset)
            if renewal is None:
                seat.renews_at = NEVER
                return
            moment = renewal
        renews_at = moment.timestamp()
        if renews_at != seat.renews_at:
            seat.renews_at = renews_at
            if account.metered and moment != self._next_reset:
                heapq.heappush(self._timers, (moment, account.id))

    def _place(self, seat: Seat) -> None:
        seat.spendable = None if seat.funds is None else seat.funds - seat.reserved
        self._index.place(seat)

    def _count_reason(self, seat: Seat, reason: str | None) -> None:
        counts = self.reasons.setdefault(seat.account.offer, Counter())
        if seat.reason is not None:
            counts[seat.reason] -= 1
            if not counts[seat.reason]:
                del counts[seat.reason]
        if reason is not None:
            counts[reason] += 1
        seat.reason = reason

    # Who is there.

    def account(self, account_id: str) -> Account | None:
        """The account as of now, or None."""
        seat = self.seats.get(account_id)
        return seat.account if seat is not None else None

    def ready_accounts(self) -> int:
        """How many accounts may serve now."""
        self._tick_if_due()
        return sum(count for count in self._allowed.values() if count > 0)

    def allowed(self, offers: Iterable[str]) -> int:
        """How many accounts of these offers may serve."""
        return sum([self._allowed[offer] for offer in offers])

    def offers(self) -> dict[str, int]:
        """Number of accounts by offer."""
        if self._counts is None:
            self._counts = {offer: len(seats) for offer, seats in self._offers.items() if seats}
        return self._counts

    def seats_in(self, offers: Iterable[str]) -> Iterator[Seat]:
        """The seats of several offers, in the same order for every process. Nobody may come or go meanwhile."""
        for offer in sorted(offers):
            yield from self._offers.get(offer, {}).values()

    def seats_of(self, offer: str) -> list[Seat]:
        return list(self._offers.get(offer, {}).values())


def _age(account: Account) -> tuple[datetime, str]:
    return account.created_at, account.id


def _funds(account: Account, policy: PoolPolicy) -> int | None:
    """Points that the pool may spend on this account; None: not metered, or nobody knows."""
    points = account.balance.points
    if not account.metered or points is None:
        return None
    return points - transitions.kept_for_owner(account, policy)
