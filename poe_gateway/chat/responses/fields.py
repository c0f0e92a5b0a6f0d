"""Typed fields of a request's body. Every reader raises InvalidRequest with ``param`` naming the culprit. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import orjson

from poe_gateway.chat.fields import Body as Body
from poe_gateway.errors import InvalidRequest


def flag(body: Body, name: str) -> bool | None:
    """A boolean; None when it is not given."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be true or false.", param=name)
    return value


def text(body: Body, name: str, longest: int, where: str = "") -> str | None:
    """A string of at most ``longest`` characters; None when it is not given. ``where``: the path before the name."""
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > longest):
        raise InvalidRequest(
            f"'{where}{name}' must be a string of at most {longest} characters.", param=f"{where}{name}"
        )
    return value


def needed(body: Body, name: str, where: str) -> str:
    """A string that must be there."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'{where}.{name}' is required: a string.", param=f"{where}.{name}")
    return value


def count(body: Body, name: str, least: int, most: int) -> int | None:
    """A whole number; None when it is not given."""
    value = body.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise InvalidRequest(f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return value


def number(body: Body, name: str, least: float, most: float) -> float | None:
    """A number; None when it is not given."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest(f"'{name}' must be a number from {least:g} to {most:g}.", param=name)
    return value


def choice(body: Body, name: str, known: Collection[str], where: str = "") -> str | None:
    """One of the known words; None when it is not given."""
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or value not in known):
        raise InvalidRequest(f"'{where}{name}' must be one of {', '.join(known)}.", param=f"{where}{name}")
    return value


def group(body: Body, name: str) -> Body:
    """An object; empty when it is not given."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{name}' must be an object.", param=name)
    return value


def unsupported(param: str, reason: str) -> InvalidRequest:
    """What cannot be given is refused by name."""
    return InvalidRequest(f"'{param}' is not supported: {reason}.", param=param, code="unsupported_parameter")


def fragment(value: Any, param: str) -> orjson.Fragment:
    """The value as orjson can write it whatever it holds: it knows neither large numbers nor deep nesting."""
    try:
        return orjson.Fragment(msgspec.json.encode(value))
    except RecursionError:
        raise InvalidRequest(f"'{param}' is nested too deeply.", param=param) from None
