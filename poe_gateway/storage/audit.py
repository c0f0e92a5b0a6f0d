"""The chain of the operators' changes in MongoDB: ``_id`` is the link's number, by ``source`` each change counts once.

Processes append without a lock: whoever finds the next number taken reads again. The head (document ``audit`` of
``meta``) is moved after its link is there and never back, so a process that dies in between leaves a head that lags.
A writer goes on after the head where that is ahead: what was cut off stays a gap, it is not written over. A head that
is gone or was not written by us is left as it is, for the verification to tell.

Links expire in the order of their numbers: none is given an end before its predecessor's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.int64 import Int64
from msgspec.structs import asdict, replace
from pymongo.errors import BulkWriteError, DuplicateKeyError

from poe_gateway.clock import Clock
from poe_gateway.metering.chain import Chain, Head, Report, Walk
from poe_gateway.metering.changes import ChangeFilter, Entry
from poe_gateway.metering.rows import Change
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import storable, to_document

_HEAD = "audit"
_SLICE = 500
"""Links that are checked in one breath of the event loop: some milliseconds."""
_LONG = 20.0
"""Seconds for a question that may look at every entry."""
_TAKEN = 11000
_NUMBERED = {"$type": ["int", "long"]}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MongoAudit:
    """Sink of changes and AuditTrail. ``secret``: the database's pepper. ``days`` 0: entries are kept for ever.

    All methods raise StoreUnavailable.
    """

    def __init__(self, db: Database, secret: bytes, clock: Clock, days: int = 0) -> None:
        self._audit = db[schema.AUDIT]
        self._meta = db[schema.META]
        self._chain = Chain(secret)
        self._clock = clock
        self._kept = timedelta(days=days)

    # Writing.

    async def put(self, spool: str, records: Sequence[tuple[int, Change]]) -> None:
        """Append the changes that are not there yet. May be repeated, and by several at once."""
        given = {f"{spool}-{seq}": change for seq, change in records}
        while True:
            with guarded():
                stored = self._audit.find({"source": {"$in": list(given)}}, {"source": 1})
                known = {each["source"] async for each in stored}
                fields = [_fields(source, change) for source, change in given.items() if source not in known]
                newest = await self._newest()
                base = await self._base(newest)
                links = self._links(base, fields)
                if links:
                    if self._kept and base.n and base.expires_at is None:
                        await self._audit.update_many(
                            {"expires_at": {"$exists": False}}, {"$set": {"expires_at": links[0]["expires_at"]}}
                        )
                    try:
                        await self._audit.insert_many(links, ordered=True)
                    except BulkWriteError as error:
                        if any(each.get("code") != _TAKEN for each in error.details["writeErrors"]):
                            raise
                        continue  # another process was faster: its number or, draining the same spool, its change
                    newest = _as_head(links[-1])
                if newest is not None:
                    await self._advance(newest)
                return

    async def _newest(self) -> Head | None:
        document = await self._audit.find_one({"_id": _NUMBERED}, sort=[("_id", -1)])
        return None if document is None else _as_head(document)

    async def _base(self, newest: Head | None) -> Head:
        """What the next link comes after. Read after ``newest``: a first link is only ever there after a head."""
        document = await self._meta.find_one({"_id": _HEAD})
        if document is None and newest is None:
            with contextlib.suppress(DuplicateKeyError):  # made by another process in this very moment
                await self._meta.update_one({"_id": _HEAD}, {"$setOnInsert": self._signed(Head())}, upsert=True)
            return Head()
        head = (None if document is None else self._trusted(document)) or Head()
        return newest if newest is not None and newest.n >= head.n else head

    def _links(self, base: Head, fields: list[Document]) -> list[Document]:
        n, prev, expires_at = base.n, base.hash, None
        if self._kept:
            expires_at = max(storable(self._clock.now() + self._kept), base.expires_at or _EPOCH)
        links: list[Document] = []
        for each in fields:
            n += 1
            link = self._chain.link(n, prev, each)
            prev = link["hash"]
            del link["n"]
            links.append({"_id": Int64(n), **link, **({} if expires_at is None else {"expires_at": expires_at})})
        return links

    async def _advance(self, newest: Head) -> None:
        """Move the head to the newest link, unless it is there, or further, or not ours."""
        while (document := await self._meta.find_one({"_id": _HEAD})) is not None:
            head = self._trusted(document)
            if head is None or head.n >= newest.n:
                return
            moved = replace(newest, trimmed=head.trimmed or newest.expires_at is not None)
            done = await self._meta.update_one({"_id": _HEAD, "mac": document["mac"]}, {"$set": self._signed(moved)})
            if done.matched_count:
                return

    def _signed(self, head: Head) -> Document:
        return {**asdict(head), "n": Int64(head.n), "kid": self._chain.kid, "mac": self._chain.sign(head)}

    def _trusted(self, document: Mapping[str, Any]) -> Head | None:
        """The head, if it is as one of us wrote it."""
        try:
            head = Head(**{name: document[name] for name in Head.__struct_fields__})
            ours = document["kid"] == self._chain.kid and self._chain.signed(head, str(document["mac"]))
            return head if ours else None
        except (KeyError, TypeError, ValueError):
            return None

    # Reading.

    async def entries(self, where: ChangeFilter, limit: int, before: int | None = None) -> list[Entry]:
        """See AuditTrail."""
        query: Document = {
            name: value
            for name, value in (("target", where.target), ("actor", where.actor), ("action", where.action))
            if value is not None
        }
        bounds = {"$gte": where.since, "$lt": where.until}
        if bounded := {sign: moment for sign, moment in bounds.items() if moment is not None}:
            query["at"] = bounded
        query["_id"] = _NUMBERED if before is None else {**_NUMBERED, "$lt": before}
        with guarded(_LONG):
            return [_entry(each) async for each in self._audit.find(query).sort("_id", -1).limit(limit)]

    async def entry(self, n: int) -> Entry | None:
        """See AuditTrail."""
        with guarded():
            document = await self._audit.find_one({"_id": n})
        return None if document is None else _entry(document)

    async def verify(self, noted: tuple[int, str] | None = None) -> Report:
        """See AuditTrail. Memory is bounded; entries that are written meanwhile may be seen or not."""
        with guarded(_LONG):
            document = await self._meta.find_one({"_id": _HEAD})
            stray = await self._audit.find_one({"_id": {"$not": _NUMBERED}}, {"_id": 1})
        head = None if document is None else self._trusted(document)
        claimed = Head(trimmed=document is not None and document.get("trimmed") is True)
        walk = Walk(self._chain, head or claimed, noted)
        query: Document = {"_id": _NUMBERED}
        while True:
            with guarded(_LONG):
                documents = await self._audit.find(query).sort("_id", 1).limit(_SLICE).to_list()
            if not all(walk.step(_as_link(each)) for each in documents) or len(documents) < _SLICE:
                break
            query = {"_id": {**_NUMBERED, "$gt": documents[-1]["_id"]}}
            await asyncio.sleep(0)
        if stray is not None:
            walk.fail("changed", "there is an entry without a number")
        if document is None and walk.first is not None:
            walk.fail("missing", "the head of the chain is gone")
        elif document is not None and head is None:
            foreign = document.get("kid") != self._chain.kid
            walk.fail("foreign key" if foreign else "changed", "the head of the chain was not written by this gateway")
        return walk.end(self._clock.now())


def _fields(source: str, change: Change) -> Document:
    fields = to_document(change)
    fields.pop("type", None)  # the tag of the struct
    return {"source": source, **fields}


def _as_head(document: Mapping[str, Any]) -> Head:
    return Head(n=int(document["_id"]), hash=str(document.get("hash")), expires_at=document.get("expires_at"))


def _as_link(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without what does not belong to the link: its end may be set later."""
    link = {name: value for name, value in document.items() if name not in ("_id", "expires_at")}
    return {**link, "n": document["_id"]}


def _entry(document: Mapping[str, Any]) -> Entry:
    """Shown even when somebody has meddled with it; it is the verification that judges."""
    at = document.get("at")
    words = {name: str(document.get(name, "")) for name in ("source", "actor", "action", "target", "prev", "hash")}
    return Entry(
        n=int(document["_id"]),
        at=at if isinstance(at, datetime) else _EPOCH,
        address=_text(document.get("address")),
        request_id=_text(document.get("request_id")),
        before=_values(document.get("before")),
        after=_values(document.get("after")),
        **words,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _values(value: Any) -> dict[str, Any] | None:
    return value if value is None or isinstance(value, dict) else {"": str(value)}
