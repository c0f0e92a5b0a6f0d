"""One suite for both GrantStores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from poe_gateway.clock import SystemClock
from poe_gateway.pool.account import Account, Health, Intent, State
from poe_gateway.pool.memory import MemoryAccounts, MemoryGrants, MemoryHub
from poe_gateway.pool.store import GLOBAL, AccountStore, Ask, GrantStore, LeaseLost
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import account, insert

ONE, TWO = "acct_00001", "acct_00002"
LONG = 60.0


class World(msgspec.Struct):
    """A database and the ways into it; ``world`` holds two healthy accounts."""

    store: Callable[[], GrantStore]
    insert: Callable[[Iterable[Account]], Awaitable[None]]
    delete: Callable[[str], Awaitable[object]]
    accounts: AccountStore

    async def change(self, key: str, step: Callable[[Account], Account]) -> None:
        await self.accounts.change({key: step})


@pytest.fixture(params=["memory", "mongo", "mongo-standalone"])
def empty_world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        hub = MemoryHub(SystemClock())

        async def put(accounts: Iterable[Account]) -> None:
            for each in accounts:
                hub.put(each)

        async def delete(account_id: str) -> None:
            hub.delete(account_id)

        return World(store=lambda: MemoryGrants(hub), insert=put, delete=delete, accounts=MemoryAccounts(hub))
    db = request.getfixturevalue("db" if request.param == "mongo" else "standalone_db")
    return World(
        store=lambda: MongoGrants(db),
        insert=lambda accounts: insert(db, accounts),
        delete=MongoAccountAdmin(db).delete,
        accounts=MongoAccounts(db, SystemClock()),
    )


@pytest.fixture
async def world(empty_world: World) -> World:
    await empty_world.insert([account(1), account(2)])
    return empty_world


def ask(key: str, hold: int, cap: int = 3) -> Ask:
    return Ask(key=key, hold=hold, cap=cap)


async def joined(world: World, *instances: str, lifetime: float = LONG) -> GrantStore:
    store = world.store()
    for instance in instances:
        await store.join(instance, lifetime)
    return store


async def test_membership_is_sorted_and_on_the_databases_clock(world: World) -> None:
    store = world.store()
    assert (await store.join("b", LONG)).live == ("b",)
    assert (await store.join("a", 0.05)).live == ("a", "b")
    await asyncio.sleep(0.15)
    assert (await store.renew("b", LONG)).live == ("b",)
    # Lapsed, but nobody declared it dead: it may come back.
    assert (await store.renew("a", LONG)).live == ("a", "b")
    await store.leave("a")
    assert (await store.renew("b", LONG)).live == ("b",)


async def test_a_process_declared_dead_cannot_renew_or_take(world: World) -> None:
    store = await joined(world, "a", lifetime=0.02)
    await store.take("a", [ask(ONE, 2)])
    await asyncio.sleep(0.1)
    assert await store.reclaim() == 1
    with pytest.raises(LeaseLost):
        await store.renew("a", LONG)
    with pytest.raises(LeaseLost):
        await store.take("a", [ask(ONE, 2), ask(GLOBAL, 2)])
    await store.join("b", LONG)
    assert await store.take("b", [ask(ONE, 3), ask(GLOBAL, 3)]) == {ONE: 3, GLOBAL: 3}


async def test_a_process_that_left_or_never_came_takes_nothing(world: World) -> None:
    store = await joined(world, "a")
    await store.take("a", [ask(ONE, 2)])
    await store.leave("a")
    for stranger in ("a", "never"):
        with pytest.raises(LeaseLost):
            await store.take(stranger, [ask(ONE, 1)])
        with pytest.raises(LeaseLost):
            await store.renew(stranger, LONG)
    await store.join("b", LONG)
    assert await store.take("b", [ask(ONE, 3)]) == {ONE: 3}


@pytest.mark.parametrize("key", [ONE, GLOBAL])
async def test_the_sum_never_exceeds_the_cap(world: World, key: str) -> None:
    store = await joined(world, "a", "b", "c")
    assert await store.take("a", [ask(key, 2)]) == {key: 2}
    assert await store.take("b", [ask(key, 2)]) == {key: 1}
    assert await store.take("c", [ask(key, 1)]) == {key: 0}
    # Asking for less never takes away.
    assert await store.take("a", [ask(key, 1)]) == {key: 2}
    assert await store.take("a", [ask(key, 0)]) == {key: 2}
    # A smaller cap neither.
    assert await store.take("a", [ask(key, 2, cap=1)]) == {key: 2}


async def test_taking_many_keys_at_once_reports_each(world: World) -> None:
    store = await joined(world, "a", "b")
    await store.take("b", [ask(ONE, 1)])
    asks = [ask(ONE, 3), ask(TWO, 2), ask(GLOBAL, 5, cap=9), ask("acct_nobody", 1)]
    assert await store.take("a", asks) == {ONE: 2, TWO: 2, GLOBAL: 5, "acct_nobody": 0}
    assert await store.take("a", []) == {}


async def test_give_back_lowers_and_never_raises(world: World) -> None:
    store = await joined(world, "a", "b")
    await store.take("a", [ask(ONE, 3), ask(TWO, 2), ask(GLOBAL, 3)])
    await store.give_back("a", {ONE: 1, TWO: 5, GLOBAL: 0})
    assert await store.take("a", [ask(ONE, 0), ask(TWO, 0), ask(GLOBAL, 0)]) == {ONE: 1, TWO: 2, GLOBAL: 0}
    assert await store.take("b", [ask(ONE, 3), ask(TWO, 3), ask(GLOBAL, 3)]) == {ONE: 2, TWO: 1, GLOBAL: 3}
    await store.give_back("b", {"acct_nobody": 0})
    await store.give_back("nobody", {ONE: 0})
    assert await store.take("a", [ask(ONE, 3)]) == {ONE: 1}


@pytest.mark.parametrize(
    ("state", "until", "granted"),
    [
        (State.ACTIVE, None, 2),
        (State.COOLDOWN, 1, 0),
        (State.COOLDOWN, -1, 2),
        (State.COOLDOWN, None, 0),
        (State.DEPLETED, 1, 0),
        (State.DEPLETED, -1, 2),
        (State.DEPLETED, None, 0),
        (State.INVALID, None, 0),
        (State.INVALID, -1, 0),
    ],
)
async def test_accounts_that_are_not_well_grant_nothing(
    world: World, state: State, until: int | None, granted: int
) -> None:
    """``until`` in hours from now."""
    moment = None if until is None else datetime.now(UTC) + timedelta(hours=until)
    await world.insert([account(7, health=Health(state=state, until=moment))])
    store = await joined(world, "a")
    assert await store.take("a", [ask("acct_00007", 2)]) == {"acct_00007": granted}


async def test_paused_accounts_grant_nothing(world: World) -> None:
    await world.insert([account(7, intent=Intent.PAUSED)])
    store = await joined(world, "a")
    assert await store.take("a", [ask("acct_00007", 2)]) == {"acct_00007": 0}


async def test_an_accounts_own_limit_is_known_before_the_asker_hears_of_it(world: World) -> None:
    await world.insert([account(7, max_inflight=1)])
    store = await joined(world, "a")
    assert await store.take("a", [ask("acct_00007", 2)]) == {"acct_00007": 1}


async def test_what_is_held_stays_held_when_the_account_falls_ill(world: World) -> None:
    """The holder has open streams on it: their slots are not given to anybody."""
    store = await joined(world, "a", "b")
    await store.take("a", [ask(ONE, 1)])
    await world.change(ONE, lambda each: replace(each, health=Health(state=State.INVALID)))
    assert await store.take("a", [ask(ONE, 3)]) == {ONE: 1}
    assert await store.take("b", [ask(ONE, 1)]) == {ONE: 0}


async def test_an_account_that_was_deleted_grants_nothing(world: World) -> None:
    store = await joined(world, "a")
    await store.take("a", [ask(ONE, 2)])
    await world.delete(ONE)
    assert await store.take("a", [ask(ONE, 2)]) == {ONE: 0}


@pytest.mark.parametrize("key", [ONE, GLOBAL])
async def test_the_holder_hears_of_the_strongest_wish(world: World, key: str) -> None:
    store = await joined(world, "a", "b", "c")
    await store.take("a", [ask(key, 3)])
    assert await store.wanted("a") == []
    await store.mark_wanted("b", [key], 1.5)
    await store.mark_wanted("c", [key, TWO], 4.0)
    [mark] = await store.wanted("a")
    assert (mark.key, mark.by, mark.pressure) == (key, "c", 4.0)
    assert await store.wanted("b") == [], "who holds nothing is not asked"
    await store.give_back("a", {key: 1})
    assert await store.take("c", [ask(key, 1)]) == {key: 1}
    [mark] = await store.wanted("a")
    assert mark.by == "b", "a satisfied wish is gone"
    assert await store.take("b", [ask(key, 1)]) == {key: 1}
    assert await store.wanted("a") == []


async def test_own_and_stale_wishes_are_not_heard(world: World) -> None:
    store = await joined(world, "a", "b")
    await store.take("a", [ask(ONE, 1)])
    await store.mark_wanted("a", [ONE], 1.0)
    assert await store.wanted("a") == []
    await store.mark_wanted("b", [ONE, "acct_nobody"], 1.0)
    assert [mark.by for mark in await store.wanted("a")] == ["b"]
    await asyncio.sleep(3.2)
    assert await store.wanted("a") == []
    await store.mark_wanted("b", [ONE], 2.0)
    assert [mark.pressure for mark in await store.wanted("a")] == [2.0]


async def test_reclaim_frees_the_dead_and_spares_the_living(world: World) -> None:
    store = await joined(world, "dead-1", "dead-2", lifetime=0.2)
    await store.join("alive", LONG)
    for instance in ("dead-1", "dead-2", "alive"):
        await store.take(instance, [ask(ONE, 1), ask(GLOBAL, 2, cap=6)])
    await store.mark_wanted("dead-1", [ONE], 9.0)
    assert await store.reclaim() == 0
    await asyncio.sleep(0.3)
    counts = await asyncio.gather(*(world.store().reclaim() for _ in range(5)))
    assert sum(counts) == 2, "each death is declared once"
    assert await store.take("alive", [ask(ONE, 3), ask(GLOBAL, 6, cap=6)]) == {ONE: 3, GLOBAL: 6}
    assert await store.wanted("alive") == []
    assert (await store.renew("alive", LONG)).live == ("alive",)


async def test_many_at_once_never_exceed_the_cap(world: World) -> None:
    names = [f"p{number}" for number in range(8)]
    store = await joined(world, *names)
    for _ in range(5):
        taken = await asyncio.gather(
            *(world.store().take(name, [ask(ONE, 2, cap=5), ask(GLOBAL, 3, cap=7)]) for name in names)
        )
        assert sum(each[ONE] for each in taken) == 5
        assert sum(each[GLOBAL] for each in taken) == 7
        await asyncio.gather(*(world.store().give_back(name, {ONE: 0, GLOBAL: 0}) for name in names))
    assert await store.take("p0", [ask(ONE, 5, cap=5)]) == {ONE: 5}
