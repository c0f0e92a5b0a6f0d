"""Version 2: decision records, the history of accounts, learned prices and hourly use. Frozen.

Nothing that was there changes: accounts, keys and sessions of version 1 read with the defaults of newer fields.
"""

from __future__ import annotations

from poe_gateway.storage.client import Database
from poe_gateway.storage.schema import Index, create

_COLLECTIONS = ("decisions", "account_history", "prices", "usage_hours")
_CAPPED = {"decisions": 64}
_INDEXES = (
    Index("decisions", "request", (("request_id", 1),)),
    Index("decisions", "moment", (("at", 1), ("_id", 1))),
    Index("account_history", "account", (("account_id", 1), ("at", -1))),
    Index("account_history", "expiry", (("expires_at", 1),), expire_after=0),
    Index("usage_hours", "expiry", (("hour", 1),), expire_after=1_209_600),
)


async def apply(db: Database) -> None:
    """Idempotent. Raises StoreUnavailable."""
    await create(db, _INDEXES, _COLLECTIONS, _CAPPED)
