"""The metronome and the turns of duties, in real time with short intervals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from poe_gateway.accounts.books import AccountBooks
from poe_gateway.clock import SystemClock
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.memory import MemoryCharger, MemoryRows
from poe_gateway.pool.memory import MemoryHub
from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.renewal import next_reset
from poe_gateway.scheduler.duties import Turn, prewarm, snapshot
from poe_gateway.scheduler.leadership import Leadership
from poe_gateway.scheduler.memory import MemoryDuties, MemoryLeases
from poe_gateway.scheduler.runner import Scheduler, trigger_of
from poe_gateway.scheduler.timetable import Duty, Place, Schedule, timetable
from poe_gateway.telemetry.events import DutyFinished, LedgerSnapshot, PoolSnapshot
from poe_gateway.telemetry.hub import Recorder, Telemetry
from tests.accounts.support import House


class Stage:
    """Processes that share leases."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.hub = MemoryHub(self.clock)
        self.leases = MemoryLeases(self.hub)
        self.told = Recorder()

    def leadership(self, owner: str, lifetime: float = 0.5) -> Leadership:
        return Leadership(lease=self.leases, owner=owner, clock=self.clock, lifetime=lifetime)

    @asynccontextmanager
    async def running(self, *duties: Duty, owner: str = "p1") -> AsyncIterator[Scheduler]:
        scheduler = Scheduler(
            timetable=duties, leadership=self.leadership(owner), telemetry=Telemetry(self.told), clock=self.clock
        )
        task = asyncio.create_task(scheduler.run())
        try:
            yield scheduler
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def outcomes(self, name: str) -> list[tuple[bool, str]]:
        return [(record.ok, record.detail) for record in self.told.of(DutyFinished) if record.name == name]


