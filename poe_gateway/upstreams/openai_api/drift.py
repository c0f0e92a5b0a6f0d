"""What a provider's answer may turn out to be instead of one. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

_EXACT = msgspec.json.Decoder(float_hook=str)


class Drift(ValueError):
    """The provider's 200 answer has a shape that is not known."""


class InBandError(Exception):
    """A 200 answer carries an error object."""

    def __init__(self, error: Any) -> None:
        super().__init__("error within the answer")
        self.error = error


def exactly(body: bytes | str, what: str) -> Any:
    """The JSON value, numbers with a point as they are written: an amount of money never becomes a float.

    Raises Drift.
    """
    try:
        return _EXACT.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Drift(f"{what} is not JSON") from None
