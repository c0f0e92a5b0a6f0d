"""Version 1: accounts, grants, keys, sessions and what keeps the house. Frozen: later changes are later migrations."""

from __future__ import annotations

from poe_gateway.storage.client import Database
from poe_gateway.storage.schema import Index, create

_COLLECTIONS = (
    "accounts", "credentials", "pool", "instances", "service_keys", "sessions", "catalog", "leases", "duties", "meta",
)  # fmt: skip
_INDEXES = (
    Index("accounts", "name", (("provider", 1), ("name_key", 1)), unique=True, partial={"name_key": {"$exists": True}}),
    Index("accounts", "listing", (("created_at", 1), ("_id", 1))),
    Index("accounts", "provider_listing", (("provider", 1), ("created_at", 1), ("_id", 1))),
    Index("accounts", "changed", (("changed_at", 1), ("rev", 1), ("deleted", 1), ("_id", 1))),
    Index("accounts", "tombstones", (("deleted_at", 1),), expire_after=86_400),
    Index("accounts", "granted_to", (("grants.i", 1),), sparse=True),
    Index("accounts", "wanted_by", (("wanted.i", 1),), sparse=True),
    Index("credentials", "version", (("account_id", 1), ("rev", 1)), unique=True),
    Index("credentials", "superseded", (("superseded_at", 1),), expire_after=600),
    Index("service_keys", "hash", (("hash", 1),), unique=True),
    Index("service_keys", "changed", (("changed_at", 1),)),
    Index("sessions", "expiry", (("expires_at", 1),), expire_after=0),
    Index("sessions", "account", (("account_id", 1),)),
)


async def apply(db: Database) -> None:
    """Idempotent. Raises StoreUnavailable."""
    await create(db, _INDEXES, _COLLECTIONS)
