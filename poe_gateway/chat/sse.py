"""Server-sent events as bytes, and the error objects that may stand in them. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from poe_gateway.errors import GatewayError


def data_event(value: Any) -> bytes:
    """An event without a name."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named_event(name: str, value: Any) -> bytes:
    """An event with a name."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n"


def openai_error(error: GatewayError, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """``{"error": {message, type, param, code, status, metadata?}}``: ``code`` a string, ``status`` the HTTP status."""
    body: dict[str, Any] = {
        "message": sendable(error.message),
        "type": error.type,
        "param": sendable(error.param),
        "code": error.code,
        "status": error.status,
    }
    if metadata:
        body["metadata"] = metadata
    return {"error": body}


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: GatewayError, request_id: str | None = None) -> dict[str, Any]:
    """``{"type": "error", "error": {type, message, code, param}, "request_id"}``."""
    told = _ANTHROPIC_TYPES.get(error.status, "api_error")
    body: dict[str, Any] = {"type": told, "message": sendable(error.message), "code": error.code}
    if error.code is not None:
        body["details"] = {"error_code": error.code}  # where Anthropic's SDK looks
    if error.param is not None:
        body["param"] = sendable(error.param)
    return {"type": "error", "error": body, "request_id": request_id}


def sendable(text: str | None) -> str | None:
    """A field's name may come from the caller and hold half of a surrogate pair, which no JSON writer takes."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()
