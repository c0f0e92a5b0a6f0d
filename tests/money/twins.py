"""Twins over several gateways, and parallel requests under kills.

``python -m tests.money.twins`` runs both several times on a MongoDB of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from pymongo import AsyncMongoClient

from tests.money.calls import Call, ask
from tests.money.house import UNIT, House
from tests.money.outage import compare, own_mongod, settled
from tests.money.site import MODEL


class Twins(msgspec.Struct, kw_only=True):
    """What came of requests with one Idempotency-Key."""

    name: str
    asked: int = 0
    """Requests that were sent: those whose gateway died ask again."""
    got: dict[str, int] = {}
    bodies: int = 0
    """Different ones."""
    replayed: int = 0
    site: int = 0
    rows: dict[str, int] = {}
    spent: str = ""
    """By the budget."""
    seconds: float = 0.0
    wrong: list[str] = []


async def twins(house: House, db: Any, name: str, *, stream: bool, count: int = 50, kill: bool = False) -> Twins:
    """``count`` at once over all gateways. ``kill``: the gateway that runs the request dies in the middle."""
    told, began = Twins(name=name), time.monotonic()
    await house.admin("POST", "/prices", model=MODEL, currency="USD", request=str(house.cost))
    budget = {"unit": "USD", "period": "total", "amount": "10"}
    key_id, text = await house.key(name, budgets=[budget], limits={"requests_hour": 1000})
    made: list[Call] = []
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:

        async def twin(number: int) -> None:
            place = number % len(house.gateways)
            while True:
                call = await ask(
                    client,
                    house.gateways[place].base_url,
                    text,
                    kind=name,
                    tab=name,
                    place=place,
                    seconds=3.0 if kill else 0.5,
                    stream=stream,
                    repetition=f'"{name}"',
                )
                made.append(call)
                # As SDKs do.
                if call.whole or (call.status not in (0, 409, 503) and call.status != 200) or len(made) > 20 * count:
                    return
                place = (place + 1) % len(house.gateways)
                await asyncio.sleep(0.2)

        if kill:
            first = asyncio.create_task(twin(1))
            await house.until_asked(name, 1)
            others = [asyncio.create_task(twin(number)) for number in range(count - 1)]
            await asyncio.sleep(0.7)
            house.kill(1)
            await house.revive(1)
            await asyncio.gather(first, *others)
        else:
            await asyncio.gather(*(twin(number) for number in range(count)))
    told.seconds = round(time.monotonic() - began, 1)
    await settled(house, db, [key_id])
    await _judge_twins(told, house, db, key_id, made, count, kill=kill)
    return told


async def _judge_twins(
    told: Twins, house: House, db: Any, key_id: str, made: list[Call], count: int, *, kill: bool
) -> None:
    told.asked = len(made)
    told.got = dict(Counter(call.code or ("broken" if not call.whole else "answered") for call in made))
    whole = [call for call in made if call.whole]
    told.bodies, told.replayed = len({call.body for call in whole}), sum(call.ran != call.id for call in whole)
    told.site = (await house.figures())["calls"].get(told.name, 0)
    rows = [row["status"] async for row in db.ledger.find({"key_id": key_id, "status": {"$ne": "correction"}})]
    told.rows = dict(Counter(rows))
    if len(whole) != count or told.bodies != 1 or told.replayed != count - 1:
        told.wrong.append(f"{len(whole)} answers, {told.bodies} different ones, {told.replayed} replayed")
    if told.site != 1 + kill or told.rows != {"succeeded": 1, **({"orphaned": 1} if kill else {})}:
        told.wrong.append(f"the provider was asked {told.site} times; rows {told.rows}")
    counted = await db.buckets.find_one({"_id": {"$regex": f"^rate.key.{key_id}"}})
    # The killed one may have borrowed requests ahead; those count as used.
    admitted = sum(counted["ticks"].values()) if counted else 0
    if admitted < 1 or (not kill and admitted != 1):
        told.wrong.append(f"{admitted} requests were counted against the limit")
    await house.admin("POST", "/ledger/reconcile", older_than_seconds=0)
    await compare(told.wrong, db, told.name, key_id, int(told.site * house.cost * UNIT))
    spent = [each["spent"] async for each in db.buckets.find({"_id": {"$regex": f"^budget.key.{key_id}"}})]
    told.spent = str(Decimal(sum(spent)) / UNIT)


async def sdk_twins(house: House, name: str, *, count: int = 20) -> list[str]:
    """The same through the SDK with its own retries; what was wrong."""
    _, text = await house.key(name)
    got: Counter[str] = Counter()

    async def twin(number: int) -> None:
        base_url = house.gateways[number % len(house.gateways)].base_url
        async with AsyncOpenAI(api_key=text, base_url=f"{base_url}/v1", max_retries=2) as client:
            message = {"role": "user", "content": f"[[tab:{name}]] [[seconds:0.3]]"}
            headers = {"Idempotency-Key": name}
            create: Callable[..., Any] = client.chat.completions.create
            try:
                answer = await create(model=MODEL, messages=[message], extra_headers=headers)
                got[f"{answer.id} {answer.choices[0].message.content}"] += 1
            except (APIStatusError, APIConnectionError) as error:
                got[type(error).__name__] += 1

    await asyncio.gather(*(twin(number) for number in range(count)))
    site = (await house.figures())["calls"].get(name, 0)
    return [] if list(got.values()) == [count] and site == 1 else [f"{dict(got)}, asked {site} times"]


class Parallel(msgspec.Struct, kw_only=True):
    """What came of a key with a limit of parallel requests."""

    got: dict[str, int] = {}
    kills: int = 0
    site: int = 0
    most: int = 0
    """At once, at the provider."""
    after: int = 0
    """The same once all is quiet again: the limit is wholly there."""
    wrong: list[str] = []


async def parallel(house: House, db: Any, name: str, *, limit: int = 6, calls: int = 200, kills: int = 2) -> Parallel:
    """Calls over all gateways, some of which are killed: never more than ``limit`` at once."""
    told, rng = Parallel(), random.Random(name)
    key_id, text = await house.key(name, limits={"parallel": limit})
    made: list[Call] = []
    limits = httpx.Limits(max_connections=300)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:

        async def call(number: int, tab: str, within: float) -> None:
            await asyncio.sleep(rng.uniform(0, within))
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                place = rng.randrange(len(house.gateways))
                base_url = house.gateways[place].base_url
                made.append(
                    await ask(
                        client, base_url, text, kind=tab, tab=tab, seconds=rng.uniform(0.1, 0.4), stream=number % 2 == 0
                    )
                )
                if made[-1].status not in (0, 429, 503):
                    return
                await asyncio.sleep(rng.uniform(0.1, 0.5))

        going = [asyncio.create_task(call(number, name, 2.0)) for number in range(calls)]
        for victim in rng.sample(range(len(house.gateways)), kills):
            await asyncio.sleep(rng.uniform(0.5, 1.0))
            house.kill(victim)
            told.kills += 1
            await house.revive(victim)
        await asyncio.gather(*going)
        await settled(house, db, [key_id])
        await asyncio.gather(*(call(number, f"{name}-after", 0.0) for number in range(limit)))
    told.got = dict(Counter(each.code or ("broken" if not each.whole else "answered") for each in made))
    figures = await house.figures()
    told.site, told.most = figures["calls"].get(name, 0), figures["most"].get(name, 0)
    told.after = figures["most"].get(f"{name}-after", 0)
    if told.most > limit:
        told.wrong.append(f"{told.most} at once, the limit is {limit}")
    if sum(each.whole for each in made) < calls * 0.9:
        told.wrong.append(f"hardly any were answered: {told.got}")
    if not await settled(house, db, [key_id], 20):
        told.wrong.append("something stays reserved")
    return told


async def main(rounds: int) -> bool:
    wrong = False
    with tempfile.TemporaryDirectory() as place:
        async with own_mongod() as mongo:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.uri, tz_aware=True)
            async with House(Path(place), mongo.uri, "money") as house:
                for number in range(rounds):
                    for stream in (False, True):
                        for kill in (False, True):
                            name = f"twins-{number}{'-stream' if stream else ''}{'-kill' if kill else ''}"
                            told = await twins(house, client["money"], name, stream=stream, kill=kill)
                            print(msgspec.json.encode(told).decode(), flush=True)
                            wrong = wrong or bool(told.wrong)
                    if trouble := await sdk_twins(house, f"sdk-{number}"):
                        print(trouble, flush=True)
                        wrong = True
                    outcome = await parallel(house, client["money"], f"parallel-{number}")
                    print(msgspec.json.encode(outcome).decode(), flush=True)
                    wrong = wrong or bool(outcome.wrong)
            await client.close()
    return not wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    raise SystemExit(0 if asyncio.run(main(parser.parse_args().rounds)) else 1)
