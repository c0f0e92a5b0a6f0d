"""The dialect of ``POST /v1/responses``. Pure.

What goes on from earlier responses (``previous_response_id``, references to items) and what is to be kept
(``store``, default false) is for the shelf of ``conversations``: a request is parsed without it.
"""

from __future__ import annotations

import orjson

from poe_gateway.chat.dialect import Head, Reply, Shape
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.responses import objects
from poe_gateway.chat.responses.parsing import parse
from poe_gateway.chat.responses.writer import ResponseWriter


class OpenAIResponses:
    """Implements ``Dialect``."""

    route = "/v1/responses"
    shape: Shape = "openai"
    prefix = "resp"
    stream_type = b"text/event-stream; charset=utf-8"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return parse(raw)

    def whole(self, reply: Reply) -> bytes:
        """A ``response`` object."""
        return orjson.dumps(objects.finished(reply, objects.output(reply)))

    def writer(self, head: Head) -> ResponseWriter:
        return ResponseWriter(head)
