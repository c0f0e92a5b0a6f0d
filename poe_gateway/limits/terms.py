"""What a key, an organisation or the whole gateway may use. Values only."""

from __future__ import annotations

from typing import Literal

import msgspec

ScopeKind = Literal["key", "org", "profile", "global"]
BudgetPeriod = Literal["day", "month", "total"]
RatePeriod = Literal["minute", "hour", "day"]
Counted = Literal["requests", "tokens"]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast. None: the gateway's default applies; 0 or less: unlimited."""

    requests_minute: int | None = None
    requests_hour: int | None = None
    requests_day: int | None = None
    tokens_minute: int | None = None
    tokens_hour: int | None = None
    tokens_day: int | None = None
    parallel: int | None = None
    """Requests at a time."""

    def over(self, defaults: Rates) -> Rates:
        """These, and the defaults where nothing is said."""
        given = {
            name: getattr(self, name) if getattr(self, name) is not None else getattr(defaults, name)
            for name in self.__struct_fields__
        }
        return Rates(**given)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much. ``amount`` as in ``money``; ``day`` and ``month`` in the gateway's budget zone."""

    unit: str
    period: BudgetPeriod
    amount: int


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """One holder of limits that a request counts against. ``id`` is empty for ``global``."""

    kind: ScopeKind
    id: str
    rates: Rates = Rates()
    budgets: tuple[Budget, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether it limits nothing."""
        rates = self.rates
        return not self.budgets and not any((getattr(rates, name) or 0) > 0 for name in rates.__struct_fields__)
