"""Loops on virtual time: order, freezing, thawing, killing, and nothing of the machine's own time."""

from __future__ import annotations

import asyncio

import pytest

from poe_gateway.simulation.virtual_time import BEGIN, World, WorldClock


async def tell_every(seconds: float, told: list[tuple[str, float]], name: str) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(seconds)
        told.append((name, loop.time()))


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def test_time_moves_from_timer_to_timer(world: World) -> None:
    told: list[tuple[str, float]] = []
    first, second = world.loop("first"), world.loop("second")
    first.create_task(tell_every(10.0, told, "first"))
    second.create_task(tell_every(15.0, told, "second"))
    world.run(45.0)
    assert told == [
        ("first", 10.0),
        ("second", 15.0),
        ("first", 20.0),
        ("second", 30.0),
        ("first", 30.0),
        ("first", 40.0),
        ("second", 45.0),
    ]
    assert world.now == 45.0


def test_a_day_of_waiting_takes_no_time_and_timeouts_are_kept(world: World) -> None:
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600.0):
                await asyncio.sleep(86_400.0)
        return asyncio.get_running_loop().time()

    assert world.complete(world.loop("p"), wait(), within=86_400.0) == 3600.0


def test_what_is_not_done_in_time_is_said(world: World) -> None:
    with pytest.raises(TimeoutError, match="10"):
        world.complete(world.loop("p"), asyncio.sleep(11.0), within=10.0)


def test_a_frozen_loop_does_nothing_and_then_everything_that_was_due(world: World) -> None:
    told: list[tuple[str, float]] = []
    loop = world.loop("p")
    loop.create_task(tell_every(10.0, told, "p"))
    world.call_at(15.0, loop.freeze)
    world.call_at(55.0, loop.thaw)
    world.run(50.0)
    assert told == [("p", 10.0)]
    world.run(70.0)
    assert told == [("p", 10.0), ("p", 55.0), ("p", 65.0)]


def test_others_go_on_while_one_is_frozen_and_may_wake_it_later(world: World) -> None:
    told: list[tuple[str, float]] = []
    frozen, other = world.loop("frozen"), world.loop("other")

    async def wait_for(bell: asyncio.Event) -> None:
        await bell.wait()
        told.append(("rung", asyncio.get_running_loop().time()))

    bell = asyncio.Event()
    frozen.create_task(wait_for(bell))
    other.create_task(tell_every(10.0, told, "other"))
    world.call_at(5.0, frozen.freeze)
    world.call_at(12.0, bell.set)
    world.call_at(25.0, frozen.thaw)
    world.run(30.0)
    assert told == [("other", 10.0), ("other", 20.0), ("rung", 25.0), ("other", 30.0)]


def test_of_a_killed_loop_nothing_runs_any_more_not_even_its_clean_up(world: World) -> None:
    told: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100.0)
            told.append("done")
        finally:
            told.append("cleaned up")

    loop = world.loop("p")
    loop.create_task(work())
    world.call_at(50.0, loop.kill)
    world.run(1000.0)
    assert told == []


def test_an_error_that_nobody_takes_is_told(world: World) -> None:
    told: list[str] = []
    loop = world.loop("p")
    loop.on_error = told.append

    def stumble() -> None:
        raise ValueError("over a stone")

    loop.call_soon(stumble)
    world.run(1.0)
    assert len(told) == 1
    assert "ValueError: over a stone" in told[0]


def test_what_the_world_itself_raises_ends_the_run(world: World) -> None:
    def stumble() -> None:
        raise ValueError("over a stone")

    world.call_at(5.0, stumble)
    with pytest.raises(ValueError, match="stone"):
        world.run(10.0)
    assert world.now == 5.0


def test_a_cancelled_timer_does_not_come_and_a_stopped_world_stands_still(world: World) -> None:
    told: list[float] = []
    world.call_at(1.0, told.append, 1.0).cancel()
    world.call_at(2.0, told.append, 2.0)
    world.call_at(3.0, world.stop)
    world.call_at(4.0, told.append, 4.0)
    world.run(10.0)
    assert told == [2.0]
    assert world.now == 3.0


def test_a_machines_calendar_may_be_wrong_its_monotonic_clock_is_not() -> None:
    world = World()
    clock = WorldClock(world, skew=3600.0)
    world.run(60.0)
    assert (clock.now() - BEGIN).total_seconds() == 3660.0
    clock.skew = -60.0
    assert clock.now() == BEGIN
    assert clock.monotonic() == 60.0
