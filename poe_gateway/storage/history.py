"""The history of accounts in MongoDB. Entries vanish by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from bson import ObjectId
from pymongo.write_concern import WriteConcern

from poe_gateway.explain.history import AccountEntry
from poe_gateway.storage import schema
from poe_gateway.storage.appending import append
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import to_document


class MongoHistory:
    """HistoryStore. Entries are kept for ``days`` from their moment on."""

    def __init__(self, db: Database, days: float = 30.0) -> None:
        self._history = db.get_collection(schema.ACCOUNT_HISTORY, write_concern=WriteConcern(w=1))
        self._kept = timedelta(days=days)

    def encode(self, record: AccountEntry) -> Document:
        return {"_id": ObjectId(), **to_document(record), "expires_at": record.at + self._kept}

    async def insert(self, documents: list[Document]) -> int:
        return await append(self._history, documents)

    async def of(self, account_id: str, limit: int, before: datetime | None) -> list[AccountEntry]:
        query: Document = {"account_id": account_id}
        earlier: Document = {} if before is None else {"at": {"$lt": before}}
        with guarded():
            rows = await self._history.find({**query, **earlier}).sort("at", -1).limit(limit).to_list()
            if len(rows) == limit:
                last = rows[-1]["at"]
                same = await self._history.find({**query, "at": last}).to_list()
                rows = [row for row in rows if row["at"] != last] + same
        rows.sort(key=_order, reverse=True)
        return [msgspec.convert(row, AccountEntry) for row in rows]


def _order(row: Document) -> tuple[Any, ...]:
    return row["at"], row["_id"]
