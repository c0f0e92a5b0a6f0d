"""Figures of an exchange that took more than one call of the upstream. Pure."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from poe_gateway.chat.events import Measured


class Tally:
    """Adds up what the calls cost. ``take`` each figure, ``next_call`` between two calls."""

    def __init__(self) -> None:
        self._before: Measured | None = None
        self._now: Measured | None = None

    def take(self, told: Measured) -> Measured:
        """The sum so far. An upstream may tell figures of one call bit by bit: the newest ones are true."""
        self._now = told if self._now is None else _newest(self._now, told)
        return self._now if self._before is None else _sum(self._before, self._now)

    def next_call(self) -> None:
        """What was told so far stands."""
        if self._now is not None:
            self._before = self._now if self._before is None else _sum(self._before, self._now)
        self._now = None


def _newest(old: Measured, new: Measured) -> Measured:
    cost = new if new.cost is not None else old
    return Measured(
        prompt_tokens=_or(new.prompt_tokens, old.prompt_tokens),
        completion_tokens=_or(new.completion_tokens, old.completion_tokens),
        points=_or(new.points, old.points),
        cached_tokens=_or(new.cached_tokens, old.cached_tokens),
        cost=cost.cost,
        currency=cost.currency,
        upstream_id=new.upstream_id or old.upstream_id,
        reasoning_tokens=_or(new.reasoning_tokens, old.reasoning_tokens),
    )


def _sum(first: Measured, second: Measured) -> Measured:
    cost = second if second.cost is not None else first
    return Measured(
        prompt_tokens=_added(first.prompt_tokens, second.prompt_tokens),
        completion_tokens=_added(first.completion_tokens, second.completion_tokens),
        points=_added(first.points, second.points),
        cached_tokens=_added(first.cached_tokens, second.cached_tokens),
        cost=_costs(first, second) or cost.cost,
        currency=cost.currency,
        upstream_id=second.upstream_id or first.upstream_id,
        reasoning_tokens=_added(first.reasoning_tokens, second.reasoning_tokens),
    )


def _or(new: int | None, old: int | None) -> int | None:
    return old if new is None else new


def _added(first: int | None, second: int | None) -> int | None:
    """A figure below zero tells nothing."""
    told = [each for each in (first, second) if each is not None and each >= 0]
    return sum(told) if told else None


def _costs(first: Measured, second: Measured) -> str | None:
    """Both costs together; None when only one is a number, or they are in two currencies."""
    if first.cost is None or second.cost is None or first.currency != second.currency:
        return None
    try:
        total = Decimal(first.cost) + Decimal(second.cost)
    except InvalidOperation:
        return None
    return format(total, "f") if total.is_finite() and abs(total.adjusted()) < 40 else None
