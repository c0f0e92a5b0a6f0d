"""Embeddings: what is sent, and the vectors that come back. Pure."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import msgspec

from poe_gateway.chat.events import ChatEvent, Embedded
from poe_gateway.chat.request import ChatRequest
from poe_gateway.upstreams.drift import Drift, InBandError, exactly
from poe_gateway.upstreams.openai_api.figures import read_input_usage

_FLOAT = 4
"""Bytes of a number in a vector told as base64."""


class _Row(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Row] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def embeddings_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The JSON body of ``/embeddings``; vectors are asked for as numbers, which every provider can write."""
    return {**request.parameters, "model": model, "input": list(request.inputs), "encoding_format": "float"}


def read_embeddings(body: bytes, expected: int) -> list[ChatEvent]:
    """One vector for each of ``expected`` inputs, in their order, then the usage. Raises InBandError, Drift."""
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeError):
        raise Drift("the vectors are not as expected") from None
    if answer.error:
        raise InBandError(answer.error)
    vectors: dict[int, tuple[float, ...]] = {}
    for nth, row in enumerate(answer.data or ()):
        vectors[nth if row.index is None else row.index] = _vector(row.embedding)
    if sorted(vectors) != list(range(expected)) or len(answer.data or ()) != expected:
        raise Drift("there is not one vector for each input")
    events: list[ChatEvent] = [Embedded(index, vectors[index]) for index in range(expected)]
    usage = read_input_usage(exactly(bytes(answer.usage), "the usage"))
    return events if usage is None else [*events, usage]


def _vector(told: list[float] | str) -> tuple[float, ...]:
    if isinstance(told, str):
        told = _unpacked(told)
    if not told:
        raise Drift("a vector is empty")
    return tuple(told)


def _unpacked(text: str) -> list[float]:
    """Little-endian 32-bit numbers in base64, from those that write nothing else."""
    try:
        data = base64.b64decode(text, validate=True)
        return list(struct.unpack(f"<{len(data) // _FLOAT}f", data))
    except (binascii.Error, ValueError, struct.error):
        raise Drift("a vector is neither numbers nor base64") from None
