"""MongoDB goes away under load and comes back: nothing that a caller got is missing, and nothing is counted twice.

``python -m tests.money.outage --seconds 60`` is the long run by hand; with ``--how kill`` mongod is killed, with
``--how freeze`` it takes connections and does not answer. It prints what callers got meanwhile, and for how long each
kind of key was served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
from pymongo import AsyncMongoClient

from poe_gateway.clock import SystemClock
from poe_gateway.storage import embedded, mongod
from tests.money.calls import Call, ask
from tests.money.house import UNIT, House
from tests.money.site import MODEL
from tests.support.mongod import temporary_home

KINDS: dict[str, dict[str, Any]] = {
    "free": {},
    "limited": {"limits": {"requests_minute": 100_000, "tokens_minute": 10_000_000, "parallel": 100}},
    "budget": {"budgets": [{"unit": "USD", "period": "day", "amount": "1000"}]},
    "tight": {"budgets": [{"unit": "USD", "period": "total", "amount": "3.00"}]},
    "repeated": {},
}
"""Terms of the keys that call; those of ``repeated`` send an Idempotency-Key with each request."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``before`` and ``after`` in seconds: load before the outage, and once everything is served again."""

    seconds: float = 60.0
    how: Literal["stop", "kill", "freeze"] = "stop"
    before: float = 4.0
    after: float = 4.0
    callers: int = 2
    """Of each kind, at each gateway."""
    kills: int = 0
    """Of gateways, in the middle of the outage; they come back after it."""
    pause: float = 0.15
    """Seconds between two calls of a caller."""
    seed: int = 1


class Told(msgspec.Struct, kw_only=True):
    """What came of it. Times in seconds."""

    calls: int = 0
    whole: int = 0
    meanwhile: dict[str, dict[str, int]] = {}
    """By kind: what callers got whose calls began while the database was away."""
    slowest: dict[str, float] = {}
    """By what they got."""
    served: dict[str, float] = {}
    """By kind: for how long after the outage began calls were answered before the database was there again."""
    recovered: dict[str, float] = {}
    """By kind: how long after the database was there again every gateway had answered a call."""
    shipped: float = 0.0
    """How long after the load had ended all rows were there."""
    orphans: int = 0
    wrong: list[str] = []


class Mongo:
    """A mongod that goes away and comes back on its port."""

    def __init__(self, home: Path, port: int, uri: str) -> None:
        self.uri = uri
        self._home = home / "mongo"
        self._port = port

    async def stop(self, how: Literal["stop", "kill", "freeze"] = "stop") -> None:
        pid = mongod.running_pid(self._home)
        assert pid
        if how == "freeze":
            os.kill(pid, signal.SIGSTOP)
            return
        if how == "kill":
            os.kill(pid, signal.SIGKILL)
        await mongod.stop_mongod(self._home, SystemClock())

    async def start(self) -> None:
        if pid := mongod.running_pid(self._home):
            os.kill(pid, signal.SIGCONT)
            return
        await mongod.start_mongod(mongod.find_mongod(), self._home, self._port)


@asynccontextmanager
async def own_mongod() -> AsyncIterator[Mongo]:
    """A mongod of nobody else's."""
    with temporary_home() as home:
        mongo = await embedded.ensure_mongod(home, SystemClock())
        own = Mongo(home, mongo.port, mongo.uri)
        try:
            yield own
        finally:
            if mongod.running_pid(home / "mongo"):
                await own.start()  # one that is frozen would not stop
            await mongo.release()
            await mongod.stop_mongod(home / "mongo", SystemClock())


