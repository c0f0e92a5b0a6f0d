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
from poe_gateway.money import LARGEST


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
            self.prompt_tokens = _count(event.prompt_tokens, self.prompt_tokens)
            self.completion_tokens = _count(event.completion_tokens, self.completion_tokens)
            self.points = _count(event.points, self.points)
            self.cached_tokens = _count(event.cached_tokens, self.cached_tokens)
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
    def length(self) -> int:
        """Characters that were produced: of the text, and of the names and arguments of tool calls."""
        functions = [function for call in self.tool_calls if isinstance(function := call.get("function"), dict)]
        parts = [each.get(name) for each in functions for name in ("name", "arguments")]
        return len(self.text) + sum(len(part) for part in parts if isinstance(part, str))

    @property
    def counted(self) -> bool:
        """Whether the upstream told anything that it counted."""
        told = (self.prompt_tokens, self.completion_tokens, self.points, self.cost)
        return any(each is not None for each in told)

    @property
    def empty(self) -> bool:
        return not self.tool_calls and not any(self.pieces)


def _count(told: int | None, known: int | None) -> int | None:
    """What is told now, else what is known: a count below zero, or beyond what a ledger holds, tells nothing."""
    return told if told is not None and 0 <= told <= LARGEST else known
