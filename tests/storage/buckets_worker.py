"""A process that lives under a limit and writes down what it got.

Run as ``python -m tests.storage.buckets_worker <uri> <database> <name> <role> <journal> <number>``.

``rate``: makes ``number`` calls, some at a time. A refused one that is told to be in the way of nothing but
reservations is made again, as a caller would. One line of the journal for each that was admitted.

``budget``: spends until it is killed or the budget is used up; ``number`` is the seed. Each line is what a call cost,
written before the limiter hears of it, and charged some time later, as the ledger does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.limits.bucket import Ask
from poe_gateway.limits.keys import BucketKey, rate_key
from poe_gateway.limits.limiter import Exceeded, Hold, Limiter
from poe_gateway.metering.store import Charge
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.client import connect

LIMIT = 1000
CAP = 30_000
RATE = rate_key("rate|key|k|requests|day", "day", None)
BUDGET = BucketKey(id="budget|key|k|USD|total|total", kind="budget", budget="total")
PROCESSES = 4


@asynccontextmanager
async def running(limiter: Limiter) -> AsyncIterator[None]:
    task = asyncio.create_task(limiter.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def admitted(limiter: Limiter, ask: Ask) -> Hold | None:
    while True:
        try:
            return await limiter.reserve([ask])
        except Exceeded as refused:
            if not refused.in_flight:
                return None
            await asyncio.sleep(0.05)


async def under_a_rate(limiter: Limiter, journal: int, calls: int) -> None:
    ask = Ask(bucket=RATE, amount=1, cap=LIMIT)
    turns = asyncio.Semaphore(20)

    async def call() -> None:
        async with turns:
            hold = await admitted(limiter, ask)
            if hold is not None:
                os.write(journal, b"1\n")
                hold.settle({})

    await asyncio.gather(*(call() for _ in range(calls)))
    await limiter.leave()


async def under_a_budget(limiter: Limiter, journal: int, seed: int, store: MongoBuckets, name: str) -> None:
    rng = random.Random(seed)
    rows: list[Charge] = []

    async def calls() -> None:
        while True:
            amount = rng.randint(5, 40)
            hold = await admitted(limiter, Ask(bucket=BUDGET, amount=amount, cap=CAP))
            if hold is None:
                return
            await asyncio.sleep(rng.random() * 0.01)
            cost = rng.randint(0, amount)
            os.write(journal, f"{cost}\n".encode())
            rows.append(Charge(len(rows) + 1, cost, True))
            hold.settle({BUDGET.id: cost})

    async def ship() -> None:
        while True:
            await asyncio.sleep(rng.random() * 0.3)
            await store.charge(name, {BUDGET.id: rows})

    shipping = asyncio.create_task(ship())
    await asyncio.gather(*(calls() for _ in range(6)))
    shipping.cancel()


async def main(uri: str, database: str, name: str, role: str, path: str, number: str) -> None:
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with connect(uri) as client:
        store = MongoBuckets(client[database], Ids())
        limiter = Limiter(store=store, process=name, clock=SystemClock(), live=lambda: PROCESSES)
        async with running(limiter):
            if role == "rate":
                await under_a_rate(limiter, journal, int(number))
            else:
                await under_a_budget(limiter, journal, int(number), store, name)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
