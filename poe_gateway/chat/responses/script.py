"""The numbered events of one answer, and how each kind of item is told by them. Pure.

Written by the writer of streams as the pieces come, and by a replay from the finished items.
"""

from __future__ import annotations

from typing import Any

import orjson

from poe_gateway.chat.responses import objects
from poe_gateway.chat.responses.echo import Item
from poe_gateway.chat.responses.objects import Status
from poe_gateway.chat.sse import named_event, sendable


class Script:
    """Events in order; their numbers begin with 0."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        """Those that were not taken yet."""
        self._number = 0

    def say(self, kind: str, **fields: Any) -> None:
        """One more event."""
        self.events.append(named_event(kind, {"type": kind, "sequence_number": self._number, **fields}))
        self._number += 1

    def say_text(self, place: bytes, piece: str) -> None:
        """A piece of text without probabilities: what streams mostly consist of. ``place``: see ``_place``."""
        data = orjson.dumps(sendable(piece))
        self.events.append(
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
            + str(self._number).encode()
            + place
            + data
            + b',"logprobs":[]}\n\n'
        )
        self._number += 1

    def taken(self) -> bytes:
        """What was said since the last time."""
        told = b"".join(self.events)
        self.events.clear()
        return told


def _place(item_id: str, index: int, part: int) -> bytes:
    """The fields of a piece of text between its number and itself."""
    place = {"item_id": item_id, "output_index": index, "content_index": part}
    return b"," + orjson.dumps(place)[1:-1] + b',"delta":'


class MessageEvents:
    """An assistant's message: parts of text and refusal, one after the other."""

    def __init__(self, script: Script, index: int, item_id: str) -> None:
        self.closed = False
        self._script = script
        self._place: dict[str, Any] = {"item_id": item_id, "output_index": index}
        self._item = objects.message(item_id, [], "in_progress")
        self._parts: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._kind: str | None = None
        """Of the part that is open."""
        self._place_of_text = b""
        script.say("response.output_item.added", output_index=index, item=self._item)

    @property
    def item(self) -> Item:
        """As far as it is told."""
        parts = [*self._parts, self._part()] if self._kind is not None else self._parts
        return {**self._item, "content": list(parts)}

    def text(self, piece: str, logprobs: tuple[dict[str, Any], ...] | None = None) -> None:
        """The next piece of text."""
        self._turn_to("output_text")
        self._pieces.append(piece)
        if not logprobs:
            self._script.say_text(self._place_of_text, piece)
            return
        told = [objects.logprob(each) for each in logprobs]
        self._logprobs += told
        self._say("response.output_text.delta", delta=sendable(piece), logprobs=told)

    def in_truth(self, whole: str) -> None:
        """The text of the part that is open is this, whatever was told of it before."""
        self._pieces = [whole]

    def refusal(self, piece: str) -> None:
        """The next piece of a refusal."""
        self._turn_to("refusal")
        self._pieces.append(piece)
        self._say("response.refusal.delta", delta=sendable(piece))

    def close(self, status: Status) -> None:
        """Nothing follows."""
        self._close_part()
        self._item["status"] = status
        self.closed = True
        self._script.say("response.output_item.done", output_index=self._place["output_index"], item=self.item)

    def _turn_to(self, kind: str) -> None:
        if self._kind == kind:
            return
        self._close_part()
        self._kind, self._pieces, self._logprobs = kind, [], []
        self._place_of_text = _place(self._place["item_id"], self._place["output_index"], len(self._parts))
        self._say("response.content_part.added", part=self._part())

    def _close_part(self) -> None:
        if self._kind is None:
            return
        part = self._part()
        if self._kind == "refusal":
            self._say("response.refusal.done", refusal=part["refusal"])
        else:
            self._say("response.output_text.done", text=part["text"], logprobs=self._logprobs)
        self._say("response.content_part.done", part=part)
        self._parts.append(part)
        self._kind = None

    def _part(self) -> dict[str, Any]:
        text = "".join(self._pieces)
        if self._kind == "refusal":
            return objects.refusal_part(text)
        return {**objects.text_part(text), "logprobs": self._logprobs}

    def _say(self, kind: str, **fields: Any) -> None:
        self._script.say(kind, **self._place, content_index=len(self._parts), **fields)


