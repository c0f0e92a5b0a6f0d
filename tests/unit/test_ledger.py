"""The ledger: every attempt has one row and is charged once, whatever fails and whoever dies."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.metering import spool as disk
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.memory import MemoryCharger, MemoryRows, MemorySink
from poe_gateway.metering.rows import Change, Correction, Intent, Outcome, Traffic
from poe_gateway.metering.shipping import Reading
from poe_gateway.metering.spool import SpoolFailed
from poe_gateway.metering.store import Entry, RowFilter

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BUCKET = "budget|key|key_1|USD|day|2026-11-21"
BUCKETS = (BUCKET, "budget|org|org_1|USD|total|total")
IDS = Ids(7)


def intent(request: str = "req_1", cost: int = 100, bucket: str = BUCKET, **more: Any) -> Intent:
    fields = {"attempt": 1, "at": NOW, "org": "org_1", "key_id": "key_1", "provider": "mock", "offer": "mock:demo"}
    fields |= {"account_id": "acct_1", "model": "demo", "target": "demo", "unit": "USD"} | more
    return Intent(request_id=request, cost=cost, charges={bucket: cost}, **fields)


def outcome(row: str, cost: int = 40, **more: Any) -> Outcome:
    fields = {"status": "succeeded", "unit": "USD", "raw_cost": cost, "billed_cost": cost} | more
    return Outcome(row=row, at=NOW + timedelta(seconds=1), charges={BUCKET: cost}, **fields)


def correction(row: str, cost: int) -> Correction:
    return Correction(row=row, at=NOW, reason="books", raw_cost=cost, billed_cost=cost, charges={BUCKET: cost})


CHANGE = Change(at=NOW, actor="admin", address=None, action="key.create", target="key:key_1")
TRAFFIC = Traffic(request_id="req_1", at=NOW, org="org_1", key_id="key_1", route="chat", model="demo", status=200)


class Killed(BaseException):
    """The process ends here."""


class House:
    """The stores that all processes share, and what goes wrong with them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "spool"
        self.rows = FailingRows(self)
        self.charger = FailingCharger(self)
        self.traffic, self.changes = MemorySink(), MemorySink()
        self.away = False
        self.faults: list[int] = []
        """What happens to the calls to come: 0 nothing, 1/2 no answer before/after it is done, 3/4 death."""
        self.calls: list[str] = []
        self.told: list[str] = []

    async def guard(self, name: str, done: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(name)
        fault = 1 if self.away else self.faults.pop(0) if self.faults else 0
        await asyncio.sleep(0)
        if fault in (1, 3):
            raise Killed if fault == 3 else StoreUnavailable
        result = await done()
        if fault in (2, 4):
            raise Killed if fault == 4 else StoreUnavailable
        return result

    async def ledger(self, **more: Any) -> Ledger:
        stores: dict[str, Any] = {"traffic": self.traffic, "changes": self.changes} | more
        ledger = Ledger(
            self.directory, self.rows, self.charger, SystemClock(), IDS, on_trouble=self.told.append, **stores
        )
        await ledger.start()
        return ledger

    @property
    def spent(self) -> int:
        return self.charger.spent.get(BUCKET, 0)

    def left(self) -> list[str]:
        return [path.name for path in disk.spools(self.directory)]


class FailingRows(MemoryRows):
    def __init__(self, house: House) -> None:
        super().__init__()
        self._house = house

    async def insert(self, entries: Sequence[Any]) -> int:
        return await self._house.guard("insert", lambda: super(FailingRows, self).insert(entries))

    async def amend(self, entry: Any) -> bool:
        return await self._house.guard("amend", lambda: super(FailingRows, self).amend(entry))

    async def close_spool(self, spool: str) -> None:
        await self._house.guard("mark", lambda: super(FailingRows, self).close_spool(spool))

    async def closed(self, spool: str) -> bool:
        return await self._house.guard("closed", lambda: super(FailingRows, self).closed(spool))


class FailingCharger(MemoryCharger):
    def __init__(self, house: House) -> None:
        super().__init__()
        self._house = house

    async def charge(self, process: str, charges: Any) -> None:
        for bucket, entries in charges.items():
            one = {bucket: entries}
            await self._house.guard("charge", lambda one=one: super(FailingCharger, self).charge(process, one))

    async def close(self, process: str, now: datetime) -> None:
        await self._house.guard("close", lambda: super(FailingCharger, self).close(process, now))


def die(ledger: Ledger) -> None:
    """As far as files and locks go, what the end of the process does."""
    assert ledger._spool is not None
    ledger._spool.close()
    ledger._spool = None


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_an_attempt_becomes_a_row_and_a_charge(house: House) -> None:
    ledger = await house.ledger()
    row = ledger.open(intent())
    ledger.close(outcome(row, prompt_tokens=3, upstream_id="up_1"))
    assert ledger.state().waiting == 1
    assert await ledger.flush(5)
    stored = await house.rows.row(row)
    assert stored is not None
    assert row == f"{ledger.process}-1"
    expected = {"_id": row, "spool": ledger.process, "seq": 2, "at": NOW, "ended_at": NOW + timedelta(seconds=1)}
    expected |= {"request_id": "req_1", "attempt": 1, "org": "org_1", "key_id": "key_1", "status": "succeeded"}
    expected |= {"unit": "USD", "raw_cost": 40, "prompt_tokens": 3, "charges": [{"b": BUCKET, "n": 40}]}
    assert expected.items() <= stored.items()
    assert not {"row", "cost"} & stored.keys()
    assert (house.spent, ledger.state().waiting, ledger.state().open) == (40, 0, 0)
    assert await ledger.leave()
    assert (house.left(), house.rows.marks, house.charger.applied) == ([], {ledger.process}, {})
    with pytest.raises(SpoolFailed):
        ledger.open(intent())


async def test_the_second_end_of_a_row_is_ignored(house: House) -> None:
    ledger = await house.ledger()
    row = ledger.open(intent())
    ledger.close(outcome(row, 40))
    ledger.close(outcome(row, 70))
    ledger.close(outcome("spool_other-1", 70))
    assert await ledger.leave()
    assert house.spent == 40
    assert len(house.rows.documents) == 1


async def test_nothing_is_charged_before_its_row_is_there(house: House) -> None:
    ledger = await house.ledger()
    ledger.close(outcome(ledger.open(intent())))
    await ledger.leave()
    assert house.calls == ["insert", "charge", "closed", "mark", "close"]


async def test_what_the_dead_left_is_shipped_and_open_attempts_count_as_reserved(house: House) -> None:
    dead = await house.ledger()
    lost = dead.open(intent("lost", 100))
    done = dead.open(intent("done", 100))
    dead.close(outcome(done, 40))
    die(dead)
    heir = await house.ledger()
    assert await heir._drainer.drain() == 1
    assert house.spent == 140
    stored = await house.rows.row(lost)
    assert stored is not None
    assert {"status": "orphaned", "billed_cost": 100, "cost_source": "estimate", "seq": 4}.items() <= stored.items()
    assert heir.state().orphans == 1
    assert house.left() == [heir.process]
    assert [each["_id"] for each in await house.rows.orphans("acct_1", NOW + timedelta(days=1))] == [lost]
    assert await house.rows.orphans("acct_2", NOW + timedelta(days=1)) == []


async def test_the_living_are_not_drained(house: House) -> None:
    living, other = await house.ledger(), await house.ledger()
    row = living.open(intent())
    assert await other._drainer.drain() == 0
    living.close(outcome(row))
    assert await living.flush(5)
    assert (await house.rows.row(row) or {})["status"] == "succeeded"


async def test_two_drainers_at_once_charge_once(house: House) -> None:
    for _ in range(5):
        dead = await house.ledger()
        for _ in range(20):
            dead.close(outcome(dead.open(intent()), 3))
        dead.open(intent("lost", 10))
        die(dead)
    first, second = await house.ledger(), await house.ledger()
    finished = await asyncio.gather(first._drainer.drain(), second._drainer.drain())
    assert sum(finished) == 5
    assert house.spent == 5 * (20 * 3 + 10)
    assert len(house.rows.documents) == 5 * 21


async def test_whoever_finds_the_mark_charges_nothing(house: House) -> None:
    dead = await house.ledger()
    dead.close(outcome(dead.open(intent())))
    die(dead)
    heir = await house.ledger()
    house.faults = [0, 0, 0, 2]  # the mark is set, its answer is lost
    with pytest.raises(StoreUnavailable):
        await heir._drainer.drain()
    house.charger.applied.clear()  # as after ``close``, whose answer may be lost too
    disk.remember(house.directory / dead.process, 0)
    assert await heir._drainer.drain() == 1
    assert house.spent == 40


async def test_there_is_one_correction_a_row(house: House) -> None:
    ledger, other = await house.ledger(), await house.ledger()
    row = ledger.open(intent())
    ledger.close(outcome(row, 40))
    ledger.note(correction(row, -15))
    assert await ledger.flush(5)
    other.note(correction(row, -15))
    other.note(correction("spool_unknown-1", -99))
    assert await other.flush(5)
    assert house.spent == 25
    stored = await house.rows.row(f"{row}~")
    assert stored is not None
    expected = {"corrects": row, "status": "correction", "billed_cost": -15, "org": "org_1", "at": NOW, "unit": "USD"}
    assert expected.items() <= stored.items()
    assert "corrected_at" in (await house.rows.row(row) or {})
    assert set(house.rows.documents) == {row, f"{row}~"}


async def test_other_kinds_go_to_their_stores_with_their_place(house: House) -> None:
    ledger = await house.ledger()
    ledger.note(CHANGE)
    ledger.note(TRAFFIC)
    assert await ledger.flush(5)
    assert house.changes.records == {(ledger.process, 1): CHANGE}
    assert house.traffic.records == {(ledger.process, 2): TRAFFIC}


async def test_a_kind_without_a_store_is_refused_and_kept_aside_when_inherited(house: House) -> None:
    dead = await house.ledger()
    dead.note(TRAFFIC)
    die(dead)
    heir = await house.ledger(traffic=None)
    with pytest.raises(ValueError, match="Traffic"):
        heir.note(TRAFFIC)
    assert await heir._drainer.drain() == 1
    assert b'"Traffic"' in (house.directory / "damaged" / f"{dead.process}.log").read_bytes()
    assert any("no store" in each for each in house.told)


async def test_with_the_database_away_the_files_stay_for_the_next(house: House) -> None:
    ledger = await house.ledger()
    row = ledger.open(intent())
    ledger.close(outcome(row))
    house.away = True
    assert not await ledger.flush(5)
    assert ledger.state().waiting == 1
    assert not await ledger.leave()
    assert house.left() == [ledger.process]
    house.away = False
    heir = await house.ledger()
    await heir._drainer.drain()
    assert house.spent == 40
    assert house.left() == [heir.process]


async def test_a_long_outage_waits_on_disk_not_in_memory(house: House) -> None:
    ledger = await house.ledger(in_memory=10, segment=4000)
    house.away = True
    long = ledger.open(intent("long"))
    rows = []
    for number in range(1300):
        rows.append(ledger.open(intent(str(number))))
        ledger.close(outcome(rows[-1], number))
    assert len(ledger._pending) == 10
    assert not await ledger.flush(5)
    assert ledger.state().waiting == 1300
    house.away = False
    house.faults = [0, 2, 0, 0, 1, 0, 2]
    for number in range(1300, 1330):  # comes while the disk is being read
        if number % 10 == 0:
            await ledger.flush(5)
        rows.append(ledger.open(intent(str(number))))
        ledger.close(outcome(rows[-1], number))
    ledger.close(outcome(long, 0))
    assert await ledger.flush(20)
    assert ledger.state().waiting == 0
    assert ledger.state().oldest == 0
    assert {row_id: row["request_id"] for row_id, row in house.rows.documents.items()} == {
        **{row: str(number) for number, row in enumerate(rows)},
        long: "long",
    }
    assert house.spent == sum(range(1330))
    assert await ledger.leave()


async def test_who_leaves_with_a_full_disk_takes_no_end_along(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await house.ledger()
    rows = [ledger.open(intent()) for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(disk.Spool, "append", full)
        ledger.close(outcome(rows[0], 40))
        ledger.close(outcome(rows[1], 30))
        assert await ledger.leave()
    assert [house.rows.documents[row]["status"] for row in rows] == ["succeeded", "succeeded", "orphaned"]
    assert house.spent == 40 + 30 + 100
    assert ledger.state().orphans == 1
    assert house.left() == []


def full(*_: object) -> int:
    raise SpoolFailed("no space left")


async def test_what_costs_nothing_changes_no_budget(house: House) -> None:
    ledger = await house.ledger()
    row = ledger.open(intent())
    ledger.close(outcome(row, 0))
    assert await ledger.flush(5)
    assert house.rows.documents[row]["charges"] == [{"b": BUCKET, "n": 0}]
    assert "charge" not in house.calls


@pytest.mark.parametrize("end", [OSError(5, "Input/output error"), TimeoutError()])
async def test_a_reading_that_was_broken_off_leaves_nothing_out(
    house: House, monkeypatch: pytest.MonkeyPatch, end: OSError
) -> None:
    ledger = await house.ledger(in_memory=10)
    for _ in range(1200):
        ledger.close(outcome(ledger.open(intent()), 1))
    real, left = Reading.next, [True, False, True]

    async def broken(reading: Reading) -> list[Entry]:
        found = await real(reading)
        if left and left.pop(0):
            raise end
        return found

    monkeypatch.setattr(Reading, "next", broken)
    while left:
        await ledger.flush(5)
    assert await ledger.flush(5)
    assert len(house.rows.documents) == house.spent == 1200
    assert await ledger.leave()


async def test_an_end_that_the_disk_does_not_take_is_written_later(house: House) -> None:
    ledger = await house.ledger()
    row = ledger.open(intent())
    spool = ledger._spool
    assert spool is not None
    good, spool._fd = spool._fd, os.open(os.devnull, os.O_RDONLY)
    ledger.close(outcome(row, 40))
    ledger.close(outcome(row, 70))
    for _ in range(3):
        with pytest.raises(SpoolFailed):
            ledger.open(intent())
    assert ledger.state().failed
    assert (ledger.state().waiting, ledger.state().open) == (1, 0)
    os.close(spool._fd)
    spool._fd = good
    assert await ledger.flush(5)
    assert not ledger.state().failed
    assert house.spent == 40
    assert len(set(house.told)) == len(house.told)  # the same trouble is told once a minute


async def test_what_cannot_be_synced_is_not_shipped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await house.ledger()
    ledger.close(outcome(ledger.open(intent())))

    def broken(folder: Path, files: list[int]) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_files", broken)
        assert not await ledger.flush(5)
    assert house.calls == []
    assert ledger.state().failed
    assert await ledger.flush(5)
    assert house.spent == 40


async def test_a_spool_that_cannot_be_read_is_told_once_and_left_alone(house: House) -> None:
    foreign = await house.ledger()
    (house.directory / foreign.process / "lock").write_bytes(b"something else")
    die(foreign)
    dead = await house.ledger()
    dead.close(outcome(dead.open(intent())))
    die(dead)
    heir = await house.ledger()
    assert [await heir._drainer.drain() for _ in range(3)] == [1, 0, 0]
    assert len([each for each in house.told if foreign.process in each]) == 1
    assert foreign.process in house.left()


async def test_a_damaged_record_is_kept_aside_and_the_rest_is_shipped(house: House) -> None:
    dead = await house.ledger()
    first, second = dead.open(intent("first", 100)), dead.open(intent("second", 100))
    dead.close(outcome(first, 40))
    dead.close(outcome(second, 30))
    [(_, file)] = disk.segments(house.directory / dead.process)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b"first", b"f1rst")  # whose it was cannot be told any more
    lines[3] = lines[3].replace(b":30", b":31")  # nor how this one ended
    file.write_bytes(b"".join(lines) + b"torn")
    die(dead)
    heir = await house.ledger()
    assert await heir._drainer.drain() == 1
    assert house.spent == 40 + 100
    assert {row["request_id"]: row["status"] for row in house.rows.documents.values()} == {
        "unknown": "succeeded",
        "second": "orphaned",
    }
    assert len((house.directory / "damaged" / f"{dead.process}.log").read_bytes().splitlines()) == 2
    assert any("2 records of a spool are damaged" in each for each in house.told)


async def test_numbers_of_orphans_lie_behind_all_that_was_ever_shipped(house: House) -> None:
    """Even when the files with the newest numbers are gone and only an intent was carried over."""
    dead = await house.ledger(segment=2000)
    lost = dead.open(intent("lost", 100))
    while len(disk.segments(house.directory / dead.process)) < 2:
        dead.close(outcome(dead.open(intent()), 1))
    assert await dead.flush(5)
    spent = house.spent
    disk.trim(house.directory / dead.process, dead._shipped)
    [(first, file)] = disk.segments(house.directory / dead.process)
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])  # what follows the carried intent is lost
    die(dead)
    assert first > 2
    await (await house.ledger())._drainer.drain()
    assert (await house.rows.row(lost) or {})["seq"] >= first
    assert house.spent >= spent


