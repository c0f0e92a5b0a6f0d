"""One streamed answer as the events of the Responses API. Pure.

A message, or thinking, ends where something else begins, and what comes of its kind later is a new item. Calls may be
told in turns by an upstream; each ends when its arguments are whole and another begins, or else with the answer.

Where an upstream replaced what it had said, the deltas are what was sent, but the finished text is the true one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from poe_gateway.chat.appending import Appender
from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.events import (
    ChatEvent,
    Finished,
    ImageMade,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.responses import objects
from poe_gateway.chat.responses.echo import echo_of
from poe_gateway.chat.responses.objects import CallIds, item_id
from poe_gateway.chat.responses.script import (
    CallEvents,
    Events,
    MessageEvents,
    PictureEvents,
    ReasoningEvents,
    Script,
)
from poe_gateway.errors import GatewayError


class _Unnamed(msgspec.Struct):
    """A call whose name has not come yet."""

    id: str = ""
    arguments: str = ""


class ResponseWriter:
    """Implements ``Writer``."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._script = Script()
        self._items: list[Events] = []
        self._counts: dict[str, int] = {}
        self._speaking: MessageEvents | ReasoningEvents | None = None
        """The item to which text is added."""
        self._calls: dict[int, CallEvents | _Unnamed] = {}
        self._call_ids = CallIds(head.id)
        self._sent = Appender()
        self._begun = False

    def begin(self) -> bytes:
        """The answer is under way."""
        self._begin()
        return self._script.taken()

    def event(self, event: ChatEvent) -> bytes:
        """One piece."""
        self._begin()
        if isinstance(event, TextDelta):
            self._text(event)
        elif isinstance(event, TextReplaced):
            self._replaced(event)
        elif isinstance(event, ToolCallDelta):
            for fragment in event.calls:
                self._fragment(fragment)
        elif isinstance(event, ReasoningDelta):
            self._thought(event)
        elif isinstance(event, RefusalDelta) and event.text:
            self._message().refusal(event.text)
        elif isinstance(event, ImageMade):
            self._hush()
            made = objects.picture(self._new_id("ig"), event)
            self._items.append(PictureEvents(self._script, len(self._items), made))
        return self._script.taken()

    def end(self, finished: Finished, reply: Reply) -> bytes:
        """The rest of every item, and the whole answer."""
        self._begin()
        for index, call in sorted(self._calls.items()):
            if isinstance(call, _Unnamed):
                self._named(index, call, "")
        last = len(self._items) - 1
        for place, item in enumerate(self._items):
            if not item.closed:
                item.close(objects.last_status(reply.finish) if place == last else "completed")
        whole = objects.finished(reply, self._output())
        self._script.say(f"response.{whole['status']}", response=whole)
        return self._script.taken()

    def broken(self, error: GatewayError) -> bytes:
        """The answer failed; what was said of it stays said."""
        self._begin()
        for item in self._items:
            if not item.closed:
                item.close("incomplete")
        self._script.say("response.failed", response=objects.failed(self._head, self._output(), error))
        return self._script.taken()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        told = objects.response(self._head, "in_progress", [])
        self._script.say("response.created", response=told)
        self._script.say("response.in_progress", response=told)

    def _output(self) -> list[dict[str, Any]]:
        return [item.item for item in self._items]

    def _text(self, event: TextDelta) -> None:
        piece = self._sent.piece(event)
        if piece or event.logprobs:
            self._message().text(piece, event.logprobs)

    def _replaced(self, event: TextReplaced) -> None:
        piece = self._sent.piece(event)
        if not piece:
            return
        message = self._message()
        message.text(piece)
        if len(piece) > len(event.text):  # it contradicts what was sent
            message.in_truth(event.text)

    def _thought(self, event: ReasoningDelta) -> None:
        speaking = self._speaking
        if not isinstance(speaking, ReasoningEvents):
            self._hush()
            summary = echo_of(self._head.request).summary
            speaking = ReasoningEvents(self._script, len(self._items), self._new_id("rs"), summary)
            self._items.append(speaking)
            self._speaking = speaking
        if event.text:
            speaking.text(event.text)
        speaking.signature = event.signature or speaking.signature

    def _message(self) -> MessageEvents:
        if isinstance(self._speaking, MessageEvents):
            return self._speaking
        self._hush()
        message = MessageEvents(self._script, len(self._items), self._new_id("msg"))
        self._items.append(message)
        self._speaking = message
        return message

    def _hush(self) -> None:
        """Something else begins."""
        if self._speaking is not None:
            self._speaking.close("completed")
            self._speaking = None

    def _fragment(self, fragment: dict[str, Any]) -> None:
        index = int(fragment.get("index", 0))
        function = fragment.get("function") or {}
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        call = self._calls.setdefault(index, _Unnamed())
        if isinstance(call, _Unnamed):
            call.id = fragment.get("id") or call.id
            call.arguments += arguments
            if name:
                self._named(index, call, name)
            return
        if call.closed:
            return
        call.name += name
        if arguments:
            call.text(arguments)

    def _named(self, index: int, call: _Unnamed, name: str) -> None:
        self._hush()
        _close_whole(each for each in self._calls.values() if isinstance(each, CallEvents))
        call_id = self._call_ids.new(call.id)
        events = CallEvents(self._script, len(self._items), self._new_id("fc"), call_id, name)
        self._calls[index] = events
        self._items.append(events)
        if call.arguments:
            events.text(call.arguments)

    def _new_id(self, kind: str) -> str:
        nth = self._counts.get(kind, 0)
        self._counts[kind] = nth + 1
        return item_id(kind, self._head.id, nth)


def _close_whole(calls: Iterable[CallEvents]) -> None:
    """End the calls that cannot go on: their arguments are whole."""
    for call in calls:
        if not call.closed and _whole(call.arguments):
            call.close("completed")


def _whole(arguments: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
