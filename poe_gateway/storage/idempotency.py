"""Claims on requests and their recorded answers in MongoDB, on the database's clock. They expire by themselves.

A document of ``idempotency``: ``{_id: keyed digest of caller and key, digest, owner, request_id, state: running | done,
lease_until (running), status, sealed, kid (done), expires_at}``. The answer is sealed as a whole.
"""

from __future__ import annotations

from bson import Binary
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from poe_gateway.idempotency.book import Claim, Found
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.leases import server_time

_LARGE = 20.0
"""Seconds for a write that may carry megabytes."""


class MongoAnswers:
    """AnswerStore. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._answers = db[schema.IDEMPOTENCY]

    async def claim(self, claim: Claim, lease: float, ttl: float) -> Found:
        # An upsert's filter may not compute, so the condition stands in the update: what is not free stays as it is.
        # A missing date is less than any: a document that is only being made is free.
        same = {"$eq": ["$digest", {"$literal": claim.digest}]}
        lapsed = {"$and": [{"$eq": ["$state", "running"]}, same, {"$lte": ["$lease_until", "$$NOW"]}]}
        free = {"$or": [{"$lte": ["$expires_at", "$$NOW"]}, lapsed]}
        fresh: Document = {
            "_id": {"$literal": claim.id},
            "digest": {"$literal": claim.digest},
            "owner": {"$literal": claim.owner},
            "request_id": {"$literal": claim.request_id},
            "state": {"$literal": "running"},
            **_times(lease, ttl),
        }
        update = [{"$replaceWith": {"$cond": [free, fresh, "$$ROOT"]}}]
        stored: Document | None = None
        with guarded():
            while stored is None:
                try:
                    stored = await self._answers.find_one_and_update(
                        {"_id": claim.id}, update, upsert=True, return_document=ReturnDocument.AFTER
                    )
                except DuplicateKeyError:  # two made it at once: now it is there
                    continue
        sealed = stored.get("sealed")
        return Found(digest=stored["digest"], owner=stored["owner"], sealed=None if sealed is None else bytes(sealed))

    async def renew(self, claim: Claim, lease: float, ttl: float) -> bool:
        with guarded():
            result = await self._answers.update_one(
                {"_id": claim.id, "owner": claim.owner, "state": "running"}, [{"$set": _times(lease, ttl)}]
            )
        return result.matched_count == 1

    async def finish(self, claim: Claim, status: int, sealed: bytes, kid: str, ttl: float) -> bool:
        done: Document = {
            "state": {"$literal": "done"},
            "status": {"$literal": status},
            "sealed": {"$literal": Binary(sealed)},
            "kid": {"$literal": kid},
            "expires_at": server_time(ttl),
        }
        with guarded(_LARGE):
            result = await self._answers.update_one(
                {"_id": claim.id, "owner": claim.owner}, [{"$set": done}, {"$unset": "lease_until"}]
            )
        return result.matched_count == 1

    async def free(self, claim: Claim) -> None:
        with guarded():
            await self._answers.delete_one({"_id": claim.id, "owner": claim.owner, "state": "running"})


def _times(lease: float, ttl: float) -> Document:
    """A run does not expire before its lease has lapsed, however short answers are kept."""
    return {"lease_until": server_time(lease), "expires_at": server_time(lease + ttl)}
