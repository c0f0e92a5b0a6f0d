"""The doorbells: both ring for what matters to others, and for nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from poe_gateway.clock import SystemClock
from poe_gateway.pool.memory import MemoryAccounts, MemoryDoorbell, MemoryGrants, MemoryHub
from poe_gateway.pool.store import GLOBAL, Ask
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import Client, Database, connect
from poe_gateway.storage.doorbell import Doorbell
from poe_gateway.storage.grants import MongoGrants
from poe_gateway.storage.keys import MongoKeys
from tests.storage.making import NOON, account, insert
from tests.storage.test_key_store import key

ONE = "acct_00001"


@pytest.fixture
async def bell(db: Database) -> AsyncIterator[Doorbell]:
    await insert(db, [account(1), account(2)])
    grants = MongoGrants(db)
    await grants.join("a", 60.0)
    await grants.take("a", [Ask(key=ONE, hold=2, cap=2), Ask(key=GLOBAL, hold=2, cap=2)])
    bell = Doorbell(db)
    assert await bell.wait(60.0), "it rings once when the stream is open"
    assert bell.open
    while await bell.wait(0.3):
        pass
    yield bell
    await bell.close()


async def test_it_rings_for_changes_of_accounts(bell: Doorbell, db: Database) -> None:
    await MongoAccounts(db, SystemClock()).change({ONE: lambda each: replace(each, error_count=1)})
    assert await bell.wait(60.0)
    await insert(db, [account(3)])
    assert await bell.wait(60.0)
    await bell.wait(0.3)
    await MongoAccountAdmin(db).delete("acct_00003")
    assert await bell.wait(60.0)


async def test_it_rings_for_keys(bell: Doorbell, db: Database) -> None:
    keys = MongoKeys(db, SystemClock())
    await keys.add(key(1))
    assert await bell.wait(60.0)
    await bell.wait(0.2)
    await keys.revoke("key_1", NOON)
    assert await bell.wait(60.0)


@pytest.mark.parametrize("wanted", [ONE, GLOBAL])
async def test_it_rings_for_wishes_and_for_what_comes_free(bell: Doorbell, db: Database, wanted: str) -> None:
    grants = MongoGrants(db)
    for pressure in (1.0, 2.0):  # a new mark, and one beside it
        await grants.mark_wanted(f"b{pressure}", [wanted], pressure)
        assert await bell.wait(60.0)
        await bell.wait(0.2)
    await grants.give_back("a", {wanted: 1})
    assert await bell.wait(60.0)


async def test_it_is_silent_about_grants_and_other_collections(bell: Doorbell, db: Database) -> None:
    grants = MongoGrants(db)
    await grants.take("a", [Ask(key="acct_00002", hold=2, cap=2)])
    await grants.give_back("a", {"acct_00002": 1, GLOBAL: 1})
    await grants.renew("a", 60.0)
    await db.sessions.insert_one({"_id": "s"})
    assert not await bell.wait(1.0)


async def test_a_ring_between_two_waits_is_not_lost(bell: Doorbell, db: Database) -> None:
    await insert(db, [account(3)])
    async with asyncio.timeout(60):
        while not await bell.wait(0.0):
            await asyncio.sleep(0.05)
    assert not await bell.wait(0.0)


async def test_it_is_fast(bell: Doorbell, db: Database) -> None:
    """The best of some, lest it be the machine that is slow."""
    lags = []
    for number in range(5):
        waiting = asyncio.create_task(bell.wait(60.0))
        await asyncio.sleep(0.05)
        since = time.monotonic()
        await MongoGrants(db).mark_wanted(f"b{number}", [ONE], 1.0)
        assert await waiting
        lags.append(time.monotonic() - since)
    assert min(lags) < 1.0, lags


async def test_it_opens_again_after_its_cursor_was_killed(bell: Doorbell, db: Database, client: Client) -> None:
    found = await client.admin.aggregate(
        [{"$currentOp": {"idleCursors": True}}, {"$match": {"ns": {"$regex": f"^{db.name}"}, "cursor": {"$exists": 1}}}]
    )
    cursors = [(each["ns"], each["cursor"]["cursorId"]) async for each in found]
    assert cursors
    for ns, cursor in cursors:
        await db.command({"killCursors": ns.partition(".")[2], "cursors": [cursor]})
    await asyncio.sleep(0.5)
    await bell.wait(3.0)
    async with asyncio.timeout(60):
        while not bell.open:
            await asyncio.sleep(0.05)
    await bell.wait(0.3)
    await insert(db, [account(9)])
    assert await bell.wait(60.0)


async def test_it_always_closes(db: Database) -> None:
    for number in range(10):
        bell = Doorbell(db)
        await bell.wait(0.003 * number)
        since = time.monotonic()
        await bell.close()
        assert time.monotonic() - since < 1.5


async def test_on_a_standalone_it_only_waits(standalone_db: Database) -> None:
    bell = Doorbell(standalone_db)
    assert not await bell.wait(0.5)
    assert not bell.open
    await insert(standalone_db, [account(1)])
    assert not await bell.wait(0.3)
    await bell.close()


async def test_without_a_database_it_only_waits() -> None:
    async with connect("mongodb://127.0.0.1:9/?directConnection=true") as client:
        bell = Doorbell(client["nowhere"])
        assert not await bell.wait(0.3)
        await bell.close()
        assert not bell.open


async def test_the_memory_twin_rings_alike() -> None:
    hub = MemoryHub(SystemClock())
    hub.put(account(1))
    bell, other = MemoryDoorbell(hub), MemoryDoorbell(hub)
    grants = MemoryGrants(hub)
    await grants.join("a", 60.0)
    await grants.take("a", [Ask(key=ONE, hold=2, cap=2)])
    await grants.give_back("a", {ONE: 1})
    assert not await bell.wait(0.01)
    await MemoryAccounts(hub).change({ONE: lambda each: replace(each, error_count=1)})
    assert await bell.wait(0.01) and await other.wait(0.01)
    await grants.mark_wanted("b", [ONE], 1.0)
    assert await bell.wait(0.01)
    await grants.give_back("a", {ONE: 0})
    assert await bell.wait(0.01) and not await bell.wait(0.01)
    hub.delete(ONE)
    assert await bell.wait(0.01)
