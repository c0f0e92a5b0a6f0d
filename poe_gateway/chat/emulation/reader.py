"""One answer of a model that was told about tools or a form: what may be shown at once, and what it was in the end.

Text passes as soon as it cannot be the beginning of a call. From the first call on, everything is held until the answer
is whole: a call counts only if it is valid, and what stands after it was written without its result. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from poe_gateway.chat.emulation import calls, outputs
from poe_gateway.chat.emulation.calls import Called
from poe_gateway.chat.emulation.markup import beginning_of_mark, certain, without_tags
from poe_gateway.chat.emulation.plan import Emulation
from poe_gateway.chat.events import (
    ChatEvent,
    Finished,
    FinishReason,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)

NameCall = Callable[[int], str]
"""Id of the call in that place (from 0)."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to be shown. With a ``problem`` that is what stands in for an answer that could not be used."""

    events: tuple[ChatEvent, ...] = ()
    finished: Finished
    problem: str = ""


class Reader:
    """Reads one answer. ``shown``: text of an earlier try was shown; then nothing of this one is before its end."""

    def __init__(self, emulation: Emulation, name_call: NameCall, *, again: bool = False, shown: bool = False) -> None:
        offer = emulation.offer
        self._emulation = emulation
        self._name_call = name_call
        self._pieces: list[str] = []
        self._always_held = again or emulation.output is not None or (offer is not None and offer.mode == "required")
        self._held = self._always_held
        self._tail = ""
        """The end of what was read, of which nothing is known yet."""
        self._begun = False
        """It is known that the answer is not a call without tags."""
        self._released = 0
        """Characters of the answer that were shown."""
        self._shown = shown
        self._natively = False
        """The upstream itself called a tool, or refused: there is nothing to be read."""

    @property
    def text(self) -> str:
        """All that the model wrote."""
        return "".join(self._pieces)

    @property
    def shown(self) -> bool:
        """Whether any text was shown, of this try or an earlier one."""
        return self._shown

    def take(self, event: ChatEvent) -> list[ChatEvent]:
        """What may be shown after this event; ``Finished`` belongs to ``end``."""
        if isinstance(event, TextDelta):
            if not self._emulation.by_prompt:
                return [event]
            self._pieces.append(event.text)
            visible = self._visible(event.text)
            if not visible:
                return []
            self._shown = True
            return [event if visible == event.text else TextDelta(visible)]
        if isinstance(event, TextReplaced):
            return [event] if not self._emulation.by_prompt else self._anew(event.text)
        self._natively |= isinstance(event, ToolCallDelta | RefusalDelta)
        return [event]

    def _anew(self, text: str) -> list[ChatEvent]:
        self._pieces = [text]
        self._held, self._tail, self._begun, self._released = self._always_held, "", False, 0
        visible = self._visible(text)
        if self._shown and not self._always_held:
            return [TextReplaced(visible)]
        self._shown |= bool(visible)
        return [TextDelta(visible)] if visible else []

    def _visible(self, text: str) -> str:
        if self._held:
            return ""
        self._tail += text
        if not self._begun:
            bare = calls.is_bare(self._tail)
            if bare is not False:
                self._held = bare is True
                return ""
            self._begun = True
        mark = beginning_of_mark(self._tail)
        if mark is not None:
            self._held = True
            return self._release(mark)
        return self._release(certain(self._tail))

    def _release(self, count: int) -> str:
        text, self._tail = self._tail[:count], self._tail[count:]
        self._released += count
        return text

    def end(self, finished: Finished) -> Ending:
        """The answer is whole, or was cut (``length``). Raises SchemaError."""
        if not self._emulation.by_prompt:
            return Ending(finished=finished)
        text, offer, output = self.text, self._emulation.offer, self._emulation.output
        if self._natively or finished.reason == "content_filter":
            return Ending(events=self._rest(without_tags(text) if offer else text), finished=finished)
        found = None if offer is None else calls.read(text, offer)
        if found is not None and found.calls and not found.problems:
            return self._called(found.calls, found.before, finished.reason)
        visible = text if offer is None else without_tags(text)
        if finished.reason == "length":  # what the limit has broken is not the model's fault
            if found is not None and (found.calls or found.problems):
                return self._called(found.calls, found.before, "length")
            return Ending(events=self._rest(visible), finished=finished)
        problem = "; ".join(found.problems[:3]) if found is not None else ""
        if not problem and offer is not None and offer.mode == "required":
            problem = "it does not call a tool"
        if not problem and output is not None:
            json, problem = outputs.read(visible, output)
            visible = visible if json is None else json
        return Ending(events=self._rest(visible), finished=Finished("stop") if problem else finished, problem=problem)

    def _called(self, found: tuple[Called, ...], before: str, reason: FinishReason) -> Ending:
        events = [] if self._shown and not self._released else list(self._rest(before))
        for index, call in enumerate(found):
            function = {"name": call.name, "arguments": call.arguments}
            made = {"index": index, "id": self._name_call(index), "type": "function", "function": function}
            events.append(ToolCallDelta((made,)))
        return Ending(events=tuple(events), finished=Finished("length" if reason == "length" else "tool_calls"))

    def _rest(self, whole: str) -> tuple[ChatEvent, ...]:
        """What must follow for the reader to have ``whole``."""
        sent = self.text[: self._released]
        if whole.startswith(sent) and (sent or not self._shown):
            rest = whole[len(sent) :]
            return (TextDelta(rest),) if rest else ()
        return (TextReplaced(whole),)
