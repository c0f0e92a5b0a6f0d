"""Limiters of several processes over shared buckets: exact, nothing stranded, nothing lost by failures or pauses."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import Ask, Bucket, reserved_of
from poe_gateway.limits.limiter import Exceeded, Hold, Limiter
from poe_gateway.limits.memory import MemoryBuckets
from poe_gateway.limits.terms import Budget, Rates, Scope
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.store import Charge
from tests.unit.builders import StepClock

WINDOWS = Windows(ZoneInfo("UTC"))


def asks(tokens: int = 0, cost: int = 0, **terms: int) -> tuple[Ask, ...]:
    budgets = (Budget(unit="USD", period="total", amount=terms.pop("budget")),) if "budget" in terms else ()
    scope = Scope(kind="key", id="k", rates=Rates(**terms), budgets=budgets)
    return WINDOWS.asks((scope,), datetime(2026, 11, 21, tzinfo=UTC), tokens=tokens, amount=lambda unit, cap: cost)


class House:
    """``processes`` limiters over one table, running."""

    def __init__(self, processes: int = 1, clock: SystemClock | StepClock | None = None) -> None:
        self.table: dict[str, Bucket] = {}
        self.clock = clock or SystemClock()
        self.stores = [MemoryBuckets(self.table) for _ in range(processes)]
        self.limiters = [
            Limiter(store=store, process=f"p{number}", clock=self.clock, live=lambda: processes)
            for number, store in enumerate(self.stores)
        ]
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> House:
        self._running = [asyncio.create_task(limiter.run()) for limiter in self.limiters]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def bucket(self) -> Bucket:
        (bucket,) = self.table.values()
        return bucket


async def admitted(limiter: Limiter, wish: tuple[Ask, ...]) -> Hold | None:
    try:
        return await limiter.reserve(wish)
    except Exceeded:
        return None


@pytest.mark.parametrize("seed", range(3))
async def test_exactly_the_limit_gets_through_however_it_is_spread(seed: int) -> None:
    rng = random.Random(seed)
    async with House(4) as house:
        wish = asks(requests_hour=300)

        async def call() -> bool:
            await asyncio.sleep(rng.random() * 0.5)
            which = 0 if rng.random() < 0.7 else rng.randrange(4)
            hold = await admitted(house.limiters[which], wish)
            await asyncio.sleep(rng.random() * 0.2)
            if hold is not None:
                hold.settle({})
            return hold is not None

        assert sum(await asyncio.gather(*(call() for _ in range(480)))) == 300


async def test_a_slice_that_somebody_else_needs_is_given_back() -> None:
    async with House(2) as house:
        one, other = house.limiters
        wish = asks(requests_hour=20)
        for _ in range(8):
            assert await admitted(one, wish)
        # The first has borrowed ahead; the second gets all that is not used.
        assert sum([await admitted(other, wish) is not None for _ in range(15)]) == 12


async def test_parallel_requests_are_free_again_when_they_end() -> None:
    house = House()
    (limiter,) = house.limiters
    wish = asks(parallel=2)
    first, second = await limiter.reserve(wish), await limiter.reserve(wish)
    with pytest.raises(Exceeded) as told:
        await limiter.reserve(wish)
    assert told.value.in_flight
    assert told.value.retry_after == 1.0
    first.settle({})
    first.settle({})  # once
    assert limiter.take(wish) is not None
    assert limiter.take(wish) is None
    second.release()


async def test_budgets_are_reserved_settled_and_charged_by_the_ledger() -> None:
    house = House()
    (limiter,) = house.limiters
    wish = asks(budget=100, cost=30)
    (ask,) = wish
    holds = [await limiter.reserve(wish) for _ in range(3)]
    with pytest.raises(Exceeded) as told:
        await limiter.reserve(wish)
    assert told.value.in_flight
    assert told.value.standing.reserved == 90
    holds[0].settle({ask.bucket.id: 10})
    holds[1].settle({ask.bucket.id: 30})
    holds[2].release()
    await house.stores[0].charge("p0", {ask.bucket.id: [Charge(1, 10, True), Charge(2, 30, True)]})
    await limiter.leave()
    assert (house.bucket.spent, reserved_of(house.bucket)) == (40, 0)
    with pytest.raises(Exceeded) as told:
        await limiter.reserve(asks(budget=100, cost=70))
    assert not told.value.in_flight
    assert told.value.standing.spent == 40


async def test_what_costs_more_than_was_reserved_is_booked_all_the_same() -> None:
    house = House()
    (limiter,) = house.limiters
    wish = asks(budget=100, cost=100)
    hold = await limiter.reserve(wish)
    hold.settle({wish[0].bucket.id: 130})
    await limiter.round()
    assert reserved_of(house.bucket) == 130, "what was used is borrowed, whatever the cap says"
    await house.stores[0].charge("p0", {wish[0].bucket.id: [Charge(1, 130, True)]})
    await limiter.leave()
    assert (house.bucket.spent, reserved_of(house.bucket)) == (130, 0)


async def test_tokens_are_corrected_when_the_truth_is_known() -> None:
    clock = StepClock()
    house = House(clock=clock)
    (limiter,) = house.limiters
    wish = asks(tokens=50, tokens_minute=100)
    hold = await limiter.reserve(wish)
    assert limiter.standings(wish)[0].remaining == 50
    hold.settle({wish[0].bucket.id: 20})
    assert limiter.standings(wish)[0].remaining == 80
    more = await limiter.reserve(wish)
    more.settle({wish[0].bucket.id: 90})
    assert limiter.standings(wish)[0].remaining == -10
    with pytest.raises(Exceeded) as told:
        await limiter.reserve(asks(tokens=1, tokens_minute=100))
    assert told.value.retry_after == pytest.approx(60, abs=1)
    clock.step(61)
    await limiter.round()
    assert await admitted(limiter, asks(tokens=100, tokens_minute=100))


async def test_a_request_that_can_never_fit_is_told_so() -> None:
    house = House()
    with pytest.raises(Exceeded) as told:
        await house.limiters[0].reserve(asks(tokens=101, tokens_minute=100))
    assert told.value.retry_after is None
    assert house.stores[0].calls == 0


async def test_all_or_nothing() -> None:
    house = House()
    (limiter,) = house.limiters
    both = asks(tokens=10, requests_minute=5, tokens_minute=25)
    assert await admitted(limiter, both) and await admitted(limiter, both)
    assert await admitted(limiter, both) is None
    requests = next(ask for ask in both if "requests" in ask.bucket.id)
    assert limiter.standings([requests])[0].remaining == 3


async def test_the_slice_is_used_up_while_the_store_is_away_and_then_it_fails_closed() -> None:
    house = House()
    (limiter,), (store,) = house.limiters, house.stores
    wish = asks(requests_hour=1000)
    for _ in range(40):
        await limiter.reserve(wish)
    store.failure = StoreUnavailable("away")
    served = 0
    with pytest.raises(StoreUnavailable):
        while True:
            await limiter.reserve(wish)
            served += 1
    store.failure = None
    assert await admitted(limiter, wish)
    await limiter.leave()
    assert sum(house.bucket.ticks.values()) == 41 + served


async def test_a_move_whose_answer_was_lost_counts_once() -> None:
    house = House()
    (limiter,), (store,) = house.limiters, house.stores
    wish = asks(budget=100, cost=10)
    hold = await limiter.reserve(wish)
    hold.release()
    store.failure, store.after = StoreUnavailable("lost"), True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await limiter.leave()
    store.failure = None
    await limiter.leave()
    assert reserved_of(house.bucket) == 0
    assert house.bucket.spent == 0


async def test_a_cancelled_wait_loses_nothing() -> None:
    house = House()
    (limiter,) = house.limiters
    wish = asks(budget=100, cost=10)
    for steps in range(6):
        task = asyncio.create_task(limiter.reserve(wish))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(done, Hold):
            done.release()
    await limiter.leave()
    assert reserved_of(house.bucket) == 0


async def test_a_process_that_was_frozen_does_not_use_what_may_have_lapsed() -> None:
    clock = StepClock()
    house = House(clock=clock)
    (limiter,) = house.limiters
    wish = asks(requests_hour=100)
    for _ in range(3):
        await limiter.reserve(wish)
    clock.step(45)
    assert limiter.take(wish) is None
    assert await admitted(limiter, wish)
    await limiter.leave()
    # What it held counts as used, and nothing is borrowed any more.
    assert reserved_of(house.bucket) == 0
    assert 4 <= sum(house.bucket.ticks.values()) <= 100


async def test_another_cap_is_in_force_with_the_next_request() -> None:
    house = House()
    (limiter,) = house.limiters
    for _ in range(5):
        await limiter.reserve(asks(requests_hour=100))
    assert await admitted(limiter, asks(requests_hour=5)) is None
    assert await admitted(limiter, asks(requests_hour=6))
    assert await admitted(limiter, asks(requests_hour=6)) is None


async def test_idle_slices_go_back_and_are_forgotten() -> None:
    clock = StepClock()
    house = House(clock=clock)
    (limiter,) = house.limiters
    hold = await limiter.reserve(asks(parallel=10))
    hold.release()
    clock.step(3)
    await limiter.round()
    assert reserved_of(house.bucket) == 0
    clock.step(61)
    calls = house.stores[0].calls
    await limiter.round()
    await limiter.round()
    assert house.stores[0].calls == calls


async def test_a_refusal_is_repeated_without_the_store_for_a_moment() -> None:
    house = House()
    (limiter,), (store,) = house.limiters, house.stores
    wish = asks(requests_hour=1)
    await limiter.reserve(wish)
    assert await admitted(limiter, wish) is None
    calls = store.calls
    for _ in range(100):
        assert await admitted(limiter, wish) is None
    assert store.calls <= calls + 2


async def test_retry_after_names_the_moment_at_which_room_is_made() -> None:
    clock = StepClock()
    house = House(clock=clock)
    (limiter,) = house.limiters
    wish = asks(requests_minute=2)
    await limiter.reserve(wish)
    clock.step(20)
    await limiter.reserve(wish)
    with pytest.raises(Exceeded) as told:
        await limiter.reserve(wish)
    assert told.value.retry_after == pytest.approx(40, abs=1)
    clock.step(told.value.retry_after or 0)
    assert await admitted(limiter, wish)
    assert clock.current - timedelta(seconds=60) >= clock.current - timedelta(seconds=61)
