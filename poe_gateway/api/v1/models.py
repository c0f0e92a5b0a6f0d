"""``/v1/models`` and ``/v1/models/{id}``: what a key may ask for by name, with what is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from poe_gateway.api.callers import caller_of
from poe_gateway.api.deps import Gateway, errors, gateway
from poe_gateway.api.v1.model_list import Kind, Listed, Sources, find, listed
from poe_gateway.auth.keys import Principal, allowed, may_use
from poe_gateway.dispatch.router import routed_as
from poe_gateway.errors import ModelNotFound
from poe_gateway.pool.selector import Selector
from poe_gateway.routing.catalog import Model
from poe_gateway.routing.plan import usable_profiles
from poe_gateway.routing.table import Table


class Routes(Protocol):
    """The routing table that holds now."""

    @property
    def table(self) -> Table: ...


class ListRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def routes(self) -> Routes: ...
    @property
    def models_fallback(self) -> tuple[str, ...]: ...


class CapabilitiesView(BaseModel):
    """What a model can do at the best of its providers; null: nothing is known, or it cannot be had."""

    operations: list[Literal["chat", "embed", "image"]]
    tools: Literal["native", "emulated"] | None
    structured_output: Literal["native", "emulated"] | None
    vision: bool | None
    streaming: bool
    parameters: list[str] | None = Field(
        description="sampling parameters that are followed; null: whatever is given is passed on"
    )


class PriceView(BaseModel):
    """What the key pays at one provider: decimal numbers in text, any markup included. What is not known is absent."""

    provider: str
    source: Literal["rule", "upstream"] = Field(description="the operator's rule, or the provider's own list")
    currency: str | None = None
    input: str | None = Field(None, description="for a million tokens, as are output and cached")
    output: str | None = None
    cached: str | None = None
    request: str | None = None
    point: str | None = Field(None, description="for one of the upstream's points")
    image: str | None = None
    points: int | None = Field(None, description="points of the upstream that a message costs, roughly")


class Resolved(BaseModel):
    """Where a name leads."""

    resolves_to: str | None


class ModelObject(BaseModel):
    """One name, in OpenAI's shape, with what is known of it."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix second; 0 when the upstream does not tell.")
    owned_by: str
    kind: Kind
    providers: list[str]
    context_length: int | None = Field(description="tokens that go in at each of the providers")
    max_output_tokens: int | None
    capabilities: CapabilitiesView | None
    pricing: list[PriceView]
    resolves_to: str | None = Field(
        None,
        description="of a tier, backend and model; of an alias, what it stands for; of a profile, its first tier. "
        "Absent from models.",
    )
    lm_gateway: Resolved | None = Field(None, description="the same, as clients of lm-gateway read it")


class ListMeta(BaseModel):
    """How fresh the list is."""

    cached: bool = Field(description="it was read from the providers before this request")
    age_seconds: int | None = Field(description="since the oldest of the providers' lists was read")
    providers: list[str]
    fallback: bool = Field(description="a provider's list was never read; the names of MODELS_FALLBACK stand in for it")


class ModelList(BaseModel):
    """Everything that the key may ask for by name."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
    meta: ListMeta


def sources(rooms: ListRooms, principal: Principal) -> Sources:
    """What the list of a key is made of."""
    selector = Selector(providers=principal.providers, labels=principal.labels, without=principal.without)
    offers: dict[str, str] = {}
    for offer in rooms.broker.offers():
        seat = next((seat for seat in rooms.broker.seats_in((offer,)) if selector.matches(seat.account)), None)
        if seat is not None and seat.account.provider in rooms.upstreams:
            offers[offer] = seat.account.provider
    now, table = rooms.clock.now(), rooms.routes.table
    return Sources(
        offers=offers,
        offered=rooms.catalog.offered(offers),
        table=table,
        capabilities={name: upstream.capabilities for name, upstream in rooms.upstreams.items()},
        rule=lambda provider, model: rooms.pricelist.rule(principal.org, provider, model, now),
        may=lambda name: may_use(principal, name),
        profiles=usable_profiles(table, **routed_as(principal)),
        fallback=rooms.models_fallback,
        unread=frozenset([offer for offer in offers if not rooms.catalog.has(offer)]),
    )


def askable(rooms: Gateway, principal: Principal) -> list[Model]:
    """Everything that the key may ask for by name, as models; for other dialects' lists."""
    return [
        Model(
            id=entry.id,
            upstream=entry.resolves_to or entry.id,
            owned_by=entry.owned_by,
            created=entry.created,
            details=dict(entry.details),
        )
        for entry in listed(sources(cast(ListRooms, rooms), principal))
    ]


async def list_models(request: Request) -> Response:
    """What the pool's accounts serve and the key may use, and the tiers, aliases and profiles of the routing table."""
    rooms, principal = await _admitted(request)
    own = sources(rooms, principal)
    names = [_shape(entry) for entry in listed(own)]
    return _answer({"object": "list", "data": names, "meta": _meta(rooms, own)})


async def get_model(request: Request, model_id: str) -> Response:
    """One name; it may hold slashes, and case does not matter."""
    rooms, principal = await _admitted(request)
    own = sources(rooms, principal)
    entry = find(own, model_id)
    if entry is None:
        # By an upstream's own spelling; and those who may not use it are told so.
        model = rooms.catalog.find(model_id, rooms.broker.offers())
        allowed(principal, model.id)
        entry = find(own, model.id)
    if entry is None:
        raise ModelNotFound(f"The model '{model_id[:200]}' does not exist.", param="model")
    return _answer(_shape(entry))


def _shape(entry: Listed) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "id": entry.id,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.owned_by,
        "kind": entry.kind,
        "providers": entry.providers,
        "context_length": entry.context_length,
        "max_output_tokens": entry.max_output_tokens,
        "capabilities": entry.capabilities,
        "pricing": entry.pricing,
    }
    if entry.kind != "model":
        shape["resolves_to"] = entry.resolves_to
        shape["lm_gateway"] = {"resolves_to": entry.resolves_to}
    return shape


def _meta(rooms: ListRooms, own: Sources) -> dict[str, Any]:
    times = [time for offer in own.offers if (time := rooms.catalog.fetched_at(offer)) is not None]
    age = max(0, int((rooms.clock.now() - min(times)).total_seconds())) if times else None
    return {
        "cached": age is not None,
        "age_seconds": age,
        "providers": sorted(set(own.offers.values())),
        "fallback": bool(own.unread and own.fallback),
    }


def _answer(value: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _admitted(request: Request) -> tuple[ListRooms, Principal]:
    rooms = cast(ListRooms, gateway(request))
    principal = await caller_of(request, rooms.keyring)
    return rooms, principal


def router() -> APIRouter:
    """The routes, with and without the ``/v1`` prefix."""
    routes = APIRouter(tags=["models"])
    kinds: dict[str, tuple[Any, Any, dict[int | str, dict[str, Any]]]] = {
        "/models": (list_models, ModelList, errors(401, 403)),
        "/models/{model_id:path}": (get_model, ModelObject, errors(401, 403, 404)),
    }
    for prefix in ("/v1", ""):
        for path, (answer, view, refusals) in kinds.items():
            routes.add_api_route(
                prefix + path,
                answer,
                methods=["GET"],
                response_model=view,
                responses=refusals,
                include_in_schema=bool(prefix),
            )
    return routes
