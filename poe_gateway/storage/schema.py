"""Collections and indexes as data: what a database of this version looks like.

``VERSION`` is the number of the newest migration. Whoever changes ``INDEXES`` adds a migration; a test proves that
all migrations in a row end up here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.storage.client import Database, Document, guarded

VERSION = 1

ACCOUNTS = "accounts"
CREDENTIALS = "credentials"
POOL = "pool"
INSTANCES = "instances"
SERVICE_KEYS = "service_keys"
SESSIONS = "sessions"
CATALOG = "catalog"
LEASES = "leases"
DUTIES = "duties"
META = "meta"

COLLECTIONS = (
    ACCOUNTS, CREDENTIALS, POOL, INSTANCES, SERVICE_KEYS, SESSIONS, CATALOG, LEASES, DUTIES, META,
)  # fmt: skip


class Index(msgspec.Struct, frozen=True):
    """One index. ``keys`` in order; ``expire_after`` in seconds after the date in the (only) key."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    unique: bool = False
    sparse: bool = False
    expire_after: int | None = None
    partial: dict[str, Any] | None = None

    def options(self) -> Document:
        """As ``create_index`` takes them and ``index_information`` tells them."""
        options: Document = {}
        if self.unique:
            options["unique"] = True
        if self.sparse:
            options["sparse"] = True
        if self.expire_after is not None:
            options["expireAfterSeconds"] = self.expire_after
        if self.partial is not None:
            options["partialFilterExpression"] = self.partial
        return options


INDEXES = (
    # Tombstones have no name.
    Index(
        ACCOUNTS,
        "name",
        (("provider", 1), ("name_key", 1)),
        unique=True,
        partial={"name_key": {"$exists": True}},
    ),
    Index(ACCOUNTS, "listing", (("created_at", 1), ("_id", 1))),
    Index(ACCOUNTS, "provider_listing", (("provider", 1), ("created_at", 1), ("_id", 1))),
    # Answers a poll for changes without reading documents.
    Index(ACCOUNTS, "changed", (("changed_at", 1), ("rev", 1), ("deleted", 1), ("_id", 1))),
    Index(ACCOUNTS, "tombstones", (("deleted_at", 1),), expire_after=86_400),
    Index(ACCOUNTS, "granted_to", (("grants.i", 1),), sparse=True),
    Index(ACCOUNTS, "wanted_by", (("wanted.i", 1),), sparse=True),
    Index(CREDENTIALS, "version", (("account_id", 1), ("rev", 1)), unique=True),
    Index(CREDENTIALS, "superseded", (("superseded_at", 1),), expire_after=600),
    Index(SERVICE_KEYS, "hash", (("hash", 1),), unique=True),
    Index(SERVICE_KEYS, "changed", (("changed_at", 1),)),
    Index(SESSIONS, "expiry", (("expires_at", 1),), expire_after=0),
    Index(SESSIONS, "account", (("account_id", 1),)),
)


async def create(db: Database, indexes: tuple[Index, ...] = INDEXES, names: tuple[str, ...] = COLLECTIONS) -> None:
    """Make the collections and indexes that are missing. Idempotent. Raises StoreUnavailable."""
    with guarded(120.0):
        there = set(await db.list_collection_names())
        for name in names:
            if name not in there:
                await db.create_collection(name, check_exists=False)
        for index in indexes:
            await db[index.collection].create_index(list(index.keys), name=index.name, **index.options())


async def differences(db: Database) -> list[str]:
    """What the database lacks or has otherwise than here, one sentence each; empty when all is well."""
    found: list[str] = []
    with guarded():
        there = set(await db.list_collection_names())
        for name in COLLECTIONS:
            if name not in there:
                found.append(f"collection {name} is missing")
                continue
            actual = await db[name].index_information()
            wanted = {index.name: index for index in INDEXES if index.collection == name}
            for index in wanted.values():
                info = actual.get(index.name)
                if info is None:
                    found.append(f"index {index.name} of {name} is missing")
                elif _described(info) != {"key": list(index.keys), **index.options()}:
                    found.append(f"index {index.name} of {name} is defined otherwise")
            found.extend(
                f"index {extra} of {name} is not known" for extra in sorted(actual.keys() - wanted.keys() - {"_id_"})
            )
    return found


def _described(info: Any) -> Document:
    known = ("unique", "sparse", "expireAfterSeconds", "partialFilterExpression")
    options = {name: info[name] for name in known if info.get(name) is not None and info[name] is not False}
    return {"key": [(field, int(order)) for field, order in info["key"]], **options}
