"""The ``/v1/embeddings`` dialect: bytes -> ``ChatRequest`` of operation ``embed``, vectors -> JSON. Pure."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any

import orjson

from poe_gateway.chat.dialect import Head, Reply, Shape, Writer
from poe_gateway.chat.fields import Body, document, flag, integer, model, user
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.errors import InvalidRequest

MOST_INPUTS = 2048
_LARGEST_TOKEN = 2**31 - 1
_OWN = frozenset({"model", "input", "encoding_format", "stream", "dimensions", "user"})

Input = str | tuple[int, ...]


def embed_request(
    name: str, inputs: tuple[Input, ...], parameters: dict[str, Any], echo: dict[str, Any] | None = None
) -> ChatRequest:
    """A request for vectors; every input has its turn, that of tokens is empty."""
    turns = [Message("user", (TextPart(each),) if isinstance(each, str) else ()) for each in inputs]
    return ChatRequest(
        model=name,
        messages=tuple(turns),
        operation="embed",
        inputs=inputs,
        parameters=parameters,
        echo=echo or {},
    )


def texts(value: Any, where: str = "input") -> tuple[str, ...]:
    """A string, or a list of them. Raises InvalidRequest."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_INPUTS:
        raise InvalidRequest(f"'{where}' must be a string or a list of 1 to {MOST_INPUTS} of them.", param=where)
    for place, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry:
            culprit = where if entries is not value else f"{where}[{place}]"
            raise InvalidRequest(f"'{culprit}' must be a string that is not empty.", param=culprit)
    return tuple(entries)


def _inputs(value: Any) -> tuple[Input, ...]:
    """Texts, or texts that were cut into tokens already."""
    if not isinstance(value, list) or not value or isinstance(value[0], str):
        return texts(value)
    if not isinstance(value[0], list):
        return (_tokens(value, "input"),)
    if len(value) > MOST_INPUTS:
        raise InvalidRequest(f"'input' must be a list of at most {MOST_INPUTS}.", param="input")
    return tuple([_tokens(entry, f"input[{place}]") for place, entry in enumerate(value)])


def _tokens(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"'{where}' must be a list of tokens that is not empty.", param=where)
    if not all(type(token) is int and 0 <= token <= _LARGEST_TOKEN for token in value):
        raise InvalidRequest(f"'{where}' must hold tokens only: whole numbers from 0.", param=where)
    return tuple(value)


def parse(raw: bytes | bytearray) -> ChatRequest:
    """The request of a body. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    name = model(body)
    if flag(body, "stream"):
        raise InvalidRequest("Embeddings are not streamed.", param="stream", code="unsupported_parameter")
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise InvalidRequest("'encoding_format' must be 'float' or 'base64'.", param="encoding_format")
    return embed_request(name, _inputs(body.get("input")), _parameters(body), {"base64": encoding == "base64"})


def _parameters(body: Body) -> dict[str, Any]:
    known = {"dimensions": integer(body, "dimensions", least=1, most=65_536), "user": user(body)}
    other = {key: value for key, value in body.items() if key not in _OWN}
    return {key: value for key, value in (known | other).items() if value is not None}


def packed(vector: tuple[float, ...]) -> str:
    """Base64 of 32-bit floats, little-endian, as OpenAI packs vectors."""
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


class OpenAIEmbeddings:
    """Implements ``Dialect``; never streamed."""

    route = "/v1/embeddings"
    shape: Shape = "openai"
    prefix = "embd"
    stream_type = b"application/json"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return parse(raw)

    def whole(self, reply: Reply) -> bytes:
        """A list of vectors in the order of the inputs."""
        as_base64 = reply.head.request.echo.get("base64", False)
        data = [
            {"object": "embedding", "index": index, "embedding": packed(vector) if as_base64 else vector}
            for index, vector in enumerate(reply.vectors)
        ]
        usage = {"prompt_tokens": reply.usage.prompt_tokens, "total_tokens": reply.usage.prompt_tokens}
        usage.update(reply.usage.extras())
        return orjson.dumps({"object": "list", "data": data, "model": reply.head.model, "usage": usage})

    def writer(self, head: Head) -> Writer:
        """Never asked for: ``parse`` refuses ``stream``."""
        raise InvalidRequest("Embeddings are not streamed.", param="stream", code="unsupported_parameter")
