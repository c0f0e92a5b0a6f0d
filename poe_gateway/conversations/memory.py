"""Kept responses in memory: the twin of MongoDB's store, for tests and rehearsals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from poe_gateway.clock import Clock
from poe_gateway.conversations.kept import Kept
from poe_gateway.errors import StoreUnavailable


class MemoryKept:
    """KeptStore. ``away``: every call fails."""

    def __init__(self, clock: Clock) -> None:
        self.table: dict[str, tuple[Kept, datetime]] = {}
        self.away = False
        self._clock = clock

    def _now(self) -> datetime:
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")
        return self._clock.now()

    async def put(self, kept: Kept, ttl: float) -> None:
        until = self._now() + timedelta(seconds=ttl)
        self.table[kept.id] = (kept, until)
        for each in kept.path:
            if each in self.table and self.table[each][0].key_id == kept.key_id:
                earlier, expires = self.table[each]
                self.table[each] = (earlier, max(expires, until))

    async def fetch(self, key_id: str, ids: Sequence[str]) -> dict[str, Kept]:
        now = self._now()
        there = {each: self.table[each] for each in ids if each in self.table}
        return {each: kept for each, (kept, until) in there.items() if kept.key_id == key_id and until > now}

    async def drop(self, key_id: str, response_id: str) -> bool:
        kept = (await self.fetch(key_id, [response_id])).get(response_id)
        if kept is None or kept.deleted:
            return False
        self.table[response_id] = (replace(kept, deleted=True), self.table[response_id][1])
        for each in (response_id, *reversed(kept.path)):
            if each not in self.table or not self.table[each][0].deleted or self._goes_on(each):
                break
            del self.table[each]
        return True

    def _goes_on(self, response_id: str) -> bool:
        return any(kept.path[-1:] == (response_id,) for kept, _ in self.table.values())
