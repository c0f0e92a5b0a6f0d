"""Capacity grants between several brokers on one memory store: shares, borrowing, death and resurrection."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from msgspec.structs import replace

from poe_gateway.clock import Clock, Ids, ServerClock, SystemClock
from poe_gateway.pool.account import Account, Cause, Health, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.deaths import Places, Residence
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.memory import MemoryAccounts, MemoryGrants, MemoryHub, filled
from poe_gateway.pool.outcome import Cancelled, Challenged, Succeeded
from poe_gateway.pool.pauses import Pauses
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.store import GLOBAL, Ask, Membership, StoreUnavailable
from tests.unit.builders import account

POLICY = PoolPolicy(grant_lifetime=1.0, global_inflight=6)


class OneMachine:
    """Places: all of one machine, where every process exists until the test ends."""

    def here(self) -> Residence:
        return Residence(place="here", pid=1, started=0)

    def lives(self, residence: Residence) -> bool:
        return True


class Grants(MemoryGrants):
    """May be cut off from the hub, for one process alone."""

    cut = False

    async def join(self, instance: str, lifetime: float) -> Membership:
        if self.cut:
            raise StoreUnavailable("cut off")
        return await super().join(instance, lifetime)

    async def renew(self, instance: str, lifetime: float) -> Membership:
        if self.cut:
            raise StoreUnavailable("cut off")
        return await super().renew(instance, lifetime)


class Process:
    """One process of the gateway, without HTTP."""

    def __init__(
        self,
        hub: MemoryHub,
        name: str,
        policy: PoolPolicy,
        places: Places | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.name = name
        self.accounts = MemoryAccounts(hub)
        self.grants = Grants(hub, places)
        self.broker = Broker(store=self.accounts, policy=policy, clock=clock)
        self.keeper = Keeper(broker=self.broker, store=self.grants, clock=clock, ids=Ids(hash(name) & 0xFFFF))
        self.broker.accept(hub.accounts.values())
        self.tasks = [
            asyncio.create_task(self.keeper.run()),
            asyncio.create_task(self.broker.journal.flush_forever()),
            asyncio.create_task(self.follow()),
        ]

    async def follow(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.broker.tick()
            try:
                self.broker.accept((await self.accounts.changes()).stored)
            except StoreUnavailable:
                continue

    async def kill(self) -> None:
        """Stop at once, without giving anything back."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def want(self, seconds: float = 5.0) -> Want:
        return Want(
            offers=frozenset({"mock"}),
            model="gpt",
            caller=self.name,
            evidence="req",
            deadline=SystemClock().monotonic() + seconds,
        )


@asynccontextmanager
async def processes(
    count: int, *accounts: Account, policy: PoolPolicy = POLICY, places: Places | None = None
) -> AsyncIterator[tuple[MemoryHub, list[Process]]]:
    hub = filled(SystemClock(), accounts)
    running = [Process(hub, f"p{number}", policy, places) for number in range(count)]
    try:
        yield hub, running
    finally:
        for process in running:
            await process.kill()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what must come; a hang fails the test."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def fresh(*names: str, **fields: object) -> list[Account]:
    healthy = Health(state=State.ACTIVE, cause=Cause.HEALTHY)
    return [account(name, health=healthy, renews_daily=False, **fields) for name in names]


async def test_a_process_alone_holds_everything() -> None:
    async with processes(1, *fresh("a", "b", "c")) as (hub, [only]):
        await until(lambda: only.broker.whole.held == 6 and all(s.held == 2 for s in only.broker.seats.values()))
        assert sum(hub.granted("a").values()) == 2


async def test_two_processes_divide_the_accounts_and_the_whole() -> None:
    async with processes(2, *fresh("a", "b", "c", "d")) as (hub, both):
        await until(lambda: all(len(p.keeper.membership.live) == 2 for p in both))
        await until(lambda: sum(p.broker.whole.held for p in both) == 6 and all(p.broker.whole.held == 3 for p in both))
        await until(lambda: all(sum(p.broker.seats[name].held for p in both) == 2 for name in ("a", "b", "c", "d")))
        for name in ("a", "b", "c", "d"):
            assert len([slots for slots in hub.granted(name).values() if slots]) == 1, "an account is not split"


