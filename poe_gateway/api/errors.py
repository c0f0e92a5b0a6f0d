"""The only renderer of errors: every failure becomes OpenAI's error object, whatever route it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from poe_gateway.api.limits import limit_headers
from poe_gateway.errors import GatewayError

Headers = list[tuple[bytes, bytes]]
_ASKED_AGAIN = {408, 409, 429}
_LONG = 60.0
"""Seconds beyond which a client should not sit and wait: one of the SDKs would, for hours."""


def error_object(error: GatewayError, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``{"error": {message, type, param, code, status, metadata?}}``: ``code`` a string, ``status`` the HTTP status."""
    body: dict[str, Any] = {
        "message": _sendable(error.message),
        "type": error.type,
        "param": _sendable(error.param),
        "code": error.code,
        "status": error.status,
    }
    if metadata:
        body["metadata"] = dict(metadata)
    return {"error": body}


def _sendable(text: str | None) -> str | None:
    """A field's name may come from the caller and hold half of a surrogate pair, which no JSON writer takes."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def error_headers(error: GatewayError) -> Headers:
    """``Retry-After`` in whole seconds where waiting helps, and the error's own headers."""
    headers: Headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    if error.status in _ASKED_AGAIN and (error.retry_after is None or error.retry_after > _LONG):
        headers.append((b"x-should-retry", b"false"))
    if error.standings:
        headers += limit_headers(error.standings)
    for name, value in error.headers.items():
        headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def render(error: GatewayError, metadata: Mapping[str, Any] | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error answer."""
    body = orjson.dumps(error_object(error, metadata))
    headers = error_headers(error)
    headers.append((b"content-length", str(len(body)).encode()))
    return error.status, headers, body


def sse_error(error: GatewayError) -> bytes:
    """The in-band error event of a stream that has begun."""
    return b"data: " + orjson.dumps(error_object(error)) + b"\n\n"
