"""The judge: keeps the log of events, and ends the run at the first broken promise."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b

import msgspec

from poe_gateway.simulation.virtual_time import World

_SHOWN = 30


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A promise was broken. ``events``: the last ones before it."""

    at: float
    promise: str
    what: str
    events: tuple[str, ...]


class Judge:
    """Events are counted into a digest: two runs are the same when their digests are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events: deque[str] = deque(maxlen=_SHOWN)
        self._hash = blake2b(digest_size=12)
        self.events = 0
        self.violation: Violation | None = None
        self.over = False
        """Nothing counts any more: what is left is only cleared away."""
        self.listener: deque[str] | None = None
        """Takes every event, where somebody wants to read them all."""

    @property
    def digest(self) -> str:
        """Of all events so far."""
        return self._hash.hexdigest()

    def tell(self, who: str, what: str) -> None:
        """Something happened."""
        if self.over or self.violation is not None:
            return
        line = f"{clock_face(self._world.now)} {who:<6} {what}"
        self.events += 1
        self._events.append(line)
        self._hash.update(line.encode())
        if self.listener is not None:
            self.listener.append(line)

    def broken(self, promise: str, what: str) -> None:
        """A promise is broken: the run ends here. Only the first one counts."""
        if self.violation is None and not self.over:
            self.violation = Violation(at=self._world.now, promise=promise, what=what, events=tuple(self._events))
            self._world.stop()


def clock_face(seconds: float) -> str:
    """``1+03:25:45.678``: days and time of day since the world began."""
    whole, milli = divmod(round(seconds * 1000), 1000)
    days, rest = divmod(whole, 86_400)
    return f"{days}+{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}.{milli:03}"
