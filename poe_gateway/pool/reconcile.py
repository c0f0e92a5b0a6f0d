"""Our ledger of points against what the upstream says. Pure.

Between two measurements an account's balance may move for four reasons: requests of ours whose price we know, requests
of ours whose price nobody told, a renewal, and somebody else. The first two make up the range that is expected; above
it lies a refill; below it, and in the end only there, somebody else's spending.

News of other processes arrives late and requests in flight may be charged before they are settled, so a small gap is
carried on as ``drift`` and alarms only when it is still there at the next measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from poe_gateway.pool.account import Balance
from poe_gateway.pool.prices import Price

_LEAST = 10
"""Points that are never worth an alarm."""
_OF_BOOKED = 0.05
"""Part of our own spending that may be booked wrongly."""
_LARGE = 5
"""One fall of so many tolerances alarms at once …"""
_OF_BALANCE = 0.2
"""… and so does one of this part of the balance."""
_SETTLED = 10.0
"""Seconds between two measurements after which what is still missing is no late news of another process."""
_NOISE = 4
"""A price is read off a fall only when what else may be in it is at most a quarter."""
_PLAUSIBLE = 4
"""A price read off a fall is believed up to this many times the bound of the known one."""


class Kind(StrEnum):
    """What a measurement told."""

    AS_EXPECTED = "as_expected"
    REFILL = "refill"
    FOREIGN_SPEND = "foreign_spend"
    PRICE = "price"
    """As expected or nearly, and it tells what a request of one model cost."""


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement about one measurement. Figures in points."""

    kind: Kind
    expected: int | None
    """What we thought was there; None where that cannot be said."""
    measured: int
    amount: int = 0
    """A refill: what came. Foreign spending: what is gone in all without our doing. Else 0."""
    alarm: bool = False
    drift: int = 0
    """To be kept in the balance until the next measurement."""
    samples: tuple[tuple[str, int], ...] = ()
    """(model, points per request) that the measurement told."""
    renewal: bool = False
    """The refill is too large for an error of ours: it may teach the reset clock."""


def tolerance(booked: int, in_flight: int) -> int:
    """Points by which a measurement may differ from our ledger without meaning anything."""
    return max(_LEAST, round(_OF_BOOKED * booked), in_flight)


def reconcile(
    balance: Balance,
    measured: int,
    price: Callable[[str], Price | None],
    *,
    last: int | None,
    renewal_due: bool,
    in_flight: int = 0,
    apart: float = float("inf"),
) -> Reconciliation:
    """Judge ``measured`` by what was known before it.

    ``balance`` as it was just before the measurement; its ``booked`` contains what is believed of unpriced requests.
    ``price(model)`` by the model's key. ``last``: points at ``balance.measured_at``, None when never measured.
    ``renewal_due``: a renewal was believed to come since then; a fall then says nothing, for a renewal may lower a
    balance too, and the ledger of before it may be gone. ``in_flight``: what our own requests, in every process, may
    have cost already without being booked. ``apart``: seconds between the two measurements; news of other processes may
    come later than that.
    """
    if last is None:
        return Reconciliation(kind=Kind.AS_EXPECTED, expected=None, measured=measured)
    ledger = _Ledger(balance, price, last)
    slack = tolerance(balance.booked, in_flight)
    most = max(0, ledger.high)
    if measured > most + slack + max(0, balance.drift):
        came = measured - ledger.middle
        return Reconciliation(
            kind=Kind.REFILL,
            expected=ledger.expected,
            measured=measured,
            amount=came,
            renewal=measured - most > _LARGE * slack,
        )
    if renewal_due or _set_by_rule(balance, last):
        return Reconciliation(kind=Kind.AS_EXPECTED, expected=None, measured=measured)
    return _fall(balance, measured, ledger, slack, in_flight, last, settled=apart >= _SETTLED)


def _fall(
    balance: Balance, measured: int, ledger: _Ledger, slack: int, in_flight: int, last: int, *, settled: bool
) -> Reconciliation:
    gap = min(0, ledger.high - measured) or max(0, ledger.low - measured)
    samples = ledger.samples(last - measured, noise=abs(balance.drift) + in_flight)
    sudden = gap > slack and (gap > _LARGE * slack or gap > _OF_BALANCE * last)
    if samples and gap > 0 and not sudden:
        gap = 0  # a dearer request is more likely than a thief who comes with it
    missing = balance.drift + gap
    lasting = settled and missing > slack and balance.drift > slack
    if sudden or lasting:
        return Reconciliation(
            kind=Kind.FOREIGN_SPEND,
            expected=ledger.expected,
            measured=measured,
            amount=missing,
            alarm=True,
            samples=samples,  # if it was a price after all, it must be learned, or the alarm would come again
        )
    kind = Kind.FOREIGN_SPEND if gap > slack else Kind.PRICE if samples else Kind.AS_EXPECTED
    drift = max(missing, -slack)
    if not gap and in_flight < drift <= slack:
        # What was late has turned up by now: small errors of ours must not add up over the days.
        drift //= 2
    return Reconciliation(
        kind=kind,
        expected=ledger.expected,
        measured=measured,
        amount=missing if kind is Kind.FOREIGN_SPEND else 0,
        drift=drift,
        samples=samples,
    )


def _set_by_rule(balance: Balance, last: int) -> bool:
    """Whether the figure is no longer the last measurement less what was booked since: the ledger begins later."""
    return balance.points is None or (balance.points > 0 and balance.points + balance.booked != last)


class _Ledger:
    """What may be left by our own doing: ``high`` if unpriced requests cost nothing, ``low`` if as much as they may."""

    def __init__(self, balance: Balance, price: Callable[[str], Price | None], last: int) -> None:
        self._unpriced = balance.unpriced
        self._prices = {model: price(model) for model in balance.unpriced}
        known = [(count, each) for model, count in balance.unpriced.items() if (each := self._prices[model])]
        believed = min(balance.booked, round(sum(count * each.typical for count, each in known)))
        self._told = balance.booked - believed
        self.priced = len(known) == len(balance.unpriced)
        self.middle = max(0, last - balance.booked)
        self.high = last - self._told
        """Below zero when we booked more than there was: news of what was gone at the last measurement already."""
        most = sum(count * each.upper for count, each in known)
        self.low = max(0, min(self.middle, self.high - most)) if self.priced else 0
        self.expected = self.middle if self.priced else None

    def samples(self, gone: int, *, noise: int) -> tuple[tuple[str, int], ...]:
        """What a request of the one unpriced model cost, where ``gone`` points since the last measurement tell it."""
        if len(self._unpriced) != 1:
            return ()
        ((model, count),) = self._unpriced.items()
        cost = gone - self._told
        if cost < 0 or _NOISE * noise > cost:
            return ()
        each, known = round(cost / count), self._prices[model]
        if known is not None and each > _PLAUSIBLE * known.upper:
            return ()
        return ((model, each),)
