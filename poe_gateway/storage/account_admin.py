"""Accounts in MongoDB, as the operator sees them: hand in, look up, list, count, delete; and their credentials.

Credentials are versions ``{account_id, rev, kid, sealed}`` in a collection of their own; an account points to one by
``credential_rev``. A new version is written before the account points to it, under a number that nobody else can
have, so that an account never has foreign credentials or none, wherever a process dies. Superseded versions stay for
ten minutes, for requests that are on their way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from pymongo.errors import DuplicateKeyError

from poe_gateway.pool.account import Account, Intent, State
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage import schema
from poe_gateway.storage.accounts import BARE, LIVING, UNDELETED, account_fields, as_stored, name_key
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document

Build = Callable[[Account | None], Account]
PAUSED = "paused"

_TRIES = 100
_ORDER = [("created_at", 1), ("_id", 1)]
_REMEMBERED = (
    *("provider", "offer", "created_at", "health.state", "health.cause", "health.since"),
    *("vendor", "batch", "purchase_price", "currency", "purchased_at", "expires_at"),
)
_RESTING = [State.COOLDOWN.value, State.DEPLETED.value]
_NAME_LIMIT = 200


class MongoAccountAdmin:
    """The operator's verbs. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._accounts = db[schema.ACCOUNTS]
        self._credentials = db[schema.CREDENTIALS]
        self._former = db[schema.FORMER_ACCOUNTS]

    # One account.

    async def upsert(self, provider: str, name: str, build: Build, sealed: bytes, kid: str) -> tuple[Account, bool]:
        """Create or renew the account of that provider and name, with new credentials; (stored account, created).

        ``build`` makes the account from the stored one (None: there is none) and may be called again; its ``rev``
        and ``credential_rev`` are only proposals. ``kid`` names the key that sealed.
        """
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(min(0.05, 0.002 * attempt))
            before = await self.find(provider, name)
            built = build(before)
            version = max(built.credential_rev, before.credential_rev + 1 if before is not None else 0)
            with guarded(10.0):
                version = await self._add_version(built.id, version, sealed, kid)
                account = as_stored(
                    replace(built, rev=before.rev + 1 if before is not None else 1, credential_rev=version)
                )
                if await self._point(before, account):
                    await self._credentials.update_many(
                        {"account_id": account.id, "rev": {"$lt": version}, "superseded_at": None},
                        {"$currentDate": {"superseded_at": True}},
                    )
                    return account, before is None
                await self._credentials.delete_one({"account_id": built.id, "rev": version})
        raise StoreUnavailable("the account is changed faster by others than this process can follow")

    async def _add_version(self, account_id: str, version: int, sealed: bytes, kid: str) -> int:
        """Store credentials under the first free version from ``version`` on; only we may point to it."""
        while True:
            try:
                await self._credentials.update_one(
                    {"account_id": account_id, "rev": version, "kid": None},  # matches nothing: versions have a kid
                    {"$set": {"kid": kid, "sealed": sealed}, "$currentDate": {"created_at": True}},
                    upsert=True,
                )
            except DuplicateKeyError:
                version += 1
            else:
                return version

    async def _point(self, before: Account | None, account: Account) -> bool:
        """Make the account hold its new version; False when somebody else was faster."""
        update = {"$set": account_fields(account), "$currentDate": {"changed_at": True}}
        if before is not None:
            result = await self._accounts.update_one({"_id": before.id, "rev": before.rev}, update)
            return result.matched_count == 1
        try:
            result = await self._accounts.update_one({"_id": account.id, "rev": 0}, update, upsert=True)
        except DuplicateKeyError:
            return False
        return result.upserted_id is not None

    async def get(self, account_id: str) -> Account | None:
        with guarded():
            document = await self._accounts.find_one({"_id": account_id, **UNDELETED}, BARE)
        return None if document is None else from_document(Account, document)

    async def find(self, provider: str, name: str) -> Account | None:
        """By name, in any case."""
        with guarded():
            document = await self._accounts.find_one({"provider": provider, "name_key": name_key(name)}, BARE)
        return None if document is None else from_document(Account, document)

    async def delete(self, account_id: str) -> bool:
        """Remove the account, its grants and its credentials; False when there was none. May be repeated."""
        tombstone = {"_id": "$_id", "deleted": True, "changed_at": "$$NOW", "deleted_at": "$$NOW"}
        with guarded():
            # Before the end itself: an account that is still there afterwards is not taken for a former one.
            await self._accounts.aggregate(
                [
                    {"$match": {"_id": account_id, "demo": {"$ne": True}, **UNDELETED}},
                    {"$project": {**dict.fromkeys(_REMEMBERED, 1), "deleted_at": "$$NOW"}},
                    {"$merge": {"into": schema.FORMER_ACCOUNTS, "whenMatched": "replace"}},
                ]
            )
            result = await self._accounts.update_one({"_id": account_id, **UNDELETED}, [{"$replaceWith": tombstone}])
            await self._credentials.delete_many({"account_id": account_id})
        return result.matched_count == 1

    # Credentials.

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        """The sealed document of that version, None when there is none (any more)."""
        with guarded():
            document = await self._credentials.find_one(
                {"account_id": account_id, "rev": credential_rev}, {"sealed": 1, "_id": 0}
            )
        return None if document is None else bytes(document["sealed"])

    async def credentials_of(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """The sealed documents of many accounts' versions (account id, version); missing ones are left out."""
        wanted = set(versions)
        found = self._credentials.find(
            {"account_id": {"$in": [account_id for account_id, _ in versions]}},
            {"account_id": 1, "rev": 1, "sealed": 1, "_id": 0},
            batch_size=1000,
        )
        with guarded():
            return {
                (each["account_id"], each["rev"]): bytes(each["sealed"])
                async for each in found
                if (each["account_id"], each["rev"]) in wanted
            }

    async def sealed_otherwise(
        self, kid: str, limit: int = 100, after: tuple[str, int] | None = None
    ) -> list[tuple[str, int, bytes]]:
        """Up to ``limit`` versions (account id, version, sealed) that another key than ``kid`` sealed: for rotation.

        In order of account and version; ``after`` is where the last batch ended.
        """
        wanted: Document = {"kid": {"$ne": kid}}
        if after is not None:
            account_id, version = after
            wanted["$or"] = [{"account_id": {"$gt": account_id}}, {"account_id": account_id, "rev": {"$gt": version}}]
        with guarded(30.0):
            found = self._credentials.find(wanted).sort([("account_id", 1), ("rev", 1)]).limit(limit)
            return [(each["account_id"], each["rev"], bytes(each["sealed"])) async for each in found]

    async def reseal(self, account_id: str, credential_rev: int, old: bytes, new: bytes, kid: str) -> bool:
        """Replace one version's seal by that of another key; False when it is not ``old`` any more."""
        with guarded():
            result = await self._credentials.update_one(
                {"account_id": account_id, "rev": credential_rev, "sealed": old}, {"$set": {"sealed": new, "kid": kid}}
            )
        return result.matched_count == 1

    async def purge(self) -> int:
        """Remove credentials that no account points to and that were written over an hour ago (a process died
        between two writes); how many.
        """
        hour_ago = {"$lt": ["$created_at", {"$subtract": ["$$NOW", 3_600_000]}]}
        orphans: list[Document] = [
            {"$match": {"superseded_at": None, "$expr": hour_ago}},
            {
                "$lookup": {
                    "from": schema.ACCOUNTS,
                    "localField": "account_id",
                    "foreignField": "_id",
                    "as": "owner",
                    "pipeline": [{"$project": {"credential_rev": 1}}],
                }
            },
            {"$match": {"$expr": {"$not": [{"$in": ["$rev", "$owner.credential_rev"]}]}}},
            {"$project": {"_id": 1}},
        ]
        with guarded(60.0):
            found = [each["_id"] async for each in await self._credentials.aggregate(orphans)]
            if not found:
                return 0
            result = await self._credentials.delete_many({"_id": {"$in": found}})
        return result.deleted_count

    # Many accounts.

    async def page(
        self,
        page: int,
        page_size: int,
        *,
        now: datetime,
        status: Sequence[str] = (),
        provider: str | None = None,
        offer: str | None = None,
        min_balance: int | None = None,
        max_balance: int | None = None,
        text: str | None = None,
        demo: bool | None = None,
        labels: Sequence[str] = (),
        priority: int | None = None,
    ) -> tuple[list[Account], int]:
        """Accounts of one page (numbered from 1) in order of creation, and how many there are on all pages.

        ``status``: any of the health states as of ``now``, and ``paused`` (the operator's intent, whatever the
        health). ``text``: part of the name, in any case. ``labels``: all of them. An account whose balance nobody
        knows matches no balance range.
        """
        wanted = _filter(status, now, provider, offer, min_balance, max_balance, text, demo)
        if labels:
            wanted["labels"] = {"$all": list(labels)}
        if priority is not None:
            # An account that was stored before there were priorities has none, which means 0.
            wanted["priority"] = priority or {"$in": [0, None]}
        with guarded(5.0):
            total = await self._accounts.count_documents(wanted)
            found = self._accounts.find(wanted, BARE, batch_size=page_size + 1)
            found = found.sort(_ORDER).skip((page - 1) * page_size).limit(page_size)
            accounts = [from_document(Account, document) async for document in found]
        return accounts, total

    async def summary(self, now: datetime) -> dict[str, Any]:
        """Counts as of ``now``::

        {"total": n, "paused": n, "demo": n, "points": n, "states": {state: n, …},
         "providers": {provider: {"total": n, "paused": n, "points": n, "states": {state: n, …}}}}

        ``points`` adds up the known balances of enabled accounts; ``states`` has all four states.
        """
        group: Document = {
            "_id": {"provider": "$provider", "state": _state_at(now), "paused": {"$eq": ["$intent", "paused"]}},
            "total": {"$sum": 1},
            "demo": {"$sum": {"$cond": ["$demo", 1, 0]}},
            "points": {"$sum": {"$ifNull": ["$balance.points", 0]}},
        }
        with guarded(5.0):
            rows = await self._accounts.aggregate([{"$match": LIVING}, {"$group": group}])
            return _added_up([row async for row in rows])


def _filter(
    status: Sequence[str],
    now: datetime,
    provider: str | None,
    offer: str | None,
    min_balance: int | None,
    max_balance: int | None,
    text: str | None,
    demo: bool | None,
) -> Document:
    wanted: Document = dict(LIVING)
    if status:
        wanted["$or"] = [_status(each, now) for each in status]
    for field, value in (("provider", provider), ("offer", offer), ("demo", demo)):
        if value is not None:
            wanted[field] = value
    balance = {key: limit for key, limit in (("$gte", min_balance), ("$lte", max_balance)) if limit is not None}
    if balance:
        wanted["balance.points"] = balance
    if text:
        part = "".join(each for each in text.lower() if each.isprintable())[:_NAME_LIMIT]
        wanted["name_key"] = {"$regex": re.escape(part)}
    return wanted


def _status(status: str, now: datetime) -> Document:
    if status == PAUSED:
        return {"intent": Intent.PAUSED.value}
    if status == State.ACTIVE.value:
        lapsed = {"health.state": {"$in": _RESTING}, "health.until": {"$lte": now}}
        return {"$or": [{"health.state": status}, lapsed]}
    if status in _RESTING:
        return {"health.state": status, "health.until": {"$not": {"$lte": now}}}
    return {"health.state": status}


def _state_at(now: datetime) -> Document:
    resting = {"$in": ["$health.state", _RESTING]}
    lapsed = {"$and": [resting, {"$gt": ["$health.until", None]}, {"$lte": ["$health.until", now]}]}
    return {"$cond": [lapsed, State.ACTIVE.value, "$health.state"]}


def _added_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def empty() -> dict[str, Any]:
        return {"total": 0, "paused": 0, "demo": 0, "points": 0, "states": {state.value: 0 for state in State}}

    whole = empty()
    providers: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda each: str(each["_id"]["provider"])):
        key = row["_id"]
        for part in (whole, providers.setdefault(key["provider"], empty())):
            part["total"] += row["total"]
            part["demo"] += row["demo"]
            part["states"][key["state"]] += row["total"]
            if key["paused"]:
                part["paused"] += row["total"]
            else:
                part["points"] += row["points"]
    return {**whole, "providers": providers}
