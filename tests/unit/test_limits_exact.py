"""Limits stay exact whatever comes in between: outages, pauses, slices that come and go, moments that coincide."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import Ask, Bucket, Move, lapsed, reserved_of
from poe_gateway.limits.keys import BucketKey, rate_key
from poe_gateway.limits.limiter import Exceeded, Limiter
from poe_gateway.limits.memory import MemoryBuckets
from poe_gateway.limits.store import Moved
from poe_gateway.limits.terms import Rates, Scope
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.store import Charge
from tests.unit.limiting import LeapClock, Pair, admitted, all_admitted

REQUESTS = rate_key("rate|key|k|requests|minute", "minute", None)
TOKENS = rate_key("rate|key|k|tokens|minute", "minute", None)
DAILY = rate_key("rate|key|k|tokens|day", "day", None)
PARALLEL = BucketKey(id="parallel|key|k", kind="parallel")
BUDGET = BucketKey(id="budget|key|k|USD|total|total", kind="budget", budget="total")


def ask(bucket: BucketKey, amount: int, cap: int) -> Ask:
    return Ask(bucket=bucket, amount=amount, cap=cap)


def liens(bucket: Bucket) -> dict[str, int]:
    return {process: lien.amount for process, lien in bucket.liens.items()}


# Slices that are forgotten and come back.


async def test_a_slice_that_was_forgotten_can_borrow_again() -> None:
    pair = Pair()
    for _ in range(3):
        (await pair.a.reserve([ask(REQUESTS, 1, 10)])).settle({})
    await pair.rounds(100)
    assert not pair.a._slices
    assert await admitted(pair.a, ask(REQUESTS, 1, 10)) is not None
    assert all(amount >= 0 for amount in liens(pair.table[REQUESTS.id]).values())


async def test_a_slice_is_kept_while_a_request_is_under_way_that_took_of_it() -> None:
    pair = Pair()
    hold = await pair.a.reserve([ask(DAILY, 100, 1000)])
    await pair.rounds(200)
    hold.settle({DAILY.id: 150})
    await pair.rounds(3)
    assert sum(pair.table[DAILY.id].ticks.values()) == 150


# Outages and pauses longer than a lien lasts.


@pytest.mark.parametrize("after", [False, True])
async def test_parallel_requests_stay_exact_over_a_long_outage(after: bool) -> None:
    pair = Pair()
    one = ask(PARALLEL, 1, 10)
    holds = [await pair.a.reserve([one]) for _ in range(5)]
    pair.store.failure, pair.store.after = StoreUnavailable("away"), after
    with pytest.raises(StoreUnavailable):
        for _ in range(30):
            holds.append(await pair.a.reserve([one]))
    for _ in range(65):
        with contextlib.suppress(StoreUnavailable):
            await pair.rounds(1)
    pair.store.failure = None
    await pair.rounds(5)
    assert reserved_of(lapsed(PARALLEL, pair.table[PARALLEL.id], pair.clock.now())) >= len(holds)
    assert len(holds) + await all_admitted(pair.b, one) <= 10
    for hold in holds:
        hold.settle({})
    await pair.rounds(5)
    assert "a" not in liens(pair.table[PARALLEL.id])


async def test_a_rate_stays_exact_over_a_long_outage() -> None:
    pair = Pair()
    assert await admitted(pair.a, ask(TOKENS, 10, 1000))
    pair.store.failure = StoreUnavailable("away")
    for _ in range(68):
        with contextlib.suppress(StoreUnavailable):
            await pair.rounds(1)
    pair.store.failure = None
    await pair.rounds(5)
    assert all(amount >= 0 for amount in liens(pair.table[TOKENS.id]).values())


class Gated(MemoryBuckets):
    """Moves are done at once; their answers wait while ``gate`` is set."""

    gate: asyncio.Event | None = None

    async def move(self, key: BucketKey, wish: Move, cap: int, now: datetime) -> Moved:
        moved = await super().move(key, wish, cap, now)
        if self.gate is not None:
            await self.gate.wait()
        return moved


async def test_a_process_frozen_during_a_move_does_not_trust_its_answer() -> None:
    pair = Pair(Gated)
    assert isinstance(pair.store, Gated)
    (await pair.a.reserve([ask(PARALLEL, 5, 5)])).settle({})
    pair.store.gate = asyncio.Event()
    pair.a._slices[PARALLEL.id].used_at += 100  # not idle
    pair.clock.leap(16)
    renewal = asyncio.create_task(pair.a.round())
    for _ in range(5):
        await asyncio.sleep(0)
    pair.clock.leap(50)  # frozen after the move was done
    pair.store.gate.set()
    await renewal
    pair.clock.leap(15)  # for others the lien has lapsed
    mine = 0
    while pair.a.take([ask(PARALLEL, 1, 5)]) is not None:
        mine += 1
    assert mine + await all_admitted(pair.b, ask(PARALLEL, 1, 5)) <= 5


# Tokens that were not used after all.


async def test_tokens_are_not_given_back_after_their_tick_has_left_the_window() -> None:
    pair = Pair()
    hold = await pair.a.reserve([ask(TOKENS, 100, 110)])
    await pair.rounds(3)  # booked
    pair.clock.leap(42)
    await pair.a.reserve([ask(TOKENS, 10, 110)])
    pair.clock.leap(14.5)
    hold.settle({TOKENS.id: 0})
    pair.clock.leap(1.5)
    await pair.a.flush()
    await pair.a.round()
    assert all(amount >= 0 for amount in pair.table[TOKENS.id].ticks.values())
    assert await admitted(pair.b, ask(TOKENS, 101, 110)) is None


async def test_booked_tokens_are_usable_again_when_the_bucket_knows() -> None:
    """Else the bucket could count them as used in a tick that has left the window, and lend them a second time."""
    pair = Pair()
    hold = await pair.a.reserve([ask(TOKENS, 100, 100)])
    await pair.rounds(3)
    hold.settle({TOKENS.id: 0})
    assert pair.a.standings([ask(TOKENS, 100, 100)])[0].remaining == 100
    assert pair.a.take([ask(TOKENS, 1, 100)]) is None
    assert await admitted(pair.a, ask(TOKENS, 100, 100)) is not None
    await pair.a.flush()
    assert sum(pair.table[TOKENS.id].ticks.values()) == 100


async def test_tokens_that_are_not_booked_yet_are_usable_again_at_once() -> None:
    pair = Pair()
    (await pair.a.reserve([ask(TOKENS, 100, 100)])).settle({TOKENS.id: 30})
    assert pair.a.take([ask(TOKENS, 70, 100)]) is not None
    assert pair.a.take([ask(TOKENS, 1, 100)]) is None


@pytest.mark.parametrize(("used", "counted"), [(20, 20), (100, 100), (700, 700)])
async def test_a_long_request_is_corrected_when_it_ends(used: int, counted: int) -> None:
    pair = Pair()
    hold = await pair.a.reserve([ask(DAILY, 100, 1000)])
    await pair.rounds(50)
    hold.settle({DAILY.id: used})
    await pair.rounds(5)
    assert (sum(pair.table[DAILY.id].ticks.values()), liens(pair.table[DAILY.id])) == (counted, {})


async def test_a_debt_survives_a_pause() -> None:
    pair = Pair()
    hold = await pair.a.reserve([ask(DAILY, 100, 1000)])
    hold.settle({DAILY.id: 400})
    pair.clock.leap(45)
    await pair.rounds(5)
    assert sum(pair.table[DAILY.id].ticks.values()) >= 400
    assert liens(pair.table[DAILY.id]) == {}


# Nothing of it asked for.


@pytest.mark.parametrize("key", [BUDGET, TOKENS])
async def test_what_asked_for_nothing_and_used_something_is_borrowed_late(key: BucketKey) -> None:
    pair = Pair()
    hold = await pair.a.reserve([ask(key, 0, 100)])
    pair.clock.leap(40)
    hold.settle({key.id: 30})
    await pair.a.round()
    held = await all_admitted(pair.b, ask(key, 10, 100))
    assert held == 7
    if key is BUDGET:
        await pair.store.charge("a", {key.id: [Charge(1, 30, True)]})
        assert (pair.table[key.id].spent, liens(pair.table[key.id])) == (30, {"b": 70})


async def test_a_limit_that_nothing_is_asked_of_is_shown_as_it_stands() -> None:
    pair = Pair()
    (await pair.b.reserve([ask(BUDGET, 40, 100)])).settle({BUDGET.id: 40})
    calls = pair.store.calls
    for _ in range(10):
        pair.a.take([ask(BUDGET, 0, 100)])
    assert pair.store.calls == calls, "the request's path asks nobody"
    await pair.a.round()
    assert pair.a.standings([ask(BUDGET, 0, 100)])[0].remaining == 60
    assert pair.a.standings([ask(BUDGET, 0, 70)])[0].remaining == 30
    await pair.b.reserve([ask(BUDGET, 10, 100)])
    pair.a.take([ask(BUDGET, 0, 100)])
    pair.clock.leap(1)
    await pair.a.round()
    assert pair.a.standings([ask(BUDGET, 0, 100)])[0].remaining == 50


async def test_what_has_left_the_window_is_not_shown_as_used() -> None:
    pair = Pair()
    (await pair.a.reserve([ask(REQUESTS, 1, 10)])).settle({})
    await pair.rounds(3)
    assert pair.a.standings([ask(REQUESTS, 1, 10)])[0].remaining == 9
    pair.clock.leap(58)
    assert pair.a.standings([ask(REQUESTS, 1, 10)])[0].remaining == 10


# Debts.


async def test_a_debt_that_is_charged_before_it_is_told_lets_nobody_borrow_more() -> None:
    pair = Pair()
    hold = await pair.a.reserve([ask(BUDGET, 50, 100)])
    hold.settle({BUDGET.id: 90})
    await pair.store.charge("a", {BUDGET.id: [Charge(1, 90, True)]})
    assert liens(pair.table[BUDGET.id]) == {"a": -40}
    assert await all_admitted(pair.b, ask(BUDGET, 1, 100)) == 10
    await pair.a.round()
    assert (pair.table[BUDGET.id].spent, liens(pair.table[BUDGET.id])) == (90, {"b": 10})


# Refusals.


async def test_where_only_slices_of_others_are_in_the_way_it_is_worth_asking_again_soon() -> None:
    pair = Pair()
    (await pair.b.reserve([ask(TOKENS, 6, 10)])).settle({})  # borrowed and not used
    with pytest.raises(Exceeded) as told:
        await pair.a.reserve([ask(TOKENS, 5, 10)])
    assert told.value.in_flight
    assert told.value.retry_after == 1.0


async def test_where_it_is_spent_the_window_has_to_pass() -> None:
    pair = Pair()
    await pair.b.reserve([ask(TOKENS, 6, 10)])
    await pair.b.flush()
    with pytest.raises(Exceeded) as told:
        await pair.a.reserve([ask(TOKENS, 5, 10)])
    assert not told.value.in_flight
    assert told.value.retry_after is not None and 50 < told.value.retry_after <= 60


async def test_what_is_spent_is_not_waited_for() -> None:
    pair = Pair()
    await pair.b.reserve([ask(TOKENS, 6, 10)])
    (await pair.b.reserve([ask(TOKENS, 2, 10)])).settle({})
    await pair.b.flush()
    assert liens(pair.table[TOKENS.id])["b"] == 2
    assert await admitted(pair.a, ask(TOKENS, 5, 10)) is None
    assert pair.store.calls == 1


async def test_marks_of_those_that_gave_up_do_not_stay() -> None:
    pair = Pair()
    await pair.b.reserve([ask(PARALLEL, 10, 10)])
    assert await admitted(pair.a, ask(PARALLEL, 1, 10)) is None
    assert pair.table[PARALLEL.id].wanted
    pair.clock.leap(20)
    await pair.b.round()
    assert not pair.table[PARALLEL.id].wanted


# Moments that coincide.


@pytest.mark.parametrize("turns", range(6))
async def test_what_is_used_meanwhile_is_not_given_back(turns: int) -> None:
    pair = Pair()
    (await pair.a.reserve([ask(PARALLEL, 5, 5)])).settle({})
    pair.clock.leap(3)

    async def take() -> bool:
        for _ in range(turns):
            await asyncio.sleep(0)
        return pair.a.take([ask(PARALLEL, 1, 5)]) is not None

    _, mine = await asyncio.gather(pair.a.round(), take())
    assert mine + await all_admitted(pair.b, ask(PARALLEL, 1, 5)) <= 5


async def test_a_round_and_a_request_at_the_same_moment() -> None:
    pair = Pair()
    await pair.a.reserve([ask(REQUESTS, 1, 10)])
    pair.clock.leap(3)  # booking is due
    await asyncio.gather(pair.a.round(), pair.a.reserve([ask(REQUESTS, 1, 10)]))
    await pair.a.flush()
    assert sum(pair.table[REQUESTS.id].ticks.values()) == 2


async def test_two_that_wait_with_half_each_do_not_wait_for_each_other() -> None:
    pair = Pair()
    for limiter in (pair.a, pair.b):
        (await limiter.reserve([ask(TOKENS, 3, 6)])).settle({})

    async def rounds() -> None:
        while True:
            await asyncio.sleep(0.05)
            await pair.a.round()
            await pair.b.round()

    running = asyncio.create_task(rounds())
    five = ask(TOKENS, 5, 6)
    got = await asyncio.gather(admitted(pair.a, five), admitted(pair.b, five))
    running.cancel()
    assert any(got), "6 of 6 are unused"


class Dated(MemoryBuckets):
    """Remembers how long each document would have stayed."""

    def __init__(self) -> None:
        super().__init__()
        self.left: dict[str, timedelta] = {}

    async def move(self, key: BucketKey, wish: Move, cap: int, now: datetime) -> Moved:
        assert key.expires_at is not None
        self.left[key.id] = key.expires_at - now
        return await super().move(key, wish, cap, now)


async def test_a_document_in_use_does_not_expire() -> None:
    clock, store = LeapClock(), Dated()
    limiter = Limiter(store=store, process="a", clock=clock)
    windows = Windows(ZoneInfo("UTC"))
    scopes = (Scope(kind="key", id="k", rates=Rates(requests_minute=1000)),)
    for _ in range(2 * 3600):
        clock.leap(1)
        asks = windows.asks(scopes, clock.now(), tokens=0, amount=lambda unit, cap: 0)
        hold = limiter.take(asks) or await limiter.reserve(asks)
        hold.settle({})
        await limiter.round()
        assert store.left[REQUESTS.id] > timedelta(minutes=2)
