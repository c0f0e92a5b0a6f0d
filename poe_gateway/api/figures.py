"""How sums of the ledger are asked for and shown, to operators and to keys alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from pydantic import BaseModel, Field

from poe_gateway.errors import InvalidRequest
from poe_gateway.metering.reports import Dimension, Line, first_of, moment
from poe_gateway.money import shown

_DAYS = 30
"""Of a report whose beginning is not given."""


class CostView(BaseModel):
    """Amounts of one currency: decimal numbers in text."""

    raw: str = Field(description="what upstreams ask")
    billed: str = Field(description="with markup")
    corrected: str = Field(description="part of `billed` that corrections brought")


class FiguresView(BaseModel):
    """Counts and sums. Corrections are within the sums, at the moment of the attempt that they correct."""

    requests: int = Field(description="attempts that were the first of their request")
    attempts: int
    succeeded: int
    failed: int
    cancelled: int
    orphaned: int = Field(description="attempts whose end nobody saw")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    points: int
    unpriced: int = Field(description="successes whose cost in money is not known")
    corrections: int
    corrected_points: int = Field(description="part of `points` that corrections brought")
    cost: dict[str, CostView] = Field(description="by currency; currencies are never added to each other")


class LineView(FiguresView):
    """Sums of what agrees in all dimensions."""

    group: dict[str, str | None] = Field(description="value of each dimension")
    names: dict[str, str] = Field(default={}, description="what keys, organisations and accounts are called, if known")


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is over."""

    since: datetime
    until: datetime
    zone: str


def period(since: str | None, until: str | None, zone: str, now: datetime) -> Period:
    """From two texts. Without an end: now. Without a beginning: whole days, 30 of them with the last.

    Raises InvalidRequest.
    """
    try:
        local = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # an unknown zone is a KeyError, a path or a folder one of the others
        raise InvalidRequest("This time zone is not known.", param="zone") from None
    # The newest row may bear this very moment.
    end = now + timedelta(seconds=1) if until is None else moment_of(until, local, "to", end=True)
    if since is None:
        last = (end - timedelta(microseconds=1)).astimezone(local).date()
        try:
            begin = first_of(last - timedelta(days=_DAYS - 1), local)
        except OverflowError:
            begin = datetime.min.replace(tzinfo=UTC)
    else:
        begin = moment_of(since, local, "from")
    if begin >= end:
        raise InvalidRequest("The end must come after the beginning.", param="to")
    return Period(since=begin, until=end, zone=zone)


def moment_of(text: str, zone: ZoneInfo, param: str, *, end: bool = False) -> datetime:
    """See ``metering.reports.moment``. Raises InvalidRequest naming ``param``."""
    try:
        return moment(text, zone, end=end)
    except ValueError as error:
        raise InvalidRequest(f"{param}: {error}.", param=param) from None


def line_view(by: Sequence[Dimension], line: Line, names: Mapping[str, str] | None = None) -> LineView:
    """One line."""
    group = {str(each): key for each, key in zip(by, line.keys, strict=True)}
    return LineView(group=group, names=dict(names or {}), **_figures(line))


def figures_view(line: Line) -> FiguresView:
    """One line without its keys."""
    return FiguresView(**_figures(line))


def _figures(line: Line) -> dict[str, Any]:
    costs = {
        unit: CostView(
            raw=shown(cost.raw, unit), billed=shown(cost.billed, unit), corrected=shown(cost.corrected, unit)
        )
        for unit, cost in sorted(line.costs.items())
    }
    return {**msgspec.structs.asdict(line.figures), "cost": costs}
