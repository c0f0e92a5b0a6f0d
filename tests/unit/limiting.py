"""Two limiters over one table of buckets and a clock that is moved by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from poe_gateway.limits.bucket import Ask, Bucket
from poe_gateway.limits.limiter import Exceeded, Hold, Limiter
from poe_gateway.limits.memory import MemoryBuckets

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class LeapClock:
    """Both clocks go on by themselves, and leap when told."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._start = time.monotonic()

    def monotonic(self) -> float:
        return self.ahead + time.monotonic() - self._start

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.monotonic())

    def leap(self, seconds: float) -> None:
        self.ahead += seconds


class Pair:
    """Processes ``a`` and ``b``. Their rounds are run by the test."""

    def __init__(self, make: Callable[[dict[str, Bucket]], MemoryBuckets] = MemoryBuckets) -> None:
        self.clock = LeapClock()
        self.table: dict[str, Bucket] = {}
        self.store = make(self.table)
        self.a = Limiter(store=self.store, process="a", clock=self.clock, live=lambda: 2)
        self.b = Limiter(store=MemoryBuckets(self.table), process="b", clock=self.clock, live=lambda: 2)

    async def rounds(self, seconds: int) -> None:
        """One round of ``a`` a second."""
        for _ in range(seconds):
            self.clock.leap(1.0)
            await self.a.round()


async def admitted(limiter: Limiter, *asks: Ask) -> Hold | None:
    try:
        return await limiter.reserve(asks)
    except Exceeded:
        return None


async def all_admitted(limiter: Limiter, ask: Ask) -> int:
    """How many get through until one is refused."""
    count = 0
    while await admitted(limiter, ask) is not None:
        count += 1
    return count
