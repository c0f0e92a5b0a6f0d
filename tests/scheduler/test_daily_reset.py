"""The daily reset in virtual time: once per local day, at the right instant, with the right balances."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from poe_gateway.pool.account import Account, Balance, Cause, Health, Intent, State
from poe_gateway.pool.memory import MemoryHub
from poe_gateway.pool.policy import DailyReset, PoolPolicy
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.scheduler.duties import DAILY_RESET, Turn, daily_reset
from poe_gateway.scheduler.memory import MemoryDuties
from tests.accounts.support import HandClock, House

NOON = datetime(2026, 5, 20, 19, tzinfo=UTC)  # noon in Los Angeles


def account(name: str, points: int | None = 100, **fields: object) -> Account:
    fields = {"health": Health(state=State.ACTIVE, cause=Cause.HEALTHY), **fields}
    return Account(
        id=name,
        provider="mock",
        name=name,
        offer="mock",
        metered=True,
        renews_daily=True,
        balance=Balance(points=points, estimated=False),
        **fields,  # type: ignore[arg-type]
    )


class Process:
    """One process with the duty; several may share hub and records."""

    def __init__(self, hub: MemoryHub, records: MemoryDuties, policy: PoolPolicy, clock: HandClock) -> None:
        self.house = House(hub=hub, policy=policy, clock=clock)
        self.records = records

    async def start(self) -> None:
        self.house.broker.accept(await self.house.store.load())

    async def follow(self) -> None:
        self.house.broker.accept((await self.house.store.changes()).stored)

    async def run(self, *, holds: bool = True, token: int = 0) -> str:
        turn = Turn(now=self.house.clock.now(), holds=lambda: holds, token=token)
        return await daily_reset(turn, broker=self.house.broker, store=self.house.store, records=self.records)


async def pool(*accounts: Account, now: datetime = NOON, reset: DailyReset | None = None) -> tuple[Process, MemoryHub]:
    clock = HandClock(now)
    hub = MemoryHub(clock)
    for each in accounts:
        hub.put(each)
    process = Process(hub, MemoryDuties(hub), PoolPolicy(reset=reset or DailyReset()), clock)
    await process.start()
    await process.run()  # today's reset is in what the accounts have
    return process, hub


def expected(zone: str, hour: int, start: datetime, end: datetime) -> dict[str, datetime]:
    """Oracle: for each local day the first minute whose wall clock stands at ``hour`` or later on that day."""
    found: dict[str, datetime] = {}
    now = start
    while now < end:
        wall = now.astimezone(ZoneInfo(zone))
        if wall.hour >= hour:
            found.setdefault(wall.date().isoformat(), now)
        now += timedelta(minutes=1)
    return found


@pytest.mark.parametrize(
    ("zone", "hour", "change"),
    [
        ("America/Los_Angeles", 0, date(2026, 3, 8)),
        ("America/Los_Angeles", 0, date(2026, 11, 1)),
        ("America/Los_Angeles", 2, date(2026, 3, 8)),  # 02:00 does not come
        ("America/Los_Angeles", 1, date(2026, 11, 1)),  # 01:00 comes twice
        ("Australia/Lord_Howe", 2, date(2026, 10, 4)),  # half an hour is skipped: 02:00 does not come
        ("Australia/Lord_Howe", 1, date(2026, 4, 5)),  # 01:30 to 02:00 come twice
        ("America/Santiago", 0, date(2026, 9, 6)),  # the day begins at 01:00
        ("America/Santiago", 23, date(2026, 4, 4)),  # 23:00 comes twice
        ("Pacific/Auckland", 2, date(2026, 9, 27)),
        ("UTC", 23, date(2026, 12, 31)),
    ],
)
async def test_once_per_local_day_over_changes_of_the_clock(zone: str, hour: int, change: date) -> None:
    reset = DailyReset(zone=zone, hour=hour, points=3000)
    middle = datetime(change.year, change.month, change.day, 12, tzinfo=UTC)
    start, end = middle - timedelta(days=2), middle + timedelta(days=2)
    process, hub = await pool(account("a"), now=start, reset=reset)
    first_day = hub.accounts["a"].reset_day
    assert first_day is not None
    granted: dict[str, datetime] = {}
    now = start
    while now < end:
        await process.run()
        stored = hub.accounts["a"]
        if stored.balance.points == 3000:
            day = stored.reset_day
            assert day is not None and day not in granted, "a second grant on one local day"
            assert stored.balance.estimated
            granted[day] = now
            # All of it is spent at once: a second grant would show.
            process.house.edit("a", lambda a: replace(a, balance=Balance(points=7, estimated=False)))
        process.house.clock.pass_(minutes=1)
        now += timedelta(minutes=1)
    due = {day: at for day, at in expected(zone, hour, start, end).items() if day > first_day}
    assert granted == due
    assert 3 <= len(granted) <= 4


async def test_states_and_balances_after_the_reset() -> None:
    later = NOON + timedelta(hours=30)
    rich = account("rich", 5200)
    depleted = account("depleted", 3, health=Health(state=State.DEPLETED, cause=Cause.POINTS_GONE, until=later))
    resting = account("resting", 900, health=Health(state=State.COOLDOWN, cause=Cause.ERRORS, until=later))
    failing = account("failing", 900, error_count=2)
    invalid = account("invalid", 3, health=Health(state=State.INVALID, cause=Cause.UNAUTHORIZED))
    challenged = account("challenged", 3, health=Health(state=State.INVALID, cause=Cause.CHALLENGED))
    paused = account("paused", 3, intent=Intent.PAUSED)
    subscribed = replace(
        account("subscribed", 40),
        balance=Balance(points=40, estimated=False, subscription_active=True, next_grant_at=NOON + timedelta(days=9)),
    )
    other = replace(account("other", 3), renews_daily=False)
    everyone = (rich, depleted, resting, failing, invalid, challenged, paused, subscribed, other)
    process, hub = await pool(*everyone)
    before = dict(hub.accounts)
    process.house.clock.pass_(hours=13)
    assert "accounts" in await process.run()
    after = hub.accounts
    assert after["rich"].balance == before["rich"].balance, "a measured balance is never lowered"
    for name in ("depleted", "resting", "failing", "paused"):
        assert after[name].balance.points == 3000 and after[name].balance.estimated
        assert after[name].health.state is State.ACTIVE and after[name].error_count == 0
    assert after["paused"].intent is Intent.PAUSED
    assert after["invalid"] == before["invalid"] and after["challenged"] == before["challenged"]
    assert after["subscribed"].balance == before["subscribed"].balance
    assert after["other"] == before["other"]
    assert process.house.broker.account("depleted") == after["depleted"]


async def test_several_days_of_downtime_are_one_catching_up() -> None:
    process, hub = await pool(account("a", 10))
    records = process.records
    later = HandClock(NOON + timedelta(days=5))
    hub.clock = later
    restarted = Process(hub, records, PoolPolicy(), later)
    await restarted.start()
    rev = hub.accounts["a"].rev
    for _ in range(10):
        await restarted.run()
        later.pass_(minutes=1)
    stored = hub.accounts["a"]
    assert stored.balance.points == 3000 and stored.reset_day == "2026-05-25" and stored.rev == rev + 1


async def test_what_was_spent_after_the_reset_is_not_given_back() -> None:
    process, hub = await pool(account("a", 10))
    process.house.clock.pass_(hours=13)
    await process.run()
    process.house.edit("a", lambda a: replace(a, balance=replace(a.balance, points=1200)))
    process.records.records.clear()  # even if the record were lost
    for _ in range(3):
        process.house.clock.pass_(hours=1)
        await process.run()
    assert hub.accounts["a"].balance.points == 1200


async def test_two_processes_at_once_grant_once() -> None:
    clock = HandClock(NOON)
    hub = MemoryHub(clock)
    for n in range(1200):
        hub.put(account(f"a{n}", 10))
    records = MemoryDuties(hub)
    processes = [Process(hub, records, PoolPolicy(), clock) for _ in range(2)]
    for process in processes:
        await process.start()
        await process.run()
    clock.pass_(hours=13)
    revs = {key: stored.rev for key, stored in hub.accounts.items()}
    await asyncio.gather(*(process.run(token=n + 1) for n, process in enumerate(processes)))
    assert all(stored.rev == revs[key] + 1 for key, stored in hub.accounts.items())
    assert all(stored.balance.points == 3000 for stored in hub.accounts.values())
    assert records.records[DAILY_RESET]["token"] == 2


async def test_news_of_another_process_at_midnight_survives() -> None:
    process, hub = await pool(account("a", 10))
    other = Process(hub, process.records, PoolPolicy(), process.house.clock)
    await other.start()
    process.house.clock.pass_(hours=13)
    other.house.edit("a", lambda a: replace(a, max_inflight=9))
    await process.run()
    await other.follow()
    assert hub.accounts["a"].max_inflight == 9 and hub.accounts["a"].balance.points == 3000
    assert other.house.broker.account("a") == hub.accounts["a"]


async def test_a_leader_that_lost_its_place_stops_and_leaves_the_rest() -> None:
    process, hub = await pool(account("a", 10))
    process.house.clock.pass_(hours=13)
    assert "another" in await process.run(holds=False)
    assert hub.accounts["a"].balance.points == 10
    await process.run()
    assert hub.accounts["a"].balance.points == 3000


async def test_nothing_is_recorded_while_the_store_is_away() -> None:
    process, hub = await pool(account("a", 10))
    process.house.clock.pass_(hours=13)
    hub.away = True
    with pytest.raises(StoreUnavailable):
        await process.run()
    hub.away = False
    process.house.clock.pass_(minutes=1)
    await process.run()
    assert hub.accounts["a"].balance.points == 3000


async def test_a_done_day_costs_one_look() -> None:
    process, hub = await pool(*(account(f"a{n}") for n in range(10)))
    calls = 0
    real = hub.call

    async def counted() -> None:
        nonlocal calls
        calls += 1
        await real()

    hub.call = counted  # type: ignore[method-assign]
    assert await process.run() == ""
    assert calls == 1
