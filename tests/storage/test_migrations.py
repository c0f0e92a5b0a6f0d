"""Schema as data, migrations in order, by one process only, and never backwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.storage import migrations, schema
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import Client, Database
from poe_gateway.storage.keys import MongoKeys
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.migrations import SchemaTooNew, check, migrate
from poe_gateway.storage.sessions import MongoSessions
from tests.storage.making import NOON


async def shape(db: Database) -> dict[str, Any]:
    """Indexes and options (a fixed size) of every collection."""
    names = await db.list_collection_names()
    return {name: (await db[name].index_information(), await db[name].options()) for name in names}


@pytest.fixture
def empty(client: Client, db_name: str) -> Database:
    return client[db_name]


async def test_replaying_all_migrations_gives_the_schema(empty: Database, client: Client) -> None:
    other = client[empty.name + "_replayed"]
    try:
        await schema.create(empty)
        await migrations.replay(other)
        assert await shape(other) == await shape(empty)
        assert await migrations.version(other) == schema.VERSION == max(migrations.STEPS)
        assert sorted(migrations.STEPS) == list(range(1, schema.VERSION + 1))
    finally:
        await client.drop_database(other)


async def test_every_step_may_be_repeated(empty: Database) -> None:
    await migrations.replay(empty)
    once = await shape(empty)
    await migrations.replay(empty)
    assert await shape(empty) == once


async def test_a_new_database_is_made_and_then_left_alone(empty: Database) -> None:
    assert await check(empty) == [f"the database has schema version 0, this gateway needs {schema.VERSION}"]
    assert await migrate(empty, "me", SystemClock()) == 1
    assert await check(empty) == []
    assert await migrate(empty, "me", SystemClock()) == 0


async def test_an_older_database_walks_the_missing_steps(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty, "me", SystemClock())
    walked: list[int] = []

    async def note(number: int) -> None:
        walked.append(number)

    next_one, last = schema.VERSION + 1, schema.VERSION + 2
    monkeypatch.setattr(schema, "VERSION", last)
    monkeypatch.setitem(migrations.STEPS, next_one, lambda db: note(next_one))
    monkeypatch.setitem(migrations.STEPS, last, lambda db: note(last))
    assert await migrate(empty, "me", SystemClock()) == 2
    assert walked == [next_one, last]
    assert await migrations.version(empty) == last


OLD_ACCOUNT = {
    "_id": "acct_00001",
    "provider": "poe_web",
    "name": "User@example.org",
    "name_key": "user@example.org",
    "offer": "poe_web",
    "intent": "paused",
    "health": {"state": "cooldown", "cause": "rate_limited", "scope": "account", "since": NOON, "until": NOON},
    "model_blocks": [{"model": "m", "cause": "errors", "until": NOON}],
    "balance": {"points": 1200, "estimated": False, "measured_at": NOON},
    "metered": True,
    "renews_daily": True,
    "error_count": 2,
    "last_error": {"kind": "Transient", "detail": "502", "at": NOON},
    "created_at": NOON,
    "rev": 4,
    "credential_rev": 1,
    "changed_at": NOON,
}
OLD_KEY = {"_id": "key_1", "name": "app", "hash": "ab", "enabled": True, "created_at": NOON, "changed_at": NOON}
OLD_SESSION = {
    "_id": "s1",
    "account_id": "acct_00001",
    "offer": "poe_web",
    "model": "m",
    "state": {"chat": 12},
    "chain": ["a"],
    "updated_at": NOON,
    "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
}


async def test_what_version_1_wrote_is_kept_and_read(empty: Database) -> None:
    await migrations.m0001_first.apply(empty)
    await empty.meta.insert_one({"_id": "schema", "version": 1})
    rows = {"accounts": OLD_ACCOUNT, "service_keys": OLD_KEY, "sessions": OLD_SESSION}
    for name, row in rows.items():
        await empty[name].insert_one(dict(row))
    assert await migrate(empty, "me", SystemClock()) == schema.VERSION - 1
    assert await check(empty) == []
    for name, row in rows.items():
        assert await empty[name].find_one() == row, name
    [account] = await MongoAccounts(empty, SystemClock()).load()
    assert (account.name, account.balance.points, account.health.cause) == ("User@example.org", 1200, "rate_limited")
    assert (account.priority, account.weight, account.labels, account.strikes) == (0, 1, (), 0)
    [key] = await MongoKeys(empty, SystemClock()).load()
    assert (key.id, key.name, key.enabled) == ("key_1", "app", True)
    session = await MongoSessions(empty, 3600.0).get("s1")
    assert session is not None and (session.account_id, session.chain) == ("acct_00001", ("a",))


async def test_responses_of_version_4_are_told_what_they_go_on_from(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    await empty.responses.drop_index("previous")
    await empty.meta.update_one({"_id": "schema"}, {"$set": {"version": 4}})
    await empty.responses.insert_many([{"_id": "resp_1", "path": []}, {"_id": "resp_2", "path": ["resp_0", "resp_1"]}])
    assert await migrate(empty, "me", SystemClock()) == schema.VERSION - 4
    assert await check(empty) == []
    told = {each["_id"]: each.get("previous") async for each in empty.responses.find()}
    assert told == {"resp_1": None, "resp_2": "resp_1"}


async def test_records_that_lost_their_fixed_size_get_it_back(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    await empty.drop_collection("decisions")
    await empty.decisions.insert_one({"_id": 1, "request_id": "r"})
    told = await check(empty)
    assert "collection decisions has no fixed size" in told and "index moment of decisions is missing" in told
    await migrations.m0002_explanation.apply(empty)
    assert await check(empty) == []
    assert await empty.decisions.find_one() == {"_id": 1, "request_id": "r"}


async def test_a_fixed_size_follows_the_setting(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    for megabytes in (64, 1, 1, 128):
        assert await schema.ensure_capped(empty, megabytes)
        assert (await empty.decisions.options())["size"] == megabytes * 1024 * 1024
    assert await check(empty) == [], "the size is the operator's"


async def test_the_size_stays_where_it_cannot_be_changed(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    assert not await schema.ensure_capped(empty, 5, "duties"), "not of a fixed size at all"


async def test_a_newer_database_is_refused(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    await empty.meta.update_one({"_id": "schema"}, {"$set": {"version": 99}})
    before = await shape(empty)
    for call in (migrate(empty, "me", SystemClock()), check(empty)):
        with pytest.raises(SchemaTooNew, match=r"schema version 99.*versions up to \d+") as refused:
            await call
        assert refused.value.found == 99
    assert await shape(empty) == before


async def test_check_tells_what_is_missing_or_different(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    await empty.drop_collection("duties")
    await empty.accounts.drop_index("listing")
    await empty.service_keys.drop_index("hash")
    await empty.service_keys.create_index([("hash", 1)], name="hash")
    await empty.sessions.create_index([("model", 1)], name="mine")
    assert sorted(await check(empty)) == [
        "collection duties is missing",
        "index hash of service_keys is defined otherwise",
        "index listing of accounts is missing",
        "index mine of sessions is not known",
    ]


async def test_a_process_waits_for_the_one_that_migrates(empty: Database) -> None:
    leases = MongoLeases(empty)
    assert await leases.acquire("migration", "other", 60.0)
    waiting = asyncio.create_task(migrate(empty, "me", SystemClock()))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    await leases.release("migration", "other")
    assert await asyncio.wait_for(waiting, 60.0) == 1


async def test_of_four_processes_one_migrates(mongo_uri: str, empty: Database) -> None:
    command = [sys.executable, "-m", "tests.storage.migrate_worker", mongo_uri, empty.name]
    processes = [
        subprocess.Popen([*command, f"p{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(said) == ["0", "0", "0", "1"]
    assert await check(empty) == []
