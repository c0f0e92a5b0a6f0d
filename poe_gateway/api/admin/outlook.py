"""Routes that look ahead: a dry run of a choice, and how long the points last."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from poe_gateway.api.admin.explain import ChoiceView, names_of, shown_choice
from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.auth.keys import Principal, principal_of
from poe_gateway.dispatch.planning import Planner
from poe_gateway.errors import NotFound
from poe_gateway.explain.words import would_choose_in_words


class OutlookRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def planner(self) -> Planner: ...

    async def forecast(self, hours: int) -> msgspec.Struct:
        """The outlook of the pool's points. Raises StoreUnavailable."""


Outlook = Annotated[OutlookRooms, Depends(gateway)]


class WouldChooseView(BaseModel):
    """What would happen to a request now."""

    model: str
    key_id: str | None
    text: str
    names: dict[str, str] = Field(description="what the key and the accounts in it are called, by id")
    choice: ChoiceView


async def would_choose(
    rooms: Outlook,
    model: Annotated[str, Query(min_length=1, max_length=200)],
    key: Annotated[str | None, Query(max_length=64, description="id of a service key; without it: any account")] = None,
    tokens: Annotated[int, Query(ge=0, le=10_000_000, description="estimated size of the prompt")] = 0,
) -> WouldChooseView:
    """What would happen to a request now: its account, its place in the line, or its refusal. Takes nothing."""
    principal = Principal(key_id="", name="")
    if key is not None:
        keys = rooms.keyring.keys()
        known = next((each for each in keys if each.id == key), None)
        if known is None:
            raise NotFound("There is no such key.", code="key_not_found")
        principal = principal_of(known)
    plan = rooms.catalog.plan(model, rooms.broker.offers())
    patience = rooms.broker.policy.acquire_timeout
    want = rooms.planner.want(principal, plan, tokens=tokens, deadline=rooms.clock.monotonic() + patience)
    choice = rooms.broker.would_choose(want)
    names = names_of(rooms, {principal.key_id}, [choice])
    return WouldChooseView(
        model=plan.model, key_id=key, text=would_choose_in_words(choice), names=names, choice=shown_choice(choice)
    )


async def forecast(rooms: Outlook, hours: Annotated[int, Query(ge=1, le=168)] = 24) -> dict[str, Any]:
    """How long the points last: by offer and hour, and by model, when use goes on as in the last hours."""
    outlook: dict[str, Any] = msgspec.to_builtins(await rooms.forecast(hours))
    return outlook


def router() -> APIRouter:
    """Routes under /admin/pool."""
    routes = APIRouter(prefix="/admin/pool", tags=["admin: pool"], route_class=AdminRoute)
    routes.add_api_route("/would-choose", would_choose, methods=["GET"], responses=errors(404, 422))
    routes.add_api_route("/forecast", forecast, methods=["GET"], responses=errors(422))
    return routes
