"""Use by hour in MongoDB: one document per hour, offer and model, which all processes add to.

A document of ``usage_hours``: ``{_id: "<ISO hour>|<offer>|<model key>", hour, offer, model, requests, points, batches:
{<process>: number of its newest batch}}``. A batch that comes again after an unknown fate finds its number there and
adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import UpdateOne

from poe_gateway.pool.usage import UsageRow
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document, storable


class MongoUsage:
    """UsageStore. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._hours = db[schema.USAGE_HOURS]

    async def add(self, process: str, batch: int, rows: Sequence[UsageRow]) -> None:
        """``process`` is made of letters, digits and underscores."""
        if not rows:
            return
        with guarded():
            await self._hours.bulk_write([_update(process, batch, row) for row in rows], ordered=False)

    async def read(self, since: datetime) -> list[UsageRow]:
        with guarded(10.0):
            found = self._hours.find({"hour": {"$gte": since}}, {"_id": 0, "batches": 0})
            return [from_document(UsageRow, document) async for document in found]


def _update(process: str, batch: int, row: UsageRow) -> UpdateOne:
    offer, model = storable(row.offer), storable(row.model)
    newest = f"batches.{process}"
    done = {"$gte": [{"$ifNull": [f"${newest}", 0]}, batch]}

    def plus(field: str, amount: int) -> Document:
        before = {"$ifNull": [f"${field}", 0]}
        return {"$cond": [done, before, {"$add": [before, storable(amount)]}]}

    # One stage reads the document as it was before: the number set here does not count for the sums beside it.
    change = {
        "hour": row.hour,
        "offer": {"$literal": offer},
        "model": {"$literal": model},
        "requests": plus("requests", row.requests),
        "points": plus("points", row.points),
        newest: {"$max": [f"${newest}", batch]},
    }
    return UpdateOne({"_id": f"{row.hour.isoformat()}|{offer}|{model}"}, [{"$set": change}], upsert=True)
