"""Version 4: responses of ``/v1/responses`` that are kept. Frozen. Nothing that was there changes."""

from __future__ import annotations

from poe_gateway.storage.client import Database
from poe_gateway.storage.schema import Index, create

_COLLECTIONS = ("responses",)
_INDEXES = (Index("responses", "expiry", (("expires_at", 1),), expire_after=0),)


async def apply(db: Database) -> None:
    """Idempotent. Raises StoreUnavailable."""
    await create(db, _INDEXES, _COLLECTIONS, {})
