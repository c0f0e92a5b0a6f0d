"""``/v1/key`` and ``/v1/usage``: what a key may do, what is left of it, and what it used. Never another key's."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Annotated, Literal, Protocol, cast

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from poe_gateway.api.callers import caller_of
from poe_gateway.api.deps import Gateway, errors
from poe_gateway.api.figures import FiguresView, LineView, figures_view, line_view, period
from poe_gateway.auth.keys import Principal
from poe_gateway.errors import InvalidRequest
from poe_gateway.limits.bucket import Ask, Standing, standing
from poe_gateway.limits.store import BucketStore
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.reports import Filter, Reports, collected, total
from poe_gateway.money import shown

_LINES = 1_000
_LONGEST = timedelta(days=400)
_UNPRICED = {
    "allow": "Requests to a model without a known price count as free under budgets in money.",
    "refuse": "Requests to a model without a known price are refused under budgets in money.",
}


class OwnRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def reports(self) -> Reports: ...
    @property
    def buckets(self) -> BucketStore: ...
    @property
    def windows(self) -> Windows: ...
    @property
    def unpriced(self) -> str: ...


class LimitView(BaseModel):
    """One limit that the key's requests count against."""

    scope: Literal["key", "org"] = Field(description="whose limit; an organisation's counts all of its keys")
    what: Literal["requests", "tokens", "parallel"]
    per: Literal["minute", "hour", "day"] | None = Field(description="the period, which slides; null for parallel")
    limit: int
    used: int = Field(description="within the period that ends now; parallel: in use")
    reserved: int = Field(description="held by gateway processes for requests under way or about to come")
    remaining: int
    reset_seconds: float | None = Field(description="until it is unused again if nothing more comes; null for parallel")


class BudgetView(BaseModel):
    """One budget that the key's requests are paid from. Amounts are decimal numbers in text."""

    scope: Literal["key", "org"]
    unit: str = Field(description="a currency, or points")
    period: Literal["day", "month", "total"]
    amount: str
    spent: str
    reserved: str = Field(description="held by gateway processes for requests under way or about to come")
    remaining: str
    resets_at: datetime | None = Field(description="null: never")


class OwnKeyView(BaseModel):
    """The key that asks."""

    id: str
    name: str
    org: str = Field(description="id of its organisation")
    expires_at: datetime | None
    models: list[str] = Field(description="patterns of the models that it may use; empty for all")
    limits: list[LimitView]
    budgets: list[BudgetView]
    unpriced: str = Field(description="what becomes of requests whose price nobody knows")


class OwnUsageView(BaseModel):
    """What the key used."""

    by: Literal["day", "model"]
    zone: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to", description="not within")
    truncated: bool = Field(description="there are more lines; `total` is of those that are here")
    total: FiguresView
    data: list[LineView]


async def own_key(request: Request) -> OwnKeyView:
    """Limits and budgets of the key that asks, with what is used and what is left.

    Limits of the whole gateway are not told: what others use is not the key's business.
    """
    rooms, principal = await _admitted(request)
    now = rooms.clock.now()
    asks = _asks(rooms, principal, now)
    known = await rooms.buckets.read([ask.bucket.id for ask in asks])
    told = [(ask, standing(ask.bucket, known.get(ask.bucket.id), ask.cap, now)) for ask in asks]
    return OwnKeyView(
        id=principal.key_id,
        name=principal.name,
        org=principal.org,
        expires_at=principal.expires_at,
        models=list(principal.models),
        limits=[_limit(ask, each) for ask, each in told if ask.bucket.kind != "budget"],
        budgets=[_budget(ask, each, now) for ask, each in told if ask.bucket.kind == "budget"],
        unpriced=_UNPRICED[rooms.unpriced],
    )


def _asks(rooms: OwnRooms, principal: Principal, now: datetime) -> list[Ask]:
    asks = rooms.windows.asks(principal.scopes, now, tokens=0, amount=lambda unit, cap: 0)
    return [ask for ask in asks if ask.bucket.id.split("|")[1] != "global"]


def _limit(ask: Ask, told: Standing) -> LimitView:
    parts = ask.bucket.id.split("|")
    return LimitView.model_validate(
        {
            "scope": parts[1],
            "what": "parallel" if ask.bucket.kind == "parallel" else parts[3],
            "per": ask.bucket.rate,
            "limit": told.cap,
            "used": told.spent,
            "reserved": told.reserved,
            "remaining": max(0, told.remaining),
            "reset_seconds": None if ask.bucket.kind == "parallel" else told.resets_in or 0.0,
        }
    )


def _budget(ask: Ask, told: Standing, now: datetime) -> BudgetView:
    _, scope, _, unit, *_ = ask.bucket.id.split("|")
    return BudgetView.model_validate(
        {
            "scope": scope,
            "unit": unit,
            "period": ask.bucket.budget,
            "amount": shown(told.cap, unit),
            "spent": shown(told.spent, unit),
            "reserved": shown(told.reserved, unit),
            "remaining": shown(max(0, told.remaining), unit),
            "resets_at": None if told.resets_in is None else now + timedelta(seconds=told.resets_in),
        }
    )


async def own_usage(
    request: Request,
    by: Literal["day", "model"] = "day",
    since: Annotated[
        str | None, Query(alias="from", max_length=40, description="a date or a time; default: 30 days with the last")
    ] = None,
    until: Annotated[
        str | None,
        Query(alias="to", max_length=40, description="a date, which is then within, or a time; default: now"),
    ] = None,
) -> OwnUsageView:
    """What the key that asks used and what it cost, by day or model."""
    rooms, principal = await _admitted(request)
    over = period(since, until, rooms.reports.zone, rooms.clock.now())
    if over.until - over.since > _LONGEST:
        raise InvalidRequest(f"Ask for at most {_LONGEST.days} days at a time.", param="from")
    where = Filter(since=over.since, until=over.until, key=principal.key_id)
    async with aclosing(rooms.reports.groups((by,), where, over.zone)) as groups:
        lines, truncated = await collected(groups, _LINES)
    return OwnUsageView(
        by=by,
        zone=over.zone,
        truncated=truncated,
        total=figures_view(total(lines)),
        data=[line_view((by,), line) for line in lines],
        **{"from": over.since, "to": over.until},
    )


async def _admitted(request: Request) -> tuple[OwnRooms, Principal]:
    rooms = cast(OwnRooms, request.app.state.gateway)
    return rooms, await caller_of(request, rooms.keyring)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["key"])
    routes.add_api_route("/v1/key", own_key, methods=["GET"], responses=errors(401, 403, 429, 503))
    routes.add_api_route("/v1/usage", own_usage, methods=["GET"], responses=errors(400, 401, 403, 422, 429, 503))
    return routes
