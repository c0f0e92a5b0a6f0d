"""Processes whose calendars are wrong by an hour agree on when a rest ends: the database says when."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from poe_gateway.clock import Ids, ServerClock
from poe_gateway.pool.account import Cause, Health, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.lease import Want
from poe_gateway.pool.outcome import RateLimited, Succeeded
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import Database
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import account, insert
from tests.storage.torture_worker import SkewedClock

ONE = "acct_00001"
HOUR = 3600.0
REST = 2.0


class Process:
    """Broker and keeper on a wrong calendar, following the database."""

    def __init__(self, db: Database, skew: float) -> None:
        self.clock = ServerClock(SkewedClock(skew))
        self.accounts = MongoAccounts(db, self.clock)
        self.broker = Broker(
            store=self.accounts, policy=PoolPolicy(grant_lifetime=4.0, max_inflight=4), clock=self.clock
        )
        self.keeper = Keeper(broker=self.broker, store=MongoGrants(db), clock=self.clock, ids=Ids())

    async def run(self) -> None:
        self.broker.accept(await self.accounts.load())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.keeper.run())
            tasks.create_task(self.broker.journal.flush_forever())
            tasks.create_task(self.follow())

    async def follow(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.broker.accept((await self.accounts.changes()).stored)
            self.broker.tick()

    def want(self) -> Want:
        return Want(
            offers=frozenset({"mock"}),
            model="gpt",
            caller="k",
            evidence=f"req_{id(self)}",
            deadline=self.clock.monotonic() + 30,
        )

    @property
    def until(self) -> datetime | None:
        known = self.broker.account(ONE)
        return None if known is None else known.health.until


@pytest.fixture
async def trio(db: Database) -> AsyncIterator[list[Process]]:
    await insert(db, [account(1, health=Health(state=State.ACTIVE, cause=Cause.HEALTHY))])
    processes = [Process(db, skew) for skew in (HOUR, 0.0, -HOUR)]
    running = [asyncio.create_task(process.run()) for process in processes]
    yield processes
    for task in running:
        task.cancel()
    with contextlib.suppress(ExceptionGroup):
        await asyncio.gather(*running, return_exceptions=True)


async def database_time(db: Database) -> datetime:
    now: datetime = (await db.client.admin.command("hello"))["localTime"]
    return now


async def until(condition: object, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_nobody_uses_a_resting_account_early_and_one_tries_it(db: Database, trio: list[Process]) -> None:
    await until(lambda: all(len(process.keeper.membership.live) == 3 for process in trio))
    ahead = trio[0]
    resting = await ahead.broker.lease(ahead.want())
    before = await database_time(db)
    error = 0.001 + (ahead.clock.error or 0.0)  # of this moment: the clock may learn better at any time
    ahead.broker.settle(resting, RateLimited(retry_after=REST))
    after = await database_time(db)
    await until(lambda: all(process.until is not None for process in trio))
    ends = {process.until for process in trio}
    assert len(ends) == 1, "all know the same moment"
    [end] = ends
    assert end is not None
    assert before.timestamp() + REST - error <= end.timestamp() <= after.timestamp() + REST + error

    begun: list[datetime] = []
    inside = most = 0
    worst = max(process.clock.error or 0.0 for process in trio)

    async def caller(process: Process) -> None:
        nonlocal inside, most, worst
        lease = await process.broker.lease(process.want())
        worst = max(worst, process.clock.error or 0.0)
        begun.append(await database_time(db))
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.05)
        inside -= 1
        if len(begun) >= 3:
            process.broker.settle(lease, Succeeded())
        else:
            process.broker.give_up(lease)

    await asyncio.gather(*(caller(process) for process in trio))
    assert min(begun).timestamp() >= end.timestamp() - worst - 0.001
    assert most == 1, "while it is not known to be well"


async def test_skew_is_told(trio: list[Process]) -> None:
    await until(lambda: all(process.keeper.joined.is_set() for process in trio))
    for process, skew in zip(trio, (HOUR, 0.0, -HOUR), strict=True):
        assert abs(process.clock.skew - skew) <= (process.clock.error or 0.0) + 0.05
        assert process.clock.monotonic() <= time.monotonic()
