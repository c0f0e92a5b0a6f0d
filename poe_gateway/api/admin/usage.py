"""``GET /admin/usage``: what was used and what it cost, as JSON or CSV."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, get_args

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.api.figures import FiguresView, LineView, figures_view, line_view, period
from poe_gateway.errors import InvalidRequest
from poe_gateway.metering.reports import (
    MOST_DIMENSIONS,
    Dimension,
    Filter,
    Group,
    Reports,
    collected,
    csv_cells,
    csv_heads,
    csv_text,
    total,
)

CSV = "text/csv"
_LINES = 500
"""Lines of a CSV that are sent at a time."""
_NAMED: tuple[Dimension, ...] = ("org", "key", "account")


class Books(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def reports(self) -> Reports: ...


Rooms = Annotated[Books, Depends(gateway)]
Name = Annotated[str | None, Query(max_length=254)]
OrgName = Annotated[str | None, Query(max_length=254, description="id or name of an organisation")]
KeyName = Annotated[str | None, Query(max_length=254, description="id or name of a service key")]
Since = Annotated[
    str | None,
    Query(alias="from", max_length=40, description="a date, or a time in ISO 8601; default: 30 days with the last"),
]
Until = Annotated[
    str | None, Query(alias="to", max_length=40, description="a date, which is then within, or a time; default: now")
]
Zone = Annotated[
    str | None, Query(max_length=64, description="in which days begin, as Europe/Berlin; default: BUDGET_TIMEZONE")
]


class UsageView(BaseModel):
    """A report."""

    by: list[str]
    zone: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to", description="not within")
    truncated: bool = Field(description="there are more lines than asked for")
    total: FiguresView = Field(description="of all lines, those too that are not here")
    data: list[LineView]


async def usage(
    rooms: Rooms,
    by: Annotated[
        str,
        Query(
            max_length=100,
            description=f"up to {MOST_DIMENSIONS} of {', '.join(get_args(Dimension))}, with commas between them",
        ),
    ] = "day",
    since: Since = None,
    until: Until = None,
    zone: Zone = None,
    org: OrgName = None,
    key: KeyName = None,
    model: Name = None,
    account: Annotated[str | None, Query(max_length=254, description="id of an account")] = None,
    provider: Name = None,
    status: Annotated[str | None, Query(max_length=20, description="of the rows; leaves out corrections")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="lines; a CSV has all of them")] = 1_000,
    format: Literal["json", "csv"] = "json",
) -> Any:
    """What was used and what it cost, by up to three dimensions.

    A CSV has one line for each currency of a group, and rows without a price in one of their own: its columns add up.
    The newest attempts appear within a second; those of a process that could not reach the database come later.
    """
    dimensions = _dimensions(by)
    over = period(since, until, zone or rooms.reports.zone, rooms.clock.now())
    where = Filter(
        since=over.since,
        until=over.until,
        org=org_id(rooms, org),
        key=key_id(rooms, key),
        model=model,
        account=account,
        provider=provider,
        status=status,
    )
    name = names_of(rooms)
    groups = rooms.reports.groups(dimensions, where, over.zone)
    if format == "csv":
        first = await anext(groups, None)  # a database that is away is told before anything is sent
        return StreamingResponse(
            _csv(dimensions, first, groups, name),
            media_type=CSV,
            headers={"content-disposition": f'attachment; filename="usage-by-{"-".join(dimensions)}.csv"'},
        )
    async with aclosing(groups):
        lines, truncated = await collected(groups, limit)
    whole = total(lines)
    if truncated:
        async with aclosing(rooms.reports.groups((), where, over.zone)) as sums:
            whole = total((await collected(sums, 1))[0])
    return UsageView(
        by=list(dimensions),
        zone=over.zone,
        truncated=truncated,
        total=figures_view(whole),
        data=[line_view(dimensions, line, _named(dimensions, line.keys, name)) for line in lines],
        **{"from": over.since, "to": over.until},
    )


def _dimensions(by: str) -> tuple[Dimension, ...]:
    known: tuple[Dimension, ...] = get_args(Dimension)
    asked = [each.strip() for each in by.split(",")]
    chosen = tuple(each for word in asked for each in known if each == word)
    if len(chosen) != len(asked) or len(set(chosen)) != len(chosen) or len(chosen) > MOST_DIMENSIONS:
        raise InvalidRequest(f"by: up to {MOST_DIMENSIONS} of {', '.join(known)}, each once.", param="by")
    return chosen


async def _csv(
    by: Sequence[Dimension], first: Group | None, groups: AsyncGenerator[Group, None], name: Naming
) -> AsyncGenerator[bytes, None]:
    named = [each for each in by if each in _NAMED]

    def cells(group: Group) -> list[Any]:
        return csv_cells(group, [name(each, key) for each, key in zip(by, group.keys, strict=True) if each in named])

    rows: list[Sequence[Any]] = [csv_heads(by, named), *([] if first is None else [cells(first)])]
    async with aclosing(groups):
        async for group in groups:
            rows.append(cells(group))
            if len(rows) >= _LINES:
                yield csv_text(rows).encode()
                rows.clear()
    yield csv_text(rows).encode()


def org_id(rooms: Gateway, named: str | None) -> str | None:
    """Id of an organisation that is named by its id or name. Raises InvalidRequest: no rows would look like no use."""
    if named is None or named.startswith("org_"):
        return named
    org = rooms.keyring.org(named)
    if org is None:
        raise InvalidRequest("There is no such organisation.", param="org", code="unknown_org")
    return org.id


def key_id(rooms: Gateway, named: str | None) -> str | None:
    """Id of a key that is named by its id or name, revoked ones too. Raises InvalidRequest."""
    if named is None or named.startswith("key_"):
        return named
    known = rooms.keyring.keys()
    found = [key.id for key in known if key.name == named]
    if not found:
        raise InvalidRequest("There is no such key.", param="key", code="unknown_key")
    if len(found) > 1:
        told = ", ".join(found[:10])
        raise InvalidRequest(f"Several keys have this name: {told}. Give the id.", param="key", code="ambiguous_key")
    return found[0]


Naming = Callable[[str, str | None], str | None]
"""Name of the key, organisation or account of an id."""


def names_of(rooms: Gateway) -> Naming:
    """What keys, organisations and accounts are called now."""
    known = rooms.keyring.keys()
    keys = {key.id: key.name for key in known}
    orgs = {org.id: org.name for org in rooms.keyring.orgs()}

    def name(dimension: str, identifier: str | None) -> str | None:
        if identifier is None:
            return None
        if dimension == "account":
            account = rooms.broker.account(identifier)
            return None if account is None else account.name
        return (keys if dimension == "key" else orgs).get(identifier)

    return name


def _named(dimensions: Iterable[Dimension], keys: Iterable[str | None], name: Naming) -> dict[str, str]:
    told = {each: name(each, key) for each, key in zip(dimensions, keys, strict=True) if each in _NAMED}
    return {each: text for each, text in told.items() if text is not None}


def router() -> APIRouter:
    """Under /admin."""
    routes = APIRouter(prefix="/admin", tags=["admin: usage"], route_class=AdminRoute)
    routes.add_api_route(
        "/usage",
        usage,
        methods=["GET"],
        response_model=UsageView,
        responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}, **errors(400, 422)},
    )
    return routes
