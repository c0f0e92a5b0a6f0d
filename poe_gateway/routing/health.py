"""How well backends answer, by their newest requests. In memory, of one process; pure but for what it remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import msgspec

FEWEST = 3
"""Samples without which nothing is said against a backend."""
MEMORY = 60.0
"""Seconds after which a sample counts no more: a backend that is left out for its failures is tried again then."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one backend stands now."""

    samples: int
    error_rate: float
    healthy: bool


class BackendHealth:
    """Sliding windows of outcomes. ``window`` 0: every backend is healthy. ``threshold``: error rate, above 0 to 1."""

    def __init__(self, window: int = 10, threshold: float = 0.7) -> None:
        self._window = window
        self._threshold = threshold
        self._samples: dict[str, deque[tuple[float, bool]]] = {}

    def terms(self, window: int, threshold: float) -> None:
        """Other terms from now on; what was seen is kept, as far as it fits."""
        if window != self._window:
            self._window = window
            self._samples = {name: deque(seen, maxlen=window) for name, seen in self._samples.items()}
        self._threshold = threshold

    def keep(self, backends: Collection[str]) -> None:
        """Forget all others."""
        self._samples = {name: seen for name, seen in self._samples.items() if name in backends}

    def note(self, backend: str, ok: bool, now: float) -> None:
        """One request ended. ``now``: seconds on the monotonic clock."""
        self._samples.setdefault(backend, deque(maxlen=self._window)).append((now, ok))

    def healthy(self, backend: str, now: float) -> bool:
        """Whether it may be tried before others are: too few samples speak for it."""
        return self.standing(backend, now).healthy

    def standing(self, backend: str, now: float) -> Standing:
        """Of one backend."""
        recent = [ok for at, ok in self._samples.get(backend, ()) if now - at < MEMORY]
        rate = recent.count(False) / len(recent) if recent else 0.0
        return Standing(samples=len(recent), error_rate=rate, healthy=len(recent) < FEWEST or rate < self._threshold)

    def standings(self, now: float) -> dict[str, Standing]:
        """Of all backends that answered anything lately, by name."""
        return {name: self.standing(name, now) for name in sorted(self._samples)}
