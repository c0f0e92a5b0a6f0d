"""What a public dialect is: bytes in, canonical request; canonical answer, bytes out. Implementations are pure.

One module per dialect. The endpoint (``api.v1.endpoint``) does the rest: keys, limits, the walk, headers, sending.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from poe_gateway.chat.events import ChatEvent, Finished, FinishReason, ImageMade
from poe_gateway.chat.request import ChatRequest, ToolCall
from poe_gateway.chat.usage import Usage
from poe_gateway.errors import GatewayError

Shape = Literal["openai", "anthropic", "ollama"]
"""How errors look, see ``api.errors``."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an answer before its first piece. ``created``: Unix seconds. ``model``: the one that speaks."""

    id: str
    created: int
    model: str
    request: ChatRequest


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. ``vectors`` in the order of the inputs; ``seconds``: from the request to here."""

    head: Head
    finish: FinishReason
    usage: Usage
    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    signature: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[dict[str, Any], ...] | None = None
    images: tuple[ImageMade, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    stop_sequence: str | None = None
    seconds: float = 0.0
    kept: bool = False
    """It was stored, and can be retrieved by ``head.id``."""


class Writer(Protocol):
    """Writes one streamed answer. Every method returns bytes to be sent, empty when there is nothing to say."""

    def begin(self) -> bytes:
        """What comes before the first piece; sent together with it."""

    def event(self, event: ChatEvent) -> bytes:
        """One piece. ``Measured`` and ``Bound`` are never handed in, ``Finished`` goes to ``end``."""

    def end(self, finished: Finished, reply: Reply) -> bytes:
        """The rest, after the last piece; ``reply`` is the whole answer."""

    def broken(self, error: GatewayError) -> bytes:
        """The answer breaks off here; the last that is sent. May come before ``begin``."""


class Dialect(Protocol):
    """One public dialect."""

    @property
    def route(self) -> str:
        """Path of its endpoint, as metrics and logs name it."""

    @property
    def shape(self) -> Shape:
        """How its errors look."""

    @property
    def prefix(self) -> str:
        """Of the ids of its answers: ``chatcmpl``, ``resp``, ``msg`` …"""

    @property
    def stream_type(self) -> bytes:
        """Content type of its streams."""

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        """The request of a body. Raises InvalidRequest with ``param`` naming the culprit."""

    def whole(self, reply: Reply) -> bytes:
        """A whole answer, as JSON."""

    def writer(self, head: Head) -> Writer:
        """For one stream."""
