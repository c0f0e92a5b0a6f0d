"""The registered processes in MongoDB, on the database's clock.

A document of ``instances``: ``{_id: name, state: "live" | "frozen" | "dead", renewed_at, expires_at, place, pid,
started}``; the last three where the process can tell where it lives. Every name is used once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from poe_gateway.pool.deaths import Places, Registration, Residence, Standing, judged, strangers
from poe_gateway.pool.store import Holding, LeaseLost, Membership
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document
from poe_gateway.storage.leases import server_time

_LAPSED: Document = {"$lte": ["$expires_at", "$$NOW"]}
_LIVE: Document = {"state": Standing.LIVE}
_NOT_DEAD: Document = {"state": {"$ne": Standing.DEAD}}


class Instances:
    """Registrations. To be called within ``guarded``."""

    def __init__(self, db: Database, places: Places) -> None:
        self._instances = db[schema.INSTANCES]
        self._sure = self._instances.with_options(read_concern=ReadConcern("majority"))
        self._places = places

    async def join(self, instance: str, lifetime: float) -> Membership:
        """Raises LeaseLost for a name that was declared frozen or dead."""
        home = self._places.here()
        about: Document = {"state": Standing.LIVE}
        if home is not None:
            about |= {"place": {"$literal": home.place}, "pid": home.pid, "started": home.started}
        try:
            stored = await self._instances.find_one_and_update(
                {"_id": instance, **_LIVE},
                [{"$set": {**about, **_until(lifetime)}}],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            raise LeaseLost from None
        assert stored is not None  # noqa: S101 - an upsert finds or makes it
        return await self._membership(instance, home, stored["renewed_at"])

    async def renew(self, instance: str, lifetime: float) -> Membership:
        """A lapsed process may, as long as nobody judged it. Raises LeaseLost."""
        stored = await self._instances.find_one_and_update(
            {"_id": instance, **_LIVE}, [{"$set": _until(lifetime)}], return_document=ReturnDocument.AFTER
        )
        if stored is None:
            raise LeaseLost
        return await self._membership(instance, self._places.here(), stored["renewed_at"])

    async def _membership(self, instance: str, home: Residence | None, now: datetime) -> Membership:
        unexpired = {"$expr": {"$gt": ["$expires_at", "$$NOW"]}}
        live = [each async for each in self._instances.find({**_LIVE, **unexpired}, {"place": 1})]
        others = [each.get("place") for each in live if each["_id"] != instance]
        names = sorted([str(each["_id"]) for each in live])
        return Membership(live=tuple(names), strangers=strangers(home, others), now=now)

    async def standing(self, instance: str) -> Standing | None:
        """As a majority knows it; None when it is not registered."""
        known = await self._sure.find_one({"_id": instance}, {"state": 1})
        return None if known is None else Standing(known["state"])

    async def names(self) -> list[str]:
        """Of all that are registered, in order."""
        return sorted([str(each["_id"]) async for each in self._sure.find({}, {"_id": 1})])

    async def judge(self, hold: float, *, only_proven: bool) -> tuple[list[str], list[str]]:
        """Write down the verdicts of ``deaths``. The dead: declared by this call, and found declared before.

        The latter's undertaker died on the way, or is at it.
        """
        overdue = {"$lte": [{"$add": ["$expires_at", round(hold * 1000)]}, "$$NOW"]}
        about = {"state": 1, "place": 1, "pid": 1, "started": 1, "lapsed": _LAPSED, "overdue": overdue}
        found = await (await self._instances.aggregate([{"$project": about}])).to_list()
        judgement = judged([_as_registration(each) for each in found], self._places, only_proven=only_proven)
        for name in judgement.frozen:
            await self._declare(name, Standing.FROZEN, {**_LIVE, "$expr": _LAPSED})
        verdicts = [
            *[(name, _NOT_DEAD) for name in judgement.gone],
            *[(name, {**_LIVE, "$expr": _LAPSED}) for name in judgement.lapsed],
            *[(name, {**_NOT_DEAD, "$expr": overdue}) for name in judgement.overdue],
        ]
        declared = [name for name, condition in verdicts if await self._declare(name, Standing.DEAD, condition)]
        return declared, [str(each["_id"]) for each in found if each["state"] == Standing.DEAD]

    async def declare_dead(self, instance: str) -> None:
        await self._declare(instance, Standing.DEAD, {})

    async def _declare(self, name: str, standing: Standing, condition: Document) -> bool:
        """False when it renewed after all, or somebody else was first."""
        result = await self._instances.update_one({"_id": name, **condition}, {"$set": {"state": standing}})
        return result.matched_count == 1

    async def forget_dead(self, instances: Iterable[str]) -> None:
        await self._instances.delete_many({"_id": {"$in": list(instances)}, "state": Standing.DEAD})

    async def overview(self) -> dict[str, Holding]:
        """All registrations by name, holding nothing."""
        left = {"$divide": [{"$subtract": ["$expires_at", "$$NOW"]}, 1000]}
        about = {"state": 1, "place": 1, "pid": 1, "lapsed": _LAPSED, "left": left}
        return {
            str(each["_id"]): _as_holding(each) async for each in await self._instances.aggregate([{"$project": about}])
        }


def _until(lifetime: float) -> Document:
    return {"renewed_at": "$$NOW", "expires_at": server_time(lifetime)}


def _as_registration(document: Document) -> Registration:
    place = document.get("place")
    home = None
    if place is not None:
        home = Residence(place=place, pid=int(document["pid"]), started=int(document["started"]))
    return Registration(
        instance=str(document["_id"]),
        standing=Standing(document["state"]),
        residence=home,
        lapsed=document["lapsed"],
        overdue=document["overdue"],
    )


def _as_holding(document: Document) -> Holding:
    lapsed = document["state"] == Standing.LIVE and document["lapsed"]
    return {
        "place": document.get("place"),
        "pid": document.get("pid"),
        "state": "lapsed" if lapsed else str(document["state"]),
        "expires_in": document["left"],
        "accounts": 0,
        "slots": 0,
        "global": 0,
    }
