"""What a provider's answer may turn out to be instead of one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

_PLAIN = msgspec.json.Decoder()
_EXACT = msgspec.json.Decoder(float_hook=str)
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair is one character
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)


class Drift(ValueError):
    """The provider's 200 answer has a shape that is not known."""


class InBandError(Exception):
    """A 200 answer carries an error; ``error`` is what tells of it."""

    def __init__(self, error: Any) -> None:
        super().__init__("error within the answer")
        self.error = error


def exactly(body: bytes | str, what: str) -> Any:
    """The JSON value, numbers with a point as they are written: an amount of money never becomes a float.

    Raises Drift.
    """
    try:
        return _read(_EXACT.decode, body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Drift(f"{what} is not JSON") from None


def event_of(data: str) -> dict[str, Any]:
    """The JSON object of one event of a stream. Raises Drift."""
    try:
        value = _read(_PLAIN.decode, data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Drift("an event is not JSON") from None
    if not isinstance(value, dict):
        raise Drift("an event is not an object")
    return value


def _read(decode: Callable[[bytes | str], Any], body: bytes | str) -> Any:
    """The value. A provider that counts in UTF-16 units may cut a character in two: each half becomes U+FFFD."""
    try:
        return decode(body)
    except msgspec.DecodeError:
        text = body if isinstance(body, str) else body.decode()
        mended = _ESCAPE.sub(lambda found: found[0] if found["half"] is None else r"\ufffd", text)
        return decode(mended)
