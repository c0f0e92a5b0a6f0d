"""Capacity grants between several brokers on one memory store: shares, borrowing, death and resurrection."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool.account import Account, Cause, Health, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.lease import Want
from poe_gateway.pool.memory import MemoryAccounts, MemoryGrants, MemoryHub, filled
from poe_gateway.pool.outcome import Challenged, Succeeded
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.store import GLOBAL, Ask
from tests.unit.builders import account

POLICY = PoolPolicy(grant_lifetime=1.0, global_inflight=6)


class Process:
    """One process of the gateway, without HTTP."""

    def __init__(self, hub: MemoryHub, name: str, policy: PoolPolicy) -> None:
        clock = SystemClock()
        self.name = name
        self.broker = Broker(store=MemoryAccounts(hub), policy=policy, clock=clock)
        self.keeper = Keeper(broker=self.broker, store=MemoryGrants(hub), clock=clock, ids=Ids(hash(name) & 0xFFFF))
        self.broker.accept(hub.accounts.values())
        self.tasks = [
            asyncio.create_task(self.keeper.run()),
            asyncio.create_task(self.broker.journal.flush_forever()),
        ]

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
    count: int, *accounts: Account, policy: PoolPolicy = POLICY
) -> AsyncIterator[tuple[MemoryHub, list[Process]]]:
    hub = filled(SystemClock(), accounts)
    running = [Process(hub, f"p{number}", policy) for number in range(count)]
    try:
        yield hub, running
    finally:
        for process in running:
            await process.kill()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
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
