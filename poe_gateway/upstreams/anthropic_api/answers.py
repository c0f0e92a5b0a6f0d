"""One answer on its way in: events of Anthropic's stream -> canonical events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from poe_gateway.chat.events import (
    ChatEvent,
    FinishReason,
    Measured,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from poe_gateway.upstreams.drift import Drift, InBandError, event_of

_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_SILENT = frozenset({None, "end_turn", "pause_turn", "tool_use"})
"""Reasons that do not explain why nothing was said."""
_MOST = 2**53
_LONGEST_ID = 200


class Reader:
    """Collects what a stream tells: ``take`` every event's data, then ask the properties."""

    def __init__(self) -> None:
        self.done = False
        """``message_stop`` came."""
        self.understood = 0
        """Events that had a known shape."""
        self.spoke = False
        """Anything of an answer came: text, a tool call, thinking."""
        self.stop_sequence: str | None = None
        self._reason: str | None = None
        self._id: str | None = None
        self._counts: dict[str, int] = {}
        self._calls: dict[int, int] = {}
        """Index of a block -> number of its call."""
        self._bare: dict[int, str] = {}
        """Arguments that the opening of a call told, until others come."""

    @property
    def complete(self) -> bool:
        """The provider said in one way or the other that the answer ends here."""
        return self.done or self._reason is not None

    @property
    def empty(self) -> bool:
        """Complete, and nothing was said though nothing forbade it."""
        return not self.spoke and self._reason in _SILENT

    @property
    def reason(self) -> FinishReason:
        called: FinishReason = "tool_calls" if self._calls else "stop"
        return called if self._reason == "tool_use" else _REASONS.get(self._reason or "", called)

    @property
    def usage(self) -> Measured:
        """Tokens so far; of the prompt, those read from and written to a cache are a part."""
        parts = [self._counts.get(name) for name in _PROMPT]
        told = [part for part in parts if part is not None]
        return Measured(
            prompt_tokens=sum(told) if told else None,
            completion_tokens=self._counts.get("output_tokens"),
            cached_tokens=self._counts.get("cache_read_input_tokens"),
            reasoning_tokens=self._counts.get("thinking_tokens"),
            upstream_id=self._id,
        )

    def take(self, data: str) -> list[ChatEvent]:
        """The events of one event. Raises InBandError, Drift."""
        events = self._events(event_of(data))
        self.spoke = self.spoke or any(not isinstance(event, Measured) for event in events)
        return events

    def _events(self, value: dict[str, Any]) -> list[ChatEvent]:
        match value.get("type"):
            case "error":
                raise InBandError(value)
            case "message_start":
                return self._start(_part(value, "message"))
            case "content_block_start":
                return self._open(_index(value), _part(value, "content_block"))
            case "content_block_delta":
                return self._delta(_index(value), _part(value, "delta"))
            case "content_block_stop":
                self.understood += 1
                arguments = self._bare.pop(_index(value), None)
                return [] if arguments is None else [self._call(_index(value), {"arguments": arguments})]
            case "message_delta":
                return self._end(_part(value, "delta"), value.get("usage"))
            case "message_stop":
                self.done = True
        return []

    def _start(self, message: dict[str, Any]) -> list[ChatEvent]:
        self.understood += 1
        self._count(message.get("usage"))
        name = message.get("id")
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_ID or not name.isprintable():
            return []
        self._id = name  # told at once: whoever leaves in mid-answer may be found by it too
        return [Measured(upstream_id=name)]

    def _open(self, index: int, block: dict[str, Any]) -> list[ChatEvent]:
        self.understood += 1
        match block.get("type"):
            case "text":
                return _texts(block.get("text"))
            case "thinking":
                return _thoughts(block.get("thinking"), block.get("signature"))
            case "redacted_thinking" if data := _string(block.get("data")):
                return [ReasoningDelta("", None, data)]
            case "tool_use":
                given = block.get("input")
                self._bare[index] = orjson.dumps(given).decode() if isinstance(given, dict) else "{}"
                self._calls[index] = len(self._calls)
                function = {"name": _string(block.get("name")), "arguments": ""}
                return [self._call(index, function, id=_string(block.get("id")), type="function")]
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[ChatEvent]:
        self.understood += 1
        match delta.get("type"):
            case "text_delta":
                return _texts(delta.get("text"))
            case "thinking_delta":
                return _thoughts(delta.get("thinking"), None)
            case "signature_delta":
                return _thoughts(None, delta.get("signature"))
            case "input_json_delta" if index in self._calls and (text := _string(delta.get("partial_json"))):
                self._bare.pop(index, None)
                return [self._call(index, {"arguments": text})]
        return []

    def _end(self, delta: dict[str, Any], usage: Any) -> list[ChatEvent]:
        self.understood += 1
        self._count(usage)
        if isinstance(reason := delta.get("stop_reason"), str):
            self._reason = reason
        if isinstance(sequence := delta.get("stop_sequence"), str):
            self.stop_sequence = sequence
        details = delta.get("stop_details")
        explained = details.get("explanation") if isinstance(details, dict) and self._reason == "refusal" else None
        return [RefusalDelta(explained)] if isinstance(explained, str) and explained else []

    def _count(self, usage: Any) -> None:
        """Counts are running totals; those that an event leaves out stay."""
        if not isinstance(usage, dict):
            return
        details = usage.get("output_tokens_details")
        told = {**usage, **details} if isinstance(details, dict) else usage
        for name in (*_PROMPT, "output_tokens", "thinking_tokens"):
            value = told.get(name)
            if type(value) is int and 0 <= value <= _MOST:
                self._counts[name] = value

    def _call(self, index: int, function: dict[str, str], **first: str) -> ToolCallDelta:
        return ToolCallDelta(({"index": self._calls[index], **first, "function": function},))


_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    part = value.get(name)
    if not isinstance(part, dict):
        raise Drift(f"an event of the stream has no {name}")
    return part


def _index(value: dict[str, Any]) -> int:
    index = value.get("index")
    return index if type(index) is int else 0


def _texts(text: Any) -> list[ChatEvent]:
    return [TextDelta(text)] if isinstance(text, str) and text else []


def _thoughts(text: Any, signature: Any) -> list[ChatEvent]:
    said, signed = _string(text), _string(signature)
    return [ReasoningDelta(said, signed or None)] if said or signed else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
