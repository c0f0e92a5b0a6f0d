"""The operator's routes under /admin, all behind one check of the admin key."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from poe_gateway.api.admin import accounts, keys, pool
from poe_gateway.api.deps import AdminRoute, errors, require_admin


def router() -> APIRouter:
    """All of /admin. Each part spells its paths in full: they are the labels of logs and metrics."""
    routes = APIRouter(
        dependencies=[Depends(require_admin)],
        responses=errors(401, 503),
        route_class=AdminRoute,
    )
    for part in (pool.router(), accounts.router(), keys.router()):
        routes.include_router(part)
    return routes