async def run(plan: Plan, house: House, mongo: Mongo, db: str) -> Told:
    """One outage under load; says itself what was wrong."""
    await house.admin("POST", "/prices", model=MODEL, currency="USD", request=str(house.cost))
    keys = {kind: await house.key(f"outage-{kind}", **terms) for kind, terms in KINDS.items()}
    calls: list[Call] = []
    told, stop = Told(), asyncio.Event()
    limits = httpx.Limits(max_connections=500)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:
        callers = [
            asyncio.create_task(_caller(plan, client, house, place, kind, text, calls, stop, f"{number}"))
            for number in range(plan.callers)
            for place in range(len(house.gateways))
            for kind, (_, text) in keys.items()
        ]
        await asyncio.sleep(plan.before)
        gone = time.monotonic()
        await mongo.stop(plan.how)
        await asyncio.sleep(plan.seconds / 2)
        for victim in range(plan.kills):
            house.kill(victim)
        await asyncio.sleep(plan.seconds / 2)
        await mongo.start()
        back = time.monotonic()
        await asyncio.gather(*(house.revive(victim) for victim in range(plan.kills)))
        await _recovered(house, calls, back, told)
        await asyncio.sleep(plan.after)
        stop.set()
        await asyncio.gather(*callers)
    _count(told, calls, gone, back)
    mongo_client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.uri, tz_aware=True)
    try:
        await judge(told, house, mongo_client[db], calls, {kind: key_id for kind, (key_id, _) in keys.items()})
    finally:
        await mongo_client.close()
    return told


async def _caller(
    plan: Plan,
    client: httpx.AsyncClient,
    house: House,
    place: int,
    kind: str,
    key: str,
    calls: list[Call],
    stop: asyncio.Event,
    name: str,
) -> None:
    rng = random.Random(f"{plan.seed} {place} {kind} {name}")
    base_url = house.gateways[place].base_url
    number = 0
    repetition: str | None = None
    while not stop.is_set():
        if repetition is None:  # else what was not answered is asked again under the same key
            number += 1
            words, seconds, stream = f"{place} {kind} {name} {number}", rng.uniform(0, 0.2), rng.random() < 0.5
            repetition = words
        call = await ask(
            client,
            base_url,
            key,
            kind=kind,
            tab=f"outage-{kind}",
            place=place,
            seconds=seconds,
            stream=stream,
            words=words,
            repetition=repetition if kind == "repeated" else None,
        )
        calls.append(call)
        if call.whole or kind != "repeated":
            repetition = None
        await asyncio.sleep(plan.pause * rng.uniform(0.5, 1.5))


async def _recovered(house: House, calls: list[Call], back: float, told: Told) -> None:
    """Wait until every gateway has answered every kind of key, the one whose budget may be used up excepted."""
    deadline = back + 60
    missing = {(place, kind) for place in range(len(house.gateways)) for kind in KINDS if kind != "tight"}
    seen = 0
    while missing and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        for call in calls[seen:]:
            if call.whole and call.began >= back and (call.place, call.kind) in missing:
                missing.discard((call.place, call.kind))
                told.recovered[call.kind] = round(call.ended - back, 2)
        seen = len(calls)
    if missing:
        told.wrong.append(f"not served again: {sorted(missing)}")


def _count(told: Told, calls: list[Call], gone: float, back: float) -> None:
    told.calls, told.whole = len(calls), sum(call.whole for call in calls)
    for kind in KINDS:
        meanwhile = [call for call in calls if call.kind == kind and gone <= call.began < back]
        told.meanwhile[kind] = dict(Counter(map(_got, meanwhile)))
        told.served[kind] = round(
            max((call.ended - gone for call in meanwhile if call.whole and call.ended < back), default=0.0), 1
        )
        for call in meanwhile:
            told.slowest[_got(call)] = round(max(told.slowest.get(_got(call), 0.0), call.ended - call.began), 2)
    refused = Counter(_got(call) for call in calls if call.status in (401, 403, 500))
    if refused:
        told.wrong.append(f"callers were told {dict(refused)}")


def _got(call: Call) -> str:
    if call.status == 0:
        return "broken"
    if call.status == 200:
        return "answered" if call.whole else "broken off"
    return f"{call.status} {call.code}"


