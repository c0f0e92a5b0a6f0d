"""Accounts in MongoDB, as the pool's AccountStore: load, follow, change.

A document is the Account struct with ``_id`` for ``id``, and beside it: ``name_key`` (the name in lower case, unique
with ``provider``), ``changed_at`` (set by the database's clock), and the grants' own fields, which nobody here
touches. ``rev`` grows by one with each change and is the condition of the next: nobody overwrites what he has not
read. A deleted account leaves a tombstone ``{_id, deleted, changed_at, deleted_at}`` for a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from poe_gateway.clock import Clock
from poe_gateway.pool.account import EPOCH, Account
from poe_gateway.pool.store import Changes, StoreUnavailable
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document, to_document

LIVING: Document = {"created_at": {"$gte": EPOCH}}
"""Filter for many: not a tombstone; bounds the index ``listing``."""
UNDELETED: Document = {"deleted": {"$ne": True}}
"""Filter beside an id: not a tombstone."""
BARE = {"grants": 0, "wanted": 0, "freed_at": 0, "name_key": 0, "changed_at": 0}
"""Projection: what the struct holds, without what belongs to the grants."""

_OVERLAP = 3.0
"""Seconds. A change is stamped before it can be read; a poll looks back this far behind the newest stamp seen, until
that stamp is so old itself that nothing older can come."""
_RECOUNT = 120.0
"""Seconds after which a poll compares all revisions: catches what a jump of the database's clock may hide."""
_TRIES = 200
_DUPLICATE = 11000


class MongoAccounts:
    """AccountStore of one process. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._accounts = db[schema.ACCOUNTS]
        self._sure = self._accounts.with_options(read_concern=ReadConcern("majority"))
        self._clock = clock
        self._seen: dict[str, int] = {}
        self._buried: set[str] = set()
        """Tombstones that were told already."""
        self._newest: datetime | None = None
        # On the monotonic clock: when ``_newest`` last moved, when the last poll began, when all was last compared.
        self._advanced = float("-inf")
        self._polled = float("-inf")
        self._recounted = float("-inf")

    async def load(self) -> list[Account]:
        with guarded():
            newest = await self._sure.find_one({}, {"changed_at": 1}, sort=[("changed_at", -1)])
        with guarded(60.0):
            found = self._sure.find(LIVING, BARE, batch_size=2000)
            accounts = [from_document(Account, document) async for document in found]
        # What is stored while we read is stamped later than ``newest`` less the overlap: the next poll finds it.
        self._advance(newest["changed_at"] if newest else None)
        self._seen = {account.id: account.rev for account in accounts}
        self._recounted = self._clock.monotonic()
        return accounts

    def _advance(self, newest: datetime | None) -> None:
        if newest != self._newest:
            self._newest = newest
            self._advanced = self._clock.monotonic()

    def _since(self) -> Document:
        """Filter: what may be new since the last poll."""
        if self._newest is None:
            return {}
        if self._polled > self._advanced + _OVERLAP:
            return {"changed_at": {"$gt": self._newest}}
        return {"changed_at": {"$gte": self._newest - timedelta(seconds=_OVERLAP)}}

    async def changes(self) -> Changes:
        """Costs one look into an index while nothing happens."""
        due = self._clock.monotonic() - self._recounted > _RECOUNT
        began = self._clock.monotonic()
        since = {} if due else self._since()
        stale: list[str] = []
        removed: list[str] = []
        found: set[str] = set()
        tombstones: set[str] = set()
        newest = self._newest
        with guarded(10.0):
            heads = self._sure.find(since, {"changed_at": 1, "rev": 1, "deleted": 1}, hint="changed", batch_size=5000)
            async for head in heads:
                key, stamp = head["_id"], head.get("changed_at")
                if stamp is not None and (newest is None or stamp > newest):
                    newest = stamp
                if head.get("deleted"):
                    tombstones.add(key)
                    # Also what came and went between two looks: the pool may know it from an upsert of its own.
                    if self._seen.pop(key, None) is not None or key not in self._buried:
                        removed.append(key)
                    continue
                found.add(key)
                if self._seen.get(key) != head["rev"]:
                    stale.append(key)
            stored = await self._read(stale) if stale else {}
        if not since:
            missing = [key for key in self._seen if key not in found]
            removed.extend(missing)
            for key in missing:
                del self._seen[key]
            self._buried.clear()
            self._recounted = self._clock.monotonic()
        self._buried |= tombstones
        self._advance(newest)
        self._polled = began
        self._seen.update((key, account.rev) for key, account in stored.items())
        return Changes(stored=tuple(stored.values()), removed=tuple(removed))

    async def change(self, steps: Mapping[str, Callable[[Account], Account]]) -> dict[str, Account]:
        """See AccountStore. A step cannot change ``id``, ``provider`` or ``credential_rev``; a step that changes
        nothing writes nothing.
        """
        done: dict[str, Account] = {}
        left = list(steps)
        for attempt in range(_TRIES):
            if not left:
                return done
            if attempt:
                await asyncio.sleep(min(0.05, 0.002 * attempt))
            with guarded():
                before = await self._read(left)
                after = {key: _stepped(account, steps[key]) for key, account in before.items()}
                lost = await self._write([(before[key], after[key]) for key in before if after[key] != before[key]])
            done.update((key, account) for key, account in after.items() if key not in lost)
            left = sorted(lost)
        if left:
            raise StoreUnavailable("accounts are changed faster by others than this process can follow")
        return done

    async def _read(self, keys: Sequence[str]) -> dict[str, Account]:
        found = self._accounts.find({"_id": {"$in": list(keys)}, **UNDELETED}, BARE, batch_size=2000)
        return {document["_id"]: from_document(Account, document) async for document in found}

    async def _write(self, pairs: Sequence[tuple[Account, Account]]) -> set[str]:
        """Store new versions; returns the ids of accounts that somebody else has changed in between.

        Each write is told to insert where it does not match; for a document with another ``rev`` that fails on its
        ``_id``, and so the server names exactly those that lost.
        """
        if not pairs:
            return set()
        writes = [
            UpdateOne(
                {"_id": before.id, "rev": before.rev},
                {"$set": account_fields(after), "$currentDate": {"changed_at": True}},
                upsert=True,
            )
            for before, after in pairs
        ]
        try:
            await self._accounts.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            problems: list[dict[str, Any]] = error.details.get("writeErrors", [])
            if error.details.get("writeConcernErrors") or any(each["code"] != _DUPLICATE for each in problems):
                raise
            return {pairs[each["index"]][1].id for each in problems}
        return set()


def account_fields(account: Account) -> Document:
    """All fields of the document that belong to the struct, without ``_id``."""
    document = to_document(account)
    del document["_id"]
    document["name_key"] = name_key(account.name)
    return document


def name_key(name: str) -> str:
    """Names are compared in this form."""
    return name.strip().lower()


def as_stored(account: Account) -> Account:
    """The account as it will be read back: times to the millisecond, everything fit for the database."""
    return from_document(Account, to_document(account))


def _stepped(before: Account, step: Callable[[Account], Account]) -> Account:
    after = step(before)
    if after == before:
        return before
    kept = replace(
        after,
        id=before.id,
        provider=before.provider,
        credential_rev=before.credential_rev,
        rev=before.rev + 1,
    )
    return as_stored(kept)