async def test_one_slot_serves_two_processes_in_turn_and_never_both() -> None:
    policy = PoolPolicy(grant_lifetime=1.0, global_inflight=1)
    async with processes(2, *fresh("a", max_inflight=1), policy=policy) as (_, both):
        inside = 0
        served: Counter[str] = Counter()

        async def caller(process: Process) -> None:
            nonlocal inside
            for _ in range(5):
                lease = await process.broker.lease(process.want(20))
                inside += 1
                assert inside == 1, "two processes use the only slot"
                await asyncio.sleep(0.002)
                inside -= 1
                served[process.name] += 1
                process.broker.settle(lease, Succeeded())

        await asyncio.gather(*(caller(process) for process in both for _ in range(2)))
        assert served == {"p0": 10, "p1": 10}


async def test_slots_of_a_dead_process_are_usable_again() -> None:
    async with processes(2, *fresh("a", "b")) as (_, [first, second]):
        await until(lambda: first.broker.whole.held + second.broker.whole.held == 6)
        await first.kill()
        await until(lambda: second.broker.whole.held == 6 and all(s.held == 2 for s in second.broker.seats.values()))


async def test_a_process_that_was_declared_dead_stops_and_comes_back() -> None:
    async with processes(2, *fresh("a", "b", "c", "d")) as (hub, [first, second]):
        await until(lambda: first.broker.whole.held == 3 and second.broker.whole.held == 3)
        lease = await first.broker.lease(first.want())
        stopped: list[bool] = []
        lease.on_revoked = lambda: stopped.append(True)
        name = first.keeper.instance
        await MemoryGrants(hub).leave(name)
        await until(lambda: bool(stopped))
        assert first.keeper.instance != name
        await until(lambda: first.keeper.joined.is_set() and first.broker.whole.held > 0)


async def test_grants_are_not_used_while_the_store_is_away() -> None:
    async with processes(1, *fresh("a")) as (hub, [only]):
        await until(lambda: only.broker.whole.held == 6)
        hub.away = True
        await until(lambda: not only.keeper.valid())
        hub.away = False
        await until(only.keeper.valid)
        assert (await only.broker.lease(only.want())).account.id == "a"


async def test_idle_slots_are_borrowed_by_a_busy_process() -> None:
    async with processes(2, *fresh("a", "b", "c")) as (_, [busy, idle]):
        await until(lambda: busy.broker.whole.held == 3 and idle.broker.whole.held == 3)
        leases = [await busy.broker.lease(busy.want(10)) for _ in range(6)]
        assert busy.broker.whole.used == 6
        assert {lease.account.id for lease in leases} == {"a", "b", "c"}
        assert idle.broker.whole.held == 0


async def test_the_next_holder_of_a_challenged_account_never_uses_it() -> None:
    """The slot goes on only after the challenge is stored, and the store grants nothing of such an account."""
    async with processes(2, *fresh("a")) as (hub, both):
        await until(lambda: sum(p.broker.seats["a"].held for p in both) == 2)
        holder = max(both, key=lambda p: p.broker.seats["a"].held)
        lease = await holder.broker.lease(holder.want())
        holder.broker.settle(lease, Challenged())
        await until(lambda: hub.accounts["a"].health.state is State.INVALID)
        other = next(p for p in both if p is not holder)
        before = other.broker.seats["a"].held
        await MemoryGrants(hub).take(other.keeper.instance, [Ask(key="a", hold=2, cap=2)])
        assert hub.granted("a").get(other.keeper.instance, 0) == before, "nothing more is granted"
        assert sum(hub.granted(GLOBAL).values()) <= 6


# Fencing.


async def test_a_lost_name_is_left_when_the_last_of_its_work_has_closed() -> None:
    """Until then its slots may be in use at the upstream, whatever the new name is granted."""
    async with processes(1, *fresh("a", max_inflight=1), places=OneMachine()) as (hub, [only]):
        await until(lambda: only.broker.whole.held == 6)
        lease = await only.broker.lease(only.want())
        old = only.keeper.instance
        hub.instances[old].frozen = True
        await until(lambda: lease.revoked and only.keeper.joined.is_set())
        assert only.keeper.instance != old == lease.epoch
        assert only.broker.epoch == only.keeper.instance
        with pytest.raises(TimeoutError):
            await until(lambda: old not in hub.instances, 0.5)
        assert hub.granted("a") == {old: 1}
        only.broker.settle(lease, Cancelled())
        await until(lambda: hub.granted("a") == {only.keeper.instance: 1})
        assert (await only.broker.lease(only.want())).epoch == only.keeper.instance


