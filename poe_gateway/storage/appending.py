"""Appending records: many at once, each stored once however often it is sent."""

from __future__ import annotations

from pymongo.errors import BulkWriteError

from poe_gateway.storage.client import Collection, Document, guarded

_THERE_ALREADY = 11000


async def append(collection: Collection, documents: list[Document]) -> int:
    """Insert documents that carry their ids; how many the server refused for good.

    One that is there already was stored by an earlier attempt whose answer was lost. Raises StoreUnavailable.
    """
    if not documents:
        return 0
    try:
        with guarded():
            await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        return sum(each.get("code") != _THERE_ALREADY for each in error.details.get("writeErrors", ()))
    return 0
