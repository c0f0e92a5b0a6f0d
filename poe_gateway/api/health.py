"""Liveness, readiness, status, metrics and the index: what probes and people ask first."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from poe_gateway import __version__
from poe_gateway.api.deps import Gateway, gateway
from poe_gateway.api.status import SETUP_URL, Status, request_counts
from poe_gateway.errors import Unavailable
from poe_gateway.pool.store import StoreUnavailable

_PATIENCE = 2.0
"""Seconds that the database may take to answer a readiness probe."""
_STATUS_AGE = 1.0
"""Seconds for which a status is told again: anybody may ask, as often as he likes."""


class Routes(Protocol):
    """The routing file."""

    def missing(self) -> tuple[str, ...]:
        """Names of variables and files that it wants a key from and that hold none."""


class ProbedRooms(Gateway, Protocol):
    """What these routes ask of the process."""

    @property
    def draining(self) -> bool: ...
    @property
    def routes(self) -> Routes: ...
    @property
    def started(self) -> float:
        """When the process began, on its monotonic clock."""

    async def ping(self) -> None: ...
    def exposition(self) -> tuple[bytes, str]: ...


class Alive(BaseModel):
    """The process runs."""

    status: str = "ok"


class Ready(BaseModel):
    """The gateway can serve."""

    status: str = "ready"
    ready_accounts: int


async def healthz() -> Alive:
    """Liveness: answers as long as the process runs, whatever it depends on."""
    return Alive()


async def readyz(request: Request) -> Ready:
    """Readiness: the database answers and at least one account may serve. 503 otherwise, and while shutting down."""
    return Ready(ready_accounts=await _ready_accounts(request.app.state.gateway))


async def _ready_accounts(rooms: ProbedRooms) -> int:
    """How many accounts may serve. Raises Unavailable when the gateway cannot."""
    if rooms.draining:
        raise Unavailable("The gateway is shutting down.", code="draining")
    try:
        async with asyncio.timeout(_PATIENCE):
            await rooms.ping()
    except (StoreUnavailable, TimeoutError):
        raise Unavailable("The database is not reachable.", code="database_unavailable", retry_after=5) from None
    ready = rooms.broker.ready_accounts()
    if not ready:
        raise Unavailable("No ready accounts in pool", code="no_ready_accounts")
    return ready


class StatusPage:
    """``/status``. What it costs to know is paid once in ``_STATUS_AGE``, however many ask."""

    def __init__(self) -> None:
        self._reading = asyncio.Lock()
        self._known: Status | None = None
        self._read_at = 0.0

    async def status(self, request: Request) -> Status:
        """How it goes: whether requests can be served, and how many were. For everybody; 200 whenever it answers.

        What to do when `ready` is false:

        - `missing` names something: put the key into that variable (of the configuration file) or that file. It is in
          force within seconds. Variables of the process environment need a restart.
        - `missing` is empty: ask `/readyz`, which says whether the database is away, the gateway is shutting down, or
          no account is in service. Accounts are added with `POST /admin/accounts/upsert`; what is wrong with those
          that are there tells `GET /admin/accounts`.
        """
        rooms = cast(ProbedRooms, gateway(request))
        async with self._reading:
            now = rooms.clock.monotonic()
            if self._known is None or now - self._read_at >= _STATUS_AGE:
                self._known, self._read_at = await self._read(rooms), now
            return self._known

    @staticmethod
    async def _read(rooms: ProbedRooms) -> Status:
        missing = list(rooms.routes.missing())
        try:
            ready = await _ready_accounts(rooms) > 0 and not missing
        except Unavailable:
            ready = False
        body, _ = await asyncio.to_thread(rooms.exposition)
        return Status(
            ready=ready,
            uptime_secs=int(rooms.clock.monotonic() - rooms.started),
            version=__version__,
            requests=request_counts(body),
            missing=None if ready else missing,
            setup_url=None if ready else SETUP_URL,
        )


async def metrics(request: Request) -> Response:
    """Prometheus metrics over all worker processes."""
    # Figures of several processes are read from files.
    body, content_type = await asyncio.to_thread(request.app.state.gateway.exposition)
    return Response(body, media_type=content_type)


async def index() -> dict[str, Any]:
    """What this is and where to go on."""
    return {
        "name": "poe_gateway",
        "version": __version__,
        "endpoints": {
            "chat": "/v1/chat/completions",
            "responses": "/v1/responses",
            "messages": "/v1/messages",
            "embeddings": "/v1/embeddings",
            "images": ["/v1/images/generations", "/v1/images/edits"],
            "ollama": ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/tags"],
            "models": "/v1/models",
            "health": ["/healthz", "/readyz", "/status"],
            "metrics": "/metrics",
            "docs": "/docs",
        },
    }


def router() -> APIRouter:
    """Routes that ask for no key."""
    routes = APIRouter(tags=["health"])
    routes.add_api_route("/", index, methods=["GET"])
    routes.add_api_route("/healthz", healthz, methods=["GET"])
    routes.add_api_route("/health", healthz, methods=["GET"])
    routes.add_api_route("/readyz", readyz, methods=["GET"])
    routes.add_api_route(
        "/status", StatusPage().status, methods=["GET"], response_model_exclude_none=True, operation_id="status"
    )
    routes.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    return routes
