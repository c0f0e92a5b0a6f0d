"""Routes on organisations. Wherever one is named, its id or its name is taken."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.admin.caller_forms import OrgForm, OrgPatchForm
from poe_gateway.api.admin.caller_views import OrgList, OrgView, changed, shown_org
from poe_gateway.api.deps import AdminRoute, Gateway, Rooms, errors
from poe_gateway.auth.orgs import Org, OrgTerms
from poe_gateway.errors import NotFound

OrgId = Annotated[str, Path(max_length=100)]


async def orgs(rooms: Rooms) -> OrgList:
    """All organisations."""
    await rooms.keyring.refresh()
    return OrgList(data=[_shown(rooms, org) for org in rooms.keyring.orgs()])


async def get(org: OrgId, rooms: Rooms) -> OrgView:
    """One organisation."""
    return _shown(rooms, await _found(rooms, org))


async def create(request: Request, form: OrgForm, rooms: Rooms) -> OrgView:
    """Make an organisation."""
    org = await rooms.keyring.create_org(form.name, form.terms())
    view = _shown(rooms, org)
    audited(request, "org.create", f"org:{org.id}", after=view.model_dump(mode="json"))
    return view


async def patch(request: Request, org: OrgId, form: OrgPatchForm, rooms: Rooms) -> OrgView:
    """Change name, limits, budgets or note. What is left out stays; null is the default."""
    present = await _found(rooms, org)
    return await _change(request, rooms, "org.update", present, form.terms(present.rates))


async def enable(request: Request, org: OrgId, rooms: Rooms) -> OrgView:
    """Let an organisation's keys work again."""
    return await _change(request, rooms, "org.enable", await _found(rooms, org), OrgTerms(enabled=True))


async def disable(request: Request, org: OrgId, rooms: Rooms) -> OrgView:
    """Switch an organisation off: within seconds its keys work in no process. It can be switched on again."""
    return await _change(request, rooms, "org.disable", await _found(rooms, org), OrgTerms(enabled=False))


async def _change(request: Request, rooms: Gateway, action: str, present: Org, terms: OrgTerms) -> OrgView:
    """The organisation as it is then; the audit chain is told what is otherwise, if anything is."""
    org = await rooms.keyring.change_org(present.id, terms)
    if org is None:
        raise _unknown()
    view = _shown(rooms, org)
    before, after = changed(_shown(rooms, present), view)
    if after:
        audited(request, action, f"org:{org.id}", before=before, after=after)
    return view


async def _found(rooms: Gateway, named: str) -> Org:
    await rooms.keyring.refresh()
    org = rooms.keyring.org(named)
    if org is None:
        raise _unknown()
    return org


def _unknown() -> NotFound:
    return NotFound("There is no such organisation.", code="org_not_found")


def _shown(rooms: Gateway, org: Org) -> OrgView:
    known = rooms.keyring.keys()
    return shown_org(org, sum(key.org == org.id and key.revoked_at is None for key in known))


def router() -> APIRouter:
    """Routes under /admin/orgs."""
    routes = APIRouter(prefix="/admin/orgs", tags=["admin: organisations"], route_class=AdminRoute)
    routes.add_api_route("", orgs, methods=["GET"])
    routes.add_api_route("", create, methods=["POST"], status_code=201, responses=errors(409, 422))
    routes.add_api_route("/{org}", get, methods=["GET"], responses=errors(404))
    routes.add_api_route("/{org}", patch, methods=["PATCH"], responses=errors(404, 409, 422))
    routes.add_api_route("/{org}/enable", enable, methods=["POST"], responses=errors(404))
    routes.add_api_route("/{org}/disable", disable, methods=["POST"], responses=errors(404))
    return routes
