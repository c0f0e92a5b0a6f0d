"""Ends an answer where the upstream itself would not: at stop sequences and at a number of tokens. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from poe_gateway.chat import estimate
from poe_gateway.chat.events import ChatEvent, TextDelta, TextReplaced


class Stops:
    """Cuts what is shown before the first stop sequence; ``hit`` is that one. What may begin one is held back.

    The first is the one that is complete first, as if the model had been stopped while it wrote; of two that end in the
    same place the longer one.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.hit: str | None = None

    def take(self, events: Iterable[ChatEvent]) -> list[ChatEvent]:
        """What may be shown after these."""
        if not self._stops:
            return list(events)
        shown: list[ChatEvent] = []
        for event in events:
            if self.hit is not None:
                break
            if isinstance(event, TextDelta):
                text = self._text(event.text)
                if text:
                    shown.append(event if text == event.text else TextDelta(text))
            elif isinstance(event, TextReplaced):
                self._held = ""
                shown.append(TextReplaced(self._text(event.text)))
            else:
                shown.append(event)
        return shown

    def rest(self) -> list[ChatEvent]:
        """What was held back when the answer is over."""
        text, self._held = self._held, ""
        return [TextDelta(text)] if text else []

    def _text(self, piece: str) -> str:
        text = self._held + piece
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            _, at, self.hit = min(ends)
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with; less than the whole of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


class Limit:
    """Cuts what a model writes after ``most`` tokens; ``full`` once it did.

    ``count`` tells the tokens of a text; without it they are estimated. A token is at least one byte, so nothing is
    counted before the text could have reached the limit.
    """

    def __init__(self, most: int | None, count: Callable[[str], int] | None = None) -> None:
        self._most = most
        self._count = count or _estimated
        self._pieces: list[str] = []
        self._fresh = 0
        """Bytes since the tokens were counted last."""
        self._room = most or 0
        """Tokens that were left then."""
        self.full = False

    def take(self, event: ChatEvent) -> ChatEvent:
        """The event, cut where the limit is reached."""
        if self._most is None or not isinstance(event, TextDelta | TextReplaced):
            return event
        if isinstance(event, TextReplaced):
            self._pieces, self._fresh, self._room = [], 0, self._most
        self._pieces.append(event.text)
        self._fresh += len(event.text.encode("utf-8", "surrogatepass"))
        if self._fresh <= self._room:
            return event
        text = "".join(self._pieces)
        used = self._count(text)
        if used <= self._most:
            self._fresh, self._room = 0, self._most - used
            return event
        self.full = True
        before = len(text) - len(event.text)
        kept = text[before : self._fitting(text, self._most, before)]
        return TextReplaced(kept) if isinstance(event, TextReplaced) else TextDelta(kept)

    def _fitting(self, text: str, most: int, low: int) -> int:
        """How many characters fit, of which ``low`` are known to."""
        high = len(text) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._count(text[:middle]) <= most:
                low = middle
            else:
                high = middle - 1
        return low


def _estimated(text: str) -> int:
    return estimate.tokens(len(text))
