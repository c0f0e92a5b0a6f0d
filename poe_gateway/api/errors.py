"""The only renderer of errors: every failure becomes the error object of the dialect that its caller speaks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from poe_gateway.api.limits import limit_headers
from poe_gateway.chat.dialect import Shape
from poe_gateway.chat.sse import anthropic_error, data_event, named_event, openai_error, sendable
from poe_gateway.errors import GatewayError

Headers = list[tuple[bytes, bytes]]
_ASKED_AGAIN = {408, 409, 429}
"""Beside all from 500 on: SDKs repeat these by themselves, though it may not help."""
_LONG = 60.0
"""Seconds beyond which a client should not sit and wait: one of the SDKs would, for hours."""


def request_ids(request_id: str, shape: Shape) -> Headers:
    """The request's id, under the names that the dialect's clients know."""
    told = request_id.encode()
    return [(b"x-request-id", told), (b"request-id", told)] if shape == "anthropic" else [(b"x-request-id", told)]


def error_object(
    error: GatewayError, metadata: Mapping[str, Any] | None = None, shape: Shape = "openai", request_id: str = ""
) -> dict[str, Any]:
    """The body of an error: OpenAI's object, Anthropic's, or Ollama's ``{"error": message}``."""
    if shape == "anthropic":
        return anthropic_error(error, request_id or None)
    if shape == "ollama":
        return {"error": sendable(error.message), "code": error.code}
    return openai_error(error, dict(metadata) if metadata else None)


def error_headers(error: GatewayError) -> Headers:
    """``Retry-After`` in whole seconds where waiting helps, and the error's own headers. SDKs that would ask again by
    themselves are told not to where that does not help, or not soon."""
    headers: Headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    helpless = error.retry_after is None and error.status in _ASKED_AGAIN
    long = error.retry_after is not None and error.retry_after > _LONG
    if helpless or (long and (error.status in _ASKED_AGAIN or error.status >= 500)):
        headers.append((b"x-should-retry", b"false"))
    if error.standings:
        headers += limit_headers(error.standings)
    for name, value in error.headers.items():
        headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def render(
    error: GatewayError, metadata: Mapping[str, Any] | None = None, shape: Shape = "openai", request_id: str = ""
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error answer."""
    body = orjson.dumps(error_object(error, metadata, shape, request_id))
    headers = error_headers(error)
    headers.append((b"content-length", str(len(body)).encode()))
    return error.status, headers, body


def stream_error(error: GatewayError, shape: Shape = "openai") -> bytes:
    """What ends a stream that has begun and breaks off, where nobody knows how far its dialect's writer had come."""
    if shape == "anthropic":
        return named_event("error", anthropic_error(error))
    if shape == "ollama":
        return orjson.dumps(error_object(error, None, shape)) + b"\n"
    return data_event(openai_error(error))
