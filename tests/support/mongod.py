"""Real MongoDBs for the tests: one a session, a database a test.

``mongo_uri`` is a replica set of one member, ``standalone_mongo_uri`` a server without a replica set (no change
streams, no transactions); both start when the first test asks for them. ``TEST_MONGODB_URI`` in the environment takes
the place of the first, to run the same tests on another MongoDB. ``db_name`` is dropped after its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from poe_gateway.clock import SystemClock
from poe_gateway.storage import embedded, mongod
from tests.support.ports import free_port

_uris: list[str] = []


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder that goes away afterwards, with whatever mongod runs in it, even when pytest itself is killed.

    The embedded mongod in it has a port that stays free when it is stopped.
    """
    home = Path(tempfile.mkdtemp(prefix="gateway-mongo-"))
    (home / "mongo").mkdir()
    (home / "mongo" / "port").write_text(str(free_port()))
    lock = home / "mongo" / "db" / "mongod.lock"
    # Reads from a pipe that only this process writes to: it ends with this process, whatever ends that.
    sweep = 'cat >/dev/null; pid=$(cat "$1"); [ -z "$pid" ] || kill -9 "$pid"; rm -rf "$2"'
    watchman = subprocess.Popen(
        ["/bin/sh", "-c", sweep, "watchman", str(lock), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield home
    finally:
        assert watchman.stdin is not None
        watchman.stdin.close()
        watchman.wait()
        shutil.rmtree(home, ignore_errors=True)


async def start_standalone(home: Path) -> int:
    """A mongod without replica set on ``home/mongo``; returns its port."""
    port = free_port()
    (home / "mongo" / "db").mkdir(parents=True)
    await mongod.start_mongod(mongod.find_mongod(), home / "mongo", port, replica_set=None)
    return port


def _keep_expired(uri: str) -> None:
    """Once a minute the server takes away what has expired: to it, whatever the tests' own calendars date is past."""
    with MongoClient[dict[str, object]](uri) as client:
        client.admin.command({"setParameter": 1, "ttlMonitorEnabled": False})


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """Connection string of a replica set, the same for the whole session."""
    given = os.environ.get("TEST_MONGODB_URI")
    if given:
        _uris.append(given)
        yield given
        return
    with temporary_home() as home:
        mongo = asyncio.run(embedded.ensure_mongod(home, SystemClock()))
        _keep_expired(mongo.uri)
        _uris.append(mongo.uri)
        yield mongo.uri
        _uris.remove(mongo.uri)
        asyncio.run(mongo.release())


@pytest.fixture(scope="session")
def standalone_mongo_uri() -> Iterator[str]:
    """Connection string of a server without replica set, the same for the whole session."""
    with temporary_home() as home:
        uri = f"mongodb://127.0.0.1:{asyncio.run(start_standalone(home))}/?directConnection=true"
        _keep_expired(uri)
        _uris.append(uri)
        yield uri
        _uris.remove(uri)
        asyncio.run(mongod.stop_mongod(home / "mongo", SystemClock()))


@contextlib.contextmanager
def new_database() -> Iterator[str]:
    """Name of a database that nobody else uses; afterwards it is dropped from all MongoDBs."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    for uri in _uris:
        with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=60_000) as client:
            client.drop_database(name)


@pytest.fixture
def db_name() -> Iterator[str]:
    """Name of a database that no other test uses."""
    with new_database() as name:
        yield name
