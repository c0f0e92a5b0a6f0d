"""A migrated database for each test, and the stores' two implementations for the contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from poe_gateway.storage import schema
from poe_gateway.storage.client import Client, Database, connect


@pytest.fixture
async def client(mongo_uri: str) -> AsyncIterator[Client]:
    async with connect(mongo_uri) as client:
        yield client


@pytest.fixture
async def db(client: Client, db_name: str) -> Database:
    """On the replica set, with all collections and indexes."""
    await schema.create(client[db_name])
    return client[db_name]


@pytest.fixture
async def standalone_db(standalone_mongo_uri: str, db_name: str) -> AsyncIterator[Database]:
    """The same on a server without replica set."""
    async with connect(standalone_mongo_uri) as client:
        await schema.create(client[db_name])
        yield client[db_name]
