"""Answers as Ollama's clients read them: one object, or JSON lines of which the last says ``done``. Pure.

A picture given by its address is told as markdown, bytes go into ``images``. Arguments of tool calls are objects here:
what a model wrote instead stands under ``invalid_json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from poe_gateway.chat.appending import Appender
from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.events import (
    ChatEvent,
    Finished,
    ImageMade,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
)
from poe_gateway.chat.ollama.options import DONE
from poe_gateway.chat.request import ToolCall
from poe_gateway.chat.sse import sendable
from poe_gateway.errors import GatewayError

_NANO = 1_000_000_000
_LAST = 253_402_300_799
"""The last second that has a date."""
Fields = dict[str, Any]


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What is said at once: by one line of a stream, or by the whole answer."""

    text: str = ""
    thinking: str = ""
    images: tuple[str, ...] = ()
    """Base64."""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Fields, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.thinking or self.images or self.calls or self.logprobs)


Shown = Callable[[Piece], Fields]


def chat_fields(piece: Piece) -> Fields:
    """A piece of ``/api/chat``."""
    message: Fields = {"role": "assistant", "content": piece.text}
    if piece.thinking:
        message["thinking"] = piece.thinking
    if piece.images:
        message["images"] = piece.images
    if piece.calls:
        message["tool_calls"] = [_call(call) for call in piece.calls]
    return {"message": message} | _logprobs(piece)


def generate_fields(piece: Piece) -> Fields:
    """A piece of ``/api/generate``; the first picture stands alone, as Ollama does it."""
    fields: Fields = {"response": piece.text}
    if piece.thinking:
        fields["thinking"] = piece.thinking
    if piece.images:
        fields["image"], fields["images"] = piece.images[0], piece.images
    if piece.calls:
        fields["tool_calls"] = [_call(call) for call in piece.calls]
    return fields | _logprobs(piece)


def _logprobs(piece: Piece) -> Fields:
    return {} if piece.logprobs is None else {"logprobs": piece.logprobs}


def _call(call: ToolCall) -> Fields:
    arguments: Any
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"invalid_json": call.arguments}
    # Not orjson's own writer: numbers may be larger than it takes.
    written = orjson.Fragment(msgspec.json.encode(arguments))
    return {"id": call.id, "function": {"name": call.name, "arguments": written}}


def whole(reply: Reply, shown: Shown) -> bytes:
    """The whole answer as one object."""
    piece = Piece(
        text=reply.text + reply.refusal + "".join(_linked(image) for image in reply.images),
        thinking=reply.reasoning,
        images=_bytes(reply.images),
        calls=reply.tool_calls,
        logprobs=reply.logprobs,
    )
    return orjson.dumps(_begun(reply.head) | shown(piece) | _ending(reply, reply.finish))


def _linked(image: ImageMade) -> str:
    return f"\n\n![]({image.url})" if image.base64 is None else ""


def _bytes(images: Iterable[ImageMade]) -> tuple[str, ...]:
    return tuple(image.base64 for image in images if image.base64 is not None)


def _begun(head: Head) -> Fields:
    return {"model": head.model, "created_at": moment(head.created)}


def moment(seconds: int) -> str:
    """A Unix second as RFC 3339; upstreams may tell any number."""
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST), UTC).isoformat().replace("+00:00", "Z")


def _ending(reply: Reply, reason: str) -> Fields:
    """``done`` and the figures. How the time divides is not known: all of it counts as answering."""
    if (loaded := reply.head.request.echo.get(DONE)) is not None:
        return {"done": True, "done_reason": loaded}
    spent = round(reply.seconds * _NANO)
    return {
        "done": True,
        "done_reason": "stop" if reason == "tool_calls" else reason,
        "total_duration": spent,
        "load_duration": 0,
        "prompt_eval_count": reply.usage.prompt_tokens,
        "prompt_eval_duration": 0,
        "eval_count": reply.usage.completion_tokens,
        "eval_duration": spent,
        **reply.usage.extras(),
    }


def embeddings(reply: Reply) -> bytes:
    """Of ``/api/embed``."""
    return orjson.dumps(
        {
            "model": reply.head.model,
            "embeddings": reply.vectors,
            "total_duration": round(reply.seconds * _NANO),
            "load_duration": 0,
            "prompt_eval_count": reply.usage.prompt_tokens,
            **reply.usage.extras(),
        }
    )


def embedding(reply: Reply) -> bytes:
    """Of ``/api/embeddings``: one vector."""
    return orjson.dumps({"embedding": reply.vectors[0] if reply.vectors else ()})


class LineWriter:
    """Implements ``Writer``: a line for every piece, tool calls whole before the last one."""

    __slots__ = ("_begun", "_shown", "_text")

    def __init__(self, head: Head, shown: Shown) -> None:
        self._begun = _begun(head)
        self._shown = shown
        self._text = Appender()

    def begin(self) -> bytes:
        """Nothing: every line says whose it is."""
        return b""

    def event(self, event: ChatEvent) -> bytes:
        """One piece."""
        piece = self._piece(event)
        return self._line(self._shown(piece) | {"done": False}) if piece else b""

    def _piece(self, event: ChatEvent) -> Piece:
        if isinstance(event, TextDelta | TextReplaced):
            logprobs = event.logprobs if isinstance(event, TextDelta) else None
            return Piece(text=self._text.piece(event), logprobs=logprobs)
        if isinstance(event, ReasoningDelta):
            return Piece(thinking=event.text)
        if isinstance(event, RefusalDelta):
            return Piece(text=event.text)
        if isinstance(event, ImageMade):
            return Piece(text=_linked(event), images=_bytes([event]))
        return Piece()

    def end(self, finished: Finished, reply: Reply) -> bytes:
        """Tool calls, which are told whole, then the line that says ``done``."""
        calls = Piece(calls=reply.tool_calls)
        out = self._line(self._shown(calls) | {"done": False}) if calls else b""
        return out + self._line(self._shown(Piece()) | _ending(reply, finished.reason))

    def broken(self, error: GatewayError) -> bytes:
        return orjson.dumps({"error": sendable(error.message), "code": error.code}) + b"\n"

    def _line(self, fields: Fields) -> bytes:
        return orjson.dumps(self._begun | fields) + b"\n"
