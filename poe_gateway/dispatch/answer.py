"""What an upstream has said so far of one answer."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.chat.events import (
    Bound,
    ChatEvent,
    FinishReason,
    Measured,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)


class Answer(msgspec.Struct, kw_only=True):
    """Collects the events of one attempt."""

    pieces: list[str] = []
    tool_calls: list[dict[str, Any]] = []
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    points: int | None = None
    cached_tokens: int | None = None
    cost: tuple[str, str] | None = None
    """The upstream's own figure: a decimal number as text, and its currency."""
    upstream_id: str | None = None
    state: dict[str, Any] | None = None
    finish: FinishReason | None = None

    def observe(self, event: ChatEvent) -> None:
        """Take one event in."""
        if isinstance(event, TextDelta):
            self.pieces.append(event.text)
        elif isinstance(event, TextReplaced):
            self.pieces[:] = [event.text]
        elif isinstance(event, ToolCallDelta):
            self.tool_calls.extend(event.calls)
        elif isinstance(event, Measured):
            self.prompt_tokens = event.prompt_tokens if event.prompt_tokens is not None else self.prompt_tokens
            self.completion_tokens = (
                event.completion_tokens if event.completion_tokens is not None else self.completion_tokens
            )
            self.points = event.points if event.points is not None else self.points
            self.cached_tokens = event.cached_tokens if event.cached_tokens is not None else self.cached_tokens
            self.cost = (event.cost, event.currency) if event.cost is not None else self.cost
            self.upstream_id = event.upstream_id or self.upstream_id
        elif isinstance(event, Bound):
            self.state = event.state
        else:
            self.finish = event.reason

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def empty(self) -> bool:
        return not self.tool_calls and not any(self.pieces)
