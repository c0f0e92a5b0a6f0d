"""Routes on service keys. The text of a key is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from poe_gateway.api.admin.forms import KeyForm, KeyPatchForm, KeyTermsForm
from poe_gateway.api.deps import AdminRoute, Gateway, Rooms, errors
from poe_gateway.auth.keys import ServiceKey
from poe_gateway.errors import InvalidRequest, NotFound

KeyId = Annotated[str, Path(max_length=64)]


class KeyView(BaseModel):
    """One service key, without its text."""

    id: str
    name: str
    enabled: bool
    bootstrap: bool = Field(description="came from SERVICE_API_KEYS_BOOTSTRAP")
    created_at: datetime
    revoked_at: datetime | None
    priority: int = Field(description="requests of a higher priority wait less")
    weight: int = Field(description="turns in the queue against other keys of the priority")
    providers: list[str] = Field(description="only accounts of these providers; empty for all")
    labels: list[str] = Field(description="only accounts that carry all of these")
    without: list[str] = Field(description="only accounts that carry none of these")


class NewKeyView(KeyView):
    """A new key with its text, which is kept nowhere."""

    key: str


class KeyList(BaseModel):
    """All keys, oldest first."""

    data: list[KeyView]


async def keys(rooms: Rooms) -> KeyList:
    """All service keys, revoked ones too."""
    await rooms.keyring.refresh()
    known = rooms.keyring.keys()
    return KeyList(data=[_shown(key) for key in known])


async def create(form: KeyForm, rooms: Rooms) -> NewKeyView:
    """Make a key. Its text is in this answer and nowhere else."""
    _check(form, rooms)
    key, text = await rooms.keyring.create(form.name, form.terms())
    return NewKeyView(**_shown(key).model_dump(), key=text)


async def patch(key_id: KeyId, form: KeyPatchForm, rooms: Rooms) -> KeyView:
    """Change name, priority, weight or the choice of accounts. What is left out stays; null is the default.

    In force in every process within seconds; requests that run or wait are not touched.
    """
    known = rooms.keyring.keys()
    _check(form, rooms, next((each for each in known if each.id == key_id), None))
    key = await rooms.keyring.change(key_id, form.terms())
    if key is None:
        raise NotFound("There is no such key.", code="key_not_found")
    return _shown(key)


async def revoke(key_id: KeyId, rooms: Rooms) -> KeyView:
    """Switch a key off for good; every process refuses it within seconds."""
    key = await rooms.keyring.revoke(key_id)
    if key is None:
        raise NotFound("There is no such key.", code="key_not_found")
    return _shown(key)


def _check(form: KeyTermsForm, rooms: Gateway, present: ServiceKey | None = None) -> None:
    """What would shut the key out: a provider that this gateway does not have, a label both wanted and not.

    ``present``: what the key says where the form says nothing. Raises InvalidRequest.
    """
    if form.providers and not form.providers <= rooms.upstreams.keys():
        known = ", ".join(sorted(rooms.upstreams))
        raise InvalidRequest(f"Unknown provider; known: {known}.", param="providers", code="unknown_provider")
    given = form.model_fields_set
    labels = form.labels if "labels" in given or present is None else frozenset(present.labels)
    without = form.without if "without" in given or present is None else frozenset(present.without)
    if both := (labels or frozenset()) & (without or frozenset()):
        message = f"No account can both carry and not carry: {', '.join(sorted(both))}."
        raise InvalidRequest(message, param="without", code="contradictory_labels")


def _shown(key: ServiceKey) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        enabled=key.enabled and key.revoked_at is None,
        bootstrap=key.bootstrap,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
        priority=key.priority,
        weight=key.weight,
        providers=list(key.providers),
        labels=list(key.labels),
        without=list(key.without),
    )


def router() -> APIRouter:
    """Routes under /admin/keys."""
    routes = APIRouter(prefix="/admin/keys", tags=["admin: keys"], route_class=AdminRoute)
    routes.add_api_route("", keys, methods=["GET"])
    routes.add_api_route("", create, methods=["POST"], status_code=201, responses=errors(400, 422))
    routes.add_api_route("/{key_id}", patch, methods=["PATCH"], responses=errors(400, 404, 422))
    routes.add_api_route("/{key_id}/revoke", revoke, methods=["POST"], responses=errors(404))
    return routes