async def test_the_name_changes_before_anything_is_granted_anew() -> None:
    async with processes(1, *fresh("a")) as (hub, [only]):
        await until(lambda: only.broker.whole.held == 6)
        old = only.keeper.instance
        seen: list[str] = []
        lease = await only.broker.lease(only.want())
        lease.on_revoked = lambda: seen.append(only.broker.epoch)
        await MemoryGrants(hub).leave(old)
        await until(lambda: bool(seen))
        assert seen != [old]


async def test_a_process_that_cannot_be_seen_stops_its_work_when_it_cannot_renew() -> None:
    async with processes(2, *fresh("a", "b")) as (_, [first, second]):
        await until(lambda: all(process.keeper.membership.strangers for process in (first, second)))
        await until(lambda: first.broker.whole.held == second.broker.whole.held == 3)
        lease = await first.broker.lease(first.want())
        lease.on_revoked = lambda: first.broker.settle(lease, Cancelled())
        first.grants.cut = True
        await until(lambda: lease.closed)
        await until(lambda: second.broker.whole.held == 6)


async def test_a_process_that_is_seen_goes_on_with_its_work() -> None:
    """Its neighbours know that it lives: what it holds is withheld from them, not given to them."""
    async with processes(2, *fresh("a", max_inflight=1), places=OneMachine()) as (hub, both):
        await until(lambda: sum(process.broker.seats["a"].held for process in both) == 1)
        first, second = sorted(both, key=lambda process: -process.broker.seats["a"].held)
        lease = await first.broker.lease(first.want())
        name = first.keeper.instance
        first.grants.cut = True
        await until(lambda: hub.instances[name].frozen)
        waiting = asyncio.create_task(second.broker.lease(second.want(30)))
        with pytest.raises(TimeoutError):
            await until(waiting.done, 1.0)
        assert not lease.revoked
        first.grants.cut = False
        await until(lambda: lease.revoked)
        first.broker.settle(lease, Cancelled())
        assert (await waiting).account.id == "a"


async def test_when_the_database_was_away_neighbours_have_the_time_to_renew() -> None:
    async with processes(3, *fresh("a", "b", "c"), places=OneMachine()) as (hub, running):
        await until(lambda: all(len(process.keeper.membership.live) == 3 for process in running))
        names = {process.keeper.instance for process in running}
        leases = [await process.broker.lease(process.want()) for process in running]
        hub.away = True
        await asyncio.sleep(1.2)  # all have lapsed
        hub.away = False
        await until(lambda: all(process.keeper.valid() for process in running))
        await asyncio.sleep(0.6)
        assert {process.keeper.instance for process in running} == names
        assert not any(lease.revoked for lease in leases)


# The database's clock.


class HourAhead(SystemClock):
    def now(self):  # type: ignore[no-untyped-def]
        return super().now() + timedelta(hours=1)


async def test_every_renewal_sets_the_clock() -> None:
    hub = filled(SystemClock(), fresh("a"))
    clock = ServerClock(HourAhead())
    only = Process(hub, "p", POLICY, clock=clock)
    try:
        await until(only.keeper.joined.is_set)
        assert abs(clock.skew - 3600) < 1
        assert abs((clock.now() - SystemClock().now()).total_seconds()) < 1
    finally:
        await only.kill()


# Accounts that rest.


def resting(seconds: float) -> Health:
    """A rest that failures brought about; over after so many seconds from now."""
    return Health(
        state=State.COOLDOWN, cause=Cause.RATE_LIMITED, until=SystemClock().now() + timedelta(seconds=seconds)
    )


async def test_of_an_account_that_rests_only_what_is_in_use_is_held() -> None:
    async with processes(2, *fresh("a", max_inflight=4)) as (hub, [first, _]):
        await until(lambda: sum(hub.granted("a").values()) == 4)
        lease = await first.broker.lease(first.want())
        hub.put(replace(hub.accounts["a"], health=resting(60)))
        await until(lambda: hub.granted("a") == {first.keeper.instance: 1})
        first.broker.settle(lease, Cancelled())
        await until(lambda: not hub.granted("a"))
        hub.put(replace(hub.accounts["a"], health=Health(state=State.ACTIVE, cause=Cause.HEALTHY)))
        await until(lambda: sum(hub.granted("a").values()) == 4)


async def test_a_process_alone_keeps_what_it_holds_of_resting_accounts() -> None:
    async with processes(1, *fresh("a")) as (hub, [only]):
        await until(lambda: hub.granted("a") == {only.keeper.instance: 2})
        hub.put(replace(hub.accounts["a"], health=resting(60)))
        await until(lambda: not only.broker.seats["a"].allowed)
        await asyncio.sleep(0.6)
        assert hub.granted("a") == {only.keeper.instance: 2}


