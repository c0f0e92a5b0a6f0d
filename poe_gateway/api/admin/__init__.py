"""The operator's routes under /admin, all behind one check of the admin key."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from poe_gateway.api.admin import accounts, affinity, census, explain, keys, outlook, pool
from poe_gateway.api.deps import AdminRoute, errors, require_admin


def router() -> APIRouter:
    """All of /admin. Each part spells its paths in full: they are the labels of logs and metrics."""
    routes = APIRouter(
        dependencies=[Depends(require_admin)],
        responses=errors(401, 503),
        route_class=AdminRoute,
    )
    for part in (pool, census, outlook, explain, accounts, affinity, keys):
        routes.include_router(part.router())
    return routes
