"""One suite for both GrantStores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import pytest
from msgspec.structs import replace

from poe_gateway.clock import SystemClock
from poe_gateway.pool.account import Account, Cause, Health, Intent, State
from poe_gateway.pool.deaths import Places, Residence
from poe_gateway.pool.memory import MemoryAccounts, MemoryGrants, MemoryHub
from poe_gateway.pool.store import GLOBAL, AccountStore, Ask, GrantStore, LeaseLost
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import account, insert

ONE, TWO = "acct_00001", "acct_00002"
LONG = 60.0


class Machine:
    """Places of one machine: which of its processes exist, stopped ones included."""

    def __init__(self, name: str, pid: int, alive: set[int]) -> None:
        self.name, self.pid, self.alive = name, pid, alive

    def here(self) -> Residence:
        return Residence(place=self.name, pid=self.pid, started=7)

    def lives(self, residence: Residence) -> bool | None:
        return residence.pid in self.alive if residence.place == self.name else None


class NewStore(Protocol):
    def __call__(self, places: Places | None = None) -> GrantStore: ...


class World(msgspec.Struct):
    """A database and the ways into it; ``world`` holds two healthy accounts."""

    store: NewStore
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

        return World(
            store=lambda places=None: MemoryGrants(hub, places),
            insert=put,
            delete=delete,
            accounts=MemoryAccounts(hub),
        )
    db = request.getfixturevalue("db" if request.param == "mongo" else "standalone_db")
    return World(
        store=lambda places=None: MongoGrants(db, places),
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


async def lapsed(store: GrantStore, *instances: str) -> None:
    """The registrations have run out."""
    for instance in instances:
        await store.renew(instance, 0.02)
    await asyncio.sleep(0.1)


async def test_membership_is_sorted_and_on_the_databases_clock(world: World) -> None:
    store = world.store()
    assert (await store.join("b", LONG)).live == ("b",)
    assert (await store.join("a", LONG)).live == ("a", "b")
    await lapsed(store, "a")
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
    store = await joined(world, "dead-1", "dead-2", "alive")
    for instance in ("dead-1", "dead-2", "alive"):
        await store.take(instance, [ask(ONE, 1), ask(GLOBAL, 2, cap=6)])
    await store.mark_wanted("dead-1", [ONE], 9.0)
    assert await store.reclaim() == 0
    await lapsed(store, "dead-1", "dead-2")
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


# Proof of death.


async def neighbours(world: World, alive: set[int], lifetime: float = 0.05) -> tuple[GrantStore, GrantStore]:
    """Process 1, whose registration soon lapses, holds all of ``ONE``; process 2 lives beside it."""
    first, second = world.store(Machine("here", 1, alive)), world.store(Machine("here", 2, alive))
    await second.join("second", LONG)
    await first.join("first", lifetime)
    assert await first.take("first", [ask(ONE, 3), ask(GLOBAL, 3)]) == {ONE: 3, GLOBAL: 3}
    return first, second


async def test_a_neighbour_that_is_gone_is_dead_before_its_registration_lapses(world: World) -> None:
    alive = {1, 2}
    _, second = await neighbours(world, alive, LONG)
    assert await second.reclaim() == 0
    alive.remove(1)
    assert await second.reclaim() == 1
    assert await second.take("second", [ask(ONE, 3), ask(GLOBAL, 3)]) == {ONE: 3, GLOBAL: 3}


async def test_what_a_frozen_neighbour_holds_is_withheld(world: World) -> None:
    first, second = await neighbours(world, {1, 2})
    await asyncio.sleep(0.1)
    for _ in range(6):
        assert await second.reclaim() == 0
    assert await second.take("second", [ask(ONE, 3), ask(GLOBAL, 3)]) == {ONE: 0, GLOBAL: 0}
    # It wakes, and finds that it may not go on; what it holds stays until it says that nothing runs any more.
    with pytest.raises(LeaseLost):
        await first.renew("first", LONG)
    with pytest.raises(LeaseLost):
        await first.join("first", LONG)
    with pytest.raises(LeaseLost):
        await first.take("first", [ask(TWO, 1)])
    assert await second.take("second", [ask(ONE, 3)]) == {ONE: 0}
    assert (await second.renew("second", LONG)).live == ("second",)
    await first.leave("first")
    assert await second.take("second", [ask(ONE, 3), ask(TWO, 3), ask(GLOBAL, 3)]) == {ONE: 3, TWO: 3, GLOBAL: 3}


async def test_a_frozen_neighbour_that_dies_is_dead_at_once(world: World) -> None:
    alive = {1, 2}
    _, second = await neighbours(world, alive)
    await asyncio.sleep(0.1)
    assert await second.reclaim() == 0
    alive.remove(1)
    assert await second.reclaim() == 1
    assert await second.take("second", [ask(ONE, 3)]) == {ONE: 3}


async def test_slots_are_withheld_for_as_long_as_a_request_may_last(world: World) -> None:
    _, second = await neighbours(world, {1, 2})
    await asyncio.sleep(0.1)
    assert await second.reclaim(LONG) == 0
    assert await second.reclaim(0.01) == 1
    assert await second.take("second", [ask(ONE, 3)]) == {ONE: 3}


async def test_lapses_are_not_judged_when_told_so(world: World) -> None:
    alive = {1, 2}
    first, second = await neighbours(world, alive)
    await asyncio.sleep(0.1)
    assert await second.reclaim(0.01, only_proven=True) == 0
    assert set((await first.renew("first", LONG)).live) == {"first", "second"}
    alive.remove(1)
    assert await second.reclaim(only_proven=True) == 1


async def test_strangers_leave_the_judgement_to_neighbours(world: World) -> None:
    await neighbours(world, {1, 2})
    stranger = world.store(Machine("there", 1, {1}))
    await stranger.join("stranger", LONG)
    await asyncio.sleep(0.1)
    assert await stranger.reclaim() == 0
    assert await stranger.take("stranger", [ask(ONE, 3)]) == {ONE: 0}


async def test_who_lapsed_alone_in_another_place_is_dead(world: World) -> None:
    lonely = world.store(Machine("here", 1, {1}))
    await lonely.join("lonely", 0.05)
    await lonely.take("lonely", [ask(ONE, 3)])
    stranger = world.store(Machine("there", 1, {1}))
    await stranger.join("stranger", LONG)
    await asyncio.sleep(0.1)
    assert await stranger.reclaim() == 1
    assert await stranger.take("stranger", [ask(ONE, 3)]) == {ONE: 3}


async def test_strangers_are_counted(world: World) -> None:
    _, second = await neighbours(world, {1, 2}, LONG)
    assert (await second.renew("second", LONG)).strangers == 0
    stranger = world.store(Machine("there", 1, {1}))
    assert (await stranger.join("stranger", LONG)).strangers == 2
    assert (await second.renew("second", LONG)).strangers == 1
    assert (await world.store().join("nowhere", LONG)).strangers == 3


async def test_the_databases_time_comes_with_every_renewal(world: World) -> None:
    store = world.store()
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    joined_at = (await store.join("a", LONG)).now
    renewed_at = (await store.renew("a", LONG)).now
    assert joined_at is not None and renewed_at is not None
    assert before <= joined_at <= renewed_at <= datetime.now(UTC)


# After a rest.


@pytest.mark.parametrize(
    ("health", "together"),
    [
        (Health(state=State.ACTIVE, trial=True), 1),
        (Health(state=State.ACTIVE), 3),
        *((Health(state=State.COOLDOWN, cause=cause), 1) for cause in (Cause.ERRORS, Cause.TIMEOUTS)),
        (Health(state=State.COOLDOWN, cause=Cause.RATE_LIMITED), 1),
        (Health(state=State.COOLDOWN, cause=Cause.NETWORK), 3),
        (Health(state=State.DEPLETED, cause=Cause.POINTS_GONE), 3),
    ],
)
async def test_an_account_on_trial_grants_one_slot_to_one_process(world: World, health: Health, together: int) -> None:
    over = datetime.now(UTC) - timedelta(seconds=1)
    if health.state is not State.ACTIVE:
        health = replace(health, until=over)
    await world.insert([account(7, health=health)])
    store = await joined(world, "a", "b")
    taken = [await store.take(name, [ask("acct_00007", 2)]) for name in ("a", "b", "a")]
    assert taken[1]["acct_00007"] + taken[2]["acct_00007"] == together


# Turns.


async def test_processes_that_starve_take_turns(world: World) -> None:
    store = await joined(world, "a", "b", "c")
    await store.take("a", [ask(ONE, 1, cap=1)])
    await store.mark_wanted("b", [ONE], 100.0)
    await asyncio.sleep(0.02)
    await store.mark_wanted("c", [ONE], 700.0)
    await store.give_back("a", {ONE: 0})
    assert await store.take("a", [ask(ONE, 1, cap=1)]) == {ONE: 0}, "it had it just now"
    assert await store.take("c", [ask(ONE, 1, cap=1)]) == {ONE: 0}, "it came later"
    assert await store.take("b", [ask(ONE, 1, cap=1)]) == {ONE: 1}
    await store.give_back("b", {ONE: 0})
    await store.take("c", [ask(ONE, 0, cap=1)])  # its callers are gone
    assert await store.take("a", [ask(ONE, 1, cap=1)]) == {ONE: 1}


async def test_who_waits_and_holds_some_does_not_stand_in_the_way(world: World) -> None:
    store = await joined(world, "a", "b")
    await store.mark_wanted("b", [ONE], 3.0)
    await asyncio.sleep(0.02)
    assert await store.take("a", [ask(ONE, 3)]) == {ONE: 3}


async def test_slots_beyond_those_that_are_waited_for_are_free(world: World) -> None:
    store = await joined(world, "a", "b")
    await store.mark_wanted("b", [ONE], 100.0)
    await asyncio.sleep(0.02)
    assert await store.take("a", [ask(ONE, 3)]) == {ONE: 2}


async def test_a_turn_is_not_kept_for_long(world: World) -> None:
    store = await joined(world, "a", "b")
    await store.mark_wanted("b", [ONE], 100.0)
    await asyncio.sleep(1.7)
    assert await store.take("a", [ask(ONE, 3)]) == {ONE: 3}


async def test_waiting_goes_on_from_mark_to_mark(world: World) -> None:
    store = await joined(world, "a", "b", "c")
    await store.mark_wanted("b", [ONE], 100.0)
    await asyncio.sleep(0.02)
    await store.mark_wanted("c", [ONE], 100.0)
    await asyncio.sleep(1.2)
    await store.mark_wanted("c", [ONE], 100.0)
    await store.mark_wanted("b", [ONE], 100.0)
    assert await store.take("c", [ask(ONE, 1, cap=1)]) == {ONE: 0}
    assert await store.take("b", [ask(ONE, 1, cap=1)]) == {ONE: 1}


# For operators.


async def test_what_each_process_holds(world: World) -> None:
    first, second = await neighbours(world, {1, 2})
    await second.take("second", [ask(TWO, 2)])
    await world.store().join("nowhere", LONG)
    assert await first.held_by() != {}
    await asyncio.sleep(0.1)
    assert (await second.held_by())["first"]["state"] == "lapsed"
    await second.reclaim()
    held = await second.held_by()
    lasts = {name: holding.pop("expires_in") for name, holding in held.items()}  # type: ignore[misc]
    assert held == {
        "first": {"place": "here", "pid": 1, "state": "frozen", "accounts": 1, "slots": 3, "global": 3},
        "second": {"place": "here", "pid": 2, "state": "live", "accounts": 1, "slots": 2, "global": 0},
        "nowhere": {"place": None, "pid": None, "state": "live", "accounts": 0, "slots": 0, "global": 0},
    }
    assert lasts["first"] < 0 < lasts["second"] <= LONG