async def test_exactly_one_request_tries_an_account_after_its_rest() -> None:
    """Even when requests ran through the whole rest in both processes."""
    async with processes(2, *fresh("a", max_inflight=4)) as (hub, both):
        await until(lambda: all(process.broker.seats["a"].held == 2 for process in both))
        through = [await process.broker.lease(process.want()) for process in both]
        hub.put(replace(hub.accounts["a"], health=resting(60)))
        await until(lambda: all(not process.broker.seats["a"].allowed for process in both))
        hub.put(replace(hub.accounts["a"], health=resting(0.2)))
        await until(lambda: all(process.broker.seats["a"].account.health.trial for process in both))
        inside: list[Lease] = []
        most = 0

        async def caller(process: Process) -> None:
            nonlocal most
            lease = await process.broker.lease(process.want(20))
            inside.append(lease)
            most = max(most, len(inside))
            await asyncio.sleep(0.05)
            inside.remove(lease)
            process.broker.settle(lease, Cancelled())

        waiting = [asyncio.create_task(caller(process)) for process in both for _ in range(3)]
        for process, lease in zip(both, through, strict=True):
            process.broker.settle(lease, Cancelled())
        await asyncio.gather(*waiting)
        assert most == 1
        # The first success ends the trial, everywhere.
        lease = await both[0].broker.lease(both[0].want())
        both[0].broker.settle(lease, Succeeded())
        await until(lambda: sum(hub.granted("a").values()) == 4)


async def test_an_account_that_falls_ill_while_its_slots_are_asked_for_is_not_held() -> None:
    async with processes(2, *fresh("a", max_inflight=4)) as (hub, [first, second]):
        await until(lambda: first.broker.seats["a"].held == second.broker.seats["a"].held == 2)
        real = first.grants.take
        ill = Health(state=State.INVALID, cause=Cause.UNAUTHORIZED)

        async def meanwhile(instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
            held = await real(instance, asks)
            first.broker.step("a", lambda each: replace(each, health=ill))
            return held

        first.grants.take = meanwhile  # type: ignore[method-assign]
        hub.put(replace(hub.accounts["a"], max_inflight=8))
        await until(lambda: first.broker.seats["a"].account.max_inflight == 8)
        first.keeper.limits_changed()
        await until(lambda: hub.accounts["a"].health == ill)
        await until(lambda: first.keeper.instance not in hub.granted("a"))
        assert first.broker.seats["a"].held == 0


# Turns between processes.


async def test_two_processes_with_half_of_a_pair_each_do_not_wait_for_ever() -> None:
    """One holds the only slot of the account, the other the only slot of the whole."""
    policy = PoolPolicy(grant_lifetime=1.0, global_inflight=1)
    async with processes(2, *fresh("a", max_inflight=1), policy=policy) as (_, [first, second]):
        await until(lambda: len(first.keeper.membership.live) == len(second.keeper.membership.live) == 2)
        for process in (first, second):
            await process.grants.give_back(process.keeper.instance, {"a": 0, GLOBAL: 0})
            process.broker.regrant({"a": 0}, 0)
        first.broker.regrant(await first.grants.take(first.keeper.instance, [Ask(key="a", hold=1, cap=1)]))
        await second.grants.take(second.keeper.instance, [Ask(key=GLOBAL, hold=1, cap=1)])
        second.broker.regrant({}, 1)

        async def caller(process: Process) -> None:
            process.broker.settle(await process.broker.lease(process.want(20)), Succeeded())

        await asyncio.gather(caller(first), caller(second))


async def test_wishes_are_taken_back_when_nobody_waits_any_more() -> None:
    policy = PoolPolicy(grant_lifetime=4.0, global_inflight=6)
    async with processes(2, *fresh("a", max_inflight=1), policy=policy) as (hub, both):
        await until(lambda: sum(process.broker.seats["a"].held for process in both) == 1)
        first, second = sorted(both, key=lambda process: -process.broker.seats["a"].held)
        lease = await first.broker.lease(first.want())
        waiting = asyncio.create_task(second.broker.lease(second.want(20)))
        await until(lambda: bool(hub.row("a").wanted))
        waiting.cancel()
        await until(lambda: not hub.row("a").wanted)
        first.broker.settle(lease, Succeeded())


def test_pauses_keep_their_order() -> None:
    with pytest.raises(ValueError, match="order"):
        Pauses(fence=0.5)
