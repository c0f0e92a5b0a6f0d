"""What an upstream has said so far of one answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from poe_gateway.chat.events import (
    Bound,
    ChatEvent,
    Discarded,
    Embedded,
    Finished,
    FinishReason,
    ImageMade,
    Measured,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.request import ChatRequest, ToolCall
from poe_gateway.chat.tokens import answer_tokens, prompt_tokens
from poe_gateway.chat.tool_calls import merged
from poe_gateway.money import LARGEST


class Answer(msgspec.Struct, kw_only=True):
    """Collects the events of one attempt."""

    pieces: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    signature: str | None = None
    """Anthropic's, of the thinking."""
    tool_calls: list[dict[str, Any]] = []
    """Fragments in OpenAI's streaming shape."""
    logprobs: list[dict[str, Any]] | None = None
    images: list[ImageMade] = []
    vectors: dict[int, tuple[float, ...]] = {}
    discarded: list[str] = []
    """What earlier calls of this attempt wrote in vain."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_reckoned: int | None = None
    """By our own tokenizer, where the upstream does not tell; set when the answer is over. So is the next."""
    completion_reckoned: int | None = None
    points: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: tuple[str, str] | None = None
    """The upstream's own figure: a decimal number as text, and its currency."""
    upstream_id: str | None = None
    state: dict[str, Any] | None = None
    finish: FinishReason | None = None
    stop_sequence: str | None = None

    def observe(self, event: ChatEvent) -> None:
        """Take one event in."""
        if isinstance(event, TextDelta):
            self.pieces.append(event.text)
            if event.logprobs is not None:
                self.logprobs = [*(self.logprobs or ()), *event.logprobs]
        elif isinstance(event, TextReplaced):
            self.pieces[:] = [event.text]
        elif isinstance(event, ToolCallDelta):
            self.tool_calls.extend(event.calls)
        elif isinstance(event, Measured):
            self.prompt_tokens = _count(event.prompt_tokens, self.prompt_tokens)
            self.completion_tokens = _count(event.completion_tokens, self.completion_tokens)
            self.points = _count(event.points, self.points)
            self.cached_tokens = _count(event.cached_tokens, self.cached_tokens)
            self.reasoning_tokens = _count(event.reasoning_tokens, self.reasoning_tokens)
            self.cost = (event.cost, event.currency) if event.cost is not None else self.cost
            self.upstream_id = event.upstream_id or self.upstream_id
        elif isinstance(event, Bound):
            self.state = event.state
        elif isinstance(event, Finished):
            self.finish, self.stop_sequence = event.reason, event.stop_sequence
        elif isinstance(event, RefusalDelta):
            self.refusals.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self.thoughts.append(event.text)
            self.signature = event.signature or self.signature
        elif isinstance(event, ImageMade):
            self.images.append(event)
        elif isinstance(event, Embedded):
            self.vectors[event.index] = event.vector
        elif isinstance(event, Discarded):
            self.discarded.append(event.text)

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def refusal(self) -> str:
        return "".join(self.refusals)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, whole."""
        return merged(self.tool_calls) if self.tool_calls else ()

    @property
    def length(self) -> int:
        """Characters that were produced: of texts of every kind, be it in vain, and of the names and arguments of tool
        calls."""
        functions = [function for call in self.tool_calls if isinstance(function := call.get("function"), dict)]
        parts = [each.get(name) for each in functions for name in ("name", "arguments")]
        said = sum(map(len, (*self.refusals, *self.thoughts, *self.discarded)))
        return len(self.text) + said + sum(len(part) for part in parts if isinstance(part, str))

    def reckon(self, request: ChatRequest, count: Callable[[str], int]) -> None:
        """Count what the upstream did not tell. ``count``: tokens of a text."""
        if self.prompt_tokens is None and self.prompt_reckoned is None:
            again = answer_tokens(self.discarded, (), count) if self.discarded else 0
            self.prompt_reckoned = prompt_tokens(request, count) * self.rounds + again
        if self.completion_tokens is None:
            texts = (self.text, self.refusal, self.reasoning, *self.discarded)
            self.completion_reckoned = answer_tokens(texts, self.calls, count)

    @property
    def rounds(self) -> int:
        """Calls of the upstream that were answered, at least one."""
        return max(1, len(self.discarded) + (not self.empty))

    @property
    def counted(self) -> bool:
        """Whether the upstream told anything that it counted."""
        told = (self.prompt_tokens, self.completion_tokens, self.points, self.cost)
        return any(each is not None for each in told)

    @property
    def empty(self) -> bool:
        """Nothing that a caller would call an answer; thinking alone is none."""
        return not (self.tool_calls or any(self.pieces) or any(self.refusals) or self.images or self.vectors)


def _count(told: int | None, known: int | None) -> int | None:
    """What is told now, else what is known: a count below zero, or beyond what a ledger holds, tells nothing."""
    return told if told is not None and 0 <= told <= LARGEST else known
