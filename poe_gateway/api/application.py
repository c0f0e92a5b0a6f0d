"""The FastAPI application behind the front: health, models, admin, documentation, and JSON for every error."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from poe_gateway import __version__
from poe_gateway.api import health
from poe_gateway.api.docs import add_docs
from poe_gateway.api.errors import render, request_ids
from poe_gateway.api.v1 import chat_docs, count_tokens, models, ollama, own, responses
from poe_gateway.chat.dialect import Shape
from poe_gateway.chat.tokens import Tokenizer, prompt_tokens
from poe_gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    Unavailable,
    Unprocessable,
)
from poe_gateway.pool.store import StoreUnavailable

_SET = re.compile(r"\b[Ff]rozenset\b")
_NUMBER = re.compile(r"\bDecimal\('([^']*)'\)")
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(lifespan: Lifespan, admin: Sequence[APIRouter], *, docs: bool = True) -> FastAPI:
    """The application. ``app.state.gateway`` is set by the lifespan."""
    app = FastAPI(
        title="poe_gateway",
        version=__version__,
        description="A broker for pools of chat accounts behind an OpenAI-compatible API.",
        lifespan=lifespan,
        docs_url=None,  # its parts would come from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json" if docs else None,
    )
    if docs:
        add_docs(app)
    app.include_router(health.router())
    app.include_router(models.router())
    app.include_router(responses.router())
    app.include_router(count_tokens.router(partial(prompt_tokens, count=Tokenizer().count)))
    app.include_router(ollama.router(models.askable))
    app.include_router(own.router())
    for router in admin:
        app.include_router(router)
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(StoreUnavailable, _store_unavailable)
    app.add_exception_handler(Exception, _unforeseen)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        chat_docs.describe(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _respond(request: Request, error: GatewayError) -> Response:
    """The error in the shape of the dialect to which the address belongs."""
    path = request.url.path.removeprefix("/v1")
    shape: Shape = "ollama" if path.startswith("/api/") else "anthropic" if _is_below(path, "/messages") else "openai"
    request_id = getattr(request.state, "request_id", "")
    status, headers, body = render(error, shape=shape, request_id=request_id)
    response = Response(body, status_code=status)
    # The front names the request in every answer, but only by the name that all dialects share.
    response.raw_headers = headers + [each for each in request_ids(request_id, shape) if each[0] != b"x-request-id"]
    return response


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 - registered for this class
    return _respond(request, error)


async def _store_unavailable(request: Request, error: Exception) -> Response:
    return _respond(request, Unavailable("The database is not reachable.", code="database_unavailable", retry_after=5))


async def _unforeseen(request: Request, error: Exception) -> Response:
    """The last resort: the caller gets JSON; the front tells the operator."""
    return _respond(request, GatewayError())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    known: dict[int, type[GatewayError]] = {404: NotFound, 405: MethodNotAllowed, 413: RequestTooLarge}
    kind = known.get(error.status_code, InvalidRequest)
    told = kind(headers=dict(error.headers or {}))
    if kind is NotFound:
        told = NotFound(f"Unknown request URL: {request.method} {request.url.path[:200]}.", code="unknown_url")
    elif error.status_code == 400:  # FastAPI could not read the body
        told = InvalidRequest("The body is not valid JSON.", code="invalid_json")
    elif kind is InvalidRequest:
        told.message = str(error.detail)
        told.status = error.status_code
    return _respond(request, told)


async def _validation_error(request: Request, error: Exception) -> Response:
    """The first problem, named by its place; input values are not repeated (they may be secrets)."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    if first["type"] == "json_invalid":
        return _respond(request, InvalidRequest("The body is not valid JSON.", code="invalid_json"))
    problem = _NUMBER.sub(r"\1", _SET.sub(_list, first["msg"])).removeprefix("Value error, ")
    return _respond(request, Unprocessable(f"{place or 'body'}: {problem}.", param=place or None, code="invalid_value"))


def _list(found: re.Match[str]) -> str:
    """A set is a list on the wire."""
    return "List" if found[0][0].isupper() else "list"
