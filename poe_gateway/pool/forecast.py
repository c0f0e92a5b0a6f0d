"""How long the points last: a forecast by offer and hour, and by model. Pure.

Use goes on as in the last hours (``usage.ewma``), spread over the accounts in proportion to what they
have; points come back at the hour that each account's renewal is believed to have. Accounts are gathered into groups
that are renewed in the same hour, so the work grows with the hours and the groups, not with their product with the
accounts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from operator import itemgetter

import msgspec

from poe_gateway.pool.account import Account, Intent, State
from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.prices import Price
from poe_gateway.pool.renewal import trusted
from poe_gateway.pool.reset_clock import next_renewal
from poe_gateway.pool.usage import Rate

_HOUR = timedelta(hours=1)
_DAY_HOURS = 24


class HourOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of one offer, in points that the pool may spend. Renewals come before the hour's use."""

    at: datetime
    available: int
    """At the hour's start."""
    renewed: int
    """Points that come back in this hour."""
    accounts_renewed: int
    use: int


class OfferOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """The points of one offer. ``unmetered`` accounts spend none: with them the offer cannot run out."""

    offer: str
    accounts: int
    unmetered: int
    unmeasured: int
    """Accounts whose balance nobody knows; they count as empty until their renewal."""
    hours: tuple[HourOutlook, ...]
    depleted_at: datetime | None
    """Start of the first hour whose use the points do not cover; None within the forecast."""


class ModelOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """What the accounts of one offer can pay of one model."""

    offer: str
    model: str
    price: int
    """Points per request, as expected."""
    affordable: int | None
    """Requests that can be paid now, one after the other; None: no end (unmetered accounts, or free)."""
    unpaid_at: datetime | None
    """Start of the first hour at which no account can pay a request; None within the forecast."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """``hours`` of outlook from ``at`` on."""

    at: datetime
    hours: int
    offers: tuple[OfferOutlook, ...]
    models: tuple[ModelOutlook, ...]


class _Group:
    """Accounts that are renewed in the same hour: their points together, and the richest of them."""

    __slots__ = ("grants", "members", "points", "richest", "richest_grant", "scale")

    def __init__(self) -> None:
        self.members = 0
        self.points = 0.0
        self.grants = 0.0
        self.richest = 0
        self.richest_grant = 0
        self.scale = 1.0
        """Part of its points that the richest still has."""

    def add(self, points: int, kept: int, grant: int) -> None:
        """``points`` without the ``kept`` ones can be spent; a renewal fills them up to ``grant``."""
        self.members += 1
        self.points += max(0, points - kept)
        self.grants += max(0, max(points, grant) - kept)
        self.richest = max(self.richest, points - kept)
        self.richest_grant = max(self.richest_grant, points - kept, grant - kept)

    def renew(self) -> float:
        """Points that come back."""
        came = max(0.0, self.grants - self.points)
        self.points += came
        self.richest, self.scale = self.richest_grant, 1.0
        return came

    def spend(self, part: float) -> None:
        self.points *= 1 - part
        self.scale *= 1 - part

    @property
    def best(self) -> float:
        """The most that one account of the group can spend."""
        return self.richest * self.scale


def forecast(
    accounts: Iterable[Account],
    rates: Mapping[tuple[str, str], Rate],
    prices: Mapping[tuple[str, str], Price],
    now: datetime,
    *,
    reset: DailyReset,
    threshold: int,
    kept: Callable[[Account], int] = lambda account: 0,
    hours: int = 24,
) -> Forecast:
    """The outlook from ``now`` on.

    ``accounts`` as of ``now``; ``rates`` and ``prices`` by (offer, model); ``threshold``: below that many points an
    account leaves service; ``kept(account)``: points that stay with the account's owner. Accounts that are paused or
    invalid do not count, those that rest do: a rest is short.
    """
    pools: defaultdict[str, _Pool] = defaultdict(_Pool)
    calendar = _Calendar(now, reset, hours)
    for account in accounts:
        pools[account.offer].take(account, calendar, threshold, kept(account))
    offers: list[OfferOutlook] = []
    models: list[ModelOutlook] = []
    for offer in sorted(pools):
        pool = pools[offer]
        use = sum(rate.points for (of, _), rate in rates.items() if of == offer)
        outlook, best = pool.outlook(offer, use, now, hours)
        offers.append(outlook)
        models.extend(
            pool.model(offer, model, learned, threshold, best)
            for (of, model), learned in sorted(prices.items(), key=itemgetter(0))
            if of == offer
        )
    return Forecast(at=now, hours=hours, offers=tuple(offers), models=tuple(models))


_Key = tuple[float | None, bool, bool | None, datetime | None]


class _Calendar:
    """In which hour of the forecast an account is renewed next. Most accounts share a clock, so answers are kept."""

    def __init__(self, now: datetime, reset: DailyReset, hours: int) -> None:
        self.reset = reset
        self._now = now
        self._hours = hours
        self._known: dict[_Key, int | None] = {}

    def hour(self, account: Account) -> int | None:
        """0 is the hour from now on; None: not within the forecast."""
        clock, balance = account.reset_clock, account.balance
        own = clock.high if clock is not None and trusted(clock) else None
        key = (own, account.renews_daily, balance.subscription_active, balance.next_grant_at)
        if key not in self._known:
            self._known[key] = self._index(account)
        return self._known[key]

    def _index(self, account: Account) -> int | None:
        renewal = next_renewal(account, self._now, self.reset)
        if renewal is None:
            return None
        index = int((renewal - self._now) / _HOUR)
        return index if index < self._hours else None


def _falls(first: int | None, index: int, *, daily: bool) -> bool:
    """Whether a renewal that comes in hour ``first`` comes in hour ``index`` (again)."""
    if first is None or index < first:
        return False
    return index == first or (daily and (index - first) % _DAY_HOURS == 0)


def _payable(points: int, least: int, cost: int) -> int:
    """Requests of ``cost`` that an account can pay while it has ``least`` points before each."""
    return 0 if points < least or not cost else (points - least) // cost + 1


class _Pool:
    """The accounts of one offer."""

    def __init__(self) -> None:
        self.groups: defaultdict[tuple[int | None, bool], _Group] = defaultdict(_Group)
        self.balances: list[tuple[int, int]] = []
        """(points, points that are kept)."""
        self.accounts = 0
        self.unmetered = 0
        self.unmeasured = 0

    def take(self, account: Account, calendar: _Calendar, threshold: int, kept: int) -> None:
        if account.intent is not Intent.ENABLED or account.health.state is State.INVALID:
            return
        self.accounts += 1
        if not account.metered:
            self.unmetered += 1
            return
        points = account.balance.points
        self.unmeasured += points is None
        points = points or 0
        grant = account.balance.allotment or (calendar.reset.points if account.renews_daily else 0)
        self.balances.append((points, kept))
        # Below the threshold nothing more is spent, so that many points stay with each account.
        self.groups[calendar.hour(account), account.renews_daily].add(points, kept + threshold, grant)

    def outlook(
        self, offer: str, use: float, now: datetime, hours: int
    ) -> tuple[OfferOutlook, list[tuple[datetime, float]]]:
        """The offer's hours, and for each the most that one account can spend above the threshold."""
        rows: list[HourOutlook] = []
        best: list[tuple[datetime, float]] = []
        depleted: datetime | None = None
        for index in range(hours):
            at = now + index * _HOUR
            available = sum(group.points for group in self.groups.values())
            due = [group for (first, daily), group in self.groups.items() if _falls(first, index, daily=daily)]
            renewed = sum(group.renew() for group in due)
            stock = available + renewed
            best.append((at, max((group.best for group in self.groups.values()), default=0.0)))
            rows.append(
                HourOutlook(
                    at=at,
                    available=round(available),
                    renewed=round(renewed),
                    accounts_renewed=sum(group.members for group in due),
                    use=round(use),
                )
            )
            if use > stock and depleted is None and not self.unmetered:
                depleted = at
            part = min(1.0, use / stock) if stock else 1.0
            for group in self.groups.values():
                group.spend(part)
        outlook = OfferOutlook(
            offer=offer,
            accounts=self.accounts,
            unmetered=self.unmetered,
            unmeasured=self.unmeasured,
            hours=tuple(rows),
            depleted_at=depleted,
        )
        return outlook, best

    def model(
        self,
        offer: str,
        model: str,
        price: Price,
        threshold: int,
        best: list[tuple[datetime, float]],
    ) -> ModelOutlook:
        cost = min(price.ceiling, max(0, round(price.typical)))
        endless = bool(self.unmetered) or not cost
        # A request is sent only to an account that has what it costs at most, and that is in service at all.
        affordable = sum(_payable(points, max(price.upper, threshold) + kept, cost) for points, kept in self.balances)
        short = max(0, price.upper - threshold)
        unpaid = next((at for at, most in best if most < max(1, short)), None)
        return ModelOutlook(
            offer=offer,
            model=model,
            price=cost,
            affordable=None if endless else affordable,
            unpaid_at=None if endless else unpaid,
        )
