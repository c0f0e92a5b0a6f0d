"""One leader over all processes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from poe_gateway.pool.memory import MemoryHub
from poe_gateway.scheduler.leadership import Leadership
from poe_gateway.scheduler.memory import MemoryLeases
from tests.accounts.support import HandClock


def processes(count: int) -> tuple[HandClock, MemoryHub, list[Leadership]]:
    clock = HandClock()
    hub = MemoryHub(clock)
    leases = MemoryLeases(hub)
    return clock, hub, [Leadership(lease=leases, owner=f"p{n}", clock=clock, lifetime=10) for n in range(count)]


async def test_one_of_many_leads_and_keeps_its_token() -> None:
    clock, _, crowd = processes(5)
    for _ in range(20):
        await asyncio.gather(*(each.claim() for each in crowd))
        assert [each.leads for each in crowd].count(True) == 1
        clock.pass_(seconds=2)
    assert max(each.token for each in crowd) == 1


async def test_a_dead_leader_is_replaced_within_a_lifetime_under_a_larger_token() -> None:
    clock, _, (first, second) = processes(2)
    await first.claim()
    waited = 0
    while not second.leads:
        clock.pass_(seconds=1)
        waited += 1
        await second.claim()
        assert not (first.leads and second.leads)
    assert waited <= 10 and second.token == 2


async def test_a_leader_cut_off_stops_believing_before_another_can_lead() -> None:
    clock, hub, (leader, _) = processes(2)
    lost: list[float] = []
    leader.on_lost = lambda: lost.append(clock.monotonic())
    await leader.claim()
    hub.away = True
    clock.pass_(seconds=5.9)
    await leader.claim()
    assert leader.leads and not lost
    clock.pass_(seconds=0.2)
    assert not leader.leads
    await leader.claim()
    assert lost and leader.token == 0


async def test_a_paused_leader_learns_that_it_leads_no_more() -> None:
    clock, _, (first, second) = processes(2)
    await first.claim()
    clock.pass_(seconds=60)
    await second.claim()
    assert not first.leads and second.leads
    lost: list[int] = []
    first.on_lost = lambda: lost.append(1)
    await first.claim()
    assert lost and not first.leads and second.leads


async def test_resigning_lets_another_lead_at_once() -> None:
    _, _, (first, second) = processes(2)
    await first.claim()
    await first.resign()
    await second.claim()
    assert not first.leads and second.leads


async def test_a_database_that_hangs_does_not_hold_the_claim_up() -> None:
    clock, hub, (leader,) = processes(1)
    leader._lifetime = 0.2
    hub.latency = 60
    async with asyncio.timeout(60):
        await leader.claim()
    assert not leader.leads
    task = asyncio.create_task(leader.run())
    await asyncio.sleep(0.1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    del clock
