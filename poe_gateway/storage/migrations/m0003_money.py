"""Version 3: organisations, buckets, the ledger and its spools, price rules, repetitions, traffic, audit. Frozen.

Nothing that was there changes: keys of version 2 read with the defaults of newer fields.
"""

from __future__ import annotations

from poe_gateway.storage.client import Database
from poe_gateway.storage.schema import Index, create

_COLLECTIONS = (
    "organisations", "buckets", "ledger", "spools", "price_rules", "idempotency", "traffic", "audit",
    "former_accounts",
)  # fmt: skip
_INDEXES = (
    Index("service_keys", "previous", (("previous_hash", 1),), sparse=True),
    Index("service_keys", "org", (("org", 1),)),
    Index("organisations", "name", (("name", 1),), unique=True),
    Index("organisations", "changed", (("changed_at", 1),)),
    Index("buckets", "holders", (("holders", 1),), sparse=True),
    Index("buckets", "expiry", (("expires_at", 1),), expire_after=0),
    Index("ledger", "moment", (("at", 1), ("_id", 1))),
    Index("ledger", "org", (("org", 1), ("at", 1))),
    Index("ledger", "key", (("key_id", 1), ("at", 1))),
    Index("ledger", "account", (("account_id", 1), ("at", 1))),
    Index("ledger", "request", (("request_id", 1),)),
    Index("ledger", "orphans", (("account_id", 1), ("at", 1)), partial={"status": "orphaned"}),
    Index("ledger", "corrected", (("corrects", 1),), sparse=True),
    Index("ledger", "expiry", (("expires_at", 1),), expire_after=0),
    Index("spools", "expiry", (("expires_at", 1),), expire_after=0),
    Index("price_rules", "changed", (("changed_at", 1),)),
    Index("idempotency", "expiry", (("expires_at", 1),), expire_after=0),
    Index("traffic", "request", (("request_id", 1),)),
    Index("traffic", "moment", (("at", 1), ("_id", 1))),
    Index("traffic", "expiry", (("expires_at", 1),), expire_after=0),
    Index("audit", "source", (("source", 1),), unique=True, sparse=True),
    Index("audit", "target", (("target", 1), ("_id", -1))),
    Index("audit", "expiry", (("expires_at", 1),), expire_after=0),
)


async def apply(db: Database) -> None:
    """Idempotent. Raises StoreUnavailable."""
    await create(db, _INDEXES, _COLLECTIONS)
