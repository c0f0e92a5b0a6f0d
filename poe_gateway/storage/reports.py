"""The ledger's sums and rows, and the lives of accounts, as read from MongoDB. Nothing here writes.

Days, months and hours are cut by the server in the zone that is asked for, so that days of 23 and 25 hours are right.
Sums are 64-bit integers; a sum beyond them is refused, never rounded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from pymongo.errors import OperationFailure

from poe_gateway.errors import InvalidRequest
from poe_gateway.metering.account_cost import Lifetime
from poe_gateway.metering.reports import Cost, Dimension, Figures, Filter, Group, RowPage
from poe_gateway.pool.account import State
from poe_gateway.storage import schema
from poe_gateway.storage.accounts import LIVING
from poe_gateway.storage.client import Database, Document, guarded

_LONG = 60.0
"""Seconds for a question that may look at every row."""
_UNKNOWN_ZONE = 40485
_FIELDS: Mapping[str, str] = {
    "org": "org",
    "key": "key_id",
    "model": "model",
    "account": "account_id",
    "provider": "provider",
    "status": "status",
    "request": "request_id",
}
_CORRECTION: Document = {"$eq": ["$status", "correction"]}
_ATTEMPT: Document = {"$ne": ["$status", "correction"]}
_FIRST: Document = {"$and": [_ATTEMPT, {"$eq": ["$attempt", 1]}]}
_TERMS = ("vendor", "batch", "purchase_price", "currency", "purchased_at", "expires_at")


class MongoReports:
    """Reports. ``zone``: of days and months where a question names none."""

    def __init__(self, db: Database, zone: str = "UTC") -> None:
        self._ledger = db[schema.LEDGER]
        self._accounts = db[schema.ACCOUNTS]
        self._former = db[schema.FORMER_ACCOUNTS]
        self._zone = zone

    @property
    def zone(self) -> str:
        return self._zone

    async def groups(
        self, by: Sequence[Dimension], where: Filter, zone: str | None = None
    ) -> AsyncGenerator[Group, None]:
        """See Reports."""
        zone = zone or self._zone
        local = ZoneInfo(zone)
        with guarded(_LONG):
            try:
                found = await self._ledger.aggregate(pipeline(by, where, zone), allowDiskUse=True, batchSize=1000)
            except OperationFailure as error:
                if error.code == _UNKNOWN_ZONE:
                    raise InvalidRequest("The database does not know this time zone.", param="zone") from None
                raise
        async with found:
            while True:
                with guarded(_LONG):
                    batch = await found.to_list(1000)
                if not batch:
                    return
                for each in batch:
                    yield _group(each, by, local)

    async def rows(self, where: Filter, limit: int, before: datetime | None = None) -> RowPage:
        """See Reports."""
        query = _match(where)
        if before is not None:
            query = {"$and": [query, {"at": {"$lt": before}}]}
        with guarded(_LONG):
            rows = await self._ledger.find(query).sort("at", -1).limit(limit).to_list()
            if len(rows) < limit:
                return RowPage(rows=sorted(rows, key=_order, reverse=True))
            last = rows[-1]["at"]
            same = await self._ledger.find({"$and": [query, {"at": last}]}).to_list()
        rows = [row for row in rows if row["at"] != last] + same
        return RowPage(rows=sorted(rows, key=_order, reverse=True), before=last)

    async def found(self, named: str) -> list[Document]:
        """See Reports."""
        with guarded():
            rows = await self._ledger.find({"$or": [{"_id": named}, {"request_id": named}]}).limit(1000).to_list()
            ids = [row["_id"] for row in rows]
            rows += await self._ledger.find({"corrects": {"$in": ids}, "_id": {"$nin": ids}}).to_list()
        return sorted(rows, key=_order)

    async def lifetimes(self, where: Filter) -> list[Lifetime]:
        """See Reports. Demonstration accounts are left out."""
        group: Document = {"_id": "$account_id", "points": _sum("$points")}
        group["attempts"] = _count(_ATTEMPT)
        group["requests"] = _count(_FIRST)
        ours: Document = {} if where.provider is None else {"provider": where.provider}
        with guarded(_LONG):
            sums = await self._ledger.aggregate([{"$match": _match(where)}, {"$group": group}], allowDiskUse=True)
            delivered = {each["_id"]: each async for each in sums}
            fields = dict.fromkeys(("name", "provider", "created_at", "health", *_TERMS), 1)
            living = self._accounts.find({**LIVING, "demo": {"$ne": True}, **ours}, fields, batch_size=2000)
            lives = {each["_id"]: _lifetime(each, delivered) async for each in living}
            # An account that is there is not a former one: its deletion was begun and did not come through.
            async for each in self._former.find(ours, batch_size=2000):
                lives.setdefault(each["_id"], _lifetime(each, delivered))
        return list(lives.values())


def pipeline(by: Sequence[Dimension], where: Filter, zone: str) -> list[Document]:
    """The question for sums by these dimensions and currency."""
    keys = {f"k{number}": _key(each, zone) for number, each in enumerate(by)}
    group: Document = {
        "_id": {**keys, "unit": {"$ifNull": ["$unit", None]}},
        "requests": _count(_FIRST),
        "attempts": _count(_ATTEMPT),
        "prompt_tokens": _sum("$prompt_tokens"),
        "completion_tokens": _sum("$completion_tokens"),
        "cached_tokens": _sum("$cached_tokens"),
        "points": _sum("$points"),
        "unpriced": _count(
            {"$and": [{"$eq": ["$status", "succeeded"]}, {"$eq": [{"$ifNull": ["$billed_cost", None]}, None]}]}
        ),
        "corrections": _count(_CORRECTION),
        "corrected_points": {"$sum": {"$cond": [_CORRECTION, "$points", 0]}},
        "raw": _sum("$raw_cost"),
        "billed": _sum("$billed_cost"),
        "corrected": {"$sum": {"$cond": [_CORRECTION, "$billed_cost", 0]}},
    }
    for status in ("succeeded", "failed", "cancelled", "orphaned"):
        group[status] = _count({"$eq": ["$status", status]})
    order = {f"_id.{name}": 1 for name in (*keys, "unit")}
    return [{"$match": _match(where)}, {"$group": group}, {"$sort": order}]


def _key(dimension: Dimension, zone: str) -> Any:
    if dimension == "hour":
        return {"$dateTrunc": {"date": "$at", "unit": "hour", "timezone": zone}}
    if dimension in ("day", "month"):
        form = "%Y-%m-%d" if dimension == "day" else "%Y-%m"
        return {"$dateToString": {"date": "$at", "format": form, "timezone": zone}}
    return {"$ifNull": [f"${_FIELDS[dimension]}", None]}


def _sum(field: str) -> Document:
    """What is null or missing adds nothing."""
    return {"$sum": field}


def _count(condition: Document) -> Document:
    return {"$sum": {"$cond": [condition, 1, 0]}}


def _match(where: Filter) -> Document:
    query: Document = {field: value for name, field in _FIELDS.items() if (value := getattr(where, name)) is not None}
    bounds = {key: at for key, at in (("$gte", where.since), ("$lt", where.until)) if at is not None}
    if bounds:
        query["at"] = bounds
    return query


def _group(document: Document, by: Sequence[Dimension], zone: ZoneInfo) -> Group:
    named = document["_id"]
    keys = tuple(_label(named[f"k{number}"], zone) for number in range(len(by)))
    exact = {name: _exact(value) for name, value in document.items() if name != "_id"}
    return Group(
        keys=keys,
        unit=named["unit"],
        figures=Figures(**{name: exact[name] for name in Figures.__struct_fields__}),
        cost=Cost(raw=exact["raw"], billed=exact["billed"], corrected=exact["corrected"]),
    )


def _label(value: Any, zone: ZoneInfo) -> str | None:
    """Hours are told with their offset: where clocks go back, one of them comes twice."""
    return value.astimezone(zone).isoformat(timespec="minutes") if isinstance(value, datetime) else value


def _exact(value: Any) -> int:
    """The server turns a sum beyond 64 bits into a floating number."""
    if not isinstance(value, int):
        raise InvalidRequest("A sum is larger than 64 bits hold: ask for less at a time.", code="sum_too_large")
    return int(value)


def _order(row: Document) -> tuple[Any, ...]:
    return row["at"], row["_id"]


def _lifetime(account: Document, delivered: Mapping[str, Document]) -> Lifetime:
    """Of an account's document or of what is left of a deleted one."""
    health = account.get("health") or {}
    ended_at, ended_by = account.get("deleted_at"), "deleted"
    if ended_at is None and health.get("state") == State.INVALID.value:
        ended_at, ended_by = health["since"], "invalid"
    sums = delivered.get(account["_id"], {})
    return msgspec.convert(
        {
            "account_id": account["_id"],
            "name": account.get("name"),
            "provider": account["provider"],
            "vendor": account.get("vendor"),
            "batch": account.get("batch"),
            "price": account.get("purchase_price"),
            "currency": account.get("currency", "USD"),
            "began_at": account.get("purchased_at") or account["created_at"],
            "ended_at": ended_at,
            "ended_by": None if ended_at is None else ended_by,
            "expires_at": account.get("expires_at"),
            **{name: _exact(sums.get(name, 0)) for name in ("points", "requests", "attempts")},
        },
        Lifetime,
    )
