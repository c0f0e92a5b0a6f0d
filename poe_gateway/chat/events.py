"""What an upstream's answer consists of, in order: any number of texts, then one ``Finished``.

``TextDelta`` appends; ``TextReplaced`` throws away everything said before and gives the whole text anew
(some chat sites do that in mid-answer). ``Measured`` may come at any time before ``Finished``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    """The next piece of the answer."""

    text: str


class TextReplaced(msgspec.Struct, frozen=True, tag=True):
    """The answer so far is void; this is the whole text now."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, tag=True):
    """Fragments of tool calls in OpenAI's streaming shape (``index``, ``id``, ``type``, ``function``)."""

    calls: tuple[dict[str, Any], ...]


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


class Bound(msgspec.Struct, frozen=True, tag=True):
    """The upstream conversation that holds this exchange, so that a session can continue it.

    ``state`` is the adapter's own small, credential-free document (for Poe: chat id, chat code, bot).
    """

    state: dict[str, Any]


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The answer is complete. Its absence means that the answer was cut off."""

    reason: FinishReason = "stop"


ChatEvent = TextDelta | TextReplaced | ToolCallDelta | Measured | Bound | Finished
