"""Migrated databases for the tests of the stores: made once a session, emptied for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pymongo
import pytest
from pymongo import MongoClient

from poe_gateway.storage import schema
from poe_gateway.storage.client import Client, Database, connect


def _kept(uri: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    yield name
    with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=5000) as client:
        client.drop_database(name)


@pytest.fixture(scope="session")
def kept_name(mongo_uri: str) -> Iterator[str]:
    yield from _kept(mongo_uri)


@pytest.fixture(scope="session")
def kept_standalone_name(standalone_mongo_uri: str) -> Iterator[str]:
    yield from _kept(standalone_mongo_uri)


async def _emptied(db: Database) -> Database:
    there = await db.list_collection_names()
    if "system.profile" in there:
        await db.drop_collection("system.profile")
    if set(there) - {"system.profile"} != set(schema.COLLECTIONS):
        await schema.create(db)
    for name in schema.COLLECTIONS:
        await db[name].delete_many({})
    return db


@pytest.fixture
async def client(mongo_uri: str) -> AsyncIterator[Client]:
    async with connect(mongo_uri) as client:
        yield client


@pytest.fixture
async def nowhere(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A database that nobody answers for. However long somebody would try, here it is a moment."""
    patience = pymongo.timeout
    monkeypatch.setattr(pymongo, "timeout", lambda seconds: patience(min(0.2, seconds)))
    async with connect("mongodb://127.0.0.1:9/?directConnection=true") as client:
        yield client["nowhere"]


@pytest.fixture
async def db(client: Client, kept_name: str) -> Database:
    """On the replica set, with all collections and indexes, empty."""
    return await _emptied(client[kept_name])


@pytest.fixture
async def standalone_db(standalone_mongo_uri: str, kept_standalone_name: str) -> AsyncIterator[Database]:
    """The same on a server without replica set."""
    async with connect(standalone_mongo_uri) as client:
        yield await _emptied(client[kept_standalone_name])
