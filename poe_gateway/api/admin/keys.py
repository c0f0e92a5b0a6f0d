"""Routes on service keys. The text of a key is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from poe_gateway.api.admin.forms import KeyForm
from poe_gateway.api.deps import AdminRoute, Rooms, errors
from poe_gateway.auth.keys import ServiceKey
from poe_gateway.errors import NotFound


class KeyView(BaseModel):
    """One service key, without its text."""

    id: str
    name: str
    enabled: bool
    bootstrap: bool = Field(description="came from SERVICE_API_KEYS_BOOTSTRAP")
    created_at: datetime
    revoked_at: datetime | None


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
    key, text = await rooms.keyring.create(form.name)
    return NewKeyView(**_shown(key).model_dump(), key=text)


async def revoke(key_id: Annotated[str, Path(max_length=64)], rooms: Rooms) -> KeyView:
    """Switch a key off for good; every process refuses it within seconds."""
    key = await rooms.keyring.revoke(key_id)
    if key is None:
        raise NotFound("There is no such key.", code="key_not_found")
    return _shown(key)


def _shown(key: ServiceKey) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        enabled=key.enabled and key.revoked_at is None,
        bootstrap=key.bootstrap,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
    )


def router() -> APIRouter:
    """Routes under /admin/keys."""
    routes = APIRouter(prefix="/admin/keys", tags=["admin: keys"], route_class=AdminRoute)
    routes.add_api_route("", keys, methods=["GET"])
    routes.add_api_route("", create, methods=["POST"], status_code=201, responses=errors(422))
    routes.add_api_route("/{key_id}/revoke", revoke, methods=["POST"], responses=errors(404))
    return routes
