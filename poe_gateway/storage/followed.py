"""What changed in a small collection since the last look. Documents carry ``changed_at`` on the database's clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Generic, TypeVar

import msgspec

from poe_gateway.clock import Clock
from poe_gateway.storage.client import Collection, Document, guarded
from poe_gateway.storage.codec import from_document

_OVERLAP = timedelta(seconds=3)
_RELOAD = 60.0
"""Seconds after which a poll reads everything: what was taken away must not live on because a clock jumped."""


T = TypeVar("T", bound=msgspec.Struct)


class Followed(Generic[T]):
    """Reads a collection of structs that have an ``id``. All methods raise StoreUnavailable."""

    def __init__(self, collection: Collection, kind: type[T], clock: Clock) -> None:
        self._collection = collection
        self._kind = kind
        self._clock = clock
        self._seen: dict[str, tuple[datetime, T]] = {}
        """As it was read last, and of when. The moment counts too: what this process changed itself and another one put
        back as it was is news, although it reads as before."""
        self._newest: datetime | None = None
        self._loaded = float("-inf")

    async def load(self) -> list[T]:
        """All."""
        self._seen.clear()
        return await self._read({})

    async def changes(self) -> list[T]:
        """Those that were changed since they were read last, by whomever."""
        if self._newest is None or self._clock.monotonic() - self._loaded > _RELOAD:
            return await self._read({})
        return await self._read({"changed_at": {"$gte": self._newest - _OVERLAP}})

    async def _read(self, since: Document) -> list[T]:
        read: dict[str, tuple[datetime, T]] = {}
        newest = self._newest
        with guarded():
            async for document in self._collection.find(since).sort("changed_at", 1):
                changed_at = document["changed_at"]
                read[document["_id"]] = changed_at, from_document(self._kind, document)
                newest = changed_at if newest is None else max(newest, changed_at)
        if not since:
            self._loaded = self._clock.monotonic()
        self._newest = newest
        changed = {each_id: each for each_id, each in read.items() if self._seen.get(each_id) != each}
        self._seen.update(changed)
        return [each for _, each in changed.values()]
