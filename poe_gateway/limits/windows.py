"""Which buckets a request counts against: rates, days and months of budgets. Pure but for a cache."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from poe_gateway.limits.bucket import Ask
from poe_gateway.limits.keys import BucketKey, rate_key
from poe_gateway.limits.terms import BudgetPeriod, Counted, RatePeriod, Scope

_RATES: tuple[tuple[str, Counted, RatePeriod], ...] = (
    ("requests_minute", "requests", "minute"),
    ("requests_hour", "requests", "hour"),
    ("requests_day", "requests", "day"),
    ("tokens_minute", "tokens", "minute"),
    ("tokens_hour", "tokens", "hour"),
    ("tokens_day", "tokens", "day"),
)
_KEPT = {"minute": timedelta(hours=1), "hour": timedelta(hours=6), "day": timedelta(days=4)}
"""How long the document of a rate stays after its last use was foreseen."""
_DAYS_KEPT = timedelta(days=40)
_MONTHS_KEPT = timedelta(days=400)
_CACHED = 10_000


class Window(msgspec.Struct, frozen=True):
    """A day or month of a budget, or all time. ``ends_at`` None: never."""

    label: str
    ends_at: datetime | None


def window(period: BudgetPeriod, now: datetime, zone: ZoneInfo) -> Window:
    """The window of a budget that ``now`` lies in; ends are midnights of the zone, in UTC."""
    if period == "total":
        return Window("total", None)
    today = now.astimezone(zone).date()
    if period == "day":
        return Window(today.isoformat(), _midnight(today + timedelta(days=1), zone))
    following = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    return Window(f"{today.year:04}-{today.month:02}", _midnight(following, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day. Where midnight is skipped this is the moment of the change."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


class _Slot(msgspec.Struct, frozen=True):
    """One limit of a scope, made ready."""

    ask: Ask
    counted: str
    """``requests``, ``tokens``, ``parallel``, or the unit of a budget."""


class Windows:
    """Asks of requests. ``zone``: in which days and months of budgets begin."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._ready: dict[int, tuple[tuple[Scope, ...], float, tuple[_Slot, ...]]] = {}
        """By identity of the scopes (a key has the same ones until it changes): the scopes, until which epoch second
        it holds, and what they limit."""

    def asks(
        self, scopes: tuple[Scope, ...], now: datetime, *, tokens: int, amount: Callable[[str, int], int]
    ) -> tuple[Ask, ...]:
        """What one request asks: one of ``requests`` and ``parallel``, ``tokens``, and of each budget what ``amount``
        says of its unit and cap."""
        found = self._ready.get(id(scopes))
        if found is None or now.timestamp() >= found[1]:
            found = self._make(scopes, now)
        asks = []
        for slot in found[2]:
            ask = slot.ask
            if ask.bucket.kind == "budget":
                ask = Ask(bucket=ask.bucket, amount=amount(slot.counted, ask.cap), cap=ask.cap)
            elif slot.counted == "tokens":
                ask = Ask(bucket=ask.bucket, amount=tokens, cap=ask.cap)
            asks.append(ask)
        return tuple(asks)

    def _make(self, scopes: tuple[Scope, ...], now: datetime) -> tuple[tuple[Scope, ...], float, tuple[_Slot, ...]]:
        until = now.timestamp() + 600.0
        slots: list[_Slot] = []
        for scope in scopes:
            for name, counted, rate in _RATES:
                cap = getattr(scope.rates, name)
                if cap is not None and cap > 0:
                    key = rate_key(f"rate|{scope.kind}|{scope.id}|{counted}|{rate}", rate, now + _KEPT[rate])
                    slots.append(_Slot(Ask(bucket=key, amount=1, cap=cap), counted))
            parallel = scope.rates.parallel
            if parallel is not None and parallel > 0:
                key = BucketKey(
                    id=f"parallel|{scope.kind}|{scope.id}", kind="parallel", expires_at=now + timedelta(days=1)
                )
                slots.append(_Slot(Ask(bucket=key, amount=1, cap=parallel), "parallel"))
            for budget in scope.budgets:
                span = window(budget.period, now, self._zone)
                kept = None
                if span.ends_at is not None:
                    until = min(until, span.ends_at.timestamp())
                    kept = span.ends_at + (_DAYS_KEPT if budget.period == "day" else _MONTHS_KEPT)
                key = BucketKey(
                    id=f"budget|{scope.kind}|{scope.id}|{budget.unit}|{budget.period}|{span.label}",
                    kind="budget",
                    budget=budget.period,
                    ends_at=span.ends_at,
                    expires_at=kept,
                )
                slots.append(_Slot(Ask(bucket=key, amount=0, cap=budget.amount), budget.unit))
        if len(self._ready) >= _CACHED:
            self._ready.clear()
        ready = (scopes, until, tuple(slots))
        self._ready[id(scopes)] = ready
        return ready
