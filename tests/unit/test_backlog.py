"""Records on their way to the store: bounded, counted when lost, kept while the store is away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.explain.backlog import Backlog
from tests.support.explain import _Memory

Store = _Memory[int]


def backlog(store: Store, limit: int = 10) -> Backlog[int]:
    """Even numbers are dispensable."""
    return Backlog(store, limit=limit, dispensable=lambda number: number % 2 == 0)


@given(numbers=st.lists(st.integers(0, 99), max_size=60), limit=st.integers(1, 20))
def test_the_oldest_dispensable_records_go_first(numbers: list[int], limit: int) -> None:
    store = Store()
    log = backlog(store, limit)
    expected: list[int] = []
    for number in numbers:
        log.add(number)
        expected.append(number)
        if len(expected) > limit:
            dispensable = [each for each in expected if each % 2 == 0]
            expected.remove(dispensable[0] if dispensable else expected[0])
    assert len(log) <= limit
    assert asyncio.run(log.flush())
    assert sorted(store.rows.values()) == sorted(expected)
    assert log.lost == len(numbers) - len(expected)


async def test_a_store_that_is_away_leaves_everything_here() -> None:
    store = Store()
    log = backlog(store, 1000)
    store.away = True
    for number in range(700):
        log.add(number)
    assert not await log.flush() and len(log) == 700
    log.add(700)
    store.away = False
    assert await log.flush() and len(log) == 0
    assert sorted(store.rows.values()) == list(range(701)) and log.lost == 0


async def test_a_lost_answer_stores_nothing_twice() -> None:
    store = Store()
    log = backlog(store, 1000)
    for number in range(300):
        log.add(number)
    store.deaf = True
    assert not await log.flush()
    store.deaf = False
    assert await log.flush()
    assert sorted(store.rows.values()) == list(range(300)), "the ids of the second attempt are those of the first"


async def test_what_the_store_refuses_is_counted_and_blocks_nothing() -> None:
    store = Store()
    store.refuses = {2, 3}
    log = backlog(store)
    for number in range(5):
        log.add(number)
    assert await log.flush()
    assert len(store.rows) == 3 and log.lost == 2 and len(log) == 0


async def test_flushes_at_the_same_time_write_each_record_once() -> None:
    sent: list[int] = []

    class Slow(Store):
        async def insert(self, documents: list[dict[str, object]]) -> int:
            await asyncio.sleep(0)
            sent.extend(each["_id"] for each in documents)  # type: ignore[misc]
            return await super().insert(documents)

    log = backlog(Slow(), 1000)
    for number in range(450):
        log.add(number)
    assert all(await asyncio.gather(log.flush(), log.flush(), log.flush()))
    assert len(sent) == len(set(sent)) == 450


async def test_others_run_while_records_are_encoded() -> None:
    store = Store()
    log = backlog(store, 10_000)
    for number in range(1000):
        log.add(number)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await log.flush()
    counting.cancel()
    assert turns >= 1000 / 25, "the loop is free after every 25 records"


async def test_a_cancelled_flush_loses_nothing() -> None:
    class Stuck(Store):
        async def insert(self, documents: list[dict[str, object]]) -> int:
            if self.away:
                await asyncio.sleep(3600)
            return await super().insert(documents)

    store = Stuck()
    store.away = True
    log = backlog(store, 1000)
    for number in range(300):
        log.add(number)
    flushing = asyncio.create_task(log.flush())
    await asyncio.sleep(0.05)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    store.away = False
    assert await log.flush()
    assert sorted(store.rows.values()) == list(range(300))


async def test_it_writes_by_itself() -> None:
    store = Store()
    log = backlog(store)
    running = asyncio.create_task(log.run())
    log.add(1)
    async with asyncio.timeout(10):
        while not store.rows:
            await asyncio.sleep(0.05)
    running.cancel()
    assert list(store.rows.values()) == [1]
