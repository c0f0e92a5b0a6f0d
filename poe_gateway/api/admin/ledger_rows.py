"""``GET /admin/ledger``: single attempts and their corrections."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query, Request
from msgspec import to_builtins
from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.admin.usage import (
    KeyName,
    Name,
    Naming,
    OrgName,
    Rooms,
    Since,
    Until,
    Zone,
    key_id,
    names_of,
    org_id,
)
from poe_gateway.api.deps import AdminRoute, errors
from poe_gateway.api.deps import Rooms as GatewayRooms
from poe_gateway.api.figures import moment_of, period
from poe_gateway.errors import NotFound
from poe_gateway.metering.reports import Filter
from poe_gateway.money import POINTS, shown


class ChargeView(BaseModel):
    """What a row put on a budget."""

    budget: str
    unit: str
    amount: str


class RowView(BaseModel):
    """One attempt, or the correction of one (then amounts are differences)."""

    id: str
    status: str = Field(description="succeeded, failed, cancelled, orphaned or correction")
    request_id: str | None
    attempt: int | None
    at: datetime = Field(description="when the attempt began; of a correction: the same as of its row")
    ended_at: datetime | None
    org: str
    key: str
    account: str | None
    names: dict[str, str] = Field(description="what they are called now, if known")
    provider: str
    offer: str | None
    model: str
    target: str | None = Field(description="the upstream's name of the model")
    stream: bool | None
    outcome: str | None
    fate: str | None
    error_code: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    tokens_estimated: bool | None
    points: int | None
    points_estimated: bool | None
    currency: str | None
    raw_cost: str | None
    billed_cost: str | None
    cost_source: str | None = Field(description="upstream, rule or estimate")
    price_rule: str | None
    upstream_id: str | None
    seconds: float | None
    charges: list[ChargeView]
    corrects: str | None = Field(description="id of the row that this corrects")
    corrected_at: datetime | None
    reason: str | None


class RowPageView(BaseModel):
    """Rows, newest first."""

    before: datetime | None = Field(description="`before` of the next page; null at the end")
    data: list[RowView]


class RowList(BaseModel):
    """Rows, oldest first."""

    data: list[RowView]


async def rows(
    rooms: Rooms,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    before: Annotated[str | None, Query(max_length=40, description="`before` of the last page")] = None,
    since: Since = None,
    until: Until = None,
    zone: Zone = None,
    org: OrgName = None,
    key: KeyName = None,
    model: Name = None,
    account: Annotated[str | None, Query(max_length=254, description="id of an account")] = None,
    provider: Name = None,
    status: Annotated[str | None, Query(max_length=20)] = None,
    request: Annotated[str | None, Query(max_length=254, description="id of a request")] = None,
) -> RowPageView:
    """Rows of the ledger, newest first. Those of one moment come on one page, which may be longer than `limit`."""
    over = period(since, until, zone or rooms.reports.zone, rooms.clock.now())
    last = None if before is None else moment_of(before, ZoneInfo(over.zone), "before")
    where = Filter(
        since=None if since is None else over.since,
        until=None if until is None else over.until,
        org=org_id(rooms, org),
        key=key_id(rooms, key),
        model=model,
        account=account,
        provider=provider,
        status=status,
        request=request,
    )
    page = await rooms.reports.rows(where, limit, last)
    name = names_of(rooms)
    return RowPageView(before=page.before, data=[_row(each, name) for each in page.rows])


async def row(named: Annotated[str, Path(max_length=254)], rooms: Rooms) -> RowList:
    """A row by its id, or all rows of a request by its `x-request-id`; each with its correction."""
    found = await rooms.reports.found(named)
    if not found:
        raise NotFound("The ledger has no such row or request.", code="ledger_row_not_found")
    name = names_of(rooms)
    return RowList(data=[_row(each, name) for each in found])


def _row(document: dict[str, Any], name: Naming) -> RowView:
    unit = document.get("unit")
    ids = {"org": document["org"], "key": document["key_id"], "account": document["account_id"]}
    given: dict[str, Any] = {field: document.get(field) for field in RowView.model_fields}
    amounts = {
        field: None if unit is None or (amount := document.get(field)) is None else shown(amount, unit)
        for field in ("raw_cost", "billed_cost")
    }
    return RowView(
        **{
            **given,
            **ids,
            **amounts,
            "id": document["_id"],
            "names": {each: text for each, key in ids.items() if (text := name(each, key)) is not None},
            "currency": unit,
            "charges": [_charge(each["b"], each["n"]) for each in document.get("charges") or ()],
        }
    )


def _charge(bucket: str, amount: int) -> ChargeView:
    parts = bucket.split("|")
    unit = parts[3] if len(parts) > 3 else POINTS
    return ChargeView(budget=bucket, unit=unit, amount=shown(amount, unit))


class ReconcileForm(BaseModel):
    """Which books to compare with the ledger; nothing given: all."""

    model_config = ConfigDict(extra="forbid")

    accounts: list[str] | None = Field(default=None, max_length=10_000, description="ids")
    older_than_seconds: float | None = Field(
        default=None, ge=0, le=86_400 * 30, description="younger attempts are left alone; 120 by default"
    )


class ReconcileView(BaseModel):
    """What the upstreams' own books said."""

    accounts: int = Field(description="whose books were read")
    rows: int = Field(description="that were compared")
    corrected: int = Field(description="rows for which a correction was written")
    unseen: int = Field(description="of those, attempts that never reached the upstream")
    foreign: int = Field(description="entries that are not ours")
    foreign_points: int
    missing: int = Field(description="rows that the upstream answered and its book does not have")
    missing_points: int
    shared: list[str] = Field(description="accounts whose books have entries in common")
    undecided: list[str] = Field(description="orphaned rows of accounts without books: they stay charged as reserved")
    failures: dict[str, str]


async def reconcile(request: Request, rooms: GatewayRooms, form: ReconcileForm | None = None) -> ReconcileView:
    """Compare the upstreams' own books with the ledger now; what differs is corrected by new rows."""
    form = form or ReconcileForm()
    settled = None if form.older_than_seconds is None else timedelta(seconds=form.older_than_seconds)
    report = await rooms.books.reconcile(form.accounts, settled=settled)
    audited(request, "ledger.reconcile", "ledger", after={"corrected": report.corrected, "unseen": report.unseen})
    return ReconcileView(**to_builtins(report))


def router() -> APIRouter:
    """Under /admin."""
    routes = APIRouter(prefix="/admin", tags=["admin: usage"], route_class=AdminRoute)
    routes.add_api_route("/ledger", rows, methods=["GET"], responses=errors(400, 422))
    routes.add_api_route("/ledger/reconcile", reconcile, methods=["POST"], responses=errors(422))
    routes.add_api_route("/ledger/{named}", row, methods=["GET"], responses=errors(404, 422))
    return routes
