"""Real processes under one limit: exactly as much as it allows, and nothing leaks from those that are killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from poe_gateway.clock import Ids
from poe_gateway.limits.bucket import Bucket, reserved_of, spent_of
from poe_gateway.metering.store import Charge
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.client import Database
from tests.storage.buckets_worker import BUDGET, CAP, LIMIT, RATE

pytestmark = pytest.mark.slow


class Crew:
    """Workers with their journals, on one database."""

    def __init__(self, uri: str, database: str, folder: Path) -> None:
        self._arguments = [uri, database]
        self._folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.count = 0

    def start(self, role: str, number: int) -> None:
        self.count += 1
        name = f"w{self.count}"
        command = [sys.executable, "-m", "tests.storage.buckets_worker", *self._arguments, name, role]
        self.running[name] = subprocess.Popen([*command, str(self._folder / name), str(number)])

    def wrote(self, name: str) -> list[int]:
        """Whole lines of a worker."""
        journal = self._folder / name
        return [int(line) for line in journal.read_text().split("\n")[:-1]] if journal.exists() else []

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()

    async def ended(self, name: str) -> None:
        process = self.running.pop(name)
        assert await asyncio.to_thread(process.wait) == 0

    async def works(self, name: str, lines: int) -> None:
        """Return when a worker has written so many lines; it must not have ended before."""
        while len(self.wrote(name)) < lines:
            assert self.running[name].poll() is None, "a worker ended early"
            await asyncio.sleep(0.01)


@pytest.fixture
def crew(mongo_uri: str, db: Database, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(mongo_uri, db.name, tmp_path)
    yield crew
    for name in list(crew.running):
        crew.kill(name)


async def bucket_of(db: Database, bucket_id: str) -> Bucket:
    return (await MongoBuckets(db, Ids(1)).read([bucket_id]))[bucket_id]


async def test_exactly_the_limit_gets_through_over_four_processes(db: Database, crew: Crew) -> None:
    demand = [1300, 200, 90, 10]
    assert sum(demand) == 1600
    for calls in demand:
        crew.start("rate", calls)
    names = list(crew.running)
    for name in names:
        await crew.ended(name)
    assert sum(len(crew.wrote(name)) for name in names) == LIMIT
    bucket = await bucket_of(db, RATE.id)
    assert (spent_of(RATE, bucket), reserved_of(bucket)) == (LIMIT, 0)


async def test_nothing_of_a_budget_leaks_from_processes_that_are_killed(db: Database, crew: Crew) -> None:
    store = MongoBuckets(db, Ids(1))
    spent = 0
    for seed in range(4):
        crew.start("budget", seed)
    for generation in range(2):
        for name in list(crew.running):
            await crew.works(name, 30)
            crew.kill(name)
            costs = crew.wrote(name)
            rows = [Charge(seq, cost, True) for seq, cost in enumerate(costs, start=1)]
            for _ in range(2):  # whoever drains it may be interrupted and begin again
                await store.charge(name, {BUDGET.id: rows})
            await store.close(name, datetime.now(UTC))
            spent += sum(costs)
            bucket = await bucket_of(db, BUDGET.id)
            assert bucket.spent + reserved_of(bucket) <= CAP
            if generation == 0:
                crew.start("budget", 10 + crew.count)
    bucket = await bucket_of(db, BUDGET.id)
    assert (bucket.spent, bucket.liens, bucket.holders) == (spent, {}, set())
    assert 0 < spent <= CAP


async def test_a_budget_is_used_to_its_end_whoever_is_killed(db: Database, crew: Crew) -> None:
    """The last one finds all that the dead had borrowed and not spent."""
    store = MongoBuckets(db, Ids(1))
    for seed in range(3):
        crew.start("budget", seed)
    dead = list(crew.running)
    for name in dead:
        await crew.works(name, 20)
    for name in dead:
        crew.kill(name)
        rows = [Charge(seq, cost, True) for seq, cost in enumerate(crew.wrote(name), start=1)]
        await store.charge(name, {BUDGET.id: rows})
        await store.close(name, datetime.now(UTC))
    crew.start("budget", 99)
    (last,) = crew.running
    await crew.ended(last)
    total = sum(sum(crew.wrote(name)) for name in [*dead, last])
    assert CAP - 40 <= total <= CAP
