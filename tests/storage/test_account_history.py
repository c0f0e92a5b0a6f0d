"""The history of accounts: what is noted, kept, paged and said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.explain.entry_words import entry_in_words
from poe_gateway.explain.history import (
    AccountEntry,
    AlertRaised,
    AttemptFailed,
    BalanceMeasured,
    HealthChanged,
    HistoryLog,
    OperatorActed,
    changes,
)
from poe_gateway.pool.account import Balance, Cause, Health, ModelBlock, Scope, State
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage.client import Database
from poe_gateway.storage.history import MongoHistory
from tests.storage.making import account
from tests.support.explain import NOON, MemoryHistory

Store = MemoryHistory | MongoHistory
LATER = NOON + timedelta(minutes=5)


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryHistory() if request.param == "memory" else MongoHistory(request.getfixturevalue("db"))


def entry(number: int, account_id: str = "acct_1", **fields: Any) -> OperatorActed:
    return OperatorActed(**{"account_id": account_id, "at": NOON + timedelta(seconds=number), "verb": "x", **fields})


EVERY: list[tuple[AccountEntry, str]] = [
    (
        HealthChanged(
            account_id="acct_1",
            at=NOON,
            process="gw_1",
            old_state="active",
            old_cause="healthy",
            state="cooldown",
            cause="rate_limited",
            until=LATER,
            evidence="req_1",
        ),
        "active (healthy) became cooldown (rate_limited) until 2026-05-20 12:05:00 UTC, by req_1.",
    ),
    (
        HealthChanged(
            account_id="acct_1",
            at=NOON + timedelta(seconds=1),
            old_state="cooldown",
            old_cause="errors",
            state="cooldown",
            cause="errors",
            until=LATER,
        ),
        "Stays cooldown (errors) until 2026-05-20 12:05:00 UTC.",
    ),
    (
        HealthChanged(
            account_id="acct_1",
            at=NOON + timedelta(seconds=2),
            old_state="active",
            old_cause="healthy",
            state="active",
            cause="rate_limited",
            scope="account+model",
            until=LATER,
            model="gpt-4o",
        ),
        "Not used for gpt-4o until 2026-05-20 12:05:00 UTC (rate_limited).",
    ),
    (
        BalanceMeasured(account_id="acct_1", at=NOON + timedelta(seconds=3), measured=1),
        "Measured 1 point.",
    ),
    (
        BalanceMeasured(account_id="acct_1", at=NOON + timedelta(seconds=4), measured=0, expected=0),
        "Measured 0 points, as expected.",
    ),
    (
        BalanceMeasured(
            account_id="acct_1", at=NOON + timedelta(seconds=5), measured=900, expected=1200, unexplained=300
        ),
        "Measured 900 points, 300 fewer than the 1,200 that were expected.",
    ),
    (
        BalanceMeasured(account_id="acct_1", at=NOON + timedelta(seconds=6), measured=3000, expected=20, renewed=True),
        "Measured 3,000 points: renewed.",
    ),
    (
        AttemptFailed(
            account_id="acct_1",
            at=NOON + timedelta(seconds=7),
            outcome="Transient",
            detail="HTTP 502",
            model="gpt-4o",
            charged_to="account",
            evidence="req_2",
        ),
        "An attempt for gpt-4o failed on the upstream's side (HTTP 502), request req_2. Charged to the account.",
    ),
    (
        AttemptFailed(
            account_id="acct_1", at=NOON + timedelta(seconds=8), outcome="Challenged", withheld="one_request"
        ),
        "An attempt met a bot challenge. "
        "The account was left as it is: one request alone may not change several accounts.",
    ),
    (entry(9, verb="clear_cooldown"), "Operator: clear cooldown."),
    (
        AlertRaised(account_id="acct_1", at=NOON + timedelta(seconds=10), alert="foreign_spend", message="300 gone."),
        "Alert (foreign_spend): 300 gone.",
    ),
]


@pytest.mark.parametrize(("one", "text"), EVERY, ids=lambda value: type(value).__name__)
def test_entries_in_words(one: AccountEntry, text: str) -> None:
    assert entry_in_words(one) == text


async def test_every_kind_is_read_as_it_was_noted(store: Store) -> None:
    log = HistoryLog(store)
    for one, _ in EVERY:
        log.note(one)
    log.note(entry(0, "acct_2"))
    assert await log.of("acct_1", 50) == [one for one, _ in EVERY[::-1]]
    assert await log.flush() and log.lost == 0
    assert len(await HistoryLog(store).of("acct_2", 50)) == 1


async def test_pages_go_back_in_time_and_tear_no_moment_apart(store: Store) -> None:
    log = HistoryLog(store)
    for number in (1, 2, 3, 3, 3, 4):
        log.note(entry(number, verb=f"v{number}"))
    first = await log.of("acct_1", 2)
    assert [each.at for each in first] == [NOON + timedelta(seconds=number) for number in (4, 3, 3, 3)]
    second = await log.of("acct_1", 2, before=first[-1].at)
    assert [each.at for each in second] == [NOON + timedelta(seconds=number) for number in (2, 1)]
    assert await log.of("acct_1", 2, before=second[-1].at) == []


async def test_entries_end_by_themselves_after_the_days_of_the_setting(db: Database) -> None:
    log = HistoryLog(MongoHistory(db, days=2))
    log.note(entry(0))
    await log.flush()
    row = await db.account_history.find_one({})
    assert row is not None and row["expires_at"] - row["at"] == timedelta(days=2)
    index = (await db.account_history.index_information())["expiry"]
    assert index["expireAfterSeconds"] == 0 and index["key"] == [("expires_at", 1)]


async def test_a_page_is_read_by_the_index(db: Database) -> None:
    question = db.account_history.find({"account_id": "a", "at": {"$lt": NOON}}).sort("at", -1)
    plan = str((await question.explain())["queryPlanner"]["winningPlan"])
    assert "'IXSCAN'" in plan and "'SORT'" not in plan


async def test_the_database_away() -> None:
    store = MemoryHistory()
    log = HistoryLog(store)
    store.away = True
    log.note(entry(1))
    with pytest.raises(StoreUnavailable):
        await log.of("acct_1", 5)
    store.away = False
    assert len(await log.of("acct_1", 5)) == 1


async def test_failures_of_attempts_are_given_up_before_others() -> None:
    store = MemoryHistory()
    log = HistoryLog(store)
    log.note(entry(1))
    for number in range(10_100):
        log.note(AttemptFailed(account_id="acct_1", at=NOON + timedelta(seconds=number), outcome="Transient"))
    await log.flush()
    assert log.lost == 101
    assert sum(isinstance(each, OperatorActed) for each in store.rows.values()) == 1


def test_changes_of_an_account() -> None:
    rest = Health(state=State.COOLDOWN, cause=Cause.ERRORS, scope=Scope.EGRESS, until=LATER, evidence="req_9")
    block = ModelBlock(model="m", cause=Cause.RATE_LIMITED, until=LATER)
    old = account(1, model_blocks=(ModelBlock(model="old", cause=Cause.ERRORS, until=NOON),))
    new = replace(old, health=rest, model_blocks=(*old.model_blocks, block))
    told = {"account_id": old.id, "at": NOON, "process": "gw_1", "old_state": "active", "old_cause": "new"}
    state = {"state": "cooldown", "until": LATER}
    assert changes(old, new, NOON, "gw_1") == [
        HealthChanged(**told, **state, cause="errors", scope="egress", evidence="req_9"),
        HealthChanged(**told, **state, cause="rate_limited", scope="account+model", model="m"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"balance": Balance(points=3)}, {"error_count": 1}, {"health": Health(evidence="req_2", told=True)}, {"rev": 9}],
)
def test_what_is_no_change_of_health(change: dict[str, Any]) -> None:
    old = account(1)
    assert changes(old, replace(old, **change), NOON) == []
    blocked = replace(old, model_blocks=(ModelBlock(model="m", cause=Cause.ERRORS, until=NOON),))
    assert changes(blocked, old, NOON) == [], "a block that ended was no news: time does that"
