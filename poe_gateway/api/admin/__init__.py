"""The operator's routes under /admin, all behind one check of the admin key."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from poe_gateway.api.admin import (
    account_cost,
    accounts,
    affinity,
    audit,
    census,
    explain,
    keys,
    ledger_rows,
    orgs,
    outlook,
    pool,
    prices,
    reload,
    usage,
)
from poe_gateway.api.deps import AdminRoute, errors, require_admin

_PARTS = (
    *(pool, census, outlook, explain),
    account_cost,  # before the accounts: its address looks like one of theirs
    *(accounts, affinity, keys, orgs, prices, usage, ledger_rows, audit, reload),
)


def router() -> APIRouter:
    """All of /admin. Each part spells its paths in full: they are the labels of logs and metrics."""
    routes = APIRouter(
        dependencies=[Depends(require_admin)],
        responses=errors(401, 429, 503),
        route_class=AdminRoute,
    )
    for part in _PARTS:
        routes.include_router(part.router())
    return routes
