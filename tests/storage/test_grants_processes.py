"""Real processes take and give back slots while some are killed and some are paused: the limits hold throughout."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from poe_gateway.pool.store import GLOBAL
from poe_gateway.storage.client import Database
from poe_gateway.storage.grants import MongoGrants
from tests.storage.grants_worker import ACCOUNTS, CAP, GLOBAL_CAP, LIFETIME
from tests.storage.making import account, insert

ROUNDS = 16
PAUSE = 0.3
LINES = 15
"""What the workers write down in each round at least."""


class Crew:
    """Worker processes with their journals."""

    def __init__(self, uri: str, database: str, folder: Path) -> None:
        self.uri, self.database, self.folder = uri, database, folder
        self.running: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.ended: dict[Path, float] = {}
        self.started = 0

    def start(self) -> None:
        self.started += 1
        journal = self.folder / f"w{self.started}"
        command = [sys.executable, "-m", "tests.storage.grants_worker", self.uri, self.database]
        process = subprocess.Popen([*command, journal.name, str(self.started), str(journal)])
        self.running.append((process, journal))

    def words(self) -> int:
        """Lines that all workers wrote so far."""
        return sum(journal.read_bytes().count(b"\n") for journal in self.folder.iterdir())

    def kill(self, place: int) -> None:
        process, journal = self.running.pop(place)
        assert process.poll() is None, "a worker failed"
        process.kill()
        process.wait()
        self.ended[journal] = time.monotonic()


@pytest.mark.parametrize("seed", [1])
async def test_limits_hold_with_processes_killed_and_paused(
    mongo_uri: str, db: Database, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    await insert(db, [account(number) for number in range(1, 6)])
    crew = Crew(mongo_uri, db.name, tmp_path)
    for _ in range(4):
        crew.start()
    highest: Counter[str] = Counter()
    try:
        while not all(journal.exists() for _, journal in crew.running):
            await asyncio.sleep(0.05)
        for number in range(ROUNDS):
            place = rng.randrange(4)
            if number % 2:
                crew.kill(place)
                crew.start()
            else:
                pid = crew.running[place][0].pid
                os.kill(pid, signal.SIGSTOP)
                asyncio.get_running_loop().call_later(rng.choice([0.2, 1.5]) * LIFETIME, _wake, pid)
            wanted = crew.words() + LINES
            await _watch(db, PAUSE, highest)
            for _ in range(100):  # on a busy machine the workers need longer
                if crew.words() >= wanted:
                    break
                await _watch(db, 0.1, highest)
    finally:
        while crew.running:
            os.kill(crew.running[0][0].pid, signal.SIGCONT)
            crew.kill(0)
    assert highest[GLOBAL] == GLOBAL_CAP and max(highest[key] for key in ACCOUNTS) == CAP, "the limits were reached"
    _judge(crew.ended)

    # All are dead: their slots are free again within one lifetime, and nothing is left of them.
    await asyncio.sleep(LIFETIME)
    store = MongoGrants(db)
    for _ in range(6):
        await store.reclaim()
    assert await db.accounts.count_documents({"grants": {"$exists": True}}) == 0
    assert "grants" not in (await db.pool.find_one({"_id": GLOBAL}) or {})
    assert await db.instances.count_documents({}) == 0


def _wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


async def _watch(db: Database, seconds: float, highest: Counter[str]) -> None:
    """Look at the raw documents again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        documents = [each async for each in db.accounts.find({}, {"grants": 1})]
        documents += [each async for each in db.pool.find({}, {"grants": 1})]
        for document in documents:
            grants = document.get("grants", [])
            total = sum(each["n"] for each in grants)
            assert len({each["i"] for each in grants}) == len(grants), document
            assert all(each["n"] > 0 for each in grants), document
            assert total <= (GLOBAL_CAP if document["_id"] == GLOBAL else CAP), document
            highest[document["_id"]] = max(highest[document["_id"]], total)
        await asyncio.sleep(0.01)


def _judge(ended: dict[Path, float]) -> None:
    """At no moment did the processes together believe to hold more than the limit."""
    changes: list[tuple[float, int, str, int]] = []  # when, 0 for less before 1 for more, key, by how much
    lines = 0
    for journal, end in ended.items():
        if not journal.exists():
            continue
        entries = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
        if not entries:
            continue  # killed before its first word
        lines += len(entries)
        for entry, following in zip(entries, [*entries[1:], {"t": end}], strict=True):
            stop = min(following["t"], entry["valid"])
            if stop <= entry["t"]:
                continue
            for key, slots in entry["held"].items():
                changes.append((entry["t"], 1, key, slots))
                changes.append((stop, 0, key, -slots))
    believed: Counter[str] = Counter()
    for _, _, key, by in sorted(changes):
        believed[key] += by
        assert believed[key] <= (GLOBAL_CAP if key == GLOBAL else CAP)
    assert not +believed
    assert lines > 200, "the workers hardly worked"
