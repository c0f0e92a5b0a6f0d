"""What a request may hope for: why nobody can serve it, when that may change, and how long the line is.

A look at every account is needed only to tell why; what was found is kept for a second, or until an account that could
help comes back, so a pool that is used up refuses its callers at no cost.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import msgspec

from poe_gateway.clock import Clock
from poe_gateway.errors import GatewayError, ModelUnsupported, Overloaded, PointsExhausted
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause, State
from poe_gateway.pool.lease import Want
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.roster import HELD_BACK, Roster
from poe_gateway.pool.seat import NEVER, Seat
from poe_gateway.pool.selector import EVERY, Selector

_REMEMBERED = 256
"""Kinds of wishes whose outlook is kept: callers choose the model's name, so it is bounded."""
_SAMPLE = 8
_HOLD_GUESS = 5.0
"""Seconds a slot is believed to be used before anything was measured."""
_FEW = 8
"""Measured answers below which no deadline is called unreachable."""
_LONGEST_TOLD = 60.0
_PATIENT = 0.5
"""Part of the expected wait that a deadline must leave: expectations err."""

_FRESH = 1.0
"""Seconds for which a look at all accounts is good: reasons and moments change with every account that falls ill."""

_Kind = tuple[frozenset[str], str, Selector]
CANNOT_PAY = "cannot_pay"
MODEL_BLOCKED = "model_blocked"
MODEL_NOT_ALLOWED = "model_not_allowed"


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody may serve: the reasons with their numbers, a few accounts, and when time alone may change it."""

    reasons: dict[str, int]
    sample: dict[str, str]
    soonest: datetime | None


class _Known(msgspec.Struct, frozen=True):
    """An outlook of requests that need so many points or more."""

    need: int
    outlook: Outlook
    until: float
    """Monotonic second."""


class Pace:
    """How long slots are used, by model: measured on answers that succeeded, as moving averages. Seconds."""

    def __init__(self) -> None:
        self._by_model: dict[str, tuple[float, int]] = {}
        self._whole = (_HOLD_GUESS, 0)

    def observe(self, key: str, seconds: float) -> None:
        """One more answer took so long."""
        self._whole = _averaged(self._whole, seconds)
        known = self._by_model.get(key)
        if known is None:
            if len(self._by_model) >= _REMEMBERED:
                self._by_model.clear()
            known = (seconds, 0)
        self._by_model[key] = _averaged(known, seconds)

    def seconds(self, key: str = "") -> float:
        """Of one answer of the model."""
        known = self._by_model.get(key)
        if known is None:
            return self._whole[0]
        return known[0] if known[1] >= _FEW else max(known[0], self._whole[0])

    @property
    def measured(self) -> bool:
        """Whether there is enough to go by."""
        return self._whole[1] >= _FEW


def _averaged(known: tuple[float, int], seconds: float) -> tuple[float, int]:
    average, count = known
    return average + max(0.1, 1.0 / (count + 1)) * (seconds - average), count + 1


class Prospects:
    """Answers of one process, from its roster."""

    def __init__(self, roster: Roster, clock: Clock, policy: PoolPolicy) -> None:
        self.pace = Pace()
        self._roster = roster
        self._clock = clock
        self._policy = policy
        self._outlooks: dict[_Kind, _Known] = {}
        self._witness: dict[_Kind, Seat] = {}
        self._searched: dict[_Kind, float] = {}

    def known_hopeless(self, want: Want) -> bool:
        """Whether it is known already that nobody may serve this kind of request."""
        return bool(self._outlooks) and self._known(want) is not None

    def _known(self, want: Want) -> Outlook | None:
        known = self._outlooks.get(_kind(want))
        if known is None or want.need < known.need or self._clock.monotonic() >= known.until:
            return None
        soonest = known.outlook.soonest
        return known.outlook if soonest is None or soonest > self._clock.now() else None

    def improved(self, seat: Seat) -> None:
        """The account may serve more than before: what it could serve is not hopeless any more."""
        account = seat.account
        for kind, known in list(self._outlooks.items()):
            offers, model, selector = kind
            if (
                account.offer in offers
                and (seat.funds is None or seat.funds >= known.need)
                and selector.matches(account)
                and not any(block.model == model for block in account.model_blocks)
            ):
                del self._outlooks[kind]

    def why_hopeless(self, want: Want) -> GatewayError | None:
        """None when a slot may come free before the deadline, else the typed refusal with an honest Retry-After."""
        if self.hopeful(want):
            return None
        now = self._clock.now()
        outlook = self.outlook(want, now)
        if outlook is None:
            return None
        soonest = outlook.soonest
        if soonest is not None and soonest <= now + timedelta(seconds=want.deadline - self._clock.monotonic()):
            return None
        wait = None if soonest is None else max(1.0, (soonest - now).total_seconds())
        return _refusal(outlook.reasons, wait)

    def hopeful(self, want: Want) -> bool:
        """Whether some account that was not tried may serve the request now, busy or not. Constant time as a rule."""
        roster = self._roster
        if want.selector is EVERY and not want.need and not roster.blocks:
            return roster.allowed(want.offers) > len(want.tried) or (
                bool(want.tried) and self._witness_of(want) is not None
            )
        return self._witness_of(want) is not None

    def _witness_of(self, want: Want) -> Seat | None:
        now = self._clock.now()
        kind = _kind(want)
        witness = self._witness.get(kind)
        if (
            witness is not None
            and witness.account.id in self._roster.seats
            and self.why_not(witness, want, now) is None
        ):
            return witness
        if self._known(want) is not None:
            return None
        for seat in self._roster.seats_in(want.offers):
            if self.why_not(seat, want, now) is None:
                self._testifies(kind, seat)
                return seat
        return None

    def _testifies(self, kind: _Kind, seat: Seat) -> None:
        if len(self._witness) >= _REMEMBERED:
            self._witness.clear()
        self._witness[kind] = seat

    def payer(self, want: Want) -> Seat | None:
        """An open seat that can pay, where a choice did not find one among many. All seats are looked at once in a
        while only."""
        kind, now, second = _kind(want), self._clock.now(), self._clock.monotonic()
        witness = self._witness.get(kind)
        if witness is not None and self._pays(witness, want, now):
            return witness
        if self._searched.get(kind, float("-inf")) > second:
            return None
        if len(self._searched) >= _REMEMBERED:
            self._searched.clear()
        self._searched[kind] = second + _FRESH
        for seat in self._roster.seats_in(want.offers):
            if seat.row >= 0 and self._pays(seat, want, now):
                self._testifies(kind, seat)
                return seat
        return None

    def _pays(self, seat: Seat, want: Want, now: datetime) -> bool:
        present = seat.open and seat.account.id in self._roster.seats
        return present and seat.can_pay(want.need) and self.why_not(seat, want, now) is None

    def why_not(self, seat: Seat, want: Want, now: datetime) -> str | None:
        """Why this account cannot serve the request however long it waits; None when it can, busy or not."""
        account = seat.account
        if account.offer not in want.offers:
            return "other_offer"
        if account.id in want.tried:
            return "tried"
        if want.selector is not EVERY and not want.selector.matches(account):
            return "not_selected"
        if seat.reason == HELD_BACK:
            return HELD_BACK
        reason = transitions.why_not(account, now, want.model)
        if reason == MODEL_BLOCKED and _not_allowed(account, want.model):
            return MODEL_NOT_ALLOWED
        if reason is None and want.need and seat.funds is not None and seat.funds < want.need:
            return CANNOT_PAY
        return reason

    def outlook(self, want: Want, now: datetime) -> Outlook | None:
        """Why nobody may serve; None when somebody may."""
        if not want.tried and (known := self._known(want)) is not None:
            return known
        reasons: Counter[str] = Counter()
        sample: dict[str, str] = {}
        soonest: datetime | None = None
        for seat in self._roster.seats_in(want.offers):
            reason = self.why_not(seat, want, now)
            if reason is None:
                return None
            reasons[reason] += 1
            if len(sample) < _SAMPLE and reason != "not_selected":
                sample[seat.account.id] = reason
            moment = self._available_at(seat, reason, want, now)
            if moment is not None and (soonest is None or moment < soonest):
                soonest = moment
        outlook = Outlook(reasons=dict(reasons), sample=sample, soonest=soonest)
        if not want.tried:
            if len(self._outlooks) >= _REMEMBERED:
                self._outlooks.clear()
            self._outlooks[_kind(want)] = _Known(want.need, outlook, self._clock.monotonic() + _FRESH)
        return outlook

    def most(self, want: Want) -> int:
        """Points of the richest account that lacks nothing else for the request."""
        now = self._clock.now()
        seats = self._roster.seats_in(want.offers)
        return max((seat.funds or 0 for seat in seats if self.why_not(seat, want, now) == CANNOT_PAY), default=0)

    def _available_at(self, seat: Seat, reason: str, want: Want, now: datetime) -> datetime | None:
        """When time alone may return the account to service for the request, or None: the last of its gates."""
        account = seat.account
        if reason in ("paused", State.INVALID.value, "tried", "not_selected", "other_offer"):
            return None
        gates = [block.until for block in account.model_blocks if block.model == want.model]
        if account.health.until is not None and account.health.state is not State.ACTIVE:
            gates.append(account.health.until)
        held_until = self._roster.held_until(account.id)
        if held_until is not None:
            gates.append(now + timedelta(seconds=held_until - self._clock.monotonic()))
        if want.need and seat.funds is not None and seat.funds < want.need:
            whole = transitions.purse(account, self._policy)
            if whole is not None and whole < want.need:
                return None  # not even then
            if account.health.state is not State.DEPLETED:  # that waits for its renewal anyway
                if seat.renews_at == NEVER:
                    return None
                gates.append(datetime.fromtimestamp(seat.renews_at, now.tzinfo))
        return max(gates, default=None)

    # The line.

    def expected_wait(self, ahead: int, slots: int, key: str = "") -> float:
        """Seconds until the one with so many ahead of it may start, when ``slots`` are in use for the line."""
        return self.pace.seconds(key) * (ahead + 1) / max(1, slots)

    def rest(self, want: Want) -> float:
        """Seconds until some account may serve the request, busy or not; 0 also where time alone brings none."""
        if self.hopeful(want):
            return 0.0
        now = self._clock.now()
        outlook = self.outlook(want, now)
        if outlook is None or outlook.soonest is None:
            return 0.0
        return max(0.0, (outlook.soonest - now).total_seconds())

    def retry_after(self, ahead: int, slots: int) -> float:
        """The same for a newcomer who is sent away; bounded, since it is a guess."""
        return min(_LONGEST_TOLD, max(1.0, self.expected_wait(ahead, slots)))

    def unreachable(self, want: Want, expected: float) -> bool:
        """Whether the deadline will have passed before the request's turn, by what was measured."""
        return self.pace.measured and _PATIENT * expected > want.deadline - self._clock.monotonic()


def _kind(want: Want) -> _Kind:
    return want.offers, want.model, want.selector


def _not_allowed(account: Account, model: str) -> bool:
    return any(block.model == model and block.cause is Cause.OPERATOR for block in account.model_blocks)


def _refusal(reasons: dict[str, int], wait: float | None) -> GatewayError:
    """The code of what could come back first: resting accounts before empty ones before none."""
    if reasons.keys() & {State.COOLDOWN.value, MODEL_BLOCKED, HELD_BACK}:
        return Overloaded("All accounts are resting.", code="all_cooling", retry_after=wait)
    if reasons.keys() & {State.DEPLETED.value, CANNOT_PAY}:
        return PointsExhausted(retry_after=wait)
    if MODEL_NOT_ALLOWED in reasons:
        return ModelUnsupported(param="model", retry_after=wait)
    return Overloaded("No account is in service for this model.", code="no_accounts", retry_after=wait)
