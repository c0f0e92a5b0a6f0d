"""Buckets in MongoDB: read, reckon, replace if nobody else did.

A document of ``buckets``: ``{_id, rev, spent, ticks: {<tick>: amount}, liens: {<process>: {amount, at}}, applied:
{<process>: seq}, moves: {<process>: [number, granted]}, wanted: {<process>: at}, holders: [processes], expires_at}``.
Processes are named by letters, digits and underscores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from bson import Int64
from pymongo.errors import DuplicateKeyError

from poe_gateway.clock import Ids
from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import Bucket, Charge, Lien, charge, close, move
from poe_gateway.limits.bucket import Move as Wish
from poe_gateway.limits.keys import BucketKey, key_of
from poe_gateway.limits.store import Moved
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded

_MOST = 2**63 - 1
_TRIES = 200
"""Attempts to change a document that others change as well; each costs one of them nothing."""
_PAUSE = 0.002
"""Seconds; grows with each attempt up to sixteenfold, by chance, so that rivals do not keep step."""


class MongoBuckets:
    """BucketStore. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, ids: Ids) -> None:
        self._buckets = db[schema.BUCKETS]
        self._rng = ids.rng

    async def move(self, key: BucketKey, move_: Wish, cap: int, now: datetime) -> Moved:
        granted = 0

        def change(bucket: Bucket) -> Bucket:
            nonlocal granted
            changed, granted = move(key, bucket, move_, cap, now)
            return changed

        bucket = await self._change(key.id, change, key.expires_at)
        return Moved(granted, bucket)

    async def charge(self, process: str, charges: Mapping[str, Sequence[Charge]]) -> None:
        for bucket_id, entries in charges.items():
            await self._change(bucket_id, partial(_charged, process, entries), None)

    async def close(self, process: str, now: datetime) -> None:
        with guarded():
            held = [str(each["_id"]) async for each in self._buckets.find({"holders": process}, {"_id": 1})]
        for bucket_id in held:
            await self._change(bucket_id, partial(_closed, key_of(bucket_id), process, now), None)

    async def read(self, ids: Collection[str]) -> dict[str, Bucket]:
        with guarded():
            found = self._buckets.find({"_id": {"$in": list(ids)}})
            return {document["_id"]: _read(document) async for document in found}

    async def wanted(self, ids: Collection[str]) -> dict[str, dict[str, datetime]]:
        with guarded():
            found = self._buckets.find({"_id": {"$in": list(ids)}, "wanted": {"$ne": {}}}, {"wanted": 1})
            return {document["_id"]: dict(document["wanted"]) async for document in found}

    async def _change(self, bucket_id: str, change: Callable[[Bucket], Bucket], expires_at: datetime | None) -> Bucket:
        """The bucket after the change, which may be reckoned several times."""
        for attempt in range(_TRIES):
            with guarded():
                document = await self._buckets.find_one({"_id": bucket_id})
                bucket = _read(document) if document is not None else Bucket(id=bucket_id)
                changed = change(bucket)
                if changed.rev == bucket.rev:
                    return changed
                written = _written(changed)
                kept = expires_at or (document or {}).get("expires_at")
                if kept is not None:
                    written["expires_at"] = kept
                if document is None:
                    try:
                        await self._buckets.insert_one(written)
                        return changed
                    except DuplicateKeyError:
                        pass
                else:
                    done = await self._buckets.replace_one({"_id": bucket_id, "rev": bucket.rev}, written)
                    if done.matched_count:
                        return changed
            await asyncio.sleep(_PAUSE * min(16, attempt + 1) * self._rng.random())
        raise StoreUnavailable("a bucket was changed by others all the time")


def _charged(process: str, entries: Sequence[Charge], bucket: Bucket) -> Bucket:
    return charge(bucket, process, entries)


def _closed(key: BucketKey, process: str, now: datetime, bucket: Bucket) -> Bucket:
    return close(key, bucket, process, now)


def _read(document: Document) -> Bucket:
    return Bucket(
        id=document["_id"],
        rev=document["rev"],
        spent=document["spent"],
        ticks={int(tick): amount for tick, amount in document["ticks"].items()},
        liens={process: Lien(lien["amount"], lien["at"]) for process, lien in document["liens"].items()},
        applied=document["applied"],
        moves={process: (number, granted) for process, (number, granted) in document["moves"].items()},
        wanted=document["wanted"],
    )


def _written(bucket: Bucket) -> Document:
    return {
        "_id": bucket.id,
        "rev": bucket.rev,
        "spent": _int64(bucket.spent),
        "ticks": {str(tick): _int64(amount) for tick, amount in bucket.ticks.items()},
        "liens": {process: {"amount": _int64(lien.amount), "at": lien.at} for process, lien in bucket.liens.items()},
        "applied": bucket.applied,
        "moves": {process: list(told) for process, told in bucket.moves.items()},
        "wanted": bucket.wanted,
        "holders": sorted(bucket.holders),
    }


def _int64(amount: int) -> Int64:
    """As much of an amount as can be stored: absurd figures of an upstream must not block all other charges."""
    return Int64(max(-_MOST, min(_MOST, amount)))
