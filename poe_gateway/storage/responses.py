"""Kept responses in MongoDB, on the database's clock. They expire by themselves.

A document of ``responses``: ``{_id: the response's id, key_id, org, path: [ids], previous: the last of path, weight,
sealed, kid, created_at, expires_at, deleted}``. What was said is in ``sealed`` only. ``previous`` is there where there
is one, ``deleted`` (true) where the caller deleted what others go on from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from bson import Binary

from poe_gateway.conversations.kept import Kept
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.leases import server_time

_LARGE = 20.0
"""Seconds for what may carry megabytes."""
_SMALL = 256 * 1024
_ALIVE: Document = {"$expr": {"$gt": ["$expires_at", "$$NOW"]}}


class MongoKept:
    """KeptStore. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._responses = db[schema.RESPONSES]

    async def put(self, kept: Kept, ttl: float) -> None:
        fields: Document = {
            "key_id": {"$literal": kept.key_id},
            "org": {"$literal": kept.org},
            "path": {"$literal": list(kept.path)},
            "weight": {"$literal": kept.weight},
            "sealed": {"$literal": Binary(kept.sealed)},
            "kid": {"$literal": kept.kid},
            "created_at": "$$NOW",
            "expires_at": server_time(ttl),
        }
        if kept.path:
            fields["previous"] = {"$literal": kept.path[-1]}
        with guarded(_LARGE if len(kept.sealed) > _SMALL else 5.0):
            if kept.path:
                # First, so that a conversation that is kept never has a part that goes before it does.
                await self._responses.update_many(
                    {"_id": {"$in": list(kept.path)}, "key_id": kept.key_id},
                    [{"$set": {"expires_at": {"$max": ["$expires_at", server_time(ttl)]}}}],
                )
            await self._responses.update_one({"_id": kept.id}, [{"$set": fields}], upsert=True)

    async def fetch(self, key_id: str, ids: Sequence[str]) -> dict[str, Kept]:
        found: dict[str, Kept] = {}
        with guarded(_LARGE if len(ids) > 1 else 5.0):
            async for document in self._responses.find({"_id": {"$in": list(ids)}, "key_id": key_id, **_ALIVE}):
                found[document["_id"]] = Kept(
                    id=document["_id"],
                    key_id=document["key_id"],
                    org=document["org"],
                    path=tuple(document["path"]),
                    deleted=document.get("deleted", False),
                    weight=document["weight"],
                    sealed=bytes(document["sealed"]),
                    kid=document["kid"],
                )
        return found

    async def drop(self, key_id: str, response_id: str) -> bool:
        there = {"_id": response_id, "key_id": key_id, **_ALIVE}
        with guarded():
            # Marked before anybody looks for what goes on from it: of two that are deleted at once, the second to look
            # finds nothing. Nothing is gone before all that goes with it is known: a call that broke off can be made
            # again.
            before = await self._responses.find_one_and_update(
                there, {"$set": {"deleted": True}}, projection=["path", "deleted"]
            )
            if before is None:
                return False
            line = [response_id, *reversed(before["path"])]
            while gone := await self._unneeded(line):
                await self._responses.delete_many({"_id": {"$in": gone}, "key_id": key_id, "deleted": True})
                line = line[len(gone) :]
        return "deleted" not in before

    async def _unneeded(self, line: list[str]) -> list[str]:
        """Of a conversation, the newest first: the first ones, as far as they are deleted and nothing else goes on from
        them."""
        if not line or await self._responses.find_one({"previous": line[0]}, projection=["_id"]) is not None:
            return []  # as a rule, and cheap
        others: Document = {
            "from": schema.RESPONSES,
            "localField": "_id",
            "foreignField": "previous",
            "pipeline": [{"$match": {"_id": {"$nin": line}}}, {"$limit": 1}, {"$project": {"_id": 1}}],
            "as": "others",
        }
        deleted: Document = {"_id": {"$in": line}, "deleted": True}
        found = await self._responses.aggregate(
            [{"$match": deleted}, {"$lookup": others}, {"$match": {"others": []}}, {"$project": {"_id": 1}}]
        )
        alone = {each["_id"] async for each in found}
        return list(takewhile(alone.__contains__, line))
