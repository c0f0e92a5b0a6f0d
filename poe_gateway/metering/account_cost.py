"""What accounts cost and how long they last: price against points delivered, and survival. Pure.

What is exact: prices as the operator gave them, points and requests as the ledger has them. What is an estimate: the
end of an account that is out of service without having been deleted (it counts from the moment its present state began;
it may come back), and the beginning of one without a date of purchase (then it is when the gateway first saw it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

import msgspec

from poe_gateway.money import DECIMALS, decimal_of

CostBy = Literal["account", "batch", "vendor"]
AGES = (1, 3, 7, 14, 30, 60, 90, 180)
"""Days after the beginning at which survival is told."""
_DAY = timedelta(days=1)
_PLACES = Decimal(1).scaleb(-DECIMALS)


class Lifetime(msgspec.Struct, frozen=True, kw_only=True):
    """One account from its beginning to its end."""

    account_id: str
    name: str | None
    """None: deleted; names of deleted accounts are not kept."""
    provider: str
    vendor: str | None = None
    batch: str | None = None
    price: int | None = None
    currency: str = "USD"
    began_at: datetime
    ended_at: datetime | None = None
    """Deleted, or out of service for good as far as is known; None: in service."""
    ended_by: Literal["deleted", "invalid"] | None = None
    expires_at: datetime | None = None
    """The account's own end, as the operator knows it. Reported, not enforced."""
    points: int = 0
    """Delivered, by the ledger."""
    requests: int = 0
    attempts: int = 0

    def days(self, now: datetime) -> Decimal:
        """In service, to a hundredth of a day."""
        lived = max((self.ended_at or now) - self.began_at, timedelta())
        return (Decimal(lived // timedelta(seconds=1)) / 86_400).quantize(Decimal("0.01"))


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """Of the accounts that are old enough to tell, how many were still in service ``days`` after their beginning."""

    days: int
    of: int
    alive: int

    @property
    def share(self) -> Decimal:
        """From 0 to 1, four places."""
        return (Decimal(self.alive) / self.of).quantize(Decimal("0.0001"))


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What the priced accounts of one currency cost, and what these delivered."""

    accounts: int = 0
    amount: int = 0
    points: int = 0

    def per_1000(self, unit: str) -> Decimal | None:
        """Currency units for 1,000 points delivered; None while nothing was delivered."""
        if self.points <= 0:
            return None
        return (decimal_of(self.amount, unit) * 1000 / self.points).quantize(_PLACES, ROUND_HALF_EVEN)


class CostLine(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts that belong together. ``group`` None: those without a batch, or vendor."""

    group: str | None
    name: str | None
    accounts: int
    in_service: int
    deleted: int
    invalid: int
    expired: int
    """In service beyond the end that the operator gave them."""
    points: int
    requests: int
    attempts: int
    days: Decimal
    """In service, of all accounts together."""
    prices: dict[str, Price]
    """By currency; accounts without a price are in none."""
    survival: tuple[Survival, ...]


def cost_lines(lifetimes: Iterable[Lifetime], by: CostBy, now: datetime) -> list[CostLine]:
    """One line for each account, batch or vendor; those without one come last."""
    groups: dict[str | None, list[Lifetime]] = {}
    for each in lifetimes:
        group = {"account": each.account_id, "batch": each.batch, "vendor": each.vendor}[by]
        groups.setdefault(group, []).append(each)
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, item[0] or ""))
    return [_line(group, each, by, now) for group, each in ordered]


def _line(group: str | None, members: Sequence[Lifetime], by: CostBy, now: datetime) -> CostLine:
    serving = [each for each in members if each.ended_at is None]
    return CostLine(
        group=group,
        name=members[0].name if by == "account" else None,
        accounts=len(members),
        in_service=len(serving),
        deleted=sum(each.ended_by == "deleted" for each in members),
        invalid=sum(each.ended_by == "invalid" for each in members),
        expired=sum(each.expires_at is not None and each.expires_at <= now for each in serving),
        points=sum(each.points for each in members),
        requests=sum(each.requests for each in members),
        attempts=sum(each.attempts for each in members),
        days=sum((each.days(now) for each in members), Decimal(0)),
        prices=_prices(members),
        survival=survival(members, now),
    )


def _prices(members: Iterable[Lifetime]) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    for each in members:
        if each.price is not None:
            known = prices.get(each.currency, Price())
            prices[each.currency] = Price(
                accounts=known.accounts + 1, amount=known.amount + each.price, points=known.points + each.points
            )
    return prices


def survival(members: Sequence[Lifetime], now: datetime, ages: Sequence[int] = AGES) -> tuple[Survival, ...]:
    """At each age that some account has reached. Accounts that are younger, dead or alive, are left out of it."""
    told = []
    for days in ages:
        old = [each for each in members if now - each.began_at >= days * _DAY]
        alive = sum(each.ended_at is None or each.ended_at - each.began_at >= days * _DAY for each in old)
        if old:
            told.append(Survival(days=days, of=len(old), alive=alive))
    return tuple(told)
