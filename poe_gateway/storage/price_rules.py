"""Price rules in MongoDB: one document per rule with all its versions, so that a change of them is one step.

Documents are PriceHistory structs with ``changed_at`` on the database's clock; prices are text, hence exact.
"""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from poe_gateway.clock import Clock
from poe_gateway.metering.pricelist import PriceHistory
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, guarded
from poe_gateway.storage.codec import to_document
from poe_gateway.storage.followed import Followed


class MongoPriceRules:
    """PriceRuleStore of one process. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._rules = db[schema.PRICE_RULES]
        self._followed = Followed(self._rules, PriceHistory, clock)

    async def load(self) -> list[PriceHistory]:
        return await self._followed.load()

    async def changes(self) -> list[PriceHistory]:
        return await self._followed.changes()

    async def put(self, history: PriceHistory) -> bool:
        """See PriceRuleStore."""
        document = to_document(history)
        where = {"_id": document.pop("_id"), "rev": history.rev - 1}
        with guarded():
            try:
                # An upsert for the first, because only updates can take the database's clock. Should the rule be there
                # at another rev, the upsert meets its id.
                result = await self._rules.update_one(
                    where, {"$set": document, "$currentDate": {"changed_at": True}}, upsert=history.rev == 1
                )
            except DuplicateKeyError:
                return False
        return result.matched_count == 1 or result.upserted_id is not None
