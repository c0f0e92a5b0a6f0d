"""The driver's errors become the pool's words, and never quote the connection string."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from poe_gateway.clock import SystemClock
from poe_gateway.pool.store import Ask, Membership, StoreUnavailable
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import (
    BadMongoUri,
    Client,
    Database,
    StoreRefused,
    connect,
    guarded,
    has_change_streams,
    hosts,
    ping,
)
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import account, insert

PASSWORD = "canary-pass-word"


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def test_an_absent_server_is_unavailable_soon() -> None:
    since = time.monotonic()
    async with connect(f"mongodb://user:{PASSWORD}@127.0.0.1:9/?directConnection=true") as client:
        db = client["nowhere"]
        with pytest.raises(StoreUnavailable) as away:
            await ping(client)
        assert PASSWORD not in told(away.value)
        grants = MongoGrants(db)
        calls: list[Coroutine[Any, Any, Any]] = [grants.join("a", 1.0), grants.reclaim(), grants.leave("a")]
        calls += [grants.take("a", [Ask(key="x", hold=1, cap=1)])]
        calls += [MongoAccounts(db, SystemClock()).load(), MongoAccounts(db, SystemClock()).change({"x": lambda a: a})]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, StoreUnavailable)
            assert PASSWORD not in told(result)
    assert time.monotonic() - since < 12.0


async def test_a_server_that_answers_nothing_is_unavailable_soon() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    since = time.monotonic()
    async with connect(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
        with pytest.raises(StoreUnavailable):
            await ping(client)
    assert time.monotonic() - since < 6.0
    server.close()


async def test_an_operation_out_of_time_is_unavailable(db: Database) -> None:
    await insert(db, [account(1)])
    with pytest.raises(StoreUnavailable), guarded(0.2):
        await db.accounts.find_one({"$where": "sleep(2000) || true"})


async def test_a_wrong_password_is_refused(mongo_uri: str) -> None:
    separator = mongo_uri.removeprefix("mongodb://")
    async with connect(f"mongodb://nobody:{PASSWORD}@{separator}&authSource=admin") as client:
        with pytest.raises(StoreRefused, match="MONGODB_URI") as refused:
            await ping(client)
        assert PASSWORD not in told(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://host",
        "mongodb://",
        f"mongodb://user:{PASSWORD}:@host",
        f"mongodb://user:{PASSWORD}/x@host:99999",
        f"mongodb://user:{PASSWORD}@host:{PASSWORD}",
        f"mongodb://user:{PASSWORD}@host/?maxPoolSize={PASSWORD}",
    ],
)
def test_a_bad_connection_string_is_told_without_quoting_it(uri: str) -> None:
    with pytest.raises(BadMongoUri, match="MONGODB_URI") as bad:
        connect(uri)
    assert PASSWORD not in told(bad.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"mongodb://user:{PASSWORD}@a:1,b/db?replicaSet=x", "a:1,b:27017"),
        (f"mongodb+srv://user:{PASSWORD}@cluster.example.org/db?w=1", "cluster.example.org"),
        (f"mongodb://user:{PASSWORD}/@host", "an unreadable address"),
    ],
)
def test_hosts_show_no_secret(uri: str, shown: str) -> None:
    assert hosts(uri) == shown


async def test_errors_that_are_no_outage_pass(db: Database) -> None:
    await db.meta.insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError), guarded():
        await db.meta.insert_one({"_id": 1})
    with pytest.raises(OperationFailure), guarded():
        await db.meta.find_one({"$nonsense": 1})


async def test_the_pool_of_connections_is_large(mongo_uri: str) -> None:
    for given, size in (("", 128), ("&maxPoolSize=10", 128), ("&maxPoolSize=400", 400)):
        async with connect(mongo_uri + given) as client:
            assert client.options.pool_options.max_pool_size == size


async def test_change_streams_are_known(client: Client, standalone_db: Database) -> None:
    assert await has_change_streams(client)
    assert not await has_change_streams(standalone_db.client)


async def test_a_cancellation_that_the_driver_loses_is_raised_all_the_same() -> None:
    async def losing(error: Exception | None) -> None:
        with guarded():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            if error is not None:
                raise error

    for error in (None, AutoReconnect("away")):
        task = asyncio.create_task(losing(error))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_work_after_a_cancellation_is_not_cancelled_again(db: Database) -> None:
    """A task that was asked to stop may still tidy up in the database."""
    tidied: list[Membership] = []

    async def working() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            tidied.append(await MongoGrants(db).join("a", 5.0))

    task = asyncio.create_task(working())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [each.live for each in tidied] == [("a",)]


async def test_tasks_in_the_database_always_stop_when_told(db: Database) -> None:
    rng = random.Random(1)
    grants = MongoGrants(db)

    async def forever() -> None:
        while True:
            await grants.wanted("a")

    for _ in range(60):
        tasks = [asyncio.create_task(forever()) for _ in range(10)]
        await asyncio.sleep(0.02 * rng.random())
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        done, pending = await asyncio.wait(tasks, timeout=10.0)
        assert not pending
        assert all(task.cancelled() for task in done)
