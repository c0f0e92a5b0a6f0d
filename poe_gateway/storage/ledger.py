"""The ledger in MongoDB: one document a row, one a correction, one for each spool that is finished."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError

from poe_gateway.metering.rows import Correction
from poe_gateway.metering.store import Entry, RowFilter, correction_fields, row_fields
from poe_gateway.storage import schema
from poe_gateway.storage.appending import append
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import storable

_SLICE = 25
"""Rows that are made documents in one go, and"""
_SENT = 100
"""rows that are sent at a time: the driver encodes them in one go."""
_LONG = 20.0
_MARKED = timedelta(days=400)
"""A mark is needed as long as the folder of its spool may still be somewhere."""


class MongoLedger:
    """RowSink, and the rows for reading. ``days`` above 0: rows vanish that many days after their moment.

    All methods raise StoreUnavailable.
    """

    def __init__(self, db: Database, days: int = 0) -> None:
        self._ledger = db[schema.LEDGER]
        self._spools = db[schema.SPOOLS]
        self._kept = timedelta(days=days) if days > 0 else None

    async def insert(self, entries: Sequence[Entry]) -> int:
        """See RowSink."""
        refused = 0
        for first in range(0, len(entries), _SENT):
            documents: list[Document] = []
            for start in range(first, min(first + _SENT, len(entries)), _SLICE):
                documents += [
                    self._document(row_fields(each)) for each in entries[start : min(start + _SLICE, first + _SENT)]
                ]
                await asyncio.sleep(0)
            refused += await append(self._ledger, documents)
        return refused

    def _document(self, fields: dict[str, Any]) -> Document:
        document: Document = storable(fields)
        if self._kept is not None:
            document["expires_at"] = document["at"] + self._kept
        return document

    async def amend(self, entry: Entry) -> bool:
        """See RowSink."""
        record = entry.record
        assert isinstance(record, Correction)  # noqa: S101 - what it is given
        with guarded():
            row = await self._ledger.find_one({"_id": record.row})
            if row is None:
                return False
            document = self._document(correction_fields(entry, row))
            try:
                await self._ledger.insert_one(document)
            except DuplicateKeyError:
                known = await self._ledger.find_one({"_id": document["_id"]}, {"spool": 1, "seq": 1})
                if known is None or (known["spool"], known["seq"]) != (entry.spool, entry.seq):
                    return False
            await self._ledger.update_one({"_id": record.row}, {"$set": {"corrected_at": storable(record.at)}})
        return True

    async def close_spool(self, spool: str) -> None:
        """See RowSink. Times are the server's."""
        moment: Document = {"$ifNull": ["$closed_at", "$$NOW"]}
        stages = [
            {"$set": {"closed_at": moment}},
            {"$set": {"expires_at": {"$add": ["$closed_at", _MARKED // timedelta(milliseconds=1)]}}},
        ]
        with guarded():
            await self._spools.update_one({"_id": spool}, stages, upsert=True)

    async def closed(self, spool: str) -> bool:
        """See RowSink."""
        with guarded():
            return await self._spools.find_one({"_id": spool}) is not None

    async def row(self, row_id: str) -> Document | None:
        """One row or correction."""
        with guarded():
            return await self._ledger.find_one({"_id": row_id})

    async def rows(
        self, where: RowFilter, limit: int = 100, after: tuple[datetime, str] | None = None
    ) -> list[Document]:
        """One page, oldest first, corrections among them; ``after``: moment and id of the last one before the page."""
        names = ("org", "key_id", "account_id", "request_id")
        query: Document = {name: value for name in names if (value := getattr(where, name)) is not None}
        bounds = {"$gte": where.since, "$lt": where.until}
        if bounded := {sign: moment for sign, moment in bounds.items() if moment is not None}:
            query["at"] = bounded
        if after is not None:
            query["$or"] = [{"at": {"$gt": after[0]}}, {"at": after[0], "_id": {"$gt": after[1]}}]
        with guarded(_LONG):
            return await self._ledger.find(query).sort([("at", 1), ("_id", 1)]).limit(limit).to_list()

    async def orphans(self, account_id: str | None, before: datetime, limit: int = 1000) -> list[Document]:
        """Attempts whose end nobody saw and that nobody has corrected, begun before a moment, oldest first."""
        query: Document = {"status": "orphaned", "corrected_at": {"$exists": False}, "at": {"$lt": before}}
        if account_id is not None:
            query["account_id"] = account_id
        with guarded(_LONG):
            return await self._ledger.find(query).sort([("at", 1), ("_id", 1)]).limit(limit).to_list()
