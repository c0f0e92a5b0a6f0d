"""What cannot be right stops nobody else: absurd amounts, and a dead process's spool that cannot be shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.memory import MemoryCharger, MemoryRows
from poe_gateway.metering.rows import Intent, Outcome
from poe_gateway.metering.store import Charge
from poe_gateway.money import LARGEST
from poe_gateway.storage.buckets import MongoBuckets

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def test_absurd_amounts_fill_a_budget_and_stop_no_other(mongo_uri: str, db_name: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongo_uri, tz_aware=True) as client:
        buckets = MongoBuckets(client[db_name], Ids(1))
        absurd, other = "budget|key|key_1|USD|total|total", "budget|key|key_2|USD|total|total"
        for seq in range(1, 5):
            charges = {absurd: [Charge(seq, LARGEST, True)], other: [Charge(seq, 5, True)]}
            await buckets.charge("spool_1", charges)
        found = await buckets.read([absurd, other])
        assert found[absurd].spent >= LARGEST
        assert found[other].spent == 20
        await buckets.close("spool_1", NOW)
        assert (await buckets.read([absurd]))[absurd].liens == {}


class Choosy(MemoryCharger):
    """Takes nothing for one bucket, whoever asks and however often."""

    def __init__(self, refused: str) -> None:
        super().__init__()
        self._refused = refused

    async def charge(self, process: str, charges: Mapping[str, Sequence[Charge]]) -> None:
        if self._refused in charges:
            raise ValueError("not this one")
        await super().charge(process, charges)


async def test_a_spool_that_cannot_be_shipped_is_told_and_the_others_are_finished(tmp_path: Path) -> None:
    ids, rows, told = Ids(7), MemoryRows(), list[str]()
    charger = Choosy("budget|key|key_0|USD|total|total")
    dead = sorted([await _dead(tmp_path, rows, charger, ids) for _ in range(3)], key=lambda each: each.process)
    for number, ledger in enumerate(dead):
        ledger.open(_intent(number, f"budget|key|key_{number}|USD|total|total"))
        assert ledger._spool is not None
        ledger._spool.close()  # its lock is free: it is dead
    last = Ledger(tmp_path, rows, charger, SystemClock(), ids, on_trouble=told.append)
    await last.start()
    assert await last._drainer.drain() == 2
    left = [each.name for each in tmp_path.glob("spool_*") if each.name != last.process]
    assert left == [dead[0].process], "it waits for whoever can ship it"
    assert charger.spent == {f"budget|key|key_{number}|USD|total|total": 5 for number in (1, 2)}
    assert any(dead[0].process in each and "ValueError" in each for each in told), told


async def test_what_cannot_be_shipped_does_not_keep_a_process_from_its_end(tmp_path: Path) -> None:
    budget, told = "budget|key|key_0|USD|total|total", list[str]()
    ledger = Ledger(tmp_path, MemoryRows(), Choosy(budget), SystemClock(), Ids(7), on_trouble=told.append)
    await ledger.start()
    row = ledger.open(_intent(0, budget))
    ledger.close(Outcome(row=row, at=NOW, status="succeeded", charges={budget: 5}))
    assert not await ledger.leave()
    assert [each.name for each in tmp_path.glob("spool_*")] == [ledger.process], "it stays for the next"
    assert any("ValueError" in each for each in told), told


def _intent(number: int, budget: str) -> Intent:
    fields: dict[str, Any] = {"attempt": 1, "at": NOW, "org": "org_1", "key_id": f"key_{number}", "provider": "mock"}
    fields |= {"offer": "mock:demo", "account_id": "acct_1", "model": "demo", "target": "demo", "unit": "USD"}
    return Intent(request_id=f"req_{number}", cost=5, charges={budget: 5}, **fields)


async def _dead(directory: Path, rows: MemoryRows, charger: MemoryCharger, ids: Ids) -> Ledger:
    ledger = Ledger(directory, rows, charger, SystemClock(), ids)
    await ledger.start()
    return ledger


async def test_with_the_store_away_the_others_are_not_tried(tmp_path: Path) -> None:
    class Away(MemoryRows):
        asked = 0

        async def closed(self, spool: str) -> bool:
            self.asked += 1
            raise StoreUnavailable

    ids, rows = Ids(7), Away()
    for _ in range(3):
        ledger = await _dead(tmp_path, rows, MemoryCharger(), ids)
        assert ledger._spool is not None
        ledger._spool.close()
    last = await _dead(tmp_path, rows, MemoryCharger(), ids)
    with pytest.raises(StoreUnavailable):
        await last._drainer.drain()
    assert rows.asked == 1
