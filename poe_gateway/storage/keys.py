"""Service keys in MongoDB. Documents are ServiceKey structs with ``changed_at`` on the database's clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from poe_gateway.auth.keys import KeyTerms, ServiceKey
from poe_gateway.clock import Clock
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document, storable, to_document

_OVERLAP = timedelta(seconds=3)
_RELOAD = 60.0
"""Seconds after which a poll reads all keys: a revoked key must not live on because a clock jumped."""


class MongoKeys:
    """KeyStore of one process. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._keys = db[schema.SERVICE_KEYS]
        self._clock = clock
        self._seen: dict[str, ServiceKey] = {}
        self._newest: datetime | None = None
        self._loaded = float("-inf")

    async def load(self) -> list[ServiceKey]:
        self._seen.clear()
        return await self._read({})

    async def changes(self) -> list[ServiceKey]:
        if self._newest is None or self._clock.monotonic() - self._loaded > _RELOAD:
            return await self._read({})
        return await self._read({"changed_at": {"$gte": self._newest - _OVERLAP}})

    async def _read(self, since: Document) -> list[ServiceKey]:
        """Keys that are new to this process."""
        changed: list[ServiceKey] = []
        newest = self._newest
        with guarded():
            async for document in self._keys.find(since).sort("changed_at", 1):
                key = from_document(ServiceKey, document)
                newest = document["changed_at"] if newest is None else max(newest, document["changed_at"])
                if self._seen.get(key.id) != key:
                    changed.append(key)
        if not since:
            self._loaded = self._clock.monotonic()
        self._newest = newest
        self._seen.update((key.id, key) for key in changed)
        return changed

    async def add(self, key: ServiceKey) -> bool:
        """See KeyStore. Raises ValueError when another key has this id."""
        with guarded():
            try:
                result = await self._keys.update_one(
                    {"hash": key.hash},
                    {"$setOnInsert": {k: v for k, v in to_document(key).items() if k != "hash"}}
                    | {"$currentDate": {"changed_at": True}},
                    upsert=True,
                )
            except DuplicateKeyError:
                if await self._keys.find_one({"hash": key.hash}, {"_id": 1}) is None:
                    raise ValueError(f"the key id {key.id} is taken") from None
                return False
        return result.upserted_id is not None

    async def revoke(self, key_id: str, at: datetime) -> ServiceKey | None:
        """See KeyStore. A key that is off already keeps the time of its end."""
        with guarded():
            document = await self._keys.find_one_and_update(
                {"_id": key_id, "enabled": True},
                {"$set": {"enabled": False, "revoked_at": at}, "$currentDate": {"changed_at": True}},
                return_document=ReturnDocument.AFTER,
            )
            if document is None:
                document = await self._keys.find_one({"_id": key_id})
        return None if document is None else from_document(ServiceKey, document)

    async def change(self, key_id: str, terms: KeyTerms) -> ServiceKey | None:
        """See KeyStore."""
        update: Document = {"$currentDate": {"changed_at": True}}
        if given := terms.given():
            update["$set"] = storable(given)
        with guarded():
            document = await self._keys.find_one_and_update(
                {"_id": key_id}, update, return_document=ReturnDocument.AFTER
            )
        return None if document is None else from_document(ServiceKey, document)
