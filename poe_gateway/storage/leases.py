"""Named leases on the database's clock: one holder at a time, each new holder with a larger token.

A document of ``leases``: ``{_id: name, owner, token, expires_at}``.
"""

from __future__ import annotations

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded


def server_time(seconds: float) -> Document:
    """The database's clock plus ``seconds``, as an expression."""
    return {"$add": ["$$NOW", round(seconds * 1000)]}


class MongoLeases:
    """Leases by name. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._leases = db[schema.LEASES]

    async def acquire(self, name: str, owner: str, seconds: float) -> int:
        """The fencing token (1, 2, 3 …) when ``owner`` holds the lease now, 0 when somebody else does.

        Whoever holds it already keeps the token and gets ``seconds`` more.
        """
        mine = {"$eq": ["$owner", {"$literal": owner}]}
        lapsed = {"$lte": ["$expires_at", "$$NOW"]}  # a missing date is less than any
        free = {"$or": [mine, lapsed]}
        # An upsert's filter may not compute, so the condition stands in the update: who is not free stays as he is.
        update = {
            "token": {
                "$cond": [{"$or": [mine, {"$not": [free]}]}, "$token", {"$add": [{"$ifNull": ["$token", 0]}, 1]}]
            },
            "owner": {"$cond": [free, {"$literal": owner}, "$owner"]},
            "expires_at": {"$cond": [free, server_time(seconds), "$expires_at"]},
        }
        with guarded():
            try:
                stored = await self._leases.find_one_and_update(
                    {"_id": name}, [{"$set": update}], upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # two upserts at once: the other one has it
                return 0
        return int(stored["token"]) if stored is not None and stored["owner"] == owner else 0

    async def renew(self, name: str, owner: str, seconds: float) -> bool:
        """Hold it for ``seconds`` from now; False when it is lost (lapsed and taken by somebody else, or released)."""
        with guarded():
            result = await self._leases.update_one(
                {"_id": name, "owner": owner}, [{"$set": {"expires_at": server_time(seconds)}}]
            )
        return result.matched_count == 1

    async def release(self, name: str, owner: str) -> None:
        """Let others have it at once; does nothing when it is not held. The token is kept, so that it grows on."""
        with guarded():
            await self._leases.update_one(
                {"_id": name, "owner": owner}, [{"$set": {"owner": None, "expires_at": "$$NOW"}}]
            )
