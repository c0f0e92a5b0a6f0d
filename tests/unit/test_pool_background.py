"""What goes on behind the requests' backs: the keeper after a lost registration, the journal, the key chain."""

from __future__ import annotations

import asyncio

from poe_gateway.pool import transitions
from poe_gateway.pool.account import Cause, State
from poe_gateway.pool.lease import Want
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.upstreams.keychain import Keychain, Version
from poe_gateway.vault import Vault, new_key
from tests.unit.builders import StepClock, account, health
from tests.unit.test_broker import Bench
from tests.unit.test_keeper import fresh, processes, until


async def test_a_process_that_finds_itself_dead_while_it_takes_slots_stops_at_once() -> None:
    policy = PoolPolicy(grant_lifetime=300.0, global_inflight=6)
    async with processes(1, *fresh("a", "b"), policy=policy) as (hub, [only]):
        await until(lambda: only.broker.whole.held == 6)
        name = only.keeper.instance
        hub.instances.pop(name)
        for row in hub.rows.values():
            row.grants.pop(name, None)
        only.keeper.limits_changed()
        only.broker.seats["a"].held = 1
        await until(lambda: only.keeper.instance != name, 20)  # the next renewal is a minute away
        await until(lambda: only.keeper.joined.is_set() and only.broker.whole.held == 6, 20)
        assert not any(task.done() for task in only.tasks)


async def test_those_who_wait_are_served_when_the_grants_may_be_used_again() -> None:
    async with processes(1, *fresh("a")) as (hub, [only]):
        await until(lambda: only.broker.whole.held == 6 and only.broker.seats["a"].held == 2)
        hub.away = True
        await until(lambda: not only.keeper.valid())
        waiting = asyncio.create_task(only.broker.lease(only.want(20)))
        await asyncio.sleep(0)
        hub.away = False
        await asyncio.wait_for(waiting, 60)


async def test_a_full_pool_does_not_ask_the_store_for_more() -> None:
    policy = PoolPolicy(grant_lifetime=10.0, global_inflight=1)
    async with processes(1, *fresh("a"), policy=policy) as (_, [only]):
        await until(lambda: only.broker.whole.held == 1 and only.broker.seats["a"].held == 2)
        await only.broker.lease(only.want())
        calls = 0
        take = only.keeper._store.take

        async def counted(*args: object) -> object:
            nonlocal calls
            calls += 1
            return await take(*args)  # type: ignore[arg-type]

        only.keeper._store.take = counted  # type: ignore[method-assign, assignment]
        waiting = [asyncio.create_task(only.broker.lease(only.want(20))) for _ in range(3)]
        for _ in range(20):
            only.keeper.ring()
            await asyncio.sleep(0.005)
        assert calls == 0
        for task in waiting:
            task.cancel()


async def test_an_account_that_was_removed_while_its_news_was_written_does_not_come_back() -> None:
    bench = Bench(account("a"))
    bench.broker.step("a", lambda each: each)
    bench.hub.latency = 0.02
    writing = asyncio.create_task(bench.broker.journal.flush())
    await asyncio.sleep(0)
    bench.broker.remove(["a"])
    await writing
    assert not bench.broker.seats


async def test_unhurried_news_has_its_turn_however_much_urgent_news_there_is() -> None:
    bench = Bench(account("a"), account("b"))
    journal = bench.broker.journal
    running = asyncio.create_task(journal.flush_forever())
    written = 0

    def count(each):  # type: ignore[no-untyped-def]
        nonlocal written
        written += 1
        return each

    journal.note("a", count, urgent=False)
    async with asyncio.timeout(60):
        while not written:
            journal.note("b", lambda each: each, urgent=True)
            await asyncio.sleep(0)
    running.cancel()


async def test_opened_credentials_do_not_outlive_their_time() -> None:
    clock, vault = StepClock(), Vault((new_key(),))

    class Store:
        async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
            return vault.seal({"p": account_id})

        async def credentials_of(self, versions: object) -> dict[Version, bytes]:
            return {}

    keychain = Keychain(Store(), vault, clock)  # type: ignore[arg-type]
    await keychain.ref(account("a"))
    clock.step(200)
    await keychain.ref(account("b"))
    clock.step(150)
    await keychain.prefetch(())
    assert list(keychain._opened) == ["b"]


async def test_a_pool_that_is_used_up_refuses_without_a_look_at_every_account() -> None:
    empty = health(State.DEPLETED, Cause.POINTS_GONE, 60)
    bench = Bench(*(account(f"a{number}", health=empty) for number in range(3000)))
    want = Want(offers=frozenset({"mock"}), model="gpt", caller="k", evidence="r", deadline=bench.clock.monotonic() + 5)
    first = bench.broker.prospects.why_hopeless(want)
    looked = 0
    real = transitions.why_not

    def counting(*args: object) -> str | None:
        nonlocal looked
        looked += 1
        return real(*args)  # type: ignore[arg-type]

    transitions.why_not = counting  # type: ignore[assignment]
    try:
        second = bench.broker.prospects.why_hopeless(want)
    finally:
        transitions.why_not = real
    assert first is not None and second is not None and first.code == second.code == "all_depleted"
    assert looked < 10
