"""What only MongoDB's AccountStore has: races with raw writes, odd values, the cost of polling, jumping clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool.account import Account, LastError
from poe_gateway.pool.store import GLOBAL, Ask, Changes
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import Database
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import account, insert

ONE = "acct_00001"


class HeldClock(SystemClock):
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
async def store(db: Database) -> MongoAccounts:
    await insert(db, [account(number) for number in range(1, 51)])
    return MongoAccounts(db, SystemClock())


def failing(before: Account) -> Account:
    return replace(before, error_count=before.error_count + 1)


async def test_only_losers_are_tried_again(store: MongoAccounts, db: Database) -> None:
    """Another process writes between our reading and our writing, to every third account."""
    calls: dict[str, int] = {}

    async def interfere(account_id: str) -> None:
        await MongoAccounts(db, SystemClock()).change({account_id: failing})

    loop = asyncio.get_running_loop()
    rivals: list[asyncio.Task[None]] = []

    def step(account_id: str) -> Callable[[Account], Account]:
        def failing_after_interference(before: Account) -> Account:
            calls[account_id] = calls.get(account_id, 0) + 1
            return failing(before)

        return failing_after_interference

    keys = [f"acct_{number:05}" for number in range(1, 51)]
    read = store._read

    async def read_then_lose(wanted: list[str]) -> dict[str, Account]:
        found = await read(wanted)
        if not rivals:
            rivals.extend(loop.create_task(interfere(key)) for key in keys[::3])
            await asyncio.gather(*rivals)
        return found

    store._read = read_then_lose  # type: ignore[method-assign,assignment]
    stored = await store.change({key: step(key) for key in keys})
    assert {key: calls[key] for key in keys} == {key: 2 if key in keys[::3] else 1 for key in keys}
    assert {key: stored[key].error_count for key in keys} == calls
    assert {each.id: each for each in await MongoAccounts(db, SystemClock()).load()} == stored


async def test_an_account_deleted_in_between_stays_deleted(store: MongoAccounts, db: Database) -> None:
    read = store._read

    async def read_then_delete(wanted: list[str]) -> dict[str, Account]:
        found = await read(wanted)
        await MongoAccountAdmin(db).delete(ONE)
        return found

    store._read = read_then_delete  # type: ignore[method-assign,assignment]
    assert list(await store.change({ONE: failing, "acct_00002": failing})) == ["acct_00002"]
    row = await db.accounts.find_one({"_id": ONE})
    assert row is not None and row["deleted"]


async def test_steps_cannot_move_what_belongs_to_the_operator(store: MongoAccounts) -> None:
    stored = await store.change({ONE: lambda each: replace(failing(each), id="x", provider="y", credential_rev=9)})
    assert stored[ONE] == replace(account(1), error_count=1, rev=2)


async def test_changes_leave_the_grants_alone(store: MongoAccounts, db: Database) -> None:
    grants = MongoGrants(db)
    await grants.join("a", 60.0)
    await grants.take("a", [Ask(key=ONE, hold=2, cap=2), Ask(key=GLOBAL, hold=2, cap=2)])
    await grants.mark_wanted("b", [ONE], 1.0)
    fields = {"grants": 1, "wanted": 1}
    before = await db.accounts.find_one({"_id": ONE}, fields)
    await store.change({ONE: failing})
    await MongoAccountAdmin(db).upsert("mock", "user1@example.org", lambda each: each or account(1), b"s", "k")
    assert before is not None and before["grants"]
    assert await db.accounts.find_one({"_id": ONE}, fields) == before


async def test_odd_values_are_stored_in_a_readable_form(store: MongoAccounts) -> None:
    """An upstream's nonsense must not block the writing of everybody's news."""
    odd = LastError(
        kind="Transient", detail="half \ud83d a pair \x00 NUL", at=datetime(2026, 3, 1, 1, 2, 3, 456789, UTC)
    )
    details = {"huge": 10**30, "nul\x00key": {1: ("x", True)}, "": -(10**30)}
    stored = await store.change(
        {ONE: lambda each: replace(each, last_error=odd, details=details), "acct_00002": failing}
    )
    loaded = {each.id: each for each in await store.load()}
    assert loaded[ONE] == stored[ONE]
    assert loaded[ONE].last_error == replace(
        odd, detail="half ? a pair \x00 NUL", at=datetime(2026, 3, 1, 1, 2, 3, 456000, UTC)
    )
    assert loaded[ONE].details == {"huge": 2**63 - 1, "nulkey": {"1": ["x", True]}, "": -(2**63 - 1)}
    assert loaded["acct_00002"].error_count == 1


async def test_a_quiet_poll_reads_an_index_only(store: MongoAccounts, db: Database) -> None:
    await store.load()
    await store.changes()
    await db.command({"profile": 2})
    assert await store.changes() == Changes()
    await db.command({"profile": 0})
    [poll] = [each async for each in db["system.profile"].find({"command.find": "accounts"})]
    assert poll["docsExamined"] == 0 and "IXSCAN" in poll["planSummary"]


async def test_after_a_burst_polls_become_cheap_and_miss_nothing(db: Database) -> None:
    await insert(db, [account(number) for number in range(1, 101)])
    clock = HeldClock()
    store = MongoAccounts(db, clock)
    await store.load()

    async def keys_examined() -> int:
        await db.command({"profile": 2})
        await store.changes()
        await db.command({"profile": 0})
        [poll] = [each async for each in db["system.profile"].find({"command.find": "accounts"})]
        await db.drop_collection("system.profile")
        return int(poll["keysExamined"])

    assert await keys_examined() >= 100
    clock.time += 3.1
    assert await keys_examined() >= 100, "what was stamped before may have become visible only now"
    assert await keys_examined() <= 1
    await MongoAccounts(db, clock).change({ONE: failing})
    assert [each.id for each in (await store.changes()).stored] == [ONE]
    assert await keys_examined() >= 1


async def test_a_jump_of_the_databases_clock_hides_nothing_for_long(db: Database) -> None:
    await insert(db, [account(1), account(2), account(3)])
    clock = HeldClock()
    store = MongoAccounts(db, clock)
    await store.load()
    await db.accounts.update_one({"_id": ONE}, [{"$set": {"rev": 7, "changed_at": {"$subtract": ["$$NOW", 60_000]}}}])
    await db.accounts.delete_one({"_id": "acct_00002"})
    assert await store.changes() == Changes()
    clock.time += 121.0
    news = await store.changes()
    assert [(each.id, each.rev) for each in news.stored] == [(ONE, 7)]
    assert news.removed == ("acct_00002",)
    assert await store.changes() == Changes()


def build_for(provider: str, ids: Ids) -> Callable[[Account | None], Account]:
    return lambda before: before or account(1, id=ids.new("acct"), provider=provider, name="A@b.c")


async def test_names_are_unique_per_provider(db: Database) -> None:
    admin = MongoAccountAdmin(db)
    ids = Ids()
    for provider in ("mock", "poe_web"):
        for _ in range(2):
            await admin.upsert(provider, "A@b.c", build_for(provider, ids), b"s", "k")
    assert await db.accounts.count_documents({}) == 2
