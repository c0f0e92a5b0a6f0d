"""Routes that loosen sessions from their accounts."""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.errors import InvalidRequest


class SessionRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def sessions(self) -> SessionBook: ...


Sessions = Annotated[SessionRooms, Depends(gateway)]


class SessionsFlushForm(BaseModel):
    """Whose sessions: those of one account, or all."""

    model_config = ConfigDict(extra="forbid")

    account_id: str | None = Field(default=None, max_length=64)
    all: bool = False


class Flushed(BaseModel):
    """The sessions choose their account anew with their next request, and send their history again."""

    dropped: int


async def flush_account(account_id: Annotated[str, Path(max_length=64)], request: Request, rooms: Sessions) -> Flushed:
    """Let every session of the account choose anew."""
    await rooms.desk.get(account_id)
    dropped = await rooms.sessions.flush(account_id)
    audited(request, "sessions.flush", f"account:{account_id}", after={"dropped": dropped})
    return Flushed(dropped=dropped)


async def flush(form: SessionsFlushForm, request: Request, rooms: Sessions) -> Flushed:
    """Let the sessions of one account, or all sessions, choose anew. Sessions of a deleted account, too."""
    if (form.account_id is None) != form.all:
        raise InvalidRequest("Give either 'account_id' or 'all': true.", param="account_id")
    dropped = await rooms.sessions.flush(form.account_id)
    target = "sessions" if form.account_id is None else f"account:{form.account_id}"
    audited(request, "sessions.flush", target, after={"dropped": dropped})
    return Flushed(dropped=dropped)


def router() -> APIRouter:
    """Under /admin."""
    routes = APIRouter(prefix="/admin", tags=["admin: sessions"], route_class=AdminRoute)
    routes.add_api_route(
        "/accounts/{account_id}/flush-affinity", flush_account, methods=["POST"], responses=errors(404)
    )
    routes.add_api_route("/sessions/flush", flush, methods=["POST"], responses=errors(400, 422))
    return routes