async def test_running_ships_and_drains_by_itself(house: House) -> None:
    dead = await house.ledger()
    dead.open(intent("lost", 100))
    die(dead)
    ledger = await house.ledger()
    running = asyncio.create_task(ledger.run())
    ledger.close(outcome(ledger.open(intent()), 40))
    async with asyncio.timeout(20):
        while house.spent != 140:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert await ledger.leave()
    assert house.left() == []


async def test_rows_are_found_by_page(house: House) -> None:
    ledger = await house.ledger()
    for number in range(5):
        at = NOW + timedelta(minutes=number)
        ledger.close(outcome(ledger.open(intent(str(number), at=at, key_id=f"key_{number % 2}"))))
    assert await ledger.flush(5)
    first = await house.rows.rows(RowFilter(key_id="key_0"), 2)
    rest = await house.rows.rows(RowFilter(key_id="key_0"), 2, (first[-1]["at"], first[-1]["_id"]))
    assert [each["request_id"] for each in first + rest] == ["0", "2", "4"]
    between = RowFilter(since=NOW + timedelta(minutes=1), until=NOW + timedelta(minutes=3))
    assert [each["request_id"] for each in await house.rows.rows(between)] == ["1", "2"]


STEP = st.sampled_from(
    ["open", "close", "close", "correct", "ship", "ship", "drain", "drain", "die", "leave", "forget"]
)
FAULT = st.sampled_from([0, 0, 0, 1, 2, 3, 4])


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.tuples(STEP, st.integers(0, 7), st.lists(FAULT, max_size=5)), max_size=40))
def test_every_attempt_is_charged_once_whatever_fails(steps: list[tuple[str, int, list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_live(House(Path(directory)), steps))


async def _live(house: House, steps: list[tuple[str, int, list[int]]]) -> None:
    """Two processes at a time; who dies is followed by another."""
    options: dict[str, Any] = {"segment": 1500, "in_memory": 3}
    alive = [await house.ledger(**options), await house.ledger(**options)]
    running: list[dict[str, int]] = [{}, {}]
    expected: dict[str, int] = {}
    """By row: what its reports must say in the end."""
    closed: list[str] = []
    corrected: set[str] = set()

    async def reborn(who: int) -> None:
        expected.update(running[who])  # what nobody saw the end of counts as reserved
        alive[who], running[who] = await house.ledger(**options), {}

    for step, number, faults in steps:
        who, cost = number % 2, 10 + number
        ledger = alive[who]
        if step == "open":
            for turn in (0, 1, 0, 1):
                running[who][ledger.open(intent(cost=cost, bucket=BUCKETS[turn]))] = cost
        elif step == "close" and running[who]:
            row = sorted(running[who])[number % len(running[who])]
            del running[who][row]
            ledger.close(outcome(row, number))
            expected[row] = number
            closed.append(row)
        elif step == "correct" and closed:
            row = closed[number % len(closed)]
            if row in house.rows.documents and row not in corrected:
                corrected.add(row)
                expected[row] += -3
                for each in alive:  # two processes find the same; one of them counts
                    each.note(correction(row, -3))
        elif step == "forget":  # how far shipping was is a saving, nothing may depend on it
            for file in house.directory.glob("*/shipped"):
                file.unlink()
        else:
            house.faults = list(faults)
            try:
                if step == "ship":
                    await ledger.flush(5)
                elif step == "drain":
                    await ledger._drainer.drain()
                elif step == "leave":
                    await ledger.leave()
                    await reborn(who)
                elif step == "die":
                    raise Killed
            except StoreUnavailable:
                pass
            except Killed:
                if ledger._spool is not None:
                    die(ledger)
                await reborn(who)
            house.faults = []
    for who, ledger in enumerate(alive):
        die(ledger)
        expected.update(running[who])
    last = await house.ledger()
    await last._drainer.drain()
    assert await last.leave()
    assert house.left() == []
    sums = dict.fromkeys(expected, 0)
    for document in house.rows.documents.values():
        sums[document.get("corrects", document["_id"])] += document["billed_cost"]
    assert sums == expected
    assert sum(house.charger.spent.values()) == sum(expected.values())
    assert house.charger.applied == {}
    assert all("damaged" not in each for each in house.told)
