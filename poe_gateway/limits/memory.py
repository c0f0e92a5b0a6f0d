"""Buckets in memory: the twin of MongoDB's store, for tests and rehearsals."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from poe_gateway.limits.bucket import Bucket, Charge, Move, charge, close, move
from poe_gateway.limits.keys import BucketKey, key_of
from poe_gateway.limits.store import Moved


class MemoryBuckets:
    """BucketStore of one process; share ``table`` between processes.

    While ``failure`` is set every call raises it, ``after`` the call has taken effect or before.
    """

    def __init__(self, table: dict[str, Bucket] | None = None) -> None:
        self.table: dict[str, Bucket] = {} if table is None else table
        self.failure: Exception | None = None
        self.after = False
        self.calls = 0

    async def _begin(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.failure is not None and not self.after:
            raise self.failure

    def _end(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def move(self, key: BucketKey, wish: Move, cap: int, now: datetime) -> Moved:
        await self._begin()
        bucket, granted = move(key, self.table.get(key.id, Bucket(id=key.id)), wish, cap, now)
        self.table[key.id] = bucket
        self._end()
        return Moved(granted, bucket)

    async def charge(self, process: str, charges: Mapping[str, Sequence[Charge]]) -> None:
        await self._begin()
        for bucket_id, entries in charges.items():
            self.table[bucket_id] = charge(self.table.get(bucket_id, Bucket(id=bucket_id)), process, entries)
        self._end()

    async def close(self, process: str, now: datetime) -> None:
        await self._begin()
        for bucket_id, bucket in self.table.items():
            if process in bucket.holders:
                self.table[bucket_id] = close(key_of(bucket_id), bucket, process, now)
        self._end()

    async def read(self, ids: Collection[str]) -> dict[str, Bucket]:
        await self._begin()
        self._end()
        return {bucket_id: self.table[bucket_id] for bucket_id in ids if bucket_id in self.table}

    async def wanted(self, ids: Collection[str]) -> dict[str, dict[str, datetime]]:
        await self._begin()
        self._end()
        return {each: dict(self.table[each].wanted) for each in ids if each in self.table and self.table[each].wanted}
