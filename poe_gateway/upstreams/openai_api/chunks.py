"""What a stream of chat completion chunks tells, or a whole chat completion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poe_gateway.chat.events import (
    ChatEvent,
    FinishReason,
    ImageMade,
    Measured,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from poe_gateway.upstreams.drift import Drift, InBandError, event_of, exactly
from poe_gateway.upstreams.openai_api.calls import Calls
from poe_gateway.upstreams.openai_api.figures import read_usage
from poe_gateway.upstreams.openai_api.pictures import picture_at

_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    # Other dialects' words, as clones let them through.
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",
    "safety": "content_filter",
    "refusal": "content_filter",
}
_SILENT = frozenset({None, "stop", "tool_calls", "function_call", "tool_use"})
"""Reasons that do not explain why nothing was said."""
_BROKEN = frozenset({"error", "abort", "insufficient_system_resource"})
"""Reasons that mean a failure on the provider's side: OpenRouter's, vLLM's and SGLang's, DeepSeek's."""
_LONGEST_ID = 200


class Reader:
    """Collects what an answer tells: ``take`` every event's data, then ask the properties."""

    def __init__(self) -> None:
        self.done = False
        """``[DONE]`` came."""
        self.usage: Measured | None = None
        self.upstream_id: str | None = None
        """The provider's name of the exchange."""
        self.understood = 0
        """Chunks that had the known shape."""
        self.spoke = False
        """Anything of an answer came: text, a tool call, thinking, a picture."""
        self._calls = Calls()
        self._called = False
        self._reason: str | None = None

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
        reason = _REASONS.get(self._reason or "stop", "stop")
        if reason in ("stop", "tool_calls"):  # clones say either, whether there are calls or not
            return "tool_calls" if self._called else "stop"
        return reason

    def take(self, data: str) -> list[ChatEvent]:
        """The events of one chunk. Raises InBandError, Drift."""
        if data.startswith("[DONE]"):
            self.done = True
            return []
        chunk = event_of(data)
        if chunk.get("error"):
            raise InBandError(chunk["error"])
        events: list[ChatEvent] = []
        if self.upstream_id is None and (name := _name(chunk.get("id"))) is not None:
            # Told at once: whoever leaves in mid-answer must be found in the provider's books too.
            self.upstream_id = name
            events.append(Measured(upstream_id=name))
        if isinstance(chunk.get("usage"), dict):
            self.usage = read_usage(exactly(data, "an event")["usage"], self.upstream_id)
        choices = chunk.get("choices")
        if isinstance(choices, list):
            self.understood += 1
        return events + self._choice(choices)

    def take_error(self, data: str) -> list[ChatEvent]:
        """An event that goes by the name of an error, whatever it holds. Raises InBandError."""
        try:
            told = event_of(data)
        except Drift:
            raise InBandError(data) from None
        raise InBandError(told.get("error") or told)

    def take_whole(self, data: str) -> list[ChatEvent]:
        """The events of a whole completion: one that was not streamed. Raises InBandError, Drift."""
        events = self.take(data)
        if not self.spoke and self._reason is None:
            raise Drift("the answer is no chat completion")
        self.done = True
        return events

    def _choice(self, choices: Any) -> list[ChatEvent]:
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index") not in (0, None):
            return []
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            if reason in _BROKEN:
                raise InBandError(choice.get("error") or f"finish_reason {reason}")
            self._reason = reason
        said = choice.get("delta")
        if not isinstance(said, dict):
            said = choice.get("message")
        return self._said(said, choice.get("logprobs")) if isinstance(said, dict) else []

    def _said(self, said: dict[str, Any], logprobs: Any) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        thought = said.get("reasoning_content") or said.get("reasoning")
        if isinstance(thought, str) and thought:
            events.append(ReasoningDelta(thought))
        content = said.get("content")
        text, tokens = _content(content), _logprobs(logprobs)
        if text or tokens:
            events.append(TextDelta(text, tokens))
        if isinstance(refusal := said.get("refusal"), str) and refusal:
            events.append(RefusalDelta(refusal))
        events += _pictures(said.get("images"))
        if isinstance(content, list):
            events += _pictures(content)
        if told := self._calls.take(said.get("tool_calls"), self.upstream_id):
            self._called = True
            events.append(ToolCallDelta(told))
        if events:
            self.spoke = True
        return events


def _content(content: Any) -> str:
    """Text as a string, or as a list of text parts (some clones stream those)."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _pictures(parts: Any) -> list[ImageMade]:
    """Pictures in the shape of prompt parts, as OpenRouter and others tell them."""
    if not isinstance(parts, list):
        return []
    images = [part.get("image_url") for part in parts if isinstance(part, dict)]
    addresses = [image.get("url") if isinstance(image, dict) else image for image in images]
    return [picture_at(url) for url in addresses if isinstance(url, str) and url]


def _logprobs(told: Any) -> tuple[dict[str, Any], ...] | None:
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list) or not content:
        return None
    return tuple([token for token in content if isinstance(token, dict)]) or None


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isprintable() else None
