"""Catalogues of offers in MongoDB: one document per offer, a Listing struct with ``_id`` for ``offer``."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from poe_gateway.routing.catalog import Listing
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, guarded
from poe_gateway.storage.codec import from_document, to_document


class MongoCatalog:
    """CatalogStore. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._catalog = db[schema.CATALOG]

    async def load(self) -> list[Listing]:
        with guarded():
            return [from_document(Listing, document) async for document in self._catalog.find().sort("_id", 1)]

    async def put(self, listing: Listing) -> None:
        """An older listing does not replace a newer one."""
        older = {"_id": listing.offer, "fetched_at": {"$lte": listing.fetched_at}}
        with guarded():
            try:
                await self._catalog.replace_one(older, {"_id": listing.offer, **to_document(listing)}, upsert=True)
            except DuplicateKeyError:
                return

    async def drop(self, offer: str) -> None:
        with guarded():
            await self._catalog.delete_one({"_id": offer})
