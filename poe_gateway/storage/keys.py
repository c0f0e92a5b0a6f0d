"""Service keys in MongoDB. Documents are ServiceKey structs with ``changed_at`` on the database's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from poe_gateway.auth.keys import KeyTerms, ServiceKey
from poe_gateway.clock import Clock
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document, to_document
from poe_gateway.storage.followed import Followed

_IN_USE: Document = {"revoked_at": None}
_CHANGED: Document = {"$currentDate": {"changed_at": True}}


class MongoKeys:
    """KeyStore of one process. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._keys = db[schema.SERVICE_KEYS]
        self._followed = Followed(self._keys, ServiceKey, clock)

    async def load(self) -> list[ServiceKey]:
        return await self._followed.load()

    async def changes(self) -> list[ServiceKey]:
        return await self._followed.changes()

    async def add(self, key: ServiceKey) -> bool:
        """See KeyStore. Raises ValueError when another key has this id."""
        fields = {name: value for name, value in to_document(key).items() if name != "hash" and value is not None}
        with guarded():
            try:
                result = await self._keys.update_one(
                    {"hash": key.hash}, {"$setOnInsert": fields, **_CHANGED}, upsert=True
                )
            except DuplicateKeyError:
                if await self._keys.find_one({"hash": key.hash}, {"_id": 1}) is None:
                    raise ValueError(f"the key id {key.id} is taken") from None
                return False
        return result.upserted_id is not None

    async def revoke(self, key_id: str, at: datetime) -> ServiceKey | None:
        """See KeyStore. A key that is revoked already keeps the time of its end."""
        return await self._update(
            {"_id": key_id, **_IN_USE}, {"$set": {"enabled": False, "revoked_at": at}, **_CHANGED}
        )

    async def switch(self, key_id: str, enabled: bool) -> ServiceKey | None:
        """See KeyStore."""
        return await self._update({"_id": key_id, **_IN_USE}, {"$set": {"enabled": enabled}, **_CHANGED})

    async def change(self, key_id: str, terms: KeyTerms) -> ServiceKey | None:
        """See KeyStore."""
        given = to_document(terms)
        return await self._update({"_id": key_id}, {"$set": given, **_CHANGED} if given else _CHANGED)

    async def rotate(self, key_id: str, digest: str, at: datetime, until: datetime | None) -> ServiceKey | None:
        """See KeyStore. One step: whatever text is in force at that moment becomes the one before."""
        fields: dict[str, Any] = {"hash": digest, "last_rotated_at": at, "changed_at": "$$NOW"}
        # Left out where there is none: the index on it is sparse.
        fields["previous_hash"] = "$hash" if until is not None else "$$REMOVE"
        fields["previous_until"] = until if until is not None else "$$REMOVE"
        return await self._update({"_id": key_id, **_IN_USE}, [{"$set": fields}])

    async def _update(self, where: Document, update: Document | list[Document]) -> ServiceKey | None:
        """The key after the update; as it is when the condition does not hold; None when there is none."""
        with guarded():
            document = await self._keys.find_one_and_update(where, update, return_document=ReturnDocument.AFTER)
            if document is None:
                document = await self._keys.find_one({"_id": where["_id"]})
        return None if document is None else from_document(ServiceKey, document)
