"""Routes on the routing table: what is in force, and reading it anew."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.routing.health import Standing
from poe_gateway.routing.table import Table


class Outcome(Protocol):
    """How a reload went."""

    @property
    def changed(self) -> bool: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


class RoutingFile(Protocol):
    """The table of this process, and where it came from."""

    @property
    def table(self) -> Table: ...
    @property
    def files(self) -> tuple[Path, ...]: ...
    @property
    def loaded_at(self) -> datetime | None: ...
    @property
    def problems(self) -> tuple[str, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    def missing(self) -> tuple[str, ...]: ...
    async def reload(self) -> Outcome: ...


class RoutesRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def routes(self) -> RoutingFile: ...
    def backends_health(self) -> Mapping[str, Standing]: ...


Rooms = Annotated[RoutesRooms, Depends(gateway)]


class ReloadedView(BaseModel):
    """The table after the reload, in the answering process; the others take it up within seconds."""

    changed: bool
    digest: str = Field(description="the same on every process that serves the same")
    loaded_at: datetime | None
    missing: list[str] = Field(description="variables and files that should hold a key and do not")
    warnings: list[str]


class BackendHealthView(BaseModel):
    """How a backend answered lately, as the answering process saw it."""

    samples: int
    error_rate: float
    healthy: bool


class RoutesView(BaseModel):
    """The routing table in force in the answering process."""

    digest: str = Field(description="the same on every process that serves the same")
    loaded_at: datetime | None
    files: list[str] = Field(description="in the order in which they were put together")
    problems: list[str] = Field(description="of the last try; while there are any, the table before stays")
    warnings: list[str]
    missing: list[str] = Field(description="variables and files that should hold a key and do not")
    health: dict[str, BackendHealthView] = Field(description="by backend; only those that were asked lately")
    table: dict[str, Any] = Field(description="keys by the name of their variable or file, never themselves")


async def reload(request: Request, rooms: Rooms) -> ReloadedView:
    """Read the routing file now. Any mistake in it is answered with 422, and the table before stays in force.

    It is read by itself too, within seconds of any change.
    """
    before = rooms.routes.table.digest
    outcome = await rooms.routes.reload()
    table = rooms.routes.table
    audited(
        request,
        "routes.reload",
        "routes",
        before={"table": before},
        after={"table": table.digest, "changed": outcome.changed},
    )
    return ReloadedView(
        changed=outcome.changed,
        digest=table.digest,
        loaded_at=rooms.routes.loaded_at,
        missing=list(rooms.routes.missing()),
        warnings=list(outcome.warnings),
    )


async def routes(rooms: Rooms) -> RoutesView:
    """Backends, tiers, aliases, profiles and clients in force, and how the backends do."""
    held = rooms.routes
    return RoutesView(
        digest=held.table.digest,
        loaded_at=held.loaded_at,
        files=[str(path) for path in held.files],
        problems=list(held.problems),
        warnings=list(held.warnings),
        missing=list(held.missing()),
        health={
            name: BackendHealthView(samples=each.samples, error_rate=round(each.error_rate, 3), healthy=each.healthy)
            for name, each in rooms.backends_health().items()
        },
        table=msgspec.to_builtins(held.table),
    )


def router() -> APIRouter:
    """Routes under /admin."""
    part = APIRouter(prefix="/admin", tags=["admin: routing"], route_class=AdminRoute)
    part.add_api_route("/reload", reload, methods=["POST"], responses=errors(422))
    part.add_api_route("/routes", routes, methods=["GET"])
    return part
