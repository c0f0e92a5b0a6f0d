"""What an upstream's answer consists of, in order: any number of pieces, then one ``Finished``.

``TextDelta`` appends; ``TextReplaced`` throws away all text said before and gives the whole text anew
(some chat sites do that in mid-answer). ``Measured`` may come at any time before ``Finished``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    """The next piece of the answer. ``logprobs``: its tokens in OpenAI's shape, where asked for and told."""

    text: str
    logprobs: tuple[dict[str, Any], ...] | None = None


class TextReplaced(msgspec.Struct, frozen=True, tag=True):
    """The answer so far is void; this is the whole text now."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True, tag=True):
    """The next piece of what the model says instead of an answer, where the upstream keeps the two apart."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, tag=True):
    """The next piece of the model's thinking. ``signature``: Anthropic's proof of the thinking before it.

    ``redacted``: thinking that is told only in Anthropic's own sealed form; ``text`` is empty then.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, tag=True):
    """Fragments of tool calls in OpenAI's streaming shape (``index``, ``id``, ``type``, ``function``)."""

    calls: tuple[dict[str, Any], ...]


class ImageMade(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A picture: by address, or its bytes in base64."""

    url: str | None = None
    base64: str | None = None
    media_type: str = "image/png"
    revised_prompt: str | None = None


class Embedded(msgspec.Struct, frozen=True, tag=True):
    """The vector of input number ``index`` (from 0)."""

    index: int
    vector: tuple[float, ...]


class Measured(msgspec.Struct, frozen=True, tag=True):
    """Figures told by the upstream itself; None = not told. ``points`` is the true price in points.

    ``cost`` is its own figure of the price in money: a decimal number as text, of ``currency``. ``upstream_id``: its
    own name of the exchange.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    points: int | None = None
    cached_tokens: int | None = None
    cost: str | None = None
    currency: str = "USD"
    upstream_id: str | None = None
    reasoning_tokens: int | None = None


class Bound(msgspec.Struct, frozen=True, tag=True):
    """The upstream conversation that holds this exchange, so that a session can continue it.

    ``state`` is the adapter's own small, credential-free document (for Poe: chat id, chat code, bot).
    """

    state: dict[str, Any]


class Discarded(msgspec.Struct, frozen=True, tag=True):
    """What one call of the upstream wrote, and what is not used: another call follows, or the answer fails. It is paid
    all the same."""

    text: str


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The answer is complete. Its absence means that the answer was cut off.

    ``stop_sequence``: which of the caller's stop sequences ended it, where that is told.
    """

    reason: FinishReason = "stop"
    stop_sequence: str | None = None


Piece = TextDelta | TextReplaced | RefusalDelta | ReasoningDelta | ToolCallDelta | ImageMade | Embedded
"""What a caller sees."""
ChatEvent = Piece | Measured | Bound | Discarded | Finished
