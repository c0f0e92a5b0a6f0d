"""The contract of stores of buckets, over memory and over MongoDB; and what only MongoDB has to keep."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from bson import Int64

from poe_gateway.clock import Ids
from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import Bucket, Lien, Move, reserved_of, spent_of
from poe_gateway.limits.keys import BucketKey, rate_key
from poe_gateway.limits.memory import MemoryBuckets
from poe_gateway.limits.store import BucketStore
from poe_gateway.metering.store import Charge
from poe_gateway.storage import schema
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.client import Database

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TICK = int(NOON.timestamp())
RATE = rate_key("rate|key|k|requests|minute", "minute", NOON + timedelta(hours=1))
BUDGET = BucketKey(id="budget|key|k|USD|total|total", kind="budget", budget="total")
MONTH = BucketKey(
    id="budget|key|k|USD|month|2026-11",
    kind="budget",
    budget="month",
    ends_at=NOON + timedelta(days=9),
    expires_at=NOON + timedelta(days=400),
)
PARALLEL = BucketKey(id="parallel|key|k", kind="parallel")
HUGE = 9_000_000_000_000_000_000
"""Near the end of 64 bits."""


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> BucketStore:
    if request.param == "memory":
        return MemoryBuckets()
    db: Database = request.getfixturevalue("db")
    return MongoBuckets(db, Ids(1))


async def held(store: BucketStore, key: BucketKey) -> dict[str, int]:
    bucket = (await store.read([key.id]))[key.id]
    return {process: lien.amount for process, lien in bucket.liens.items()}


async def test_a_bucket_begins_with_its_first_move_and_is_read_as_it_was_answered(store: BucketStore) -> None:
    assert await store.read([RATE.id]) == {}
    moved = await store.move(RATE, Move(process="a", number=1, least=1, most=7), 10, NOON)
    assert moved.granted == 7
    assert moved.bucket.liens == {"a": Lien(7, NOON)}
    moved = await store.move(RATE, Move(process="a", number=2, spent={TICK: 3, TICK + 1: 2}), 10, NOON)
    refused = await store.move(RATE, Move(process="b", number=1, least=4, most=4, want=True), 10, NOON)
    assert refused.granted == 0
    assert await store.read([RATE.id, "parallel|key|none"]) == {RATE.id: refused.bucket}
    assert refused.bucket == Bucket(
        id=RATE.id,
        rev=3,
        ticks={TICK: 3, TICK + 1: 2},
        liens={"a": Lien(2, NOON)},
        moves={"a": (2, 0), "b": (1, 0)},
        wanted={"b": NOON},
    )


async def test_a_move_of_unknown_fate_is_done_once_and_answered_alike(store: BucketStore) -> None:
    wish = Move(process="a", number=1, least=2, most=5)
    once = await store.move(BUDGET, wish, 10, NOON)
    assert await store.move(BUDGET, wish, 10, NOON) == once
    after = await store.move(BUDGET, Move(process="a", number=2, back=5), 10, NOON)
    late = await store.move(BUDGET, wish, 10, NOON)
    assert (late.granted, late.bucket) == (0, after.bucket), "an answer that nobody waits for any more"


async def test_rows_are_charged_once_however_often_they_are_sent(store: BucketStore) -> None:
    await store.move(BUDGET, Move(process="a", number=1, least=50, most=50), 100, NOON)
    rows = [Charge(3, 20, True), Charge(7, 10, True)]
    other = "budget|org|o|USD|total|total"
    for _ in range(2):
        await store.charge("a", {BUDGET.id: rows, other: [Charge(3, 20, False)]})
    await store.charge("a", {BUDGET.id: [*rows, Charge(9, -5, False)]})
    await store.charge("b", {BUDGET.id: [Charge(1, 4, False)]})
    found = await store.read([BUDGET.id, other])
    assert (found[BUDGET.id].spent, found[BUDGET.id].applied) == (29, {"a": 9, "b": 1})
    assert (await held(store, BUDGET)) == {"a": 20}
    assert (found[other].spent, found[other].liens) == (20, {})


async def test_a_process_that_is_over_holds_nothing_anywhere(store: BucketStore) -> None:
    for key in (RATE, BUDGET, PARALLEL):
        for process in ("a", "b"):
            await store.move(key, Move(process=process, number=1, least=4, most=4), 10, NOON)
    await store.charge("a", {MONTH.id: [Charge(1, 6, False)]})
    await store.move(PARALLEL, Move(process="a", number=2, least=9, want=True, most=9), 10, NOON)
    for _ in range(2):
        await store.close("a", NOON)
    found = await store.read([RATE.id, BUDGET.id, PARALLEL.id, MONTH.id])
    assert {each: bucket.holders for each, bucket in found.items()} == {
        RATE.id: {"b"},
        BUDGET.id: {"b"},
        PARALLEL.id: {"b"},
        MONTH.id: set(),
    }
    assert {each: spent_of(key, found[each]) for each, key in ((RATE.id, RATE), (MONTH.id, MONTH))} == {
        RATE.id: 4,
        MONTH.id: 6,
    }
    assert await store.wanted([PARALLEL.id]) == {}


async def test_who_was_refused_is_told_of_the_buckets_that_are_asked_for(store: BucketStore) -> None:
    for key in (PARALLEL, BUDGET, RATE):
        await store.move(key, Move(process="a", number=1, least=5, most=5), 5, NOON)
    for key in (PARALLEL, BUDGET):
        await store.move(key, Move(process="b", number=1, least=1, most=1, want=True), 5, NOON)
    assert await store.wanted([PARALLEL.id, RATE.id, "parallel|key|none"]) == {PARALLEL.id: {"b": NOON}}


async def test_amounts_are_64_bits_wide(store: BucketStore) -> None:
    await store.move(BUDGET, Move(process="a", number=1, least=HUGE, most=HUGE), HUGE, NOON)
    await store.charge("a", {BUDGET.id: [Charge(1, HUGE - 1, True)]})
    await store.move(RATE, Move(process="a", number=1, least=HUGE, most=HUGE), HUGE, NOON)
    await store.move(RATE, Move(process="a", number=2, spent={TICK: HUGE}), HUGE, NOON)
    found = await store.read([BUDGET.id, RATE.id])
    assert (found[BUDGET.id].spent, reserved_of(found[BUDGET.id])) == (HUGE - 1, 1)
    assert found[RATE.id].ticks == {TICK: HUGE}


async def test_no_change_is_lost_when_many_make_them_at_once(store: BucketStore) -> None:
    """Eight processes borrow, spend, give back and are charged, all on one document that none of them made before."""
    turns = 12

    async def work(process: str) -> int:
        spent = 0
        for turn in range(turns):
            number = 2 * turn + 1
            borrow = Move(process=process, number=number, least=3, most=3)
            granted = (await store.move(BUDGET, borrow, 100, NOON)).granted
            used = min(granted, turn % 3)
            if used:
                await store.charge(process, {BUDGET.id: [Charge(number, used, True)]})
            spent += used
            await store.move(BUDGET, Move(process=process, number=number + 1, back=granted - used), 100, NOON)
        return spent

    sums = await asyncio.gather(*(work(f"p{number}") for number in range(8)))
    bucket = (await store.read([BUDGET.id]))[BUDGET.id]
    assert bucket.spent == sum(sums) > 0
    assert bucket.liens == {}
    assert {told[0] for told in bucket.moves.values()} == {2 * turns}


# Only MongoDB.


async def test_numbers_are_written_as_64_bits(db: Database) -> None:
    """A driver that guesses would write small ones as 32 bits, and other programs would add them up as such."""
    store = MongoBuckets(db, Ids(1))
    await store.move(RATE, Move(process="a", number=1, least=5, most=5), 10, NOON)
    await store.move(RATE, Move(process="a", number=2, spent={TICK: 2}), 10, NOON)
    document = await db[schema.BUCKETS].find_one({"_id": RATE.id})
    assert document is not None
    numbers = [document["spent"], document["ticks"][str(TICK)], document["liens"]["a"]["amount"]]
    assert numbers == [0, 2, 3]
    assert all(isinstance(number, Int64) for number in numbers)


async def test_a_document_stays_as_long_as_its_last_move_foresaw(db: Database) -> None:
    store = MongoBuckets(db, Ids(1))

    async def expires(bucket_id: str) -> datetime | None:
        document = await db[schema.BUCKETS].find_one({"_id": bucket_id})
        return None if document is None else document.get("expires_at")

    await store.move(RATE, Move(process="a", number=1, least=1, most=1), 10, NOON)
    assert await expires(RATE.id) == NOON + timedelta(hours=1)
    later = rate_key(RATE.id, "minute", NOON + timedelta(hours=5))
    await store.move(later, Move(process="a", number=2, back=1), 10, NOON)
    assert await expires(RATE.id) == NOON + timedelta(hours=5)

    await store.move(MONTH, Move(process="a", number=1, least=1, most=1), 10, NOON)
    await store.charge("a", {MONTH.id: [Charge(1, 1, True)]})
    await store.close("a", NOON)
    assert await expires(MONTH.id) == NOON + timedelta(days=400), "who does not know the window leaves it alone"
    await store.move(BUDGET, Move(process="a", number=1, least=1, most=1), 10, NOON)
    assert await expires(BUDGET.id) is None


async def test_processes_are_found_by_the_index_for_their_closing(db: Database) -> None:
    store = MongoBuckets(db, Ids(1))
    await store.move(PARALLEL, Move(process="a", number=1, least=1, most=1), 10, NOON)
    plan = await db[schema.BUCKETS].find({"holders": "a"}, {"_id": 1}).explain()
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])


async def test_a_database_that_is_away_is_said_to_be(nowhere: Database) -> None:
    store = MongoBuckets(nowhere, Ids(1))
    calls = (
        store.move(RATE, Move(process="a", number=1), 1, NOON),
        store.charge("a", {BUDGET.id: [Charge(1, 1, True)]}),
        store.close("a", NOON),
        store.read([RATE.id]),
        store.wanted([RATE.id]),
    )
    told = await asyncio.gather(*(asyncio.create_task(call) for call in calls), return_exceptions=True)
    assert [type(each) for each in told] == [StoreUnavailable] * len(calls)
