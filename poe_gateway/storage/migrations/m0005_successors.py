"""Version 5: kept responses name the one that they go on from, so that what went on from one is found. Frozen."""

from __future__ import annotations

from poe_gateway.storage.client import Database, guarded
from poe_gateway.storage.schema import Index, create

_INDEXES = (Index("responses", "previous", (("previous", 1),), sparse=True),)


async def apply(db: Database) -> None:
    """Idempotent. Raises StoreUnavailable."""
    with guarded(120.0):
        await db["responses"].update_many(
            {"previous": {"$exists": False}, "path.0": {"$exists": True}}, [{"$set": {"previous": {"$last": "$path"}}}]
        )
    await create(db, _INDEXES, ("responses",), {})
