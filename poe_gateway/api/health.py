"""Liveness, readiness, metrics and the index: what probes and people ask first."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from poe_gateway import __version__
from poe_gateway.errors import Unavailable
from poe_gateway.pool.store import StoreUnavailable

_PATIENCE = 2.0
"""Seconds that the database may take to answer a readiness probe."""


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
    gateway = request.app.state.gateway
    if gateway.draining:
        raise Unavailable("The gateway is shutting down.", code="draining")
    try:
        async with asyncio.timeout(_PATIENCE):
            await gateway.ping()
    except (StoreUnavailable, TimeoutError):
        raise Unavailable("The database is not reachable.", code="database_unavailable", retry_after=5) from None
    ready = gateway.broker.ready_accounts()
    if not ready:
        raise Unavailable("No ready accounts in pool", code="no_ready_accounts")
    return Ready(ready_accounts=ready)


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
            "models": "/v1/models",
            "health": ["/healthz", "/readyz"],
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
    routes.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    return routes
