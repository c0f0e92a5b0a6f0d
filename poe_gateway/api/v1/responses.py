"""Kept responses: ``/v1/responses/{id}`` (read, replay, delete), its ``/cancel`` and its ``/input_items``.

They are made by ``POST /v1/responses`` with ``store: true``. Nobody sees another key's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, cast

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from poe_gateway.api.callers import caller_of
from poe_gateway.api.deps import Gateway, errors
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.responses.options import included
from poe_gateway.chat.responses.replay import replay
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.errors import InvalidRequest

_INCLUDE = ("include", "include[]")
"""Spellings of a list in a query."""


class ResponseRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def shelf(self) -> Shelf: ...


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(BaseModel):
    """Input items of one response; the ids are empty where the list is."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


async def get_response(
    request: Request,
    response_id: str,
    stream: bool = False,
    starting_after: Annotated[
        int | None, Query(ge=0, description="With `stream`: only events after this one of the replay.")
    ] = None,
) -> Response:
    """A kept response; with `stream`, its events told anew. Texts then come in one piece, numbered from 0."""
    _checked_include(request)
    if starting_after is not None and not stream:
        raise InvalidRequest("'starting_after' goes only with 'stream=true'.", param="starting_after")
    shelf, principal = await _admitted(request)
    kept = (await shelf.find(principal, response_id)).response
    if not stream:
        return Response(orjson.dumps(kept), media_type="application/json", headers=_NO_STORE)
    events = replay(kept)
    first = 0 if starting_after is None else starting_after + 1
    if first >= len(events):
        raise InvalidRequest(f"The replay of this response ends with event {len(events) - 1}.", param="starting_after")
    body = b"".join(events[first:])
    return Response(body, media_type="text/event-stream", headers=_NO_STORE)


_NO_STORE = {"cache-control": "no-store"}


async def delete_response(request: Request, response_id: str) -> Deleted:
    """Delete a kept response. What went on from it before keeps its words, and can be continued."""
    shelf, principal = await _admitted(request)
    await shelf.drop(principal, response_id)
    return Deleted(id=response_id)


async def cancel_response(request: Request, response_id: str) -> Response:
    """Only responses in the background can be cancelled, and none is."""
    shelf, principal = await _admitted(request)
    await shelf.find(principal, response_id)
    raise InvalidRequest("Only responses made with 'background': true can be cancelled.", param="response_id")


async def input_items(
    request: Request,
    response: Response,
    response_id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=256, description="id of the item that the page follows")] = None,
) -> ItemList:
    """The input of a kept response: its own, not that of responses before it."""
    _checked_include(request)
    shelf, principal = await _admitted(request)
    items = (await shelf.find(principal, response_id)).items
    if order == "desc":
        items = items[::-1]
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise InvalidRequest("'after' is not an item of this response.", param="after")
        items = items[places[0] + 1 :]
    page = items[:limit]
    response.headers.update(_NO_STORE)
    return ItemList(
        data=page,
        first_id=page[0]["id"] if page else "",
        last_id=page[-1]["id"] if page else "",
        has_more=len(items) > limit,
    )


def _checked_include(request: Request) -> None:
    """Everything that can be included is there anyway. Raises InvalidRequest for what cannot."""
    for name in _INCLUDE:
        included(request.query_params.getlist(name))


async def _admitted(request: Request) -> tuple[Shelf, Principal]:
    rooms = cast(ResponseRooms, request.app.state.gateway)
    principal = await caller_of(request, rooms.keyring)
    return rooms.shelf, principal


def router() -> APIRouter:
    """The routes, with and without the ``/v1`` prefix."""
    routes = APIRouter(tags=["responses"])
    told = errors(400, 401, 403, 404, 422, 429, 503)
    for prefix in ("/v1", ""):
        path, shown = f"{prefix}/responses/{{response_id}}", bool(prefix)
        routes.add_api_route(path, get_response, methods=["GET"], responses=told, include_in_schema=shown)
        routes.add_api_route(path, delete_response, methods=["DELETE"], responses=told, include_in_schema=shown)
        routes.add_api_route(
            f"{path}/cancel", cancel_response, methods=["POST"], responses=told, include_in_schema=shown
        )
        routes.add_api_route(
            f"{path}/input_items", input_items, methods=["GET"], responses=told, include_in_schema=shown
        )
    return routes
