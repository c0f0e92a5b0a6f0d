"""Ollama's dialect: ``/api/chat``, ``/api/generate``, ``/api/embed`` and the old ``/api/embeddings``. Pure.

Contract: what Ollama's own clients send and read. ``stream`` is true unless said otherwise, and streams are JSON
lines. What means a machine of one's own (``keep_alive``, ``options.num_ctx``, ``num_gpu`` …) has no meaning here and
is passed over; every other option is passed on, or refused by upstreams that do not follow it.
"""

from __future__ import annotations

from poe_gateway.chat.dialect import Head, Reply, Shape, Writer
from poe_gateway.chat.ollama import answers, requests
from poe_gateway.chat.request import ChatRequest
from poe_gateway.errors import InvalidRequest

NDJSON = b"application/x-ndjson"


class OllamaChat:
    """Implements ``Dialect``: ``/api/chat``."""

    route = "/api/chat"
    shape: Shape = "ollama"
    prefix = "ollama"
    stream_type = NDJSON

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return requests.parse_chat(raw)

    def whole(self, reply: Reply) -> bytes:
        return answers.whole(reply, answers.chat_fields)

    def writer(self, head: Head) -> Writer:
        return answers.LineWriter(head, answers.chat_fields)


class OllamaGenerate:
    """Implements ``Dialect``: ``/api/generate``."""

    route = "/api/generate"
    shape: Shape = "ollama"
    prefix = "ollama"
    stream_type = NDJSON

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return requests.parse_generate(raw)

    def whole(self, reply: Reply) -> bytes:
        return answers.whole(reply, answers.generate_fields)

    def writer(self, head: Head) -> Writer:
        return answers.LineWriter(head, answers.generate_fields)


class OllamaEmbed:
    """Implements ``Dialect``: ``/api/embed``; never streamed."""

    route = "/api/embed"
    shape: Shape = "ollama"
    prefix = "ollama"
    stream_type = b"application/json"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return requests.parse_embed(raw)

    def whole(self, reply: Reply) -> bytes:
        return answers.embeddings(reply)

    def writer(self, head: Head) -> Writer:
        """Never asked for: such requests are not streamed."""
        raise InvalidRequest("Embeddings are not streamed.", param="stream", code="unsupported_parameter")


class OllamaEmbeddings(OllamaEmbed):
    """Implements ``Dialect``: ``/api/embeddings``, the old form with one text."""

    route = "/api/embeddings"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return requests.parse_embeddings(raw)

    def whole(self, reply: Reply) -> bytes:
        return answers.embedding(reply)
