"""What the tests of emulation share: an upstream that plays answers, and answers in any pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from poe_gateway.chat.events import ChatEvent, Finished, TextDelta, TextReplaced, ToolCallDelta
from poe_gateway.chat.request import ChatRequest, Message, TextPart, Tool, ToolCall
from poe_gateway.chat.tool_calls import merged
from poe_gateway.dispatch.fitting import answered, fit
from poe_gateway.upstreams.base import AccountRef, Capabilities, UpstreamFailure

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool(name="get_weather", description="The weather.", parameters=CITY)
NOW = Tool(name="now")
REF = AccountRef(id="acc", name="acc", offer="chat", credentials={})
Script = Iterable[ChatEvent | Exception]


class Chat:
    """An upstream that only chats; each call plays the next script."""

    name = "chat"

    def __init__(self, *scripts: Script | str, capabilities: Capabilities | None = None) -> None:
        self.capabilities = capabilities or Capabilities(sessions=True)
        self._scripts = list(scripts)
        self.asked: list[tuple[ChatRequest, Mapping[str, Any] | None]] = []
        self.closed = 0
        """Calls that are over, in whatever way."""

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        self.asked.append((request, bound))
        script = self._scripts.pop(0)
        try:
            for event in (TextDelta(script), Finished()) if isinstance(script, str) else script:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed += 1


class Said:
    """What a caller got."""

    def __init__(self) -> None:
        self.events: list[ChatEvent] = []
        self.failure: UpstreamFailure | None = None

    @property
    def text(self) -> str:
        return shown(self.events)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return merged([call for event in self.events if isinstance(event, ToolCallDelta) for call in event.calls])

    @property
    def finish(self) -> Finished | None:
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Finished) else None


def shown(events: Iterable[ChatEvent]) -> str:
    text = ""
    for event in events:
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, TextReplaced):
            text = event.text
    return text


def asking(*messages: Message | str, **more: Any) -> ChatRequest:
    turns = tuple(Message("user", (TextPart(each),)) if isinstance(each, str) else each for each in messages)
    return ChatRequest(model="m", messages=turns or (Message("user", (TextPart("Hello?"),)),), **more)


async def ask(
    upstream: Any, request: ChatRequest, bound: Mapping[str, Any] | None = None, drop: bool = False, **more: Any
) -> Said:
    said = Said()
    how = fit(request, upstream.capabilities, drop=drop)
    try:
        async for event in answered(how, upstream, REF, "m", request, bound, **more):
            said.events.append(event)
    except UpstreamFailure as failure:
        said.failure = failure
    return said


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    """``text`` cut at these places."""
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 10_000), max_size=40)
