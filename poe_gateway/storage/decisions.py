"""Decision records in MongoDB: a collection of fixed size, the newest push out the oldest.

A document has the record's own field names; fields that are at their defaults are left out, since most of them are.
"""

from __future__ import annotations

from datetime import datetime

from bson import ObjectId
from msgspec import NODEFAULT
from msgspec.structs import fields
from pymongo.write_concern import WriteConcern

from poe_gateway.explain.decisions import Filter
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.storage import schema
from poe_gateway.storage.appending import append
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document, to_document

_LONG = 20.0
"""Seconds for a question that may look at every record."""


def _defaults() -> Document:
    """What the fields of a record are when they are not set, by name; not of those that must be set."""
    every = [each for kind in (Decision, Choice, Try) for each in fields(kind)]
    required = {each.name for each in every if each.required}
    return {
        each.name: each.default if each.default_factory is NODEFAULT else each.default_factory()
        for each in every
        if each.name not in required
    }


_DEFAULTS = _defaults()


class MongoDecisions:
    """DecisionStore. Records are acknowledged by the primary alone: a lost one costs an explanation, not more."""

    def __init__(self, db: Database) -> None:
        self._decisions = db.get_collection(schema.DECISIONS, write_concern=WriteConcern(w=1))

    def encode(self, record: Decision) -> Document:
        return {"_id": ObjectId(), **_sparse(to_document(record))}

    async def insert(self, documents: list[Document]) -> int:
        return await append(self._decisions, documents)

    async def find(self, request_id: str, limit: int) -> list[Decision]:
        with guarded():
            found = self._decisions.find({"request_id": request_id}).sort("at", -1).limit(limit)
            return [_decision(each) async for each in found]

    async def newest(self, limit: int, where: Filter) -> list[Decision]:
        with guarded(_LONG):
            found = self._decisions.find(_query(where)).sort([("at", -1), ("_id", -1)]).limit(limit)
            return [_decision(each) async for each in found]

    async def page(
        self, since: datetime | None, until: datetime | None, limit: int, after: tuple[datetime, ObjectId] | None = None
    ) -> tuple[list[Decision], tuple[datetime, ObjectId] | None]:
        """Pages go by arrival and id, not by a cursor: one of a collection of fixed size can be overrun."""
        start = since if after is None else after[0]
        bounds: Document = {} if start is None else {"$gte": start}
        if until is not None:
            bounds["$lt"] = until
        query: Document = {"at": bounds} if bounds else {}
        if after is not None:
            query["$or"] = [{"at": {"$gt": after[0]}}, {"_id": {"$gt": after[1]}}]
        with guarded(_LONG):
            rows = await self._decisions.find(query).sort([("at", 1), ("_id", 1)]).limit(limit).to_list()
        more = (rows[-1]["at"], rows[-1]["_id"]) if len(rows) == limit else None
        return [_decision(each) for each in rows], more


def _decision(document: Document) -> Decision:
    return from_document(Decision, document)


def _query(where: Filter) -> Document:
    query: Document = {
        field: value
        for field, value in (
            ("model", where.model),
            ("key_id", where.key_id),
            ("tries.outcome", where.outcome),
            ("error_code", where.error_code),
        )
        if value is not None
    }
    if where.account_id is not None:
        query["$or"] = [{"tries.account_id": where.account_id}, {"choices.account_id": where.account_id}]
    if where.since is not None:
        query["at"] = {"$gte": where.since}
    return query


def _sparse(record: Document) -> Document:
    """Without the fields that are as they would be read when they were missing."""
    return {
        field: [_sparse(one) if isinstance(one, dict) else one for one in value] if isinstance(value, list) else value
        for field, value in record.items()
        if field not in _DEFAULTS or value != _DEFAULTS[field]
    }
