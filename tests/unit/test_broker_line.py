"""Who is woken when: slots that come free reach those who wait, and the hopeless are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from poe_gateway.errors import GatewayError, ModelUnsupported, SessionLost
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.outcome import Challenged, RateLimited, Rejected, Succeeded
from poe_gateway.pool.queue import Place
from tests.unit.builders import account
from tests.unit.test_broker import Bench


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def served(task: asyncio.Task[Lease]) -> bool:
    await turns()
    return task.done() and not task.cancelled() and task.exception() is None


async def test_the_pools_limit_frees_a_slot_for_other_accounts_too() -> None:
    """The account whose work ended falls ill; the slot of the whole pool that comes free serves on another."""
    bench = Bench(account("a"), account("b"), whole=1)
    held = await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5))
    await turns()
    bench.broker.settle(held, Challenged())
    assert await served(waiting)


async def test_the_pools_limit_frees_a_slot_for_other_offers_too() -> None:
    bench = Bench(account("a"), account("b", offer="other"), whole=1)
    held = await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5, offers=frozenset({"other"})))
    await turns()
    bench.broker.settle(held, Succeeded())
    assert await served(waiting)


async def test_who_leaves_in_the_moment_of_a_release_does_not_take_the_turn_of_the_next() -> None:
    bench = Bench(account("a", max_inflight=1))
    held = await bench.lease()
    leaving, next_one = [asyncio.create_task(bench.lease(seconds=5)) for _ in range(2)]
    await turns()
    leaving.cancel()
    bench.broker.settle(held, Succeeded())
    assert await served(next_one)


async def test_a_request_that_may_not_have_the_free_account_does_not_bar_those_behind_it() -> None:
    bench = Bench(account("a", max_inflight=1), account("b", max_inflight=1))
    held = {lease.account.id: lease for lease in [await bench.lease(), await bench.lease()]}
    retrying = asyncio.create_task(bench.lease(seconds=5, tried=frozenset({"a"})))
    await turns()
    behind = asyncio.create_task(bench.lease(seconds=5))
    await turns()
    bench.broker.settle(held["a"], Succeeded())
    assert await served(behind)
    assert not retrying.done()
    bench.broker.settle(held["b"], Succeeded())
    assert await served(retrying)


async def test_everybody_in_line_is_told_when_hope_is_lost() -> None:
    bench = Bench(account("a", max_inflight=1))
    held = await bench.lease()
    waiting = [asyncio.create_task(bench.lease(seconds=30)) for _ in range(3)]
    await turns()
    bench.broker.settle(held, Challenged())
    await turns()
    codes = [error.code for task in waiting if task.done() and isinstance(error := task.exception(), GatewayError)]
    for task in waiting:
        task.cancel()
    assert codes == ["no_accounts"] * 3


async def test_those_in_line_are_told_when_no_account_may_serve_their_model() -> None:
    bench = Bench(account("a", max_inflight=1))
    held = await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=30))
    other = asyncio.create_task(bench.lease(seconds=30, model="claude"))
    await turns()
    bench.broker.settle(held, Rejected(model="gpt"))
    with pytest.raises(ModelUnsupported) as refused:
        await asyncio.wait_for(waiting, 60)
    assert (refused.value.code, refused.value.status) == ("model_unsupported", 404)
    assert await served(other)


async def test_a_session_does_not_wait_for_its_account_while_its_model_is_blocked_there() -> None:
    bench = Bench(account("a"), account("b"))
    bench.broker.settle(await bench.lease(affinity="a"), Rejected(model="gpt"))
    moved = asyncio.create_task(bench.lease(affinity="a", seconds=30))
    assert await served(moved)
    with pytest.raises(SessionLost):
        await asyncio.wait_for(bench.lease(affinity="a", steadfast=True, seconds=30), 20)


async def test_while_all_rest_the_wait_that_is_told_includes_their_rest() -> None:
    bench = Bench(account("a"))
    for _ in range(8):
        bench.broker.prospects.pace.observe("gpt", 0.5)
    bench.broker.settle(await bench.lease(), RateLimited(retry_after=12.0))
    places: list[Callable[[], Place | None]] = []
    waiting = asyncio.create_task(bench.broker.lease(bench.want(seconds=30), places.append))
    await turns()
    place = places[0]()
    assert place is not None and place.expected is not None
    assert 12.0 <= place.expected <= 13.0
    choice = bench.broker.would_choose(bench.want(seconds=30))
    assert choice.how == "queued" and 12.0 <= choice.wait_seconds <= 13.5
    waiting.cancel()
    await asyncio.wait([waiting])
