"""Samples of prices in MongoDB: one document per offer and model, its newest samples in the order of their times.

A document of ``prices``: ``{_id: "<offer>|<model key>", samples: [{p: points, t: prompt tokens, at: date}],
updated_at}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import UpdateOne

from poe_gateway.pool.pricebook import PriceRow
from poe_gateway.pool.prices import WINDOW, Sample
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import storable


class MongoPrices:
    """PriceStore. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._prices = db[schema.PRICES]

    async def add(self, rows: Sequence[PriceRow]) -> None:
        if not rows:
            return
        with guarded():
            await self._prices.bulk_write([_update(row) for row in rows], ordered=False)

    async def read(self, since: datetime | None = None) -> list[PriceRow]:
        wanted = {} if since is None else {"updated_at": {"$gte": since}}
        with guarded(10.0):
            return [_row(document) async for document in self._prices.find(wanted)]


def _update(row: PriceRow) -> UpdateOne:
    samples = [{"p": storable(each.points), "t": storable(each.tokens), "at": each.at} for each in row.samples]
    return UpdateOne(
        {"_id": storable(f"{row.offer}|{row.model}")},
        {
            "$push": {"samples": {"$each": samples, "$sort": {"at": 1}, "$slice": -WINDOW}},
            "$currentDate": {"updated_at": True},
        },
        upsert=True,
    )


def _row(document: Document) -> PriceRow:
    offer, _, model = document["_id"].partition("|")
    return PriceRow(
        offer=offer,
        model=model,
        samples=tuple(Sample(each["p"], each["t"], each["at"]) for each in document["samples"]),
        updated_at=document["updated_at"],
    )
