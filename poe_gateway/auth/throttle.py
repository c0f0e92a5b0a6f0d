"""Wrong keys, counted per address, so that nobody can try keys at speed. In memory, per process.

A minute begins with an address's first wrong key. Within it ``per_minute`` wrong keys are told to be wrong; what comes
then is refused unseen until the minute is over. Keys that are known to be right are never asked about here.
"""

from __future__ import annotations

from collections import OrderedDict

from poe_gateway.auth.addresses import source_of
from poe_gateway.clock import Clock

_MINUTE = 60.0
_SOURCES = 16_384
"""Addresses remembered at most; beyond it the one is forgotten that has been quiet for longest."""


class Throttle:
    """``per_minute`` 0 or less: nothing is counted."""

    def __init__(self, per_minute: int, clock: Clock, sources: int = _SOURCES) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._most = sources
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By source: the second its minute began, and wrong keys in it."""

    def wait(self, address: str | None) -> float:
        """Seconds for which this address is refused; 0 when it may try."""
        if self._per_minute <= 0 or not self._wrong:
            return 0.0
        began, wrong = self._wrong.get(source_of(address), (0.0, 0))
        if wrong < self._per_minute:
            return 0.0
        return max(0.0, _MINUTE - (self._clock.monotonic() - began))

    def failed(self, address: str | None) -> float:
        """A key was wrong. Seconds for which the address is refused: above 0 when this one was too many already."""
        if self._per_minute <= 0:
            return 0.0
        if (wait := self.wait(address)) > 0:
            return wait
        source, now = source_of(address), self._clock.monotonic()
        began, wrong = self._wrong.pop(source, (now, 0))
        if now - began >= _MINUTE:
            began, wrong = now, 0
        self._wrong[source] = began, wrong + 1
        if len(self._wrong) > self._most:
            self._wrong.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._wrong)
