"""Between the canonical request and OpenAI's chat wire format: the body we send, the chunks that we get. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from poe_gateway.chat.events import ChatEvent, FinishReason, Measured, TextDelta, ToolCallDelta
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, Part, TextPart
from poe_gateway.upstreams.base import Model

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

_EXACT = msgspec.json.Decoder(float_hook=str)
"""Leaves numbers with a point as they are written: an amount of money never becomes a float."""
_LONGEST_NUMBER = 40
_DEAREST = 10**9
"""Units of currency that one exchange may cost; more is no price."""
_MOST = 2**53
_LONGEST_ID = 200


class Drift(ValueError):
    """The provider's 200 answer has a shape that is not known."""


class InBandError(Exception):
    """The stream carries an error object instead of a chunk."""

    def __init__(self, error: Any) -> None:
        super().__init__("error within the stream")
        self.error = error


def request_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The JSON body: sampling options untouched, always streamed and with usage."""
    return {
        **request.parameters,
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class Reader:
    """Collects what a stream of chunks tells: ``take`` every event's data, then ask the properties."""

    def __init__(self) -> None:
        self.done = False
        """``[DONE]`` came."""
        self.usage: Measured | None = None
        self.upstream_id: str | None = None
        """The provider's name of the exchange."""
        self.understood = 0
        """Chunks that had the known shape."""
        self.spoke = False
        """Anything of an answer came: text, a tool call, thinking."""
        self._called = False
        self._reason: str | None = None

    @property
    def complete(self) -> bool:
        """The provider said in one way or the other that the answer ends here."""
        return self.done or self._reason is not None

    @property
    def empty(self) -> bool:
        """Complete, and nothing was said though nothing forbade it."""
        return not self.spoke and self._reason in (None, "stop")

    @property
    def reason(self) -> FinishReason:
        reason = _REASONS.get(self._reason or "stop", "stop")
        return "tool_calls" if self._called and reason == "stop" else reason

    def take(self, data: str) -> list[ChatEvent]:
        """The events of one chunk. Raises InBandError, Drift."""
        if data.startswith("[DONE]"):
            self.done = True
            return []
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise Drift("an event is not JSON") from None
        if not isinstance(chunk, dict):
            raise Drift("an event is not an object")
        if chunk.get("error"):
            raise InBandError(chunk["error"])
        events: list[ChatEvent] = []
        if self.upstream_id is None and (name := _name(chunk.get("id"))) is not None:
            # Told at once: whoever leaves in mid-answer must be found in the provider's books too.
            self.upstream_id = name
            events.append(Measured(upstream_id=name))
        if isinstance(chunk.get("usage"), dict):
            self.usage = _usage(_EXACT.decode(data)["usage"], self.upstream_id)
        choices = chunk.get("choices")
        if isinstance(choices, list):
            self.understood += 1
        return events + self._choice(choices)

    def _choice(self, choices: Any) -> list[ChatEvent]:
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index") not in (0, None):
            return []
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            if reason == "error":
                raise InBandError(choice.get("error") or "finish_reason error")
            self._reason = reason
        delta = choice.get("delta")
        return self._delta(delta) if isinstance(delta, dict) else []

    def _delta(self, delta: dict[str, Any]) -> list[ChatEvent]:
        texts = (_content(delta.get("content")), delta.get("refusal"))
        events: list[ChatEvent] = [TextDelta(text) for text in texts if isinstance(text, str) and text]
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and calls:
            told = tuple({"index": nth, **call} for nth, call in enumerate(calls) if isinstance(call, dict))
            if told:
                self._called = True
                events.append(ToolCallDelta(told))
        if events or delta.get("reasoning_content") or delta.get("reasoning"):
            self.spoke = True
        return events


def read_models(body: bytes, only: frozenset[str] | None) -> list[Model]:
    """The provider's list, reduced to the names of ``only`` where given. Raises Drift."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Drift("the list of models is not JSON") from None
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise Drift("the list of models has no data")
    names = _rows(rows)
    if rows and not names:
        raise Drift("no entry of the list of models has an id")
    return [model for model in names.values() if only is None or model.id in only]


def read_points(body: bytes) -> int:
    """Poe's ``{"current_point_balance": n}``. Raises Drift."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Drift("the balance is not JSON") from None
    points = value.get("current_point_balance") if isinstance(value, dict) else None
    if isinstance(points, bool) or not isinstance(points, int | float):
        raise Drift("the balance has no current_point_balance")
    return int(points)


def _rows(rows: Iterable[Any]) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(name := row.get("id"), str) or not name:
            continue
        owner = row.get("owned_by")
        context = _count(row.get("context_length"))
        models[name] = Model(
            id=name,
            upstream=name,
            owned_by=owner if isinstance(owner, str) and owner else "unknown",
            created=_count(row.get("created")) or 0,
            details={} if context is None else {"context_length": context},
        )
    return models


def _message(message: Message) -> dict[str, Any]:
    """One turn; text alone becomes a plain string, a turn without parts (a tool call) null."""
    content: Any = None
    if message.images:
        content = [_part(part) for part in message.parts]
    elif message.parts:
        content = message.text
    return {**message.extra, "role": message.role, "content": content}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            image = {"url": part.url} if part.detail == "auto" else {"url": part.url, "detail": part.detail}
            return {"type": "image_url", "image_url": image}


def _content(content: Any) -> Any:
    """Text as a string, or as a list of text parts (some clones stream those)."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _usage(usage: dict[str, Any], upstream_id: str | None) -> Measured:
    """``usage`` with its fractions as text."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Measured(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        # DeepSeek counts the prompt in two parts, those found in its cache and the rest.
        cached_tokens=_count(cached if cached is not None else usage.get("prompt_cache_hit_tokens")),
        # OpenRouter's, in dollars.
        cost=_amount(usage.get("cost")),
        upstream_id=upstream_id,
    )


def _amount(value: Any) -> str | None:
    """A price as it was written; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    if len(text) > _LONGEST_NUMBER:
        return None
    number = _fraction(text)
    return text if number is not None and 0 <= number <= _DEAREST else None


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isprintable() else None


def _count(value: Any) -> int | None:
    if isinstance(value, str):  # from the exact decoder
        value = _fraction(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not 0 <= value <= _MOST:
        return None
    return int(value)


def _fraction(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
