"""Schema as data, migrations in order, by one process only, and never backwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.storage import migrations, schema
from poe_gateway.storage.client import Client, Database
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.migrations import SchemaTooNew, check, migrate


async def shape(db: Database) -> dict[str, Any]:
    names = await db.list_collection_names()
    return {name: await db[name].index_information() for name in names}


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
    assert await check(empty) == ["the database has schema version 0, this gateway needs 1"]
    assert await migrate(empty, "me", SystemClock()) == 1
    assert await check(empty) == []
    assert await migrate(empty, "me", SystemClock()) == 0


async def test_an_older_database_walks_the_missing_steps(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty, "me", SystemClock())
    walked: list[int] = []

    async def note(number: int) -> None:
        walked.append(number)

    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setitem(migrations.STEPS, 2, lambda db: note(2))
    monkeypatch.setitem(migrations.STEPS, 3, lambda db: note(3))
    assert await migrate(empty, "me", SystemClock()) == 2
    assert walked == [2, 3]
    assert await migrations.version(empty) == 3


async def test_a_newer_database_is_refused(empty: Database) -> None:
    await migrate(empty, "me", SystemClock())
    await empty.meta.update_one({"_id": "schema"}, {"$set": {"version": 99}})
    before = await shape(empty)
    for call in (migrate(empty, "me", SystemClock()), check(empty)):
        with pytest.raises(SchemaTooNew, match=r"schema version 99.*versions up to 1") as refused:
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
    assert await asyncio.wait_for(waiting, 10.0) == 1


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
