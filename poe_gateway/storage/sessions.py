"""Sessions in MongoDB: which account and upstream conversation a session continues. They expire by themselves."""

from __future__ import annotations

from datetime import timedelta

from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from poe_gateway.dispatch.sessions import SessionBinding
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, guarded
from poe_gateway.storage.codec import from_document, to_document


class MongoSessions:
    """SessionStore. Bindings vanish ``ttl`` seconds after their last update. All methods raise StoreUnavailable.

    Writes are acknowledged by the primary alone: a lost binding costs a replayed history, not more.
    """

    def __init__(self, db: Database, ttl: float) -> None:
        self._sessions = db.get_collection(schema.SESSIONS, write_concern=WriteConcern(w=1))
        self._ttl = timedelta(seconds=ttl)

    async def get(self, session: str) -> SessionBinding | None:
        with guarded(5.0):
            document = await self._sessions.find_one(
                {"_id": session, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}, {"expires_at": 0}
            )
        return None if document is None else from_document(SessionBinding, document)

    async def put(self, binding: SessionBinding) -> None:
        document = {**to_document(binding), "expires_at": binding.updated_at + self._ttl}
        with guarded(5.0):
            try:
                await self._sessions.replace_one({"_id": binding.id}, document, upsert=True)
            except DuplicateKeyError:  # another process made it at the same moment
                await self._sessions.replace_one({"_id": binding.id}, document)

    async def drop(self, session: str) -> None:
        with guarded(5.0):
            await self._sessions.delete_one({"_id": session})

    async def drop_account(self, account_id: str) -> int:
        with guarded():
            result = await self._sessions.delete_many({"account_id": account_id})
        return result.deleted_count

    async def drop_all(self) -> int:
        with guarded(30.0):
            result = await self._sessions.delete_many({})
        return result.deleted_count
