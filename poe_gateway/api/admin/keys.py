"""Routes on service keys. The text of a key is shown once, when it is made or rotated."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from msgspec.structs import replace

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.admin.caller_forms import KeyForm, KeyPatchForm, KeyTermsForm, RotateForm
from poe_gateway.api.admin.caller_views import KeyList, KeyView, NewKeyView, changed, shown_key
from poe_gateway.api.deps import AdminRoute, Gateway, Rooms, errors
from poe_gateway.auth.keys import KeyTerms, ServiceKey
from poe_gateway.auth.orgs import Org
from poe_gateway.errors import InvalidRequest, NotFound, Unprocessable

KeyId = Annotated[str, Path(max_length=64)]
OrgFilter = Annotated[str | None, Query(max_length=100, description="id or name of an organisation")]


async def keys(rooms: Rooms, org: OrgFilter = None) -> KeyList:
    """All service keys, or those of one organisation; revoked ones too."""
    await rooms.keyring.refresh()
    only = None if org is None else _org(rooms, org).id
    known = rooms.keyring.keys()
    return KeyList(data=[shown_key(key) for key in known if only in (None, key.org)])


async def get(key_id: KeyId, rooms: Rooms) -> KeyView:
    """One service key."""
    await rooms.keyring.refresh()
    return shown_key(_key(rooms, key_id))


async def create(request: Request, form: KeyForm, rooms: Rooms) -> NewKeyView:
    """Make a key. Its text is in this answer and nowhere else."""
    await rooms.keyring.refresh()
    _check(form, rooms)
    text = form.key.get_secret_value() if form.key is not None else None
    if text is not None and not all("\x21" <= each <= "\x7e" for each in text):
        raise Unprocessable("key: only visible ASCII characters.", param="key", code="invalid_value")
    key, text = await rooms.keyring.create(form.name, _terms(form, rooms), text)
    view = shown_key(key)
    audited(request, "key.create", f"key:{key.id}", after=view.model_dump(mode="json"))
    return NewKeyView(**view.model_dump(), key=text)


async def patch(request: Request, key_id: KeyId, form: KeyPatchForm, rooms: Rooms) -> KeyView:
    """Change name, organisation, limits, budgets, or what the key may do. What is left out stays; null is the default.

    In force in every process within seconds; requests that run or wait are not touched.
    """
    await rooms.keyring.refresh()
    present = _key(rooms, key_id)
    _check(form, rooms, present)
    return _changed(request, "key.update", present, await rooms.keyring.change(key_id, _terms(form, rooms, present)))


async def rotate(request: Request, key_id: KeyId, rooms: Rooms, form: RotateForm | None = None) -> NewKeyView:
    """Give a key another text. The one before works on for the overlap; all else about the key stays as it is."""
    await rooms.keyring.refresh()
    present = _key(rooms, key_id)
    rotated = await rooms.keyring.rotate(key_id, 0 if form is None else form.overlap_seconds)
    if rotated is None:
        raise _unknown()
    key, text = rotated
    return NewKeyView(**_changed(request, "key.rotate", present, key).model_dump(), key=text)


async def revoke(request: Request, key_id: KeyId, rooms: Rooms) -> KeyView:
    """Switch a key off for good; every process refuses it within seconds."""
    await rooms.keyring.refresh()
    present = _key(rooms, key_id)
    return _changed(request, "key.revoke", present, await rooms.keyring.revoke(key_id))


async def enable(request: Request, key_id: KeyId, rooms: Rooms) -> KeyView:
    """Let a key work again that was switched off; one that is revoked stays so."""
    await rooms.keyring.refresh()
    present = _key(rooms, key_id)
    return _changed(request, "key.enable", present, await rooms.keyring.switch(key_id, enabled=True))


async def disable(request: Request, key_id: KeyId, rooms: Rooms) -> KeyView:
    """Switch a key off; it can be switched on again."""
    await rooms.keyring.refresh()
    present = _key(rooms, key_id)
    return _changed(request, "key.disable", present, await rooms.keyring.switch(key_id, enabled=False))


def _changed(request: Request, action: str, present: ServiceKey, key: ServiceKey | None) -> KeyView:
    """The key as it is now; the audit chain is told what is otherwise, if anything is."""
    if key is None:
        raise _unknown()
    view = shown_key(key)
    before, after = changed(shown_key(present), view)
    if after:
        audited(request, action, f"key:{key.id}", before=before, after=after)
    return view


def _key(rooms: Gateway, key_id: str) -> ServiceKey:
    key = rooms.keyring.key(key_id)
    if key is None:
        raise _unknown()
    return key


def _unknown() -> NotFound:
    return NotFound("There is no such key.", code="key_not_found")


def _org(rooms: Gateway, named: str) -> Org:
    org = rooms.keyring.org(named)
    if org is None:
        raise InvalidRequest("There is no such organisation.", param="org", code="unknown_org")
    return org


def _terms(form: KeyTermsForm, rooms: Gateway, present: ServiceKey | None = None) -> KeyTerms:
    """What was given, with the organisation's id."""
    terms = form.terms(None if present is None else present.rates)
    return terms if form.org is None else replace(terms, org=_org(rooms, form.org).id)


def _check(form: KeyTermsForm, rooms: Gateway, present: ServiceKey | None = None) -> None:
    """What would shut the key out: a provider that this gateway does not have, a label both wanted and not, an end
    that is over.

    ``present``: what the key says where the form says nothing. Raises InvalidRequest.
    """
    if form.providers and not form.providers <= rooms.upstreams.keys():
        known = ", ".join(sorted(rooms.upstreams))
        raise InvalidRequest(f"Unknown provider; known: {known}.", param="providers", code="unknown_provider")
    if form.expires_at is not None and form.expires_at <= rooms.clock.now():
        raise InvalidRequest("The key would have expired already.", param="expires_at", code="already_expired")
    given = form.model_fields_set
    labels = form.labels if "labels" in given or present is None else frozenset(present.labels)
    without = form.without if "without" in given or present is None else frozenset(present.without)
    if both := (labels or frozenset()) & (without or frozenset()):
        message = f"No account can both carry and not carry: {', '.join(sorted(both))}."
        raise InvalidRequest(message, param="without", code="contradictory_labels")


def router() -> APIRouter:
    """Routes under /admin/keys."""
    routes = APIRouter(prefix="/admin/keys", tags=["admin: keys"], route_class=AdminRoute)
    routes.add_api_route("", keys, methods=["GET"], responses=errors(400))
    routes.add_api_route("", create, methods=["POST"], status_code=201, responses=errors(400, 409, 422))
    routes.add_api_route("/{key_id}", get, methods=["GET"], responses=errors(404))
    routes.add_api_route("/{key_id}", patch, methods=["PATCH"], responses=errors(400, 404, 422))
    routes.add_api_route("/{key_id}/rotate", rotate, methods=["POST"], responses=errors(404, 409, 422))
    routes.add_api_route("/{key_id}/revoke", revoke, methods=["POST"], responses=errors(404))
    routes.add_api_route("/{key_id}/enable", enable, methods=["POST"], responses=errors(404, 409))
    routes.add_api_route("/{key_id}/disable", disable, methods=["POST"], responses=errors(404, 409))
    return routes
