"""``/v1/models`` and ``/v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from poe_gateway.api.callers import caller
from poe_gateway.auth.keys import Principal, allowed, may_use
from poe_gateway.routing.catalog import Model


class ModelObject(BaseModel):
    """One model, in OpenAI's shape."""

    id: str
    object: str = "model"
    created: int = Field(description="Unix second; 0 when the upstream does not tell.")
    owned_by: str


class ModelList(BaseModel):
    """All models that some account serves and the key may use."""

    object: str = "list"
    data: list[ModelObject]


def _shape(model: Model) -> ModelObject:
    return ModelObject(id=model.id, created=model.created, owned_by=model.owned_by)


async def list_models(request: Request) -> ModelList:
    """The models that the pool's accounts serve and that the key may use."""
    gateway, principal = await _admitted(request)
    models = gateway.catalog.models(gateway.broker.offers())
    return ModelList(data=[_shape(model) for model in models if may_use(principal, model.id)])


async def get_model(request: Request, model_id: str) -> ModelObject:
    """One model by its name; names may hold slashes and are compared without regard to case."""
    gateway, principal = await _admitted(request)
    model = gateway.catalog.find(model_id, gateway.broker.offers())
    allowed(principal, model.id)
    return _shape(model)


async def _admitted(request: Request) -> tuple[Any, Principal]:
    gateway = request.app.state.gateway
    headers, client = request.headers, request.client
    address = client.host if client is not None else None
    principal = await caller(gateway.keyring, headers.get("authorization"), headers.get("x-api-key"), address)
    return gateway, principal


def router() -> APIRouter:
    """The routes, with and without the ``/v1`` prefix."""
    routes = APIRouter(tags=["models"])
    for prefix in ("/v1", ""):
        shown = bool(prefix)
        routes.add_api_route(f"{prefix}/models", list_models, methods=["GET"], include_in_schema=shown)
        routes.add_api_route(f"{prefix}/models/{{model_id:path}}", get_model, methods=["GET"], include_in_schema=shown)
    return routes
