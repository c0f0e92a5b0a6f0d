"""A stream of Anthropic's Messages API: blocks one after the other, each opened, filled and closed. Pure.

The API has one block open at a time. Pieces that come while a tool call is being written wait for its end; of calls
that an upstream writes at the same time, one is told after the other.
"""

from __future__ import annotations

from typing import Any, Literal

from poe_gateway.chat import estimate
from poe_gateway.chat.anthropic.answer import call_id, message, picture, stop_reason, usage_object
from poe_gateway.chat.anthropic.arguments import Arguments
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
    ToolCallDelta,
)
from poe_gateway.chat.sse import anthropic_error, named_event
from poe_gateway.errors import GatewayError

_Kind = Literal["text", "thinking", "redacted_thinking", "tool_use"]


class _Call:
    """One tool call: what came of it and has not been told yet."""

    __slots__ = ("arguments", "id", "name", "waiting")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.waiting = ""
        self.arguments = Arguments()

    def take(self, fragment: dict[str, Any]) -> None:
        function = fragment.get("function") or {}
        self.id = self.id or fragment.get("id") or ""
        self.name = self.name or function.get("name") or ""
        self.waiting += function.get("arguments") or ""


class MessageWriter:
    """Implements ``Writer``."""

    __slots__ = ("_calls", "_current", "_head", "_held", "_index", "_open", "_signed", "_spoken", "_text", "_told")

    def __init__(self, head: Head) -> None:
        self._head = head
        self._text = Appender()
        self._open: _Kind | None = None
        self._index = -1
        """Of the block that is open, or was last."""
        self._spoken = False
        self._signed = False
        """The open block of thinking has its signature: the next thought is another block's."""
        self._calls: dict[int, _Call] = {}
        """In order of appearance, without those that were told."""
        self._told: set[int] = set()
        self._current: _Call | None = None
        """The call whose block is open."""
        self._held: list[ChatEvent] = []

    def begin(self) -> bytes:
        """``message_start``. Its count of tokens is an estimate; ``message_delta`` brings the true one."""
        usage = {
            "input_tokens": estimate.prompt_tokens(self._head.request),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        }
        told = message(self._head.id, self._head.model, [], usage)
        return named_event("message_start", {"type": "message_start", "message": told})

    def event(self, event: ChatEvent) -> bytes:
        """One piece."""
        if isinstance(event, ToolCallDelta):
            for fragment in event.calls:
                self._take(fragment)
            return self._proceed()
        if self._current is not None and not self._current.arguments.complete:
            self._held.append(event)
            return b""
        return self._say(event)

    def end(self, finished: Finished, reply: Reply) -> bytes:
        """What was held back, ``message_delta`` with the reason and the usage, and ``message_stop``."""
        out = self._proceed(last=True)
        delta = {"stop_reason": stop_reason(finished.reason, reply), "stop_sequence": reply.stop_sequence}
        told = {"type": "message_delta", "delta": delta, "usage": usage_object(reply.usage)}
        return out + named_event("message_delta", told) + named_event("message_stop", {"type": "message_stop"})

    def broken(self, error: GatewayError) -> bytes:
        return named_event("error", anthropic_error(error))

    def _say(self, event: ChatEvent) -> bytes:
        """A piece that is not of a tool call."""
        match event:
            case TextDelta() | TextReplaced():
                return self._words(self._text.piece(event))
            case RefusalDelta():
                return self._words(event.text)
            case ImageMade():
                return self._words("\n\n" * self._spoken + picture(event))
            case ReasoningDelta():
                return self._thought(event)
        return b""

    def _words(self, text: str) -> bytes:
        if not text:
            return b""
        self._spoken = True
        return self._block("text", {"type": "text", "text": ""}) + self._delta({"type": "text_delta", "text": text})

    def _thought(self, event: ReasoningDelta) -> bytes:
        if event.redacted:
            told = {"type": "redacted_thinking", "data": event.redacted}
            return self._close() + self._block("redacted_thinking", told) + self._close()
        if not event.text and not event.signature:
            return b""
        out = self._close() if self._signed else b""
        out += self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            out += self._delta({"type": "thinking_delta", "thinking": event.text})
        if event.signature:
            out += self._delta({"type": "signature_delta", "signature": event.signature})
            self._signed = True
        return out

    def _take(self, fragment: dict[str, Any]) -> None:
        place = int(fragment.get("index", 0))
        if place not in self._told:  # after the end of an object nothing of it can follow
            self._calls.setdefault(place, _Call()).take(fragment)

    def _proceed(self, last: bool = False) -> bytes:
        """Tells as much of the calls as can be told; all that is left with ``last``."""
        out = b""
        while self._calls:
            place, call = next(iter(self._calls.items()))
            if self._current is None:
                if not call.name and not last:
                    return out
                name = call_id(self._head.id, place, call.id)
                out += self._block("tool_use", {"type": "tool_use", "id": name, "name": call.name, "input": {}})
                self._current = call
            text, call.waiting = call.waiting, ""
            out += self._partial(call.arguments.feed(text))
            if not (last or (call.arguments.complete and (len(self._calls) > 1 or self._held))):
                return out
            out += self._close()
        held, self._held = self._held, []
        for event in held:
            out += self._say(event)
        return out + (self._close() if last else b"")

    def _block(self, kind: _Kind, block: dict[str, Any]) -> bytes:
        """Opens a block, unless one of text or thinking is open that goes on."""
        if self._open == kind and kind != "tool_use":
            return b""
        out = self._close()
        self._open = kind
        self._index += 1
        told = {"type": "content_block_start", "index": self._index, "content_block": block}
        return out + named_event("content_block_start", told)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        told = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return named_event("content_block_delta", told)

    def _partial(self, arguments: str) -> bytes:
        return self._delta({"type": "input_json_delta", "partial_json": arguments}) if arguments else b""

    def _close(self) -> bytes:
        """Ends the open block."""
        if self._open is None:
            return b""
        out = b""
        if self._current is not None:
            out = self._partial(self._current.arguments.close())
            place = next(iter(self._calls))
            del self._calls[place]
            self._told.add(place)
            self._current = None
        self._open, self._signed = None, False
        told = {"type": "content_block_stop", "index": self._index}
        return out + named_event("content_block_stop", told)
