"""``/v1/messages/count_tokens``: what a Messages request would count, reckoned here without asking any upstream."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from poe_gateway.api.callers import caller_of
from poe_gateway.api.deps import gateway, read_body
from poe_gateway.api.errors import render
from poe_gateway.chat import estimate
from poe_gateway.chat.anthropic import parse
from poe_gateway.chat.request import ChatRequest
from poe_gateway.errors import GatewayError

Count = Callable[[ChatRequest], int]
"""Tokens of a request's prompt: turns, tools and the form of the answer."""
_SHAPE = {"type": "object", "required": ["model", "messages"]}


class TokenCount(BaseModel):
    """Anthropic's ``MessageTokensCount``."""

    input_tokens: int = Field(description="of instructions, turns and tools; as reckoned by the gateway")


class AnthropicRoute(APIRoute):
    """Failures come as Anthropic's error objects."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request_id = getattr(request.state, "request_id", "")
            try:
                response = await handler(request)
            except GatewayError as error:
                status, headers, body = render(error, shape="anthropic", request_id=request_id)
                response = Response(body, status_code=status)
                response.raw_headers = headers
            if request_id:
                response.headers["request-id"] = request_id
            return response

        return handle


def router(count: Count = estimate.prompt_tokens, *, max_body: int = 32 * 1024 * 1024) -> APIRouter:
    """The route. ``count`` reckons; ``max_body``: bytes of a request at most."""
    routes = APIRouter(tags=["messages"], route_class=AnthropicRoute)

    async def count_tokens(request: Request) -> TokenCount:
        """The tokens of a Messages request. Nothing is asked of an upstream, and nothing is charged."""
        await caller_of(request, gateway(request).keyring)
        asked = parse(await read_body(request, max_body), counting=True)
        # A tokenizer takes its time over long prompts; the other requests of this process must not wait for it.
        return TokenCount(input_tokens=await run_in_threadpool(count, asked))

    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SHAPE}}}}
    routes.add_api_route("/v1/messages/count_tokens", count_tokens, methods=["POST"], openapi_extra=body)
    return routes
