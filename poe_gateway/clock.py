"""Time, identifiers and chance: the only place where the process touches the ambient ones.

Shells hold a ``Clock`` and an ``Ids``; pure functions take ``now`` and ``rng`` as values.
"""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


class Clock(Protocol):
    """Two clocks: the calendar for what is stored, the monotonic one for what is waited for."""

    def now(self) -> datetime:
        """The time of day, timezone-aware, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


_TICK = 0.001
"""Seconds: the database tells its time in whole milliseconds, cut off."""
_DRIFT = 200e-6
"""Seconds per second by which two machines' clocks may run apart."""


class ServerClock:
    """The database's calendar, carried on by the machine's monotonic clock.

    What expires must expire for all processes at once, whatever their machines' calendars say, and a calendar that is
    set while the process runs must not move it. Until the first ``sync`` it is the machine's calendar.
    """

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine = machine or SystemClock()
        self.monotonic = self._machine.monotonic
        self._offset: float | None = None
        """Epoch seconds of the database at second 0 of the monotonic clock, as learned at its second ``_at``."""
        self._at = 0.0
        self._error = 0.0

    def now(self) -> datetime:
        if self._offset is None:
            return self._machine.now()
        return datetime.fromtimestamp(self.monotonic() + self._offset, UTC)

    def sync(self, server_now: datetime, sent: float, received: float) -> None:
        """The database said ``server_now`` between two moments of the monotonic clock.

        A better answer than the last ones (a shorter way, or the others have aged) is taken over; so is one that
        contradicts them: the database's own clock was set, or another server answers now.
        """
        error = (received - sent + _TICK) / 2
        offset = server_now.timestamp() + _TICK / 2 - (received + sent) / 2
        if self._offset is not None:
            believed = self._error + _DRIFT * abs(received - self._at)
            if error > believed and abs(offset - self._offset) <= error + believed:
                return
        self._offset, self._at, self._error = offset, received, error

    @property
    def error(self) -> float | None:
        """Seconds by which ``now`` may be off at most; None before the first ``sync``."""
        if self._offset is None:
            return None
        return self._error + _DRIFT * abs(self.monotonic() - self._at)

    @property
    def skew(self) -> float:
        """Seconds by which the machine's calendar is ahead of the database's; 0 before the first ``sync``."""
        return (self._machine.now() - self.now()).total_seconds() if self._offset is not None else 0.0


class Ids:
    """Source of identifiers, secrets and jitter.

    Identifiers come from a fast non-secret generator, secrets from the operating system.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.rng = random.Random(seed if seed is not None else secrets.randbits(64))  # noqa: S311 - not for secrets

    def new(self, prefix: str, size: int = 20) -> str:
        """``<prefix>_<size characters of base 32>``; 20 characters carry 100 bits."""
        bits = self.rng.getrandbits(5 * size)
        text = "".join([_PAIRS[(bits >> shift) & 1023] for shift in range(0, 5 * size, 10)])
        return f"{prefix}_{text[:size]}"

    def secret(self, size: int = 32) -> str:
        """URL-safe text carrying ``size`` random bytes from the operating system."""
        return secrets.token_urlsafe(size)
