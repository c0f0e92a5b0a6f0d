"""Streams can only append: how an answer that is replaced in mid-course is told to a reader of deltas. Pure."""

from __future__ import annotations

from poe_gateway.chat.events import TextDelta, TextReplaced


class Appender:
    """Turns texts and replacements into pieces to append.

    A replacement that goes on from what was sent appends the rest. One that contradicts it is sent whole after a
    blank line, so that what the reader has last is the complete answer; nothing sent can be taken back.
    """

    def __init__(self) -> None:
        self._sent: list[str] = []

    def piece(self, event: TextDelta | TextReplaced) -> str:
        """What to append now; may be empty."""
        if isinstance(event, TextDelta):
            self._sent.append(event.text)
            return event.text
        sent = "".join(self._sent)
        self._sent = [event.text]
        return event.text[len(sent) :] if event.text.startswith(sent) else "\n\n" + event.text
