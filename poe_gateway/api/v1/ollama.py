"""Ollama's routes about models: ``/api/tags``, ``/api/show``, ``/api/ps``, ``/api/version``. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from poe_gateway.api.callers import caller_of
from poe_gateway.api.deps import gateway, read_body
from poe_gateway.api.errors import render
from poe_gateway.api.v1.models import askable
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.fields import document
from poe_gateway.chat.ollama.answers import moment
from poe_gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from poe_gateway.routing.catalog import Model

Models = Callable[[Any, Principal], Sequence[Model]]
"""Everything that a key may ask for by name, of the rooms of this process."""

API_LEVEL = "0.12.0"
"""The release of Ollama whose API this is: clients look whether it is new enough for them."""
_LARGEST = 65_536
"""Bytes of a question about a model."""
_LATEST = ":latest"


def tags(models: Iterable[Model]) -> dict[str, Any]:
    """The body of ``/api/tags``. ``size`` is 0 and ``digest`` that of the entry: there are no files."""
    return {"models": [_entry(model) for model in models]}


def _entry(model: Model) -> dict[str, Any]:
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": moment(model.created),
        "size": 0,
        "digest": sha256(f"{model.owned_by}/{model.id}".encode()).hexdigest(),
        "details": _details(model),
    }


def _details(model: Model) -> dict[str, Any]:
    family = model.owned_by
    return {
        "parent_model": "",
        "format": "",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }


def shown(model: Model) -> dict[str, Any]:
    """The body of ``/api/show``. Tools are there for every model that answers in words: emulated where it has none."""
    info: dict[str, Any] = {"general.architecture": model.owned_by, "general.basename": model.id}
    if isinstance(length := model.details.get("context_length"), int):
        info[f"{model.owned_by}.context_length"] = length
    return {
        "license": "",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(model),
        "model_info": info,
        "capabilities": _capabilities(model.details),
        "modified_at": moment(model.created),
    }


def _capabilities(details: dict[str, Any]) -> list[str]:
    """What a model can do, in Ollama's words, as far as its upstream tells."""
    takes, gives = details.get("input_modalities") or (), details.get("output_modalities") or ("text",)
    told = {
        "embedding": any(str(each).startswith("embedding") for each in gives),
        "image": "image" in gives,
        "completion": "text" in gives,
        "tools": "text" in gives,
        "vision": "image" in takes or details.get("images") is True,
        "thinking": "reasoning" in (details.get("supported_parameters") or ()),
    }
    return [name for name, can in told.items() if can]


class OllamaRoute(APIRoute):
    """Errors in Ollama's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except GatewayError as error:
                status, headers, body = render(error, shape="ollama")
                response = Response(body, status_code=status)
                response.raw_headers = headers
                return response

        return handle


async def _asked_for(request: Request) -> str:
    """The model that a body names. Raises InvalidRequest, RequestTooLarge."""
    body = document(await read_body(request, _LARGEST))
    name = body.get("model") or body.get("name")
    if not isinstance(name, str):
        raise InvalidRequest("'model' is required: a string.", param="model")
    return name


def _found(models: Sequence[Model], name: str) -> Model:
    """By its name, with or without ``:latest``, in any case. Raises ModelNotFound."""
    for wanted in (name.strip().lower(), name.strip().lower().removesuffix(_LATEST)):
        for model in models:
            if model.id.lower() == wanted:
                return model
    raise ModelNotFound(f"The model '{name[:200]}' does not exist.", param="model")


def router(models: Models = askable) -> APIRouter:
    """The routes. ``models``: what there is, for a key."""
    routes = APIRouter(tags=["ollama"], route_class=OllamaRoute)

    @routes.get("/api/tags")
    async def list_tags(request: Request) -> dict[str, Any]:
        """The models that the key may use, as Ollama lists them."""
        rooms = gateway(request)
        return tags(models(rooms, await caller_of(request, rooms.keyring)))

    @routes.post("/api/show")
    async def show(request: Request) -> dict[str, Any]:
        """One model: ``{"model": name}``."""
        rooms = gateway(request)
        principal = await caller_of(request, rooms.keyring)
        return shown(_found(models(rooms, principal), await _asked_for(request)))

    @routes.get("/api/ps")
    async def running(request: Request) -> dict[str, Any]:
        """Models in memory: there are none here."""
        await caller_of(request, gateway(request).keyring)
        return tags(())

    @routes.get("/api/version")
    async def version() -> dict[str, str]:
        """The release of Ollama whose API this is; public, as at Ollama."""
        return {"version": API_LEVEL}

    return routes
