"""Server-sent events out of bytes, however they were cut on the way. Pure.

Lines end with LF, CRLF or CR; comments and unknown fields are passed over; several ``data`` lines make one text. Bytes
are decoded only when a line is whole, so that no cut can split a character.
"""

from __future__ import annotations

import msgspec

_BOM = b"\xef\xbb\xbf"


class SSEvent(msgspec.Struct, frozen=True):
    """One event: its name ("" when not told) and its data lines joined by line feeds."""

    data: str
    event: str = ""


class TooLong(ValueError):
    """An event is longer than the parser may keep."""


class SSEParser:
    """``feed`` bytes and get the events that became complete; ``close`` gives what stood without its blank line.

    Not more than ``limit`` bytes of an incomplete event are kept. Raises TooLong.
    """

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._searched = 0
        """Bytes of ``_rest`` known to hold no line end."""
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[SSEvent]:
        """The events that end within ``chunk``."""
        rest = self._rest
        rest += chunk
        if not self._begun:
            if len(rest) < len(_BOM) and _BOM.startswith(rest):
                return []
            self._begun = True
            if rest.startswith(_BOM):
                del rest[: len(_BOM)]
        events: list[SSEvent] = []
        start, end = 0, len(rest)
        position = self._searched
        while start < end:
            if self._after_cr:  # the second half of a CRLF
                self._after_cr = False
                if rest[start] == 0x0A:
                    start += 1
                    position = start
                    continue
            cut = _line_end(rest, max(position, start))
            if cut < 0:
                break
            self._after_cr = rest[cut] == 0x0D
            if (event := self._line(bytes(rest[start:cut]))) is not None:
                events.append(event)
            start = position = cut + 1
        del rest[:start]
        self._searched = len(rest)
        if len(rest) + self._size > self._limit:
            raise TooLong(TooLong.__doc__)
        return events

    def close(self) -> list[SSEvent]:
        """The stream is over: a last event counts even without its blank line (clones forget it)."""
        line = bytes(self._rest)
        self._rest.clear()
        self._searched = 0
        events = [event for event in (self._line(line) if line else None, self._line(b"")) if event is not None]
        self._after_cr = False
        return events

    def _line(self, line: bytes) -> SSEvent | None:
        """Takes one line without its end; a blank one completes the event."""
        if not line:
            data, event = self._data, self._event
            self._data, self._event, self._size = [], "", 0
            return SSEvent("\n".join(data), event) if data else None
        name, _, value = line.partition(b":")
        if name not in (b"data", b"event"):
            return None
        text = (value[1:] if value.startswith(b" ") else value).decode("utf-8", "replace")
        if name == b"event":
            self._event = text
        else:
            self._data.append(text)
            self._size += len(value)
            if self._size > self._limit:
                raise TooLong(TooLong.__doc__)
        return None


def _line_end(text: bytearray, start: int) -> int:
    """Where the next CR or LF stands; -1 if there is none."""
    feed = text.find(b"\n", start)
    back = text.find(b"\r", start, feed if feed >= 0 else len(text))
    return back if back >= 0 else feed
