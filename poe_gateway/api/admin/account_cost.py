"""``GET /admin/accounts/cost``: what accounts cost for what they delivered, and how long they last."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from poe_gateway.api.admin.usage import Rooms, Since, Until, Zone
from poe_gateway.api.deps import AdminRoute, errors
from poe_gateway.api.figures import period
from poe_gateway.metering.account_cost import CostBy, CostLine, Price, cost_lines
from poe_gateway.metering.reports import Filter
from poe_gateway.money import shown


class PriceView(BaseModel):
    """Accounts that were paid in one currency."""

    accounts: int
    paid: str = Field(description="decimal number")
    points: int = Field(description="delivered by them")
    per_1000_points: str | None = Field(description="decimal number; null while they delivered nothing")


class SurvivalView(BaseModel):
    """How many of those that are old enough to tell were in service after so many days."""

    days: int
    of: int
    alive: int
    share: str = Field(description="from 0 to 1")


class AccountCostView(BaseModel):
    """Accounts that belong together."""

    group: str | None = Field(description="account id, batch or vendor; null: those without one")
    name: str | None = Field(description="of an account that is not deleted")
    accounts: int
    in_service: int
    deleted: int
    invalid: int = Field(description="out of service as of now; may come back")
    expired: int = Field(description="in service beyond the end that the operator gave them")
    points: int = Field(description="delivered, by the ledger")
    requests: int
    attempts: int
    days: str = Field(description="in service, of all accounts together")
    prices: dict[str, PriceView] = Field(description="by currency; accounts without a price are in none")
    survival: list[SurvivalView]


class AccountCostList(BaseModel):
    """The report."""

    by: CostBy
    at: datetime
    since: datetime | None = Field(alias="from", description="points and requests from then on; null: ever")
    until: datetime | None = Field(alias="to")
    truncated: bool
    data: list[AccountCostView]


async def cost(
    rooms: Rooms,
    by: CostBy = "account",
    since: Since = None,
    until: Until = None,
    zone: Zone = None,
    provider: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> AccountCostList:
    """Price, points delivered, cost of 1,000 points, and survival, by account, batch or vendor.

    Without `from` the whole ledger counts, as far as LEDGER_DAYS keeps it. The end of an account that is invalid and
    not deleted is an estimate: it counts from the moment its present state began. An account without a date of
    purchase begins when the gateway first saw it. Accounts that were deleted before this version left no trace.
    """
    now = rooms.clock.now()
    over = period(since, until, zone or rooms.reports.zone, now)
    where = Filter(
        since=None if since is None else over.since, until=None if until is None else over.until, provider=provider
    )
    lines = cost_lines(await rooms.reports.lifetimes(where), by, now)
    return AccountCostList(
        by=by,
        at=now,
        truncated=len(lines) > limit,
        data=[_line(each) for each in lines[:limit]],
        **{"from": where.since, "to": where.until},
    )


def _line(line: CostLine) -> AccountCostView:
    return AccountCostView(
        group=line.group,
        name=line.name,
        accounts=line.accounts,
        in_service=line.in_service,
        deleted=line.deleted,
        invalid=line.invalid,
        expired=line.expired,
        points=line.points,
        requests=line.requests,
        attempts=line.attempts,
        days=f"{line.days:f}",
        prices={unit: _price(unit, price) for unit, price in sorted(line.prices.items())},
        survival=[
            SurvivalView(days=each.days, of=each.of, alive=each.alive, share=f"{each.share:f}")
            for each in line.survival
        ],
    )


def _price(unit: str, price: Price) -> PriceView:
    cost = price.per_1000(unit)
    return PriceView(
        accounts=price.accounts,
        paid=shown(price.amount, unit),
        points=price.points,
        per_1000_points=None if cost is None else f"{cost:f}",
    )


def router() -> APIRouter:
    """Comes before the routes on single accounts, whose paths would catch this one."""
    routes = APIRouter(prefix="/admin", tags=["admin: usage"], route_class=AdminRoute)
    routes.add_api_route("/accounts/cost", cost, methods=["GET"], responses=errors(400, 422))
    return routes
