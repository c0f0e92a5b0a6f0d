"""What the ledger adds up to: which figures are wanted, over what, and how they are shown. Pure values and arithmetic.

A report has one line for each combination of up to three dimensions. Amounts of different currencies are never added:
the ledger is summed for each currency apart, and a line holds each of them. Corrections count at the moment of the row
that they correct, so that every sum tells what is known now.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import asdict

from poe_gateway.metering.account_cost import Lifetime
from poe_gateway.money import decimal_of

Dimension = Literal["hour", "day", "month", "org", "key", "model", "account", "provider", "status"]
MOST_DIMENSIONS = 3
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet take a cell for a formula."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows count; None sets no bound. ``since`` is within, ``until`` is not."""

    since: datetime | None = None
    until: datetime | None = None
    org: str | None = None
    key: str | None = None
    model: str | None = None
    account: str | None = None
    provider: str | None = None
    status: str | None = None
    """Of the row; corrections have one of their own (``correction``)."""
    request: str | None = None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and sums. ``requests``: first attempts, so that requests of all lines add up whatever the dimensions."""

    requests: int = 0
    attempts: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    orphaned: int = 0
    """Attempts whose end nobody saw."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    points: int = 0
    unpriced: int = 0
    """Successes whose cost in money nobody knows."""
    corrections: int = 0
    corrected_points: int = 0
    """Part of ``points`` that corrections brought."""

    def __add__(self, other: Figures) -> Figures:
        return Figures(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts of one currency, as in ``money``."""

    raw: int = 0
    """What upstreams ask."""
    billed: int = 0
    """With markup."""
    corrected: int = 0
    """Part of ``billed`` that corrections brought."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            raw=self.raw + other.raw, billed=self.billed + other.billed, corrected=self.corrected + other.corrected
        )


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of the rows that agree in all dimensions and in the currency; ``unit`` None: rows without a price."""

    keys: tuple[str | None, ...]
    unit: str | None
    figures: Figures
    cost: Cost


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of the rows that agree in all dimensions."""

    keys: tuple[str | None, ...]
    figures: Figures = Figures()
    costs: dict[str, Cost] = {}
    """By currency."""

    def plus(self, group: Group) -> Line:
        """With one more currency's rows of the same keys."""
        costs = self.costs
        if group.unit is not None:
            costs = {**costs, group.unit: costs.get(group.unit, Cost()) + group.cost}
        return Line(keys=self.keys, figures=self.figures + group.figures, costs=costs)


class RowPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the ledger as stored, newest first. ``before``: of the next page; None at the end."""

    rows: list[dict[str, Any]]
    before: datetime | None = None


class Reports(Protocol):
    """Where the ledger is read. Every method raises StoreUnavailable."""

    @property
    def zone(self) -> str:
        """Time zone of days and months that name none."""

    def groups(self, by: Sequence[Dimension], where: Filter, zone: str | None = None) -> AsyncGenerator[Group, None]:
        """Sums by dimensions and currency, in the order of the dimensions. Raises InvalidRequest for a bad zone."""

    async def rows(self, where: Filter, limit: int, before: datetime | None = None) -> RowPage:
        """Rows and corrections. Those of one moment come on one page, which may be longer than ``limit`` by them."""

    async def found(self, named: str) -> list[dict[str, Any]]:
        """The row of that id, or all rows of the request of that id, with their corrections; oldest first."""

    async def lifetimes(self, where: Filter) -> list[Lifetime]:
        """All accounts, former ones too, with what they delivered within ``since`` and ``until``."""


def moment(text: str, zone: ZoneInfo, *, end: bool = False) -> datetime:
    """A date or a time of day in ISO 8601; without an offset in ``zone``. A date that is an ``end`` includes its day.

    Raises ValueError.
    """
    text = text.strip()
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text)
            return first_of(day + timedelta(days=1) if end else day, zone)
        at = datetime.fromisoformat(text)
        return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("write a date as 2026-11-01 or a time as 2026-11-01T08:00:00Z") from None


def first_of(day: date, zone: ZoneInfo) -> datetime:
    """When a local day begins: at midnight, or after it where the clocks are put forward at midnight."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


async def collected(groups: AsyncGenerator[Group, None], limit: int) -> tuple[list[Line], bool]:
    """The first ``limit`` lines, and whether there are more. ``groups`` come in the order of their keys."""
    lines: list[Line] = []
    async for group in groups:
        if lines and lines[-1].keys == group.keys:
            lines[-1] = lines[-1].plus(group)
        elif len(lines) == limit:
            return lines, True
        else:
            lines.append(Line(keys=group.keys).plus(group))
    return lines, False


def total(lines: Iterable[Line]) -> Line:
    """All lines in one."""
    figures, costs = Figures(), dict[str, Cost]()
    for line in lines:
        figures += line.figures
        for unit, cost in line.costs.items():
            costs[unit] = costs.get(unit, Cost()) + cost
    return Line(keys=(), figures=figures, costs=costs)


def csv_heads(by: Sequence[Dimension], named: Sequence[Dimension]) -> list[str]:
    """Columns of a report: dimensions, names of those that have names, figures, currency and amounts."""
    return [
        *by,
        *(f"{each}_name" for each in named),
        *Figures.__struct_fields__,
        *("currency", "raw_cost", "billed_cost", "corrected_cost"),
    ]


def csv_cells(group: Group, names: Sequence[str | None]) -> list[Any]:
    """One line of a report for each currency: counts belong to that currency alone, so that columns add up."""
    unit, costs = group.unit, (group.cost.raw, group.cost.billed, group.cost.corrected)
    amounts = [None] * 3 if unit is None else [decimal_of(each, unit) for each in costs]
    return [*group.keys, *names, *asdict(group.figures).values(), unit, *amounts]


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """RFC 4180. Texts that a spreadsheet would take for a formula have ' in front; numbers stay numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_cell(each) for each in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return value.isoformat() if isinstance(value, datetime) else value
