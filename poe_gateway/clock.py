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
