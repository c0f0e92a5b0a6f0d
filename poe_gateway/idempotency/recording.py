"""An answer as it comes, kept for any number of followers: each gets all of it, at its own pace.

What is kept is bounded. An answer beyond the bound cannot be repeated: pieces that every follower has taken are let
go, whoever comes later cannot join, and the run waits for a follower that is as much as the whole bound behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from poe_gateway.errors import GatewayError

Headers = list[tuple[bytes, bytes]]

LIMIT = 8 * 1024 * 1024
"""Bytes of an answer that can be repeated."""
_OVERHEAD = 64
"""Bytes that a piece weighs besides its own: many small ones must not pass the bound."""
_ENDS = (
    b"\ndata: [DONE]",
    b"\nevent: message_stop\n",
    b"\nevent: response.completed\n",
    b"\nevent: response.incomplete\n",
)
_FAULTS = (b'\ndata: {"error":', b"\nevent: error\n", b"\nevent: response.failed\n", b'\n{"error":')
"""Beginnings of lines in server-sent events of every dialect: the answer is complete, or it failed. No text of an
answer can imitate them, for JSON writes line ends in another way."""
_TAIL = 64
"""Bytes of earlier pieces in which a mark may begin."""
_STREAMS = (b"text/event-stream", b"application/x-ndjson")


def _is_last_line(piece: bytes) -> bool:
    """Whether a stream of lines of JSON ends here; quotes within texts are escaped."""
    return piece.endswith(b"}\n") and b'"done":true' in piece[piece.rfind(b"\n", 0, -1) + 1 :]


class Recording:
    """One answer. Written by its run with ``begin``, ``add`` and ``end`` or ``fail``; read through ``join``."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.status: int | None = None
        self.headers: Headers = []
        self.ended = False
        """Nothing will be added any more."""
        self.whole = False
        """The answer came to its own end; otherwise what was begun is broken off."""
        self.error: GatewayError | None = None
        """Why there is no answer; each follower is told in its own words."""
        self.overflown = False
        """There is more of it than can be kept."""
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._first = 0
        """Number of the first piece that is still kept."""
        self._size = 0
        """Of all pieces, those let go too."""
        self._kept = 0
        self._tail = b"\n"
        self._complete = False
        self._faulty = False
        self._followers: set[Follower] = set()
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def streamed(self) -> bool:
        """Whether it is a stream, of server-sent events or of lines of JSON."""
        return any(name == b"content-type" and value.startswith(_STREAMS) for name, value in self.headers)

    @property
    def good(self) -> bool:
        """Whether it is a success: 2xx, and a stream came to its dialect's end without an error."""
        if not self.whole or self.status is None or not 200 <= self.status < 300:
            return False
        return not self.streamed or (self._complete and not self._faulty)

    @property
    def joinable(self) -> bool:
        """Whether somebody may still join: all of it is there, and it has not failed."""
        return self._first == 0 and not (self.ended and not self.good)

    @property
    def deserted(self) -> bool:
        """Nobody follows."""
        return not self._followers

    def pieces(self) -> tuple[bytes, ...]:
        """All of it, when nothing was let go."""
        return tuple(self._pieces)

    # Writing.

    def begin(self, status: int, headers: Headers) -> None:
        """The answer's head."""
        self.status, self.headers = status, headers
        self.tell()

    async def add(self, piece: bytes) -> None:
        """One piece of the body; waits only for followers that are further behind than can be kept."""
        if not piece:
            return
        self._put(piece)
        self.tell()
        while self._size > self._limit:
            self.overflown = True
            self._let_go()
            if self._kept <= self._limit:
                break
            self._taken.clear()
            await self._taken.wait()

    def end(self) -> None:
        """The answer is complete."""
        self.whole = self.ended = True
        self.tell()

    def fail(self, error: GatewayError, in_band: bytes) -> None:
        """There will be no (more) answer. ``in_band`` is how a stream that has begun says so."""
        if self.ended:
            return
        if self.status is None:
            self.error = error
        elif self.streamed:
            self._put(in_band)
            self.whole = True
        self.ended = True
        self.tell()

    def fill(self, status: int, headers: Headers, pieces: Iterable[bytes]) -> None:
        """Take over an answer that is known as a whole."""
        self.status, self.headers = status, headers
        for piece in pieces:
            self._put(piece)
        self.end()

    def tell(self) -> None:
        """Wake the followers."""
        self._news.set()
        self._news = asyncio.Event()

    def _put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        weight = len(piece) + _OVERHEAD
        self._size += weight
        self._kept += weight
        seen = self._tail + piece
        self._faulty = self._faulty or any(mark in seen for mark in _FAULTS)
        self._complete = self._complete or any(mark in seen for mark in _ENDS) or _is_last_line(piece)
        self._tail = seen[-_TAIL:]

    def _let_go(self) -> None:
        """Drop what nobody needs any more."""
        needed = min((each.position for each in self._followers), default=self._first + len(self._pieces))
        while self._first < needed:
            self._kept -= len(self._pieces.popleft()) + _OVERHEAD
            self._first += 1

    # Reading.

    def join(self) -> Follower:
        """One more reader, from the beginning; to be closed."""
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when something has come true that ``tell`` tells of, or the recording has ended."""
        while not (condition() or self.ended):
            await self._news.wait()

    def at(self, position: int) -> bytes | None:
        """A piece; None when it is not there yet."""
        place = position - self._first
        return self._pieces[place] if place < len(self._pieces) else None

    def last(self, position: int) -> bool:
        """Whether nothing follows after the pieces before ``position``."""
        return self.ended and position >= self._first + len(self._pieces)

    def moved(self) -> None:
        """A follower has taken a piece, or left."""
        self._taken.set()

    def leave(self, follower: Follower) -> None:
        """Forget a reader. Idempotent."""
        self._followers.discard(follower)
        self.moved()


class Follower:
    """One reader of a recording. ``position``: pieces that it has taken."""

    __slots__ = ("_recording", "position")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.position = 0

    async def next(self) -> tuple[bytes, bool]:
        """The next piece and whether more will follow; an empty last one when the end comes by itself.

        Whether the answer ended or broke off tells the recording.
        """
        recording = self._recording
        await recording.until(lambda: recording.at(self.position) is not None)
        piece = recording.at(self.position)
        if piece is None:
            return b"", False
        return piece, not recording.last(self.position + 1)

    def taken(self) -> None:
        """The piece was passed on."""
        self.position += 1
        self._recording.moved()

    def close(self) -> None:
        """Read no more. Idempotent."""
        self._recording.leave(self)