async def eventually(condition: object, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


class Work:
    """A duty's work that counts."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.started = self.ended = self.at_once = self.peak = 0

    async def __call__(self, turn: Turn) -> str:
        self.started += 1
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
        finally:
            self.at_once -= 1
        self.ended += 1
        return f"turn {self.ended}"


def duty(work: Work, place: Place = Place.EVERYWHERE, **fields: object) -> Duty:
    return Duty(**{"name": "work", "act": work, "place": place, "every": 1.0, "at_once": True, **fields})  # type: ignore[arg-type]


async def test_a_failing_duty_is_told_by_kind_only_and_goes_on_while_others_do() -> None:
    stage, good, bad = Stage(), Work(), Work(error=ValueError("secret-text"))
    async with stage.running(duty(good), duty(bad, name="bad")):
        await eventually(lambda: bad.started >= 2 and good.ended >= 2)
    assert stage.outcomes("bad")[:2] == [(False, "ValueError")] * 2
    assert stage.outcomes("work")[0] == (True, "turn 1")


async def test_groups_of_errors_are_told_by_their_members() -> None:
    stage, bad = Stage(), Work(error=ExceptionGroup("g", [KeyError("x"), ValueError("y")]))
    async with stage.running(duty(bad)):
        await eventually(lambda: stage.told.records)
    assert stage.outcomes("work")[0] == (False, "KeyError, ValueError")


async def test_a_duty_never_overlaps_itself_and_is_broken_off_in_the_end() -> None:
    stage, slow, endless = Stage(), Work(seconds=1.5), Work(seconds=60)
    async with stage.running(duty(slow), duty(endless, name="endless", limit=0.1)):
        await eventually(lambda: slow.started >= 2)
        assert slow.peak == 1
    assert stage.outcomes("endless")[0] == (False, "took longer than 0.1 seconds")
    assert stage.outcomes("work")[-1] == (False, "broken off")


async def test_a_leaders_duty_runs_in_one_process_and_moves_when_it_goes() -> None:
    stage, first, second, everywhere = Stage(), Work(), Work(), Work()
    async with stage.running(duty(second, Place.LEADER), duty(everywhere, name="all"), owner="p2") as other:
        await eventually(lambda: second.started)
        async with stage.running(duty(first, Place.LEADER), duty(everywhere, name="all"), owner="p1"):
            await eventually(lambda: everywhere.started >= 3)
            assert not first.started
            other._leadership._lease = MemoryLeases(MemoryHub(stage.clock))  # p2 is cut off
            other._leadership._lifetime = 0.0
            await eventually(lambda: first.started)


async def test_losing_leadership_breaks_off_the_leaders_duty_only() -> None:
    stage, led, free = Stage(), Work(seconds=60), Work(seconds=60)
    async with stage.running(duty(led, Place.LEADER, name="led"), duty(free, name="free")):
        await eventually(lambda: led.started and free.started)
        stage.hub.away = True
        await eventually(lambda: stage.outcomes("led"))
        assert stage.outcomes("led") == [(False, "broken off")] and not stage.outcomes("free")


async def test_what_runs_once_runs_once_and_does_not_hold_up_the_start() -> None:
    stage, once, work = Stage(), Work(seconds=60), Work()
    async with stage.running(duty(once, name="once", every=None, at_once=False), duty(work)):
        await eventually(lambda: once.started == 1 and work.ended >= 2)
    assert once.started == 1


def test_fixed_moments_come_beside_the_interval() -> None:
    reset = DailyReset()
    start = datetime(2026, 3, 8, 7, 58, 30, tzinfo=UTC)  # 23:58:30 before the night of the change
    row = duty(Work(), every=60.0, also_at=lambda now: next_reset(now, reset))
    trigger = trigger_of(row, start)
    beats: list[datetime] = []
    previous, now = None, start
    while len(beats) < 4:
        previous = trigger.get_next_fire_time(previous, now)
        beats.append(previous)
        now = previous + timedelta(microseconds=1)
    assert datetime(2026, 3, 8, 8, 0, tzinfo=UTC) in beats
    assert beats == sorted(set(beats))


class NothingSealed:
    """A cold collection in perfect order."""

    async def sealed_otherwise(
        self, kid: str, limit: int = 100, after: tuple[str, int] | None = None
    ) -> list[tuple[str, int, bytes]]:
        return []

    async def reseal(self, account_id: str, credential_rev: int, old: bytes, new: bytes, kid: str) -> bool:
        return False

    async def purge(self) -> int:
        return 0


async def test_the_timetable_is_whole() -> None:
    house, told = House(), Recorder()
    rows = timetable(
        Schedule(),
        care=house.care,
        broker=house.broker,
        store=house.store,
        records=MemoryDuties(house.hub),
        sealed=NothingSealed(),
        vault=house.vault,
        telemetry=Telemetry(told),
    )
    assert {row.name: row.place.value for row in rows} == {
        "daily-reset": "leader",
        "refresh-points": "leader",
        "refresh-catalogues": "leader",
        "seal-anew": "leader",
        "purge-credentials": "leader",
        "revalidate": "leader",
        "sync-catalogues": "everywhere",
        "pool-snapshot": "everywhere",
        "prewarm": "everywhere",
    }
    house.broker.regrant({(await house.add("one", points=70)).id: 1})
    for row in rows:
        await row.act(Turn(now=house.clock.now()))
    assert told.of(PoolSnapshot)[0].accounts == {"mock": {"active": 1}}
    off = timetable(
        Schedule(revalidate_interval=0, prewarm_on_startup=False),
        care=house.care,
        broker=house.broker,
        store=house.store,
        records=MemoryDuties(house.hub),
        sealed=NothingSealed(),
        vault=house.vault,
        telemetry=Telemetry(told),
    )
    assert {row.name for row in rows} - {row.name for row in off} == {"revalidate", "prewarm"}


async def test_the_ledger_has_its_duties(tmp_path: Path) -> None:
    house, told, stores = House(), Recorder(), (MemoryRows(), MemoryCharger())
    ledger = Ledger(tmp_path, *stores, house.clock, house.ids)
    await ledger.start()
    books = AccountBooks(
        visitor=house.visitor, broker=house.broker, rows=stores[0], note=ledger.note, clock=house.clock
    )
    rows = timetable(
        Schedule(),
        care=house.care,
        broker=house.broker,
        store=house.store,
        records=MemoryDuties(house.hub),
        sealed=NothingSealed(),
        vault=house.vault,
        telemetry=Telemetry(told),
        books=books,
        ledger=ledger,
    )
    added = {row.name: row for row in rows if row.name in ("books", "ledger-snapshot")}
    assert {name: row.place.value for name, row in added.items()} == {
        "books": "leader",
        "ledger-snapshot": "everywhere",
    }
    for row in added.values():
        assert await row.act(Turn(now=house.clock.now())) == ""
    assert told.of(LedgerSnapshot) == [LedgerSnapshot(waiting=0)]
    await ledger.leave()


async def test_prewarm_waits_for_the_first_slots() -> None:
    house = House()
    account = await house.add("one")
    arguments = {"care": house.care, "broker": house.broker, "concurrency": 2, "seconds": 1.0}
    assert "no accounts" in await prewarm(Turn(now=house.clock.now()), **arguments, patience=0.05)
    waiting = asyncio.create_task(prewarm(Turn(now=house.clock.now()), **arguments))
    await asyncio.sleep(0.02)
    house.broker.regrant({account.id: 2})
    assert await waiting == "1 of 1, 0 skipped, 0 failed"
    assert house.calls(account.id, "prewarm") == 1


async def test_the_snapshot_tells_the_pool() -> None:
    house, told = House(), Recorder()
    account = await house.add("one", points=70)
    await house.care.refresh(account.id)
    await snapshot(Turn(now=house.clock.now()), broker=house.broker, telemetry=Telemetry(told))
    [record] = told.of(PoolSnapshot)
    assert record.points == {"mock": 70} and record.inflight == record.waiting == 0
