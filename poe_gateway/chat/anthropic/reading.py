"""Fields of blocks, and refusals that name the culprit. Pure."""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.fields import Body as Body
from poe_gateway.errors import InvalidRequest


def wrong(where: str, must: str, code: str | None = None) -> InvalidRequest:
    """``'where' must be …``, naming the culprit."""
    return InvalidRequest(f"'{where}' {must}.", param=where, code=code)


def unsupported(where: str, why: str) -> InvalidRequest:
    """Something of Anthropic's API that is not served here."""
    return InvalidRequest(f"'{where}' is not supported: {why}.", param=where, code="unsupported_parameter")


def text_of(entry: Body, name: str, where: str, *, required: bool = True) -> str:
    """A string field; "" when it is absent and not required. Raises InvalidRequest."""
    value = entry.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise wrong(f"{where}.{name}" if where else name, "must be a string" + (" that is not empty" * required))
    return value


def object_of(value: Any, where: str) -> Body:
    """An object. Raises InvalidRequest."""
    if not isinstance(value, dict):
        raise wrong(where, "must be an object")
    return value