class ReasoningEvents:
    """The model's thinking, as its own words or (``summary``) as a summary."""

    def __init__(self, script: Script, index: int, item_id: str, summary: bool) -> None:
        self.closed = False
        self.signature: str | None = None
        self._script = script
        self._id, self._index, self._summary = item_id, index, summary
        self._pieces: list[str] = []
        self._status: Status = "in_progress"
        script.say("response.output_item.added", output_index=index, item=self.item)

    @property
    def item(self) -> Item:
        """As far as it is told."""
        return objects.thought(self._id, "".join(self._pieces), self._summary, self.signature, self._status)

    def text(self, piece: str) -> None:
        """The next piece."""
        if not self._pieces:
            self._say_part("added", "")
        self._pieces.append(piece)
        self._say("text.delta", delta=sendable(piece))

    def close(self, status: Status) -> None:
        """Nothing follows."""
        if self._pieces:
            text = sendable("".join(self._pieces)) or ""
            self._say("text.done", text=text)
            self._say_part("done", text)
        self._status, self.closed = status, True
        self._script.say("response.output_item.done", output_index=self._index, item=self.item)

    def _say(self, what: str, **fields: Any) -> None:
        kind, place = ("reasoning_summary", "summary_index") if self._summary else ("reasoning", "content_index")
        fields[place] = 0
        self._script.say(f"response.{kind}_{what}", item_id=self._id, output_index=self._index, **fields)

    def _say_part(self, what: str, text: str) -> None:
        if self._summary:
            self._say(f"part.{what}", part={"type": "summary_text", "text": text})
            return
        part = {"type": "reasoning_text", "text": text}
        place = {"item_id": self._id, "output_index": self._index, "content_index": 0}
        self._script.say(f"response.content_part.{what}", **place, part=part)


class CallEvents:
    """A call of a function."""

    def __init__(self, script: Script, index: int, item_id: str, call_id: str, name: str) -> None:
        self.closed = False
        self.name = name
        self._script = script
        self._id, self._index, self._call_id = item_id, index, call_id
        self._pieces: list[str] = []
        self._status: Status = "in_progress"
        script.say("response.output_item.added", output_index=index, item=self.item)

    @property
    def arguments(self) -> str:
        """JSON, as far as it is told."""
        return "".join(self._pieces)

    @property
    def item(self) -> Item:
        """As far as it is told."""
        return objects.call(self._id, self._call_id, self.name, self.arguments, self._status)

    def text(self, piece: str) -> None:
        """The next piece of the arguments."""
        self._pieces.append(piece)
        self._say("delta", delta=sendable(piece))

    def close(self, status: Status) -> None:
        """Nothing follows."""
        self._status, self.closed = status, True
        self._say("done", name=sendable(self.name), arguments=self.item["arguments"])
        self._script.say("response.output_item.done", output_index=self._index, item=self.item)

    def _say(self, what: str, **fields: Any) -> None:
        kind = f"response.function_call_arguments.{what}"
        self._script.say(kind, item_id=self._id, output_index=self._index, **fields)


class PictureEvents:
    """A picture, which comes at once."""

    closed = True

    def __init__(self, script: Script, index: int, item: Item) -> None:
        self.item = item
        begun = {**item, "status": "in_progress", "result": None}
        script.say("response.output_item.added", output_index=index, item=begun)
        script.say("response.image_generation_call.completed", item_id=item["id"], output_index=index)
        script.say("response.output_item.done", output_index=index, item=item)

    def close(self, status: Status) -> None:
        """It is complete already."""


Events = MessageEvents | ReasoningEvents | CallEvents | PictureEvents
