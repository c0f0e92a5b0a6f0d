"""The front: one raw ASGI function before the FastAPI application.

Hot routes are answered here, without routing, body models or middleware. Everything else goes on to FastAPI. Every
answer carries ``x-request-id``, and every request ends in one ``RequestFinished``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from poe_gateway.api.errors import render
from poe_gateway.clock import Clock, Ids, SystemClock
from poe_gateway.errors import GatewayError, InvalidRequest
from poe_gateway.telemetry.events import Notice, RequestFinished
from poe_gateway.telemetry.hub import Telemetry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
HotRoute = Callable[[Scope, Receive, Send, str], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


class StartFailed(Exception):
    """The gateway cannot start; the message tells the operator why and what to do, and holds no secret."""


def header(scope: Scope, name: bytes) -> str | None:
    """One request header (``name`` in lower case), the first if repeated, as FastAPI's routes read it."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def check_encoding(coding: str | None) -> None:
    """Bodies come as they are: of a compressed one nobody knows how large it is. Raises InvalidRequest.

    ``coding``: the header ``Content-Encoding``.
    """
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise InvalidRequest(
            "Compressed bodies are not accepted: send it without 'Content-Encoding'.",
            param="Content-Encoding",
            code="unsupported_encoding",
        )


def address_of(scope: Scope) -> str | None:
    """The caller's address, as the server tells it (behind a trusted proxy: the one that it forwards)."""
    client = scope.get("client")
    return None if client is None else str(client[0])


class Front:
    """Outermost ASGI application."""

    def __init__(self, app: Asgi, *, ids: Ids) -> None:
        self.app = app
        self._hot: dict[str, HotRoute] = {}
        self._ids = ids
        self._clock: Clock = SystemClock()
        self._telemetry = Telemetry()

    def serve(self, hot: Mapping[str, HotRoute], telemetry: Telemetry) -> None:
        """Answer these paths from now on, and tell of every request."""
        self._hot = dict(hot)
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._lifespan(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        hot = self._hot.get(scope["path"])
        if hot is not None:
            await hot(scope, receive, send, request_id)
            return
        await self._pass_on(scope, receive, send, request_id)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop. A start that failed for a known reason is told in one message, without a traceback."""
        failed: StartFailed | None = None

        async def send_plainly(message: MutableMapping[str, Any]) -> None:
            reason = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(reason, StartFailed):
                nonlocal failed
                failed = reason
                message["message"] = str(reason)
            await send(message)

        try:
            await self.app(scope, receive, send_plainly)
        except StartFailed:
            if failed is None:
                raise

    def _request_id(self, scope: Scope) -> str:
        for key, value in scope["headers"]:
            if key == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return str(value.decode("ascii"))
        return self._ids.new("req")

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = self._clock.monotonic()
        if scope["method"] == "HEAD":  # answered as GET is: the server sees the method by itself, and sends no body
            scope = {**scope, "method": "GET"}
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - the last resort: told to the caller and to the operator
            self._telemetry.emit(
                Notice(
                    level="error",
                    message="a request failed in an unforeseen way",
                    fields={"request_id": request_id, "error": type(error).__name__, "path": route_of(scope)},
                )
            )
            if status == 0:
                code, headers, body = render(GatewayError())
                await send_with_id({"type": "http.response.start", "status": code, "headers": headers})
                await send({"type": "http.response.body", "body": body})
        finally:
            self._telemetry.emit(
                RequestFinished(
                    request_id=request_id,
                    route=route_of(scope),
                    status=status or 499,
                    seconds=self._clock.monotonic() - started,
                )
            )


def route_of(scope: Scope) -> str:
    """The route's template, or one word for all unknown paths (paths are not labels)."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unknown"
