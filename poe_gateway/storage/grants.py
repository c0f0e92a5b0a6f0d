"""Capacity grants in MongoDB: which process may use how many slots of which account.

Where it is kept: in each account's document, and for the limit of the whole pool in ``pool``/``global``:
``grants: [{i: process, n: slots}]``, ``wanted: [{i: process, p: pressure, at}]``, ``freed_at``. Which processes there
are: ``instances``.

Why the limits hold: a grant is written by one conditional update of one document, which counts what all others hold
in that same document. Nobody else is counted on, and a stale view can only make a process ask for too little.

Why a frozen process is no danger: it may not renew or take, but what it holds stays until it is proven dead, leaves by
itself, or is overdue (``pool.deaths``).

Why no slot is lost: declaring a process dead comes first, then its grants are removed. A process that was declared
dead while it took slots finds that out before it uses them (``take`` looks at its registration after writing) and
undoes them; if it dies even then, ``reclaim`` finds grants of unknown processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from poe_gateway.pool.deaths import Nowhere, Places, Standing
from poe_gateway.pool.store import GLOBAL, HOLD, Ask, Holding, LeaseLost, Membership, Wanted
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.grant_updates import (
    given_back,
    holdings,
    lapsed_marks_dropped,
    marked,
    others_marks,
    removed,
    serving,
    taken,
)
from poe_gateway.storage.instances import Instances

_MAJORITY = ReadConcern("majority")
_SWEEP_EVERY = 5
_LONG = 30.0
"""Seconds for what may touch every account."""


class MongoGrants:
    """GrantStore over MongoDB. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, places: Places | None = None) -> None:
        self._instances = Instances(db, places or Nowhere())
        self._accounts = db[schema.ACCOUNTS]
        self._pool = db[schema.POOL]
        # What a process believes to hold must outlive a change of primary.
        self._sure_accounts = self._accounts.with_options(read_concern=_MAJORITY)
        self._sure_pool = self._pool.with_options(read_concern=_MAJORITY)
        self._rounds = 0

    # Registration.

    async def join(self, instance: str, lifetime: float) -> Membership:
        """See GrantStore. Raises LeaseLost."""
        with guarded():
            return await self._instances.join(instance, lifetime)

    async def renew(self, instance: str, lifetime: float) -> Membership:
        """See GrantStore. Raises LeaseLost."""
        with guarded():
            return await self._instances.renew(instance, lifetime)

    async def leave(self, instance: str) -> None:
        with guarded():
            await self._instances.declare_dead(instance)
        with guarded(_LONG):
            await self._bury([instance])

    # Slots.

    async def take(self, instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
        """See GrantStore. Accounts asked for alike are written by one command. Raises LeaseLost."""
        alike: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        held: dict[str, int] = {}
        for ask in asks:
            held[ask.key] = 0
            if ask.key != GLOBAL:
                alike[ask.hold, ask.cap].append(ask.key)
        with guarded():
            for ask in asks:
                if ask.key == GLOBAL:
                    await self._take_global(instance, ask)
            for (hold, cap), keys in alike.items():
                await self._accounts.update_many(
                    {"_id": _among(keys), **serving()}, taken(instance, hold=hold, cap=cap)
                )
            standing = await self._instances.standing(instance)
            if standing is not Standing.LIVE:
                if standing is not Standing.FROZEN:  # else what it held before may be in use still: all is withheld
                    await self._bury([instance])
                raise LeaseLost
            held.update(await self._held(instance, [ask.key for ask in asks]))
        return held

    async def _take_global(self, instance: str, ask: Ask) -> None:
        update = taken(instance, hold=ask.hold, cap=ask.cap)
        try:
            await self._pool.update_one({"_id": GLOBAL}, update, upsert=True)
        except DuplicateKeyError:  # another process made the document at the same moment
            await self._pool.update_one({"_id": GLOBAL}, update)

    async def _held(self, instance: str, keys: Sequence[str]) -> dict[str, int]:
        own = {"grants": {"$elemMatch": {"i": instance}}}
        held: dict[str, int] = {}
        accounts = [key for key in keys if key != GLOBAL]
        if accounts:
            async for document in self._sure_accounts.find({"_id": _among(accounts), "grants.i": instance}, own):
                held[document["_id"]] = int(document["grants"][0]["n"])
        if len(accounts) < len(keys):
            whole = await self._sure_pool.find_one({"_id": GLOBAL, "grants.i": instance}, own)
            if whole is not None:
                held[GLOBAL] = int(whole["grants"][0]["n"])
        return held

    async def give_back(self, instance: str, held: Mapping[str, int]) -> None:
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for key, slots in held.items():
            if key != GLOBAL:
                alike[slots].append(key)
        with guarded():
            for slots, keys in alike.items():
                await self._accounts.update_many(
                    {"_id": _among(keys), "grants.i": instance}, given_back(instance, slots)
                )
            if GLOBAL in held:
                await self._pool.update_one({"_id": GLOBAL}, given_back(instance, held[GLOBAL]))

    # Between processes.

    async def mark_wanted(self, instance: str, keys: Collection[str], pressure: float) -> None:
        """A mark is written anew at most once a second: the holder looks more often than marks grow stale."""
        accounts = [key for key in keys if key != GLOBAL]
        with guarded():
            if accounts:
                await self._accounts.update_many(
                    {"_id": _among(accounts), "deleted": {"$ne": True}}, marked(instance, pressure)
                )
            if GLOBAL in keys:
                await self._pool.update_one({"_id": GLOBAL}, marked(instance, pressure))

    async def wanted(self, instance: str) -> list[Wanted]:
        with guarded():
            accounts = await self._accounts.aggregate(
                [{"$match": {"wanted.i": {"$exists": True}, "grants.i": instance}}, *others_marks(instance)],
                hint="wanted_by",
            )
            found = [_as_wanted(document) async for document in accounts]
            whole = await self._pool.aggregate(
                [{"$match": {"_id": GLOBAL, "grants.i": instance}}, *others_marks(instance)]
            )
            found.extend([_as_wanted(document) async for document in whole])
        return found

    # The dead.

    async def reclaim(self, hold: float = HOLD, *, only_proven: bool = False) -> int:
        """See GrantStore. Every fifth call also looks for grants of unknown processes and for stale marks."""
        self._rounds += 1
        with guarded():
            declared, dead = await self._instances.judge(hold, only_proven=only_proven)
        with guarded(_LONG):
            if dead or declared:
                await self._bury(dead + declared)
            if self._rounds % _SWEEP_EVERY == 0:
                await self._sweep()
        return len(declared)

    async def _bury(self, instances: list[str]) -> None:
        """Free what dead processes hold, then forget them. Each process's name is used only once."""
        await self._free(instances)
        await self._instances.forget_dead(instances)

    async def _free(self, instances: list[str]) -> None:
        update = removed(instances)
        among = {"$in": instances}
        await self._accounts.update_many({"grants.i": among}, update)
        await self._accounts.update_many({"wanted.i": among}, update, hint="wanted_by")
        await self._pool.update_one({"_id": GLOBAL}, update)

    async def _sweep(self) -> None:
        """Grants of processes that are not registered. The registrations are read last: they precede grants."""
        known = await self._instances.names()
        gaps = zip(["", *known], [*known, None], strict=True)
        holders: set[str] = set()
        between: list[dict[str, Any]] = [
            {"grants": {"$elemMatch": {"i": {"$gt": low, **({} if high is None else {"$lt": high})}}}}
            for low, high in gaps
        ]
        strangers = self._accounts.find({"$or": between}, {"grants.i": 1, "_id": 0}).limit(1000)
        async for document in strangers:
            holders.update(each["i"] for each in document["grants"])
        whole = await self._pool.find_one({"_id": GLOBAL}, {"grants.i": 1})
        if whole is not None:
            holders.update(each["i"] for each in whole.get("grants", ()))
        if holders - set(known) and (unknown := sorted(holders - set(await self._instances.names()))):
            await self._free(unknown)
        await self._accounts.update_many(
            {"wanted.i": {"$exists": True}}, lapsed_marks_dropped(), hint="wanted_by"
        )  # fmt: skip
        await self._pool.update_one({"_id": GLOBAL}, lapsed_marks_dropped())

    # For operators.

    async def held_by(self) -> dict[str, Holding]:
        """See GrantStore. One walk through all grants, in the database."""
        with guarded():
            found = await self._instances.overview()
            accounts = await (await self._accounts.aggregate(holdings(), hint="granted_to")).to_list()
            whole = await (await self._pool.aggregate([{"$match": {"_id": GLOBAL}}, *holdings()])).to_list()
        for each in accounts:
            holding = found.setdefault(each["_id"], _of_nobody())
            holding["accounts"], holding["slots"] = int(each["documents"]), int(each["slots"])
        for each in whole:
            found.setdefault(each["_id"], _of_nobody())["global"] = int(each["slots"])
        return found


def _among(keys: Sequence[str]) -> Any:
    return keys[0] if len(keys) == 1 else {"$in": list(keys)}


def _as_wanted(document: Document) -> Wanted:
    strongest = max(document["wanted"], key=lambda mark: (mark["p"], mark["i"]))
    return Wanted(key=document["_id"], by=strongest["i"], pressure=float(strongest["p"]))


def _of_nobody() -> Holding:
    """Of a process that is not registered any more."""
    return {
        "place": None,
        "pid": None,
        "state": str(Standing.DEAD),
        "expires_in": None,
        "accounts": 0,
        "slots": 0,
        "global": 0,
    }
