"""Records on their way to the database: written behind the back of those who make them, bounded.

Adding one costs an append. Encoding happens when the backlog is written, in slices, so that the event loop is never
held up for long. A database that is away leaves the records here; when there are too many, the oldest dispensable ones
go first, and what is lost is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from poe_gateway.pool.store import StoreUnavailable

T = TypeVar("T")
U = TypeVar("U", contravariant=True)

_PAUSE = 0.5
"""Seconds between two writes."""
_BATCH = 100
"""Records that are written at a time: the driver encodes them in one go, in about two milliseconds."""
_SLICE = 25
"""Records that are encoded at a time, at some 50 microseconds each."""


class RecordStore(Protocol[U]):
    """Where records of one kind are appended."""

    def encode(self, record: U) -> dict[str, Any]:
        """The record as a document with an id of its own: inserting it twice keeps one."""

    async def insert(self, documents: list[dict[str, Any]]) -> int:
        """Append; how many the store refused for good. Raises StoreUnavailable: the fate of all is unknown."""


class Backlog(Generic[T]):
    """Records that are not stored yet. ``run`` is run as one task."""

    def __init__(self, store: RecordStore[T], *, limit: int, dispensable: Callable[[T], bool]) -> None:
        self.lost = 0
        """Records that were dropped because there were too many, or that the store refused."""
        self._store = store
        self._limit = limit
        self._dispensable = dispensable
        self._first: deque[T] = deque()
        """The dispensable ones: written first, dropped first."""
        self._rest: deque[T] = deque()
        self._encoded: list[dict[str, Any]] = []
        """Taken from the front, and not known to be stored."""
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._first) + len(self._rest) + len(self._encoded)

    def add(self, record: T) -> None:
        """Remember a record until it is stored."""
        (self._first if self._dispensable(record) else self._rest).append(record)
        if len(self._first) + len(self._rest) > self._limit:
            (self._first or self._rest).popleft()
            self.lost += 1

    async def run(self) -> None:
        """Write what has gathered, twice a second, for ever."""
        while True:
            await asyncio.sleep(_PAUSE)
            await self.flush()

    async def flush(self) -> bool:
        """Write what is here now; False when the database failed: the rest stays here."""
        async with self._writing:
            left = len(self)  # what comes meanwhile has its own turn
            while left > 0:
                if not self._encoded:
                    await self._encode()
                if not self._encoded:
                    return True  # dropped meanwhile
                try:
                    self.lost += await self._store.insert(self._encoded)
                except StoreUnavailable:
                    return False
                left -= len(self._encoded)
                self._encoded = []
            return True

    async def _encode(self) -> None:
        while len(self._encoded) < _BATCH:
            for _ in range(_SLICE):
                waiting = self._first or self._rest
                if not waiting:
                    return
                self._encoded.append(self._store.encode(waiting.popleft()))
            await asyncio.sleep(0)