async def judge(told: Told, house: House, db: Any, calls: list[Call], keys: dict[str, str]) -> None:
    """Every answered call has its row, every row is charged once, nothing stays reserved.

    ``keys``: ids by kind; the tab of a kind is ``outage-<kind>``.
    """
    ended = time.monotonic()
    await settled(house, db, list(keys.values()))
    told.shipped = round(time.monotonic() - ended, 2)
    rows: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    async for row in db.ledger.find({"key_id": {"$in": list(keys.values())}, "status": {"$ne": "correction"}}):
        rows[row["request_id"]] += 1
        succeeded[row["request_id"]] += row["status"] == "succeeded"
        told.orphans += row["status"] == "orphaned"
    lost = [call.id for call in calls if call.whole and succeeded[call.ran] != 1]
    if lost:
        told.wrong.append(f"{len(lost)} answered calls have not one row: {lost[:5]}")
    # A stream that only stood in line and was refused in the end has none: nobody was asked.
    silent = [call.id for call in calls if b'"content":"o"' in call.body.replace(b" ", b"") and not rows[call.ran]]
    if silent:
        told.wrong.append(f"{len(silent)} calls that began to be answered have no row: {silent[:5]}")
    await house.admin("POST", "/ledger/reconcile", older_than_seconds=0)
    figures = await house.figures()
    for kind, key_id in keys.items():
        site = int(figures["calls"].get(f"outage-{kind}", 0) * Decimal(house.cost) * UNIT)
        await compare(told.wrong, db, kind, key_id, site)


async def settled(house: House, db: Any, key_ids: list[str], seconds: float = 60.0) -> bool:
    """Wait until nothing is under way: all rows of living processes are there, no spool of the dead, no reservation.

    False: something still is after so many seconds.
    """
    deadline = time.monotonic() + seconds
    last: int | None = None
    while time.monotonic() < deadline:
        alive = sum(gateway.process is not None for gateway in house.gateways)
        folders = len(list((house.home / "data" / "spool").glob("spool_*")))
        liens = 0
        for key_id in key_ids:
            async for bucket in db.buckets.find({"_id": {"$regex": key_id}}):
                liens += sum(lien["amount"] != 0 for lien in bucket["liens"].values())
        rows = await db.ledger.count_documents({})
        if folders <= alive and not liens and rows == last:
            return True
        last = rows
        await asyncio.sleep(1.0)
    return False


async def compare(wrong: list[str], db: Any, kind: str, key_id: str, site: int) -> None:
    """The ledger, the budget and the provider come to agree on a key, in units of 10**-8 USD."""
    deadline = time.monotonic() + 60
    found: list[str] = []
    while time.monotonic() < deadline:
        found = []
        ledger = sum([each.get("billed_cost") or 0 async for each in db.ledger.find({"key_id": key_id})])
        if ledger != site:
            found.append(f"{kind}: the ledger says {ledger}, the provider {site}")
        async for bucket in db.buckets.find({"_id": {"$regex": f"{key_id}"}}):
            if bucket["_id"].startswith("budget") and bucket["spent"] != ledger:
                found.append(f"{kind}: the budget says {bucket['spent']}, the ledger {ledger}")
            if any(lien["amount"] for lien in bucket["liens"].values()):
                found.append(f"{kind}: {bucket['_id']} stays reserved: {bucket['liens']}")
        terms = KINDS.get(kind, {}).get("budgets", ())
        if any(site > int(Decimal(each["amount"]) * UNIT) for each in terms):
            found.append(f"{kind}: the provider was asked for {site}, beyond the budget")
        if not found:
            return
        await asyncio.sleep(0.5)
    wrong += found


async def main(plan: Plan, processes: int) -> Told:
    with tempfile.TemporaryDirectory() as place:
        async with own_mongod() as mongo:
            house = House(Path(place), mongo.uri, "money", processes=processes, GRANT_LIFETIME_SECONDS="20")
            async with house:
                return await run(plan, house, mongo, "money")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--how", choices=("stop", "kill", "freeze"), default="stop")
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    given = Plan(seconds=options.seconds, how=options.how, kills=options.kills, callers=options.callers)
    outcome = asyncio.run(main(given, options.processes))
    print(msgspec.json.format(msgspec.json.encode(outcome)).decode())
    raise SystemExit(1 if outcome.wrong else 0)
