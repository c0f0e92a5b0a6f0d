"""Embeddings of the mock models: unit vectors made of a hash, the same for the same input. Pure."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

from poe_gateway.chat.request import ChatRequest
from poe_gateway.upstreams.mock.answer import tokens
from poe_gateway.upstreams.mock.wishes import Unfulfillable

USUAL = 8
"""Numbers in a vector, unless ``dimensions`` asks for more or less."""
_MOST = 4096
_MOST_NUMBERS = 1_000_000
"""Of all vectors of one request together."""
_HALF = 2**31


def vectors(request: ChatRequest) -> list[tuple[float, ...]]:
    """One unit vector for each input. Raises Unfulfillable."""
    size = _size(request.parameters.get("dimensions"))
    if size * len(request.inputs) > _MOST_NUMBERS:
        raise Unfulfillable(f"The mock models make at most {_MOST_NUMBERS} numbers at once.")
    return [vector(each, size) for each in request.inputs]


def vector(text: str | tuple[int, ...], size: int) -> tuple[float, ...]:
    """A unit vector of ``size`` numbers; it says nothing of the meaning."""
    shape, written = ("text", text) if isinstance(text, str) else ("tokens", repr(text))
    digest = hashlib.shake_256(f"{shape}\n{written}".encode("utf-8", "surrogatepass")).digest(4 * size)
    # Odd numbers only, so that no vector is all zeros.
    numbers = [(number | 1) - _HALF for number in struct.unpack(f"<{size}I", digest)]
    length = math.hypot(*numbers)
    return tuple([number / length for number in numbers])


def prompt_tokens(request: ChatRequest) -> int:
    """Tokens of all inputs: a quarter of the characters, or as many as were handed in."""
    return sum(tokens(len(each)) if isinstance(each, str) else len(each) for each in request.inputs)


def _size(wanted: Any) -> int:
    if wanted is None:
        return USUAL
    if type(wanted) is not int or not 1 <= wanted <= _MOST:
        raise Unfulfillable(f"'dimensions' must be a whole number from 1 to {_MOST}.")
    return wanted
