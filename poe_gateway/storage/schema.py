"""Collections and indexes as data: what a database of this version looks like.

``VERSION`` is the number of the newest migration. Whoever changes ``INDEXES``, ``COLLECTIONS`` or ``CAPPED`` adds a
migration; a test proves that all migrations in a row end up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pymongo.errors import OperationFailure

from poe_gateway.storage.client import Database, Document, guarded

VERSION = 5

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
DECISIONS = "decisions"
ACCOUNT_HISTORY = "account_history"
PRICES = "prices"
USAGE_HOURS = "usage_hours"
ORGANISATIONS = "organisations"
BUCKETS = "buckets"
LEDGER = "ledger"
SPOOLS = "spools"
PRICE_RULES = "price_rules"
IDEMPOTENCY = "idempotency"
TRAFFIC = "traffic"
AUDIT = "audit"
FORMER_ACCOUNTS = "former_accounts"
RESPONSES = "responses"

COLLECTIONS = (
    ACCOUNTS, CREDENTIALS, POOL, INSTANCES, SERVICE_KEYS, SESSIONS, CATALOG, LEASES, DUTIES, META,
    DECISIONS, ACCOUNT_HISTORY, PRICES, USAGE_HOURS,
    ORGANISATIONS, BUCKETS, LEDGER, SPOOLS, PRICE_RULES, IDEMPOTENCY, TRAFFIC, AUDIT, FORMER_ACCOUNTS, RESPONSES,
)  # fmt: skip

CAPPED: Mapping[str, int] = {DECISIONS: 64}
"""Collections of a fixed size, in megabytes as they are made: the oldest documents make room for new ones."""
_MEGABYTE = 1024 * 1024
_NOT_SUPPORTED = frozenset({13, 59, 72, 40415})
"""Codes of a server that knows no such option (before 6.0), or does not let us use it."""


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
    Index(DECISIONS, "request", (("request_id", 1),)),
    Index(DECISIONS, "moment", (("at", 1), ("_id", 1))),
    Index(ACCOUNT_HISTORY, "account", (("account_id", 1), ("at", -1))),
    # Each entry carries its own end, so that a change of the setting needs no change of the index.
    Index(ACCOUNT_HISTORY, "expiry", (("expires_at", 1),), expire_after=0),
    Index(USAGE_HOURS, "expiry", (("hour", 1),), expire_after=14 * 86_400),
    # A key that is being rotated is known by two hashes.
    Index(SERVICE_KEYS, "previous", (("previous_hash", 1),), sparse=True),
    Index(SERVICE_KEYS, "org", (("org", 1),)),
    Index(ORGANISATIONS, "name", (("name", 1),), unique=True),
    Index(ORGANISATIONS, "changed", (("changed_at", 1),)),
    Index(BUCKETS, "holders", (("holders", 1),), sparse=True),
    Index(BUCKETS, "expiry", (("expires_at", 1),), expire_after=0),
    Index(LEDGER, "moment", (("at", 1), ("_id", 1))),
    Index(LEDGER, "org", (("org", 1), ("at", 1))),
    Index(LEDGER, "key", (("key_id", 1), ("at", 1))),
    Index(LEDGER, "account", (("account_id", 1), ("at", 1))),
    Index(LEDGER, "request", (("request_id", 1),)),
    Index(LEDGER, "orphans", (("account_id", 1), ("at", 1)), partial={"status": "orphaned"}),
    Index(LEDGER, "corrected", (("corrects", 1),), sparse=True),
    Index(LEDGER, "expiry", (("expires_at", 1),), expire_after=0),
    Index(SPOOLS, "expiry", (("expires_at", 1),), expire_after=0),
    Index(PRICE_RULES, "changed", (("changed_at", 1),)),
    Index(IDEMPOTENCY, "expiry", (("expires_at", 1),), expire_after=0),
    Index(TRAFFIC, "request", (("request_id", 1),)),
    Index(TRAFFIC, "moment", (("at", 1), ("_id", 1))),
    Index(TRAFFIC, "expiry", (("expires_at", 1),), expire_after=0),
    Index(AUDIT, "source", (("source", 1),), unique=True, sparse=True),
    Index(AUDIT, "target", (("target", 1), ("_id", -1))),
    Index(AUDIT, "expiry", (("expires_at", 1),), expire_after=0),
    Index(RESPONSES, "expiry", (("expires_at", 1),), expire_after=0),
    # Finds what goes on from a response that is deleted.
    Index(RESPONSES, "previous", (("previous", 1),), sparse=True),
)


async def create(
    db: Database,
    indexes: tuple[Index, ...] = INDEXES,
    names: tuple[str, ...] = COLLECTIONS,
    capped: Mapping[str, int] = CAPPED,
) -> None:
    """Make the collections and indexes that are missing. Idempotent. Raises StoreUnavailable.

    One that should have a fixed size and has not (it was restored without its options) gets it.
    """
    with guarded(120.0):
        there = await _collections(db)
        for name in names:
            fixed: Document = {"capped": True, "size": capped[name] * _MEGABYTE} if name in capped else {}
            if name not in there:
                await db.create_collection(name, check_exists=False, **fixed)
            elif fixed and not there[name].get("capped"):
                await db.command("convertToCapped", name, size=fixed["size"])
        for index in indexes:
            await db[index.collection].create_index(list(index.keys), name=index.name, **index.options())


async def ensure_capped(db: Database, megabytes: int, name: str = DECISIONS) -> bool:
    """Give a collection of fixed size another size; one that shrinks loses its oldest documents with the next write.

    False where the database keeps the old size: it is older than 6.0, or this user may not run ``collMod``. Raises
    StoreUnavailable.
    """
    with guarded(30.0):
        options = (await _collections(db)).get(name, {})
        if options.get("size") == megabytes * _MEGABYTE:
            return True
        try:
            await db.command("collMod", name, cappedSize=megabytes * _MEGABYTE)
        except OperationFailure as error:
            if error.code in _NOT_SUPPORTED:
                return False
            raise
    return True


async def _collections(db: Database) -> dict[str, Document]:
    """Options by name."""
    return {str(each["name"]): dict(each.get("options", {})) async for each in await db.list_collections()}


async def differences(db: Database) -> list[str]:
    """What the database lacks or has otherwise than here, one sentence each; empty when all is well."""
    found: list[str] = []
    with guarded():
        there = await _collections(db)
        for name in COLLECTIONS:
            if name not in there:
                found.append(f"collection {name} is missing")
                continue
            if bool(there[name].get("capped")) != (name in CAPPED):
                found.append(f"collection {name} {'has no' if name in CAPPED else 'has a'} fixed size")
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
