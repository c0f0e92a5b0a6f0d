"""What a mock account does with a request: the events of its answer, and how it ends. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from poe_gateway.chat.events import (
    ChatEvent,
    Embedded,
    Finished,
    Measured,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from poe_gateway.chat.request import ChatRequest
from poe_gateway.upstreams.mock.answer import QUOTED, answer, last_user_text, tokens, words
from poe_gateway.upstreams.mock.paintings import paintings
from poe_gateway.upstreams.mock.plan import Plan
from poe_gateway.upstreams.mock.toolbox import calls
from poe_gateway.upstreams.mock.vectors import prompt_tokens, vectors
from poe_gateway.upstreams.mock.wishes import read_wishes


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in full. ``events`` are its pieces; ``measured`` has no price yet."""

    events: tuple[ChatEvent, ...]
    measured: Measured
    finished: Finished = Finished()

    def half(self) -> tuple[ChatEvent, ...]:
        """The first half of the pieces, for an answer that breaks off."""
        return self.events[: -(-len(self.events) // 2)]


def script(plan: Plan, model: str, request: ChatRequest) -> Script:
    """The answer of any operation. Raises Unfulfillable, Unsampled."""
    if request.operation == "embed":
        made = [Embedded(index, vector) for index, vector in enumerate(vectors(request))]
        return Script(events=tuple(made), measured=Measured(prompt_tokens(request), 0))
    prompt = tokens(sum(len(message.text) for message in request.messages))
    if request.operation == "image":
        return Script(events=tuple(paintings(request)), measured=Measured(prompt, 0))
    return _chat(plan, model, request, prompt)


def _chat(plan: Plan, model: str, request: ChatRequest, prompt: int) -> Script:
    wishes = read_wishes(request)
    said = last_user_text(request.messages)
    scripted = plan.says(model, said)
    fragments = calls(request) if scripted is None else ()
    thought = f"[mock] thinking of: {said[:QUOTED]}" if wishes.thinks else ""
    events: list[ChatEvent] = [ReasoningDelta(thought)] if thought else []
    if fragments:
        events += [ToolCallDelta((fragment,)) for fragment in fragments]
        finished = Finished("tool_calls")
        length = sum(len(part) for part in _parts(fragments))
    else:
        pieces = answer(model, request, plan.slow_pieces) if scripted is None else tuple(words(scripted))
        pieces, finished = wishes.ended(pieces)
        events += [TextDelta(piece, wishes.told(piece)) for piece in pieces]
        length = sum(map(len, pieces))
    measured = Measured(
        prompt_tokens=prompt,
        completion_tokens=tokens(length + len(thought)),
        reasoning_tokens=tokens(len(thought)) if thought else None,
    )
    return Script(events=tuple(events), measured=measured, finished=finished)


def _parts(fragments: tuple[dict[str, Any], ...]) -> Iterator[str]:
    for fragment in fragments:
        yield from (fragment["function"].get("name", ""), fragment["function"].get("arguments", ""))
