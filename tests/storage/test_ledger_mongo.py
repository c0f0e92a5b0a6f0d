"""The ledger in a real database: rows and corrections once, marks, pages; killed writers; a database that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.metering import spool as disk
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.memory import MemoryCharger, MemoryRows
from poe_gateway.metering.rows import Correction, Intent, Outcome
from poe_gateway.metering.store import Entry, RowFilter
from poe_gateway.storage import mongod, schema
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.client import Database, connect
from poe_gateway.storage.ledger import MongoLedger
from tests.support.mongod import start_standalone, temporary_home

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BUCKET = "budget|key|key_1|USD|total|total"


def entry(number: int, cost: int = 40, **more: Any) -> Entry:
    at = NOW + timedelta(minutes=number)
    fields = {"attempt": 1, "at": at, "org": "org_1", "key_id": "key_1", "provider": "mock", "offer": "mock:demo"}
    fields |= {"account_id": "acct_1", "model": "demo", "target": "demo", "unit": "USD"} | more
    status = fields.pop("status", "succeeded")
    opened = 2 * number + 1
    intent = Intent(request_id=f"req_{number}", **fields)
    end = Outcome(row=f"spool_a-{opened}", at=at, status=status, billed_cost=cost, charges={BUCKET: cost})
    return Entry("spool_a", opened + 1, end, opened, intent)


def correction(row: str, spool: str, seq: int) -> Entry:
    record = Correction(row=row, at=NOW, reason="books", billed_cost=-10, charges={BUCKET: -10})
    return Entry(spool, seq, record)


@pytest.fixture(params=["memory", "mongo"])
def rows(request: pytest.FixtureRequest) -> Any:
    return MemoryRows() if request.param == "memory" else MongoLedger(request.getfixturevalue("db"))


async def test_a_row_is_stored_once(rows: Any) -> None:
    entries = [entry(number) for number in range(260)]
    assert await rows.insert(entries[:150]) == 0
    assert await rows.insert(entries) == 0
    assert await rows.insert([entry(3, cost=99)]) == 0
    found = await rows.rows(RowFilter(), 1000)
    assert [each["_id"] for each in found] == [each.row_id for each in entries]
    row = await rows.row("spool_a-7")
    expected = {"_id": "spool_a-7", "spool": "spool_a", "seq": 8, "at": NOW + timedelta(minutes=3), "billed_cost": 40}
    expected |= {"request_id": "req_3", "charges": [{"b": BUCKET, "n": 40}], "raw_cost": None, "unit": "USD"}
    assert expected.items() <= row.items()
    assert await rows.row("spool_a-999999") is None


async def test_a_correction_is_stored_once_whoever_sends_it(rows: Any) -> None:
    await rows.insert([entry(0)])
    assert await rows.amend(correction("spool_a-1", "spool_b", 5))
    assert await rows.amend(correction("spool_a-1", "spool_b", 5))
    assert not await rows.amend(correction("spool_a-1", "spool_c", 5))
    assert not await rows.amend(correction("spool_a-1", "spool_b", 6))
    assert not await rows.amend(correction("spool_a-77", "spool_b", 7))
    found = await rows.row("spool_a-1~")
    expected = {"corrects": "spool_a-1", "spool": "spool_b", "seq": 5, "at": NOW, "billed_cost": -10, "org": "org_1"}
    assert expected.items() <= found.items()
    assert (await rows.row("spool_a-1"))["corrected_at"] == NOW
    assert len(await rows.rows(RowFilter())) == 2


async def test_spools_are_marked(rows: Any) -> None:
    assert not await rows.closed("spool_a")
    await rows.close_spool("spool_a")
    await rows.close_spool("spool_a")
    assert await rows.closed("spool_a")
    assert not await rows.closed("spool_b")


async def test_rows_and_orphans_are_found(rows: Any) -> None:
    await rows.insert([entry(number, key_id=f"key_{number % 2}") for number in range(6)])
    await rows.insert([entry(number, status="orphaned", account_id=f"acct_{number}") for number in (6, 7, 8)])
    await rows.amend(correction("spool_a-17", "spool_b", 1))
    first = await rows.rows(RowFilter(key_id="key_0"), 2)
    rest = await rows.rows(RowFilter(key_id="key_0"), 2, (first[-1]["at"], first[-1]["_id"]))
    assert [each["request_id"] for each in first + rest] == ["req_0", "req_2", "req_4"]
    between = RowFilter(org="org_1", since=NOW + timedelta(minutes=1), until=NOW + timedelta(minutes=3))
    assert [each["request_id"] for each in await rows.rows(between)] == ["req_1", "req_2"]
    assert [each["_id"] for each in await rows.rows(RowFilter(request_id="req_8"))] == ["spool_a-17", "spool_a-17~"]
    late = NOW + timedelta(days=1)
    assert [each["account_id"] for each in await rows.orphans(None, late)] == ["acct_6", "acct_7"]
    assert [each["account_id"] for each in await rows.orphans("acct_7", late)] == ["acct_7"]
    assert [each["account_id"] for each in await rows.orphans(None, NOW + timedelta(minutes=7))] == ["acct_6"]


async def test_rows_expire_only_when_asked_for(db: Database) -> None:
    await MongoLedger(db).insert([entry(0)])
    kept = MongoLedger(db, days=30)
    await kept.insert([entry(1)])
    await kept.amend(correction("spool_a-3", "spool_b", 1))
    assert "expires_at" not in (await kept.row("spool_a-1") or {})
    until = NOW + timedelta(minutes=1, days=30)
    assert [(await kept.row(each) or {})["expires_at"] for each in ("spool_a-3", "spool_a-3~")] == [until, until]


async def test_marks_bear_the_servers_time_and_keep_it(db: Database) -> None:
    ledger = MongoLedger(db)
    await ledger.close_spool("spool_a")
    first = await db[schema.SPOOLS].find_one({"_id": "spool_a"})
    await ledger.close_spool("spool_a")
    assert first == await db[schema.SPOOLS].find_one({"_id": "spool_a"})
    assert first is not None
    assert first["expires_at"] - first["closed_at"] == timedelta(days=400)


async def test_absurd_figures_block_nothing(db: Database) -> None:
    ledger = MongoLedger(db)
    assert await ledger.insert([entry(0, cost=2**70), entry(1)]) == 0
    assert (await ledger.row("spool_a-1") or {})["billed_cost"] == 2**63 - 1
    assert await ledger.row("spool_a-3") is not None


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


@pytest.mark.slow
async def test_what_came_while_the_database_was_away_is_shipped_when_it_is_back(home: Path, tmp_path: Path) -> None:
    port = await start_standalone(home)
    charger = MemoryCharger()
    async with connect(f"mongodb://127.0.0.1:{port}/?directConnection=true&w=1") as client:
        rows = MongoLedger(client["away"])
        ledger = Ledger(tmp_path / "spool", rows, charger, SystemClock(), Ids(), in_memory=20)
        await ledger.start()
        ends: list[str] = []

        def attempts(count: int) -> None:
            for _ in range(count):
                row = ledger.open(entry(0).intent)  # type: ignore[arg-type]
                ledger.close(Outcome(row=row, at=NOW, status="succeeded", billed_cost=1, charges={BUCKET: 1}))
                ends.append(row)

        attempts(10)
        assert await ledger.flush(30)
        await mongod.stop_mongod(home / "mongo", SystemClock())
        attempts(100)
        assert not await ledger.flush(1)
        assert ledger.state().waiting == 100
        await mongod.start_mongod(mongod.find_mongod(), home / "mongo", port, replica_set=None)
        assert await ledger.flush(60)
        assert {each["_id"] for each in await rows.rows(RowFilter(), 1000)} == set(ends)
        assert charger.spent == {BUCKET: 110}
        assert await ledger.leave()
    await mongod.stop_mongod(home / "mongo", SystemClock())


@pytest.mark.slow
async def test_killed_writers_lose_nothing_and_are_charged_once(db: Database, mongo_uri: str, tmp_path: Path) -> None:
    """Processes that work, ship and drain each other are killed at any moment; the last one finishes all of it."""
    rng = random.Random(11)
    journals: list[list[dict[str, Any]]] = []

    async def life() -> None:
        arguments = ["-m", "tests.storage.ledger_worker", mongo_uri, db.name, str(tmp_path / "spool")]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        lines = []
        for _ in range(rng.randint(1, 1500)):
            lines.append(await process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        lines += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
        journals.append([json.loads(line) for line in lines if line.endswith(b"\n")])

    for _ in range(6):
        await asyncio.gather(life(), life())
    rows, buckets = MongoLedger(db), MongoBuckets(db, Ids())
    last = Ledger(tmp_path / "spool", rows, buckets, SystemClock(), Ids())
    await last.start()
    await last._drainer.drain()
    assert await last.leave()
    assert disk.spools(tmp_path / "spool") == []
    stored = {each["_id"]: each for each in await rows.rows(RowFilter(), 1_000_000)}
    opened = {each["open"] for journal in journals for each in journal if "open" in each}
    closed = {each["close"]: each["cost"] for journal in journals for each in journal if "close" in each}
    assert len(closed) > 100
    assert opened <= stored.keys()
    assert len(stored) <= len(opened) + len(journals)  # one each, whose id was not told any more
    assert {row: stored[row]["billed_cost"] for row in closed} == closed
    orphans = [each for each in stored.values() if each["status"] == "orphaned"]
    assert not {each["_id"] for each in orphans} & closed.keys()
    bucket = (await buckets.read([BUCKET]))[BUCKET]
    assert bucket.spent == sum(each["billed_cost"] for each in stored.values())
    assert not bucket.applied
