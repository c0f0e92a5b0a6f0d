"""The decision log over its stores: what is found, what is exported, what is lost."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from poe_gateway.explain.decisions import REPEATS, DecisionLog, Filter
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage.client import Database
from poe_gateway.storage.decisions import MongoDecisions
from tests.support.explain import NOON, MemoryDecisions, decision

Store = MemoryDecisions | MongoDecisions


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryDecisions() if request.param == "memory" else MongoDecisions(request.getfixturevalue("db"))


async def stored(store: Store, *decisions: Decision) -> DecisionLog:
    """A log of another process than the one that wrote these."""
    writer = DecisionLog(store)
    for each in decisions:
        writer.note(each)
    assert await writer.flush() and writer.lost == 0
    return DecisionLog(store)


def ids(found: Any) -> list[str]:
    return [each.request_id for each in found.decisions]


RICH = Decision(
    request_id="req_rich",
    at=NOON,
    process="gw_1",
    key_id="key_1",
    model="Claude-Opus",
    offers=["poe_web", "openai_api:host"],
    fingerprint="ab12",
    session="moved",
    tokens=1200,
    choices=[
        Choice(
            strategy="weighted",
            candidates={"all": 5, "selected": 4, "in_service": 2, "open": 0},
            passed_over={"cooldown": 2},
            sample={"acct_3": "cooldown"},
            scores={"acct_1": 2310.5, "acct_2": 0.0},
            need=40,
            account_id="acct_1",
            how="queued",
            wait_seconds=0.25,
            position=4,
        ),
        Choice(how="all_cooling"),
    ],
    tries=[
        Try(
            number=1,
            account_id="acct_1",
            outcome="RateLimited",
            fate="not_sent",
            detail="429 \ud83d",
            charged_to="account",
            withheld="one_request",
            seconds=0.5,
            ttft_seconds=0.0,
            points=0,
        ),
        Try(number=2, account_id="acct_2", outcome="Succeeded"),
    ],
    status=503,
    error_code="all_cooling",
    seconds=0.75,
)


async def test_a_record_is_read_as_it_was_noted(store: Store) -> None:
    log = await stored(store, RICH)
    found = await log.find("req_rich")
    assert found.complete
    [got] = found.decisions
    first = replace(RICH.tries[0], detail=got.tries[0].detail)  # half a surrogate pair is no text
    assert got == replace(RICH, tries=[first, RICH.tries[1]])
    assert first.detail.startswith("429 ")


def test_fields_of_one_name_have_one_default() -> None:
    """The stored form leaves out what is at its default, by name, in all parts of a record."""
    defaults: dict[str, set[str]] = {}
    for each in (each for kind in (Decision, Choice, Try) for each in fields(kind) if not each.required):
        defaults.setdefault(each.name, set()).add(repr((each.default, each.default_factory)))
    assert all(len(found) == 1 for found in defaults.values()), defaults


async def test_a_repeated_request_id_is_told_newest_first(store: Store) -> None:
    repeats = [decision(number, request_id="mine") for number in range(15)]
    log = await stored(store, *repeats, decision(99))
    found = await log.find("mine")
    assert [each.at for each in found.decisions] == [each.at for each in repeats[::-1]][:REPEATS]
    assert ids(await log.find("nobody")) == []


async def test_records_of_this_process_are_at_hand_before_they_are_stored(store: Store) -> None:
    log = await stored(store, decision(1), decision(2))
    fresh = decision(3, at=NOON + timedelta(seconds=3, microseconds=1234))
    log.note(fresh)
    assert (await log.find("req_3")).decisions == [fresh]
    assert ids(await log.newest(10)) == ["req_3", "req_2", "req_1"]
    await log.flush()
    assert ids(await log.newest(10)) == ["req_3", "req_2", "req_1"], "none is told twice"
    assert ids(await log.newest(2)) == ["req_3", "req_2"]


async def test_filters(store: Store) -> None:
    log = await stored(
        store,
        decision(1),
        decision(2, model="claude"),
        decision(3, key_id="key_other"),
        decision(4, outcome="RateLimited"),
        decision(5, tries=[], choices=[Choice(account_id="acct_9")]),
        decision(6, tries=[], choices=[], status=503, error_code="queue_full"),
    )
    for where, expected in [
        (Filter(model="claude"), ["req_2"]),
        (Filter(key_id="key_other"), ["req_3"]),
        (Filter(outcome="RateLimited"), ["req_4"]),
        (Filter(account_id="acct_9"), ["req_5"]),
        (Filter(error_code="queue_full"), ["req_6"]),
        (Filter(account_id="acct_1", since=NOON + timedelta(seconds=3)), ["req_4", "req_3"]),
        (Filter(model="claude", key_id="key_other"), []),
    ]:
        assert ids(await log.newest(10, where)) == expected, where


NAMES = st.sampled_from(["a", "b"])
RECORDS = st.lists(
    st.builds(
        decision,
        st.integers(1, 9),
        model=NAMES,
        key_id=NAMES,
        error_code=st.none() | NAMES,
        choices=st.lists(st.builds(Choice, account_id=st.none() | NAMES), max_size=2),
        tries=st.lists(st.builds(Try, number=st.just(1), account_id=NAMES, outcome=NAMES), max_size=2),
    ),
    min_size=1,
    max_size=30,
)
FILTERS = st.builds(
    Filter,
    model=st.none() | NAMES,
    key_id=st.none() | NAMES,
    account_id=st.none() | NAMES,
    outcome=st.none() | NAMES,
    error_code=st.none() | NAMES,
    since=st.none() | st.integers(0, 9).map(lambda seconds: NOON + timedelta(seconds=seconds)),
)


class TestFiltersAgree:
    """The database picks the same records as ``Filter.admits`` does in memory."""

    async def test_on_random_records(self, db: Database) -> None:
        rng = random.Random(3)
        cases: list[tuple[list[Decision], list[Filter]]] = []

        @given(records=RECORDS, wheres=st.lists(FILTERS, min_size=5, max_size=10))
        def gather(records: list[Decision], wheres: list[Filter]) -> None:
            cases.append((records, wheres))

        gather()
        store = MongoDecisions(db)
        for records, wheres in rng.sample(cases, 40):
            await db.decisions.delete_many({})
            await store.insert([store.encode(each) for each in records])
            for where in wheres:
                found = sorted(await store.newest(100, where), key=repr)
                assert found == sorted([each for each in records if where.admits(each)], key=repr), where


async def test_export_is_whole_in_order_and_bounded(store: Store) -> None:
    same = NOON + timedelta(hours=1)
    many = [decision(number) for number in range(500)]
    at_once = [decision(number, at=same, request_id=f"same_{number}") for number in range(450)]
    log = await stored(store, *random.Random(1).sample(many, 500), *at_once)
    log.note(decision(7000))
    exported = [each.request_id async for each in log.export()]
    assert exported[:500] == [f"req_{number}" for number in range(500)]
    assert sorted(exported[500:950]) == sorted(each.request_id for each in at_once), "moments that span pages"
    assert exported[950:] == ["req_7000"], "what this process has not stored yet is there, too"
    some = log.export(NOON + timedelta(seconds=10), NOON + timedelta(seconds=12))
    assert [each.request_id async for each in some] == ["req_10", "req_11"]


async def test_without_a_store_memory_answers() -> None:
    log = DecisionLog(None)
    for number in (2, 1, 3):
        log.note(decision(number))
    found = await log.newest(2)
    assert ids(found) == ["req_3", "req_2"] and not found.complete
    assert [each.request_id async for each in log.export(until=NOON + timedelta(seconds=3))] == ["req_1", "req_2"]
    assert await log.flush() and log.lost == 0


async def test_the_database_away_costs_the_request_nothing_and_loses_nothing() -> None:
    store = MemoryDecisions()
    log = DecisionLog(store)
    store.away = True
    log.note(decision(1))
    assert not await log.flush()
    found = await log.find("req_1")
    assert ids(found) == ["req_1"] and not found.complete
    assert not (await log.newest(5)).complete
    with pytest.raises(StoreUnavailable):
        await log.find("req_2")
    with pytest.raises(StoreUnavailable):
        _ = [each async for each in log.export()]
    store.away = False
    assert await log.flush()
    assert ids(await DecisionLog(store).newest(5)) == ["req_1"]


async def test_when_too_many_wait_successes_are_given_up_first() -> None:
    store = MemoryDecisions()
    log = DecisionLog(store)
    store.away = True
    log.note(decision(0, error_code="upstream_error"))  # broken off in mid-stream
    for number in range(1, 10_500):
        log.note(decision(number, outcome="Transient" if number < 4 else "Succeeded"))
    store.away = False
    await log.flush()
    assert log.lost == 500 and len(store.rows) == 10_000
    assert ids(await log.newest(10, Filter(error_code="upstream_error"))) == ["req_3", "req_2", "req_1", "req_0"]
    assert len(log._ring) == 2000


async def test_a_name_of_a_model_of_any_length_is_bounded() -> None:
    log = DecisionLog(None)
    log.note(decision(1, model="m" * 1_000_000))
    [found] = (await log.find("req_1")).decisions
    assert found.model == "m" * 200


async def test_a_lost_answer_is_no_second_record(db: Database) -> None:
    store = MongoDecisions(db)
    documents = [store.encode(decision(number)) for number in range(3)]
    assert await store.insert([dict(each) for each in documents[:2]]) == 0
    assert await store.insert([dict(each) for each in documents]) == 0
    assert await db.decisions.count_documents({}) == 3


async def test_the_oldest_records_make_room(db: Database) -> None:
    name = f"{db.name}_small"
    small = db.client[name]
    try:
        await small.create_collection("decisions", capped=True, size=256 * 1024)
        store = MongoDecisions(small)
        for start in range(0, 2000, 200):
            await store.insert([store.encode(decision(number)) for number in range(start, start + 200)])
        kept = await store.newest(5000, Filter())
        assert 0 < len(kept) < 2000
        assert [each.request_id for each in kept] == [f"req_{1999 - number}" for number in range(len(kept))]
    finally:
        await db.client.drop_database(name)


async def test_questions_use_an_index(db: Database) -> None:
    by_moment = db.decisions.find({"at": {"$gte": NOON}}).sort([("at", -1), ("_id", -1)])
    for question in (db.decisions.find({"request_id": "r"}), by_moment):
        plan = str((await question.explain())["queryPlanner"]["winningPlan"])
        assert "'IXSCAN'" in plan and "'SORT'" not in plan
