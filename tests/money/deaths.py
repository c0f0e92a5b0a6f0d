"""Gateways end while their rows wait on the disk, or are held up for longer than what they borrowed lasts."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
from pymongo import AsyncMongoClient

from tests.money.calls import Call, ask
from tests.money.house import UNIT, House
from tests.money.outage import Mongo, compare, own_mongod, settled
from tests.money.site import MODEL


class Left(msgspec.Struct, kw_only=True):
    """What came of gateways that ended while the database was away."""

    answered: int = 0
    code: int | None = None
    """Of the gateway that was asked to stop."""
    stopping: float = 0.0
    """Seconds that it took."""
    folders: int = 0
    """Spools that were left."""
    shipped: float = 0.0
    """Seconds from the start of the next gateway until everything was there."""
    rows: int = 0
    wrong: list[str] = []


async def left_behind(house: House, mongo: Mongo, db: str, *, calls: int = 10, gently: bool = True) -> Left:
    """With the database away gateway 0 is stopped (not ``gently``: killed) and gateway 1 killed; only 0 comes back."""
    told = Left()
    await house.admin("POST", "/prices", model=MODEL, currency="USD", request=str(house.cost))
    budget = {"unit": "USD", "period": "total", "amount": "100"}
    terms: dict[str, dict[str, Any]] = {"left-free": {}, "left-budget": {"budgets": [budget]}}
    keys = {kind: await house.key(kind, **each) for kind, each in terms.items()}
    made: list[Call] = []
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def call(kind: str, place: int, seconds: float = 0.0) -> None:
            base_url = house.gateways[place].base_url
            made.append(
                await ask(
                    client, base_url, keys[kind][1], kind=kind, tab=f"outage-{kind}", place=place, seconds=seconds
                )
            )

        # The slices of the budget are borrowed while the database is there, what they pay ends when it is away.
        for place in (0, 1):
            await call("left-budget", place)
            await call("left-free", place)
        long = [asyncio.create_task(call("left-budget", place, 1.5)) for place in (0, 1) for _ in range(3)]
        await house.until_asked("outage-left-budget", 2 + len(long))
        await mongo.stop()
        await asyncio.gather(*long, *(call("left-free", place) for place in (0, 1) for _ in range(calls)))
        # One more is in the air when its gateway is killed.
        last = asyncio.create_task(call("left-free", 1, 30.0))
        await house.until_asked("outage-left-free", 2 + 2 * calls + 1)
        house.kill(1)
        await last
        process, began = house.gateways[0].process, time.monotonic()
        assert process is not None
        process.send_signal(signal.SIGTERM if gently else signal.SIGKILL)
        told.code = await asyncio.to_thread(process.wait, 60)
        told.stopping = round(time.monotonic() - began, 1)
    told.folders = len(list((house.home / "data" / "spool").glob("spool_*")))
    if told.folders != 2:
        told.wrong.append(f"{told.folders} spools were left, not 2")
    await mongo.start()
    house.gateways[1].process = None  # for good
    began = time.monotonic()
    await house.revive(0)
    client_: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.uri, tz_aware=True)
    try:
        ids = {kind: key_id for kind, (key_id, _) in keys.items()}
        await settled(house, client_[db], list(ids.values()))
        told.shipped = round(time.monotonic() - began, 1)
        await _judge_left(told, house, client_[db], made, ids)
    finally:
        await client_.close()
    return told


async def _judge_left(told: Left, house: House, db: Any, made: list[Call], ids: dict[str, str]) -> None:
    rows: dict[str, list[str]] = {}
    async for row in db.ledger.find({"key_id": {"$in": list(ids.values())}}):
        rows.setdefault(row["request_id"], []).append(row["status"])
    told.answered, told.rows = sum(call.whole for call in made), sum(map(len, rows.values()))
    if lost := [call.id for call in made if call.whole and rows.get(call.id) != ["succeeded"]]:
        told.wrong.append(f"{len(lost)} answered calls have not one row: {lost[:5]}")
    if cut := [call.id for call in made if call.status == 0 and rows.get(call.id) != ["orphaned"]]:
        told.wrong.append(f"calls of the killed gateway are no orphans: {[(each, rows.get(each)) for each in cut]}")
    if told.answered < len(made) - 1:
        told.wrong.append(f"not answered: {Counter((call.kind, call.status, call.code) for call in made)}")
    await house.admin("POST", "/ledger/reconcile", older_than_seconds=0)
    figures = await house.figures()
    for kind, key_id in ids.items():
        site = int(figures["calls"].get(f"outage-{kind}", 0) * Decimal(house.cost) * UNIT)
        await compare(told.wrong, db, kind, key_id, site)


class Rolled(msgspec.Struct, kw_only=True):
    """What came of gateways that were asked to stop one after the other under load, and came back."""

    got: dict[str, int] = {}
    stopping: list[float] = []
    """Seconds that each took."""
    orphans: int = 0
    wrong: list[str] = []


async def rolled(house: House, db: Any) -> Rolled:
    """Nothing is broken off, nothing is an orphan, and each takes its spool along."""
    told = Rolled()
    await house.admin("POST", "/prices", model=MODEL, currency="USD", request=str(house.cost))
    budget = {"unit": "USD", "period": "total", "amount": "1000"}
    terms: dict[str, dict[str, Any]] = {
        "budget": {"budgets": [budget], "limits": {"parallel": 100, "requests_minute": 100_000}},
        "repeated": {},
    }
    keys = {kind: await house.key(f"rolled-{kind}", **each) for kind, each in terms.items()}
    made: list[Call] = []
    stop = asyncio.Event()
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def load(kind: str, place: int, name: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                words = f"{kind} {place} {name} {number}"
                call = await ask(
                    client,
                    house.gateways[place].base_url,
                    keys[kind][1],
                    kind=kind,
                    tab=f"rolled-{kind}",
                    place=place,
                    seconds=0.4,
                    stream=number % 2 == 0,
                    words=words,
                    repetition=words if kind == "repeated" else None,
                )
                made.append(call)
                await asyncio.sleep(0.05 if call.whole else 0.5)

        going = [
            asyncio.create_task(load(kind, place, name))
            for kind in keys
            for place in range(len(house.gateways))
            for name in range(3)
        ]
        for place, gateway in enumerate(house.gateways):
            await asyncio.sleep(1.5)
            assert gateway.process is not None
            before = {each.name for each in (house.home / "data" / "spool").glob("spool_*")}
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(gateway.process.wait, 60)
            told.stopping.append(round(time.monotonic() - began, 1))
            left = {each.name for each in (house.home / "data" / "spool").glob("spool_*")}
            if len(left) != len(before) - 1:
                told.wrong.append(f"gateway {place} has left its spool: {len(before)} before, {len(left)} after")
            await house.revive(place)
        stop.set()
        await asyncio.gather(*going)
    ids = {kind: key_id for kind, (key_id, _) in keys.items()}
    await settled(house, db, list(ids.values()))
    told.got = dict(Counter(call.code or ("answered" if call.whole else "broken off") for call in made))
    rows: Counter[str] = Counter()
    async for row in db.ledger.find({"key_id": {"$in": list(ids.values())}, "status": {"$ne": "correction"}}):
        rows[row["request_id"]] += row["status"] == "succeeded"
        told.orphans += row["status"] == "orphaned"
    if lost := [call.id for call in made if call.whole and rows[call.id] != 1]:
        told.wrong.append(f"{len(lost)} answered calls have not one row")
    if told.orphans or told.got.get("broken off"):
        told.wrong.append(f"{told.orphans} orphans, {told.got.get('broken off', 0)} answers broken off")
    figures = await house.figures()
    for kind, key_id in ids.items():
        await compare(told.wrong, db, kind, key_id, int(figures["calls"][f"rolled-{kind}"] * house.cost * UNIT))
    return told


class Frozen(msgspec.Struct, kw_only=True):
    """What came of a gateway that was held up in the middle of everything."""

    got: dict[str, dict[str, int]] = {}
    """By kind."""
    site: dict[str, int] = {}
    """Calls that the provider saw, by kind."""
    most: int = 0
    """Calls of the key with parallel requests at once, at the provider."""
    most_before: int = 0
    orphans: int = 0
    wrong: list[str] = []


PARALLEL = 6
RATE = 300


async def frozen(house: House, db: Any, *, seconds: float, long: float) -> Frozen:
    """The last gateway is stopped for ``seconds`` under load and goes on; calls of ``long`` seconds are in the air."""
    told = Frozen()
    await house.admin("POST", "/prices", model=MODEL, currency="USD", request=str(house.cost))
    cap = Decimal("2.00")
    terms: dict[str, dict[str, Any]] = {
        "budget": {"budgets": [{"unit": "USD", "period": "total", "amount": str(cap)}]},
        "rate": {"limits": {"requests_hour": RATE}},
        "parallel": {"limits": {"parallel": PARALLEL}},
    }
    keys = {kind: await house.key(f"frozen-{kind}", **each) for kind, each in terms.items()}
    victim = house.gateways[-1].process
    assert victim is not None
    made: list[Call] = []
    limits = httpx.Limits(max_connections=500)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=seconds + 120) as client:

        async def call(kind: str, place: int, taking: float) -> None:
            base_url = house.gateways[place].base_url
            made.append(
                await ask(client, base_url, keys[kind][1], kind=kind, tab=f"frozen-{kind}", place=place, seconds=taking)
            )

        async def load(kind: str, places: Sequence[int], until: float, taking: float) -> None:
            number = 0
            while time.monotonic() < until:
                number += 1
                await call(kind, places[number % len(places)], taking)
                await asyncio.sleep(0.05 if made[-1].status == 200 else 0.5)

        end = time.monotonic() + seconds + 12
        everywhere = range(len(house.gateways))
        others = everywhere[:-1]
        # Some at the victim from the beginning, so that it holds and uses some of everything.
        calls = [asyncio.create_task(call("parallel", len(house.gateways) - 1, long)) for _ in range(PARALLEL // 2)]
        await asyncio.sleep(0.5)
        calls += [asyncio.create_task(load("parallel", others, end, 0.5)) for _ in range(PARALLEL)]
        for kind in ("budget", "rate"):
            calls += [asyncio.create_task(call(kind, len(house.gateways) - 1, 1.0)) for _ in range(20)]
        await asyncio.sleep(0.4)
        told.most_before = (await house.figures())["most"].get("frozen-parallel", 0)
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            # What reaches it now is read when it goes on.
            for kind in ("budget", "rate"):
                calls += [asyncio.create_task(call(kind, len(house.gateways) - 1, 0.1)) for _ in range(40)]
                calls += [asyncio.create_task(load(kind, others, end, 0.05)) for _ in range(6)]
            await asyncio.sleep(seconds)
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        await asyncio.gather(*calls)
    ids = {kind: key_id for kind, (key_id, _) in keys.items()}
    await settled(house, db, list(ids.values()), 40)
    await _judge_frozen(told, house, db, made, ids, cap)
    return told


async def _judge_frozen(
    told: Frozen, house: House, db: Any, made: list[Call], ids: dict[str, str], cap: Decimal
) -> None:
    for kind in ids:
        got = Counter(call.code or ("broken" if not call.status else "answered") for call in made if call.kind == kind)
        told.got[kind] = dict(got)
    rows: Counter[str] = Counter()
    async for row in db.ledger.find({"key_id": {"$in": list(ids.values())}, "status": {"$ne": "correction"}}):
        rows[row["request_id"]] += row["status"] == "succeeded"
        told.orphans += row["status"] == "orphaned"
    if lost := [call.id for call in made if call.whole and rows[call.id] != 1]:
        told.wrong.append(f"{len(lost)} answered calls have not one row")
    await house.admin("POST", "/ledger/reconcile", older_than_seconds=0)
    figures = await house.figures()
    told.site = {kind: figures["calls"].get(f"frozen-{kind}", 0) for kind in ids}
    told.most = figures["most"].get("frozen-parallel", 0)
    for kind, key_id in ids.items():
        await compare(told.wrong, db, kind, key_id, int(told.site[kind] * house.cost * UNIT))
    if told.site["budget"] * house.cost > cap:
        told.wrong.append(f"the provider was asked for {told.site['budget'] * house.cost}, the budget is {cap}")
    if told.site["rate"] > RATE:
        told.wrong.append(f"the provider saw {told.site['rate']} requests, the limit is {RATE}")
    if told.most > PARALLEL:
        told.wrong.append(f"the provider had {told.most} at once, the limit is {PARALLEL}")


async def main(what: str, seconds: float, long: float) -> bool:
    told: Left | Rolled | Frozen
    with tempfile.TemporaryDirectory() as place:
        async with (
            own_mongod() as mongo,
            AsyncMongoClient[dict[str, Any]](mongo.uri, tz_aware=True) as client,
            House(Path(place), mongo.uri, "money", processes=2 if what == "left" else 3) as house,
        ):
            if what == "left":
                told = await left_behind(house, mongo, "money")
            elif what == "rolled":
                told = await rolled(house, client["money"])
            else:
                told = await frozen(house, client["money"], seconds=seconds, long=long)
    print(msgspec.json.format(msgspec.json.encode(told)).decode())
    return not told.wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("left", "rolled", "frozen"))
    parser.add_argument("--seconds", type=float, default=90.0, help="for which a gateway is frozen")
    parser.add_argument("--long", type=float, default=5.0, help="seconds of the calls in the air at the frozen one")
    options = parser.parse_args()
    raise SystemExit(0 if asyncio.run(main(options.what, options.seconds, options.long)) else 1)
