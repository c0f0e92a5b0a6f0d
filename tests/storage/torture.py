"""The torture of the grants: real processes on a real MongoDB, killed, stopped and continued at random.

``python -m tests.storage.torture --minutes 5 --processes 4 --accounts 20 --each 2 --all 25`` starts a mongod of its
own and prints what ``torture_judge`` found. Each process's calendar is wrong by up to an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from poe_gateway.clock import SystemClock
from poe_gateway.pool.account import Cause, Health, State
from poe_gateway.storage import embedded, schema
from poe_gateway.storage.client import connect
from tests.storage.making import account, insert
from tests.storage.torture_judge import Findings, Life, judge
from tests.storage.torture_worker import Work
from tests.support.mongod import start_standalone, temporary_home


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``each`` and ``all``: limits; ``lifetime`` of a grant and ``pause`` between two assaults in seconds."""

    seconds: float
    processes: int = 4
    accounts: int = 20
    each: int = 2
    all: int = 25
    lifetime: float = 2.0
    pause: float = 1.5
    seed: int = 1
    blind: bool = False

    @property
    def limit(self) -> int:
        return min(self.all, self.accounts * self.each)


class Torture:
    """One run. ``kills`` and ``stops`` tell how often."""

    def __init__(self, plan: Plan, uri: str, database: str, folder: Path) -> None:
        self.plan = plan
        self.uri, self.database, self.folder = uri, database, folder
        self.rng = random.Random(plan.seed)
        self.running: list[tuple[subprocess.Popen[bytes], Life, Path]] = []
        self.lives: list[tuple[Life, Path]] = []
        self.kills = self.stops = 0

    def run(self) -> Findings:
        """Torture for as long as the plan says; then all are killed, and the journals judged."""
        opened = self.folder / "upstream"
        command = [sys.executable, "-m", "tests.storage.torture_upstream", str(opened)]
        upstream = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert upstream.stdout is not None
            self.port = int(upstream.stdout.readline())
            for _ in range(self.plan.processes):
                self.start()
            self.until_all_work()
            end = time.monotonic() + self.plan.seconds
            while time.monotonic() < end:
                time.sleep(self.rng.uniform(0.2, 1.8) * self.plan.pause)
                self.assault()
        finally:
            while self.running:
                self.kill(0)
            upstream.kill()
            upstream.wait()
        for life, journal in self.lives:
            life.words = [(float(at), word) for at, word in _lines(journal)]
        events = [(float(at), name, int(by)) for at, name, by in _lines(opened)]
        return judge(events, [life for life, _ in self.lives], self.plan.limit)

    def start(self) -> None:
        number = len(self.lives)
        journal = self.folder / f"worker{number}"
        work = Work(
            uri=self.uri,
            database=self.database,
            port=self.port,
            journal=str(journal),
            seed=self.plan.seed * 1000 + number,
            callers=max(4, self.plan.limit),
            each=self.plan.each,
            all=self.plan.all,
            lifetime=self.plan.lifetime,
            skew=self.rng.uniform(-3600, 3600),
            blind=self.plan.blind,
        )
        command = [sys.executable, "-m", "tests.storage.torture_worker", msgspec.json.encode(work).decode()]
        life = Life()
        self.lives.append((life, journal))
        self.running.append((subprocess.Popen(command), life, journal))

    def until_all_work(self) -> None:
        """Starting takes long on a busy machine."""
        patience = time.monotonic() + 60
        while not all(journal.exists() and b"got" in journal.read_bytes() for _, _, journal in self.running):
            assert time.monotonic() < patience, "a worker does not work"
            time.sleep(0.1)

    def assault(self) -> None:
        victim = self.rng.randrange(len(self.running))
        process = self.running[victim][0]
        assert process.poll() is None, "a worker ended by itself"
        if self.rng.random() < 0.4:
            self.kill(victim)
            self.start()
            self.kills += 1
            return
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(self.rng.choice([0.3, 1.5, 2.5]) * self.plan.lifetime)
        self.running[victim][1].stops.append((begun, time.monotonic()))
        self.stops += 1
        if self.rng.random() < 0.2:
            self.kill(victim)
            self.start()
            self.kills += 1
        else:
            os.kill(process.pid, signal.SIGCONT)

    def kill(self, place: int) -> None:
        """A stopped one too. It is not waited for at once: until then it is a zombie, as under a slow supervisor."""
        process, life, _ = self.running.pop(place)
        process.kill()
        life.ended = time.monotonic()
        time.sleep(0.05)
        process.wait()


def _lines(journal: Path) -> list[list[str]]:
    """The last line may be cut off."""
    if not journal.exists():
        return []
    return [line.split() for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]


async def prepare(uri: str, database: str, accounts: int) -> None:
    """An empty database with healthy accounts."""
    async with connect(uri) as client:
        db = client[database]
        await schema.create(db)
        await insert(
            db,
            [account(number, health=Health(state=State.ACTIVE, cause=Cause.HEALTHY)) for number in range(accounts)],
        )


def _report(plan: Plan, torture: Torture, found: Findings) -> str:
    verdict = "held" if found.most <= plan.each and found.whole <= plan.all else "BROKEN"
    return (
        f"limits {verdict}: at most {found.most} of {plan.each} on one account, {found.whole} of {plan.all} in all\n"
        f"{found.requests} requests, {torture.kills} kills, {torture.stops} stops; grant lifetime {plan.lifetime:g} s\n"
        f"longest time with more than a tenth of the slots free while work waited: {found.lost:.2f} s, with stopped "
        f"processes {found.withheld:.2f} s\n"
        f"longest time a process with waiting work got nothing while others did: {found.starved:.2f} s"
    )


async def main(plan: Plan, *, standalone: bool) -> int:
    with temporary_home() as home, tempfile.TemporaryDirectory() as folder:
        if standalone:
            uri = f"mongodb://127.0.0.1:{await start_standalone(home)}/?directConnection=true"
        else:
            uri = (await embedded.ensure_mongod(home, SystemClock())).uri
        await prepare(uri, "torture", plan.accounts)
        torture = Torture(plan, uri, "torture", Path(folder))
        found = await asyncio.to_thread(torture.run)
        print(_report(plan, torture, found))
        return 0 if found.most <= plan.each and found.whole <= plan.all else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill and stop processes that share accounts; count at the upstream.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--all", type=int, default=25)
    parser.add_argument("--lifetime", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--standalone", action="store_true", help="a mongod without change streams")
    parser.add_argument("--blind", action="store_true", help="without proof of death: the limits do not hold")
    told = vars(parser.parse_args())
    alone = told.pop("standalone")
    sys.exit(asyncio.run(main(Plan(seconds=60 * told.pop("minutes"), **told), standalone=alone)))
