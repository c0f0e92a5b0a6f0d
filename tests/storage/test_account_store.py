"""One suite for both AccountStores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from poe_gateway.clock import SystemClock
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Balance, Cause, Health, LastError, ModelBlock, State
from poe_gateway.pool.memory import MemoryAccounts, MemoryHub
from poe_gateway.pool.store import AccountStore
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from tests.storage.making import NOON, account, insert


class World(msgspec.Struct):
    """A database and the ways into it."""

    store: Callable[[], AccountStore]
    """The store of one more process."""
    insert: Callable[[Iterable[Account]], Awaitable[None]]
    delete: Callable[[str], Awaitable[object]]


@pytest.fixture(params=["memory", "mongo", "mongo-standalone"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        hub = MemoryHub(SystemClock())

        async def put(accounts: Iterable[Account]) -> None:
            for each in accounts:
                hub.put(each)

        async def delete(account_id: str) -> None:
            hub.delete(account_id)

        return World(store=lambda: MemoryAccounts(hub), insert=put, delete=delete)
    db = request.getfixturevalue("db" if request.param == "mongo" else "standalone_db")
    return World(
        store=lambda: MongoAccounts(db, SystemClock()),
        insert=lambda accounts: insert(db, accounts),
        delete=MongoAccountAdmin(db).delete,
    )


def spent(points: int) -> Callable[[Account], Account]:
    def step(before: Account) -> Account:
        left = (before.balance.points or 0) - points
        return replace(before, balance=replace(before.balance, points=left))

    return step


async def test_what_came_and_went_between_two_looks_is_told_as_removed(world: World) -> None:
    """A process may know an account from an upsert or a look of its own before it follows it."""
    store = world.store()
    await store.load()
    await world.insert([account(1)])
    await world.delete("acct_00001")
    assert "acct_00001" in (await store.changes()).removed


async def test_load_gives_back_what_was_stored(world: World) -> None:
    rich = account(
        1,
        health=Health(state=State.COOLDOWN, cause=Cause.ERRORS, since=NOON, until=NOON + timedelta(minutes=2)),
        model_blocks=(ModelBlock(model="m", cause=Cause.RATE_LIMITED, until=NOON),),
        balance=Balance(points=2**40, measured_at=NOON, subscription_active=True, next_grant_at=NOON),
        last_error=LastError(kind="Transient", detail="$set: {'a.b': '$x'} ✗", at=NOON),
        details={"host": "example.org", "$odd": {"a.b": [1, None, 2.5]}},
        max_inflight=3,
        metered=True,
        reset_day="2026-03-01",
    )
    await world.insert([rich, account(2)])
    loaded = {each.id: each for each in await world.store().load()}
    assert loaded == {"acct_00001": replace(rich, rev=1), "acct_00002": replace(account(2), rev=1)}


async def test_change_applies_steps_and_counts_revisions(world: World) -> None:
    await world.insert([account(1), account(2)])
    store = world.store()
    stored = await store.change({"acct_00001": spent(10), "acct_00002": spent(20)})
    assert {key: (each.balance.points, each.rev) for key, each in stored.items()} == {
        "acct_00001": (990, 2),
        "acct_00002": (980, 2),
    }
    assert {each.id: each for each in await store.load()} == stored


async def test_change_passes_over_accounts_that_are_gone(world: World) -> None:
    await world.insert([account(1), account(2)])
    await world.delete("acct_00001")
    stored = await world.store().change({key: spent(1) for key in ("acct_00001", "acct_00002", "acct_nobody")})
    assert list(stored) == ["acct_00002"]
    assert [each.id for each in await world.store().load()] == ["acct_00002"]
    assert await world.store().change({}) == {}


async def test_a_step_that_changes_nothing_is_no_change(world: World) -> None:
    await world.insert([account(1)])
    store = world.store()
    await store.load()
    stored = await store.change({"acct_00001": lambda same: same})
    assert stored["acct_00001"].rev == 1
    assert (await world.store().load())[0].rev == 1


async def test_concurrent_changes_are_all_applied_once(world: World) -> None:
    accounts = [account(number) for number in range(1, 6)]
    await world.insert(accounts)

    async def process() -> None:
        store = world.store()
        for _ in range(10):
            await store.change({each.id: spent(1) for each in accounts})

    await asyncio.gather(*(process() for _ in range(6)))
    assert {(each.balance.points, each.rev) for each in await world.store().load()} == {(1000 - 60, 61)}


async def test_changes_tell_what_others_did(world: World) -> None:
    await world.insert([account(1), account(2)])
    here, there = world.store(), world.store()
    await here.load()
    await there.load()
    assert not (await here.changes()).removed
    changed = await there.change({"acct_00001": spent(1)})
    await world.insert([account(3)])
    await world.delete("acct_00002")
    news = await here.changes()
    assert {each.id: each.rev for each in news.stored} == {"acct_00001": 2, "acct_00003": 1}
    assert changed["acct_00001"] in news.stored
    assert news.removed == ("acct_00002",)
    quiet = await here.changes()
    assert quiet.removed == () and quiet.stored == ()


async def test_changes_without_load_tell_everything(world: World) -> None:
    await world.insert([account(1), account(2)])
    assert {each.id for each in (await world.store().changes()).stored} == {"acct_00001", "acct_00002"}


async def test_what_one_process_decides_another_sees(world: World) -> None:
    await world.insert([account(1)])
    here, there = world.store(), world.store()
    await there.load()
    await here.change({"acct_00001": transitions.paused})
    [seen] = (await there.changes()).stored
    assert transitions.why_not(seen, NOON) == "paused"
