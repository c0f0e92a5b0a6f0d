"""Fields of a JSON body with their types and bounds checked; every refusal names the field. Pure."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from poe_gateway.errors import InvalidRequest

Body = dict[str, Any]
_decode = msgspec.json.Decoder().decode
_LONGEST_NAME = 256
_MOST_PAIRS = 16
MOST_TURNS = 10_000
"""Messages of one request, or items; each costs work before anything else is known of the request."""


def document(raw: bytes | bytearray) -> Body:
    """The object that a body is. Raises InvalidRequest."""
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else "not UTF-8"
        raise InvalidRequest(f"The body is not valid JSON: {reason}.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return body


def model(body: Body) -> str:
    """The name of the model. Raises InvalidRequest."""
    value = body.get("model")
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_NAME:
        raise InvalidRequest("'model' is required: a string of 1 to 256 characters.", param="model")
    return value.strip()


def flag(body: Body, name: str, *, default: bool = False, where: str = "") -> bool:
    """True or false; null is ``default``. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{where}{name}' must be true or false.", param=where + name)
    return value


def text(body: Body, name: str, *, most: int | None = None, where: str = "") -> str | None:
    """A string of at most ``most`` characters, or None. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"'{where}{name}' must be a string.", param=where + name)
    if most is not None and len(value) > most:
        raise InvalidRequest(f"'{where}{name}' must have at most {most} characters.", param=where + name)
    return value


def integer(body: Body, name: str, *, least: int, most: int, where: str = "") -> int | None:
    """A whole number within bounds, or None. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest(f"'{where}{name}' must be a whole number from {least} to {most}.", param=where + name)
    return value


def number(body: Body, name: str, *, where: str = "") -> float | int | None:
    """A finite number, as it was given, or None. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or abs(value) >= 2**63 or math.isnan(value):
        raise InvalidRequest(f"'{where}{name}' must be a number.", param=where + name)
    return value  # type: ignore[no-any-return]


def user(body: Body) -> str | None:
    """``user`` of OpenAI's dialects. Raises InvalidRequest."""
    return text(body, "user", most=512)


def metadata(body: Body) -> dict[str, str]:
    """``metadata`` of OpenAI's dialects: at most 16 pairs of texts. Raises InvalidRequest."""
    value = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("'metadata' must be an object of strings.", param="metadata")
    if len(value) > _MOST_PAIRS:
        raise InvalidRequest(f"'metadata' takes at most {_MOST_PAIRS} pairs.", param="metadata")
    for key, entry in value.items():
        if not isinstance(entry, str) or len(key) > 64 or len(entry) > 512:
            raise InvalidRequest(
                "'metadata' takes strings only: keys up to 64, values up to 512 characters.",
                param=f"metadata.{key[:64]}",
            )
    return value
