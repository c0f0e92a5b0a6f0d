"""The connection to MongoDB, and the one place where the driver's errors become the pool's words.

The driver's connection pool is unfair when tasks outnumber connections, so it is large. Messages never hold the
connection string: what the driver says about a failure stays out of them too, since it may quote parts of it.

Cancellation is kept: the driver sends with ``asyncio.wait_for``, which before Python 3.12 loses a cancellation that
arrives in the very step in which sending ends; the task would go on as if nobody had asked it to stop. ``guarded``
notices that and raises what was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.uri_parser import parse_uri

from poe_gateway.pool.store import StoreUnavailable

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]
Collection = AsyncCollection[Document]

_POOL = 128
"""Connections per process: above what one process does at once."""
_SELECTION_MS = 3000
_PATIENCE = 5.0
"""Seconds for one call. While the database is away the driver tries again until then."""

# Codes of servers that are going down, electing, overloaded or too slow.
_AWAY = frozenset(
    {6, 7, 24, 50, 64, 89, 91, 112, 133, 134, 189, 202, 262} | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
_NOT_ADMITTED = frozenset({13, 18, 8000})


class StoreRefused(StoreUnavailable):
    """MongoDB answers, but not to this gateway: wrong name, password or options in MONGODB_URI."""


class BadMongoUri(ValueError):
    """MONGODB_URI is not a MongoDB connection string."""


def connect(uri: str, *, appname: str = "poe-gateway") -> Client:
    """A client; nothing is sent yet. Writes are acknowledged by a majority. Raises BadMongoUri."""
    try:
        given = parse_uri(uri, validate=True, warn=False)["options"] if uri.startswith("mongodb://") else {}
        return AsyncMongoClient(
            uri,
            appname=appname,
            tz_aware=True,
            maxPoolSize=max(_POOL, int(given.get("maxPoolSize") or 0)),
            maxIdleTimeMS=300_000,
            serverSelectionTimeoutMS=_SELECTION_MS,
            connectTimeoutMS=_SELECTION_MS,
            socketTimeoutMS=30_000,
            w="majority",
            retryWrites=True,
            retryReads=True,
        )
    except (PyMongoError, ValueError, TypeError) as error:
        raise BadMongoUri(f"MONGODB_URI is not a valid MongoDB connection string ({_kind(error)})") from None


def hosts(uri: str) -> str:
    """Where the database is, for logs: hosts only, never name, password or options."""
    if uri.startswith("mongodb+srv://"):
        return uri.removeprefix("mongodb+srv://").rpartition("@")[2].partition("/")[0].partition("?")[0]
    try:
        nodes = parse_uri(uri, warn=False)["nodelist"]
    except (PyMongoError, ValueError):
        return "an unreadable address"
    return ",".join(f"{host}:{port}" for host, port in nodes)


def password_of(uri: str) -> str | None:
    """The password as it stands in the connection string, for the redaction of logs."""
    credentials, sign, _ = uri.partition("://")[2].rpartition("@")
    return credentials.partition(":")[2] or None if sign else None


@contextmanager
def guarded(seconds: float = _PATIENCE) -> Iterator[None]:
    """Bound the operations within by ``seconds`` in all and translate the driver's errors.

    Raises StoreUnavailable where the database was away or too slow, StoreRefused where it does not admit us. Other
    errors (a duplicate key, a malformed operation) pass unchanged. To be used within a task.
    """
    before = cancellations()
    try:
        with pymongo.timeout(seconds):
            yield
    except (ConnectionFailure, OperationFailure, ConfigurationError) as error:
        if cancellations() > before:
            raise asyncio.CancelledError from None
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from None
    if cancellations() > before:
        raise asyncio.CancelledError


def cancellations() -> int:
    """How often the running task was asked to stop. More than before, and no CancelledError: it was lost."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _translate(error: PyMongoError) -> StoreUnavailable | None:
    if isinstance(error, ConnectionFailure) or error.timeout:
        return StoreUnavailable(f"MongoDB did not answer ({_kind(error)})")
    if isinstance(error, ConfigurationError):
        return StoreRefused(f"MongoDB cannot be reached with these settings of MONGODB_URI ({_kind(error)})")
    if not isinstance(error, OperationFailure):
        return None
    codes = {error.code}
    if isinstance(error, BulkWriteError):
        codes = {each.get("code") for each in error.details.get("writeErrors", ())}
        if error.details.get("writeConcernErrors"):
            return StoreUnavailable("MongoDB did not confirm a write by a majority")
    if codes & _NOT_ADMITTED:
        return StoreRefused(f"MongoDB refuses the name, password or rights of MONGODB_URI (code {error.code})")
    if codes & _AWAY or any(error.has_error_label(label) for label in ("RetryableWriteError", "NetworkError")):
        return StoreUnavailable(f"MongoDB is not able to serve at the moment ({_kind(error)}, code {error.code})")
    return None


def _kind(error: Exception) -> str:
    return "InvalidURI" if isinstance(error, InvalidURI) else type(error).__name__


async def ping(client: Client, seconds: float = 3.0) -> None:
    """Return when MongoDB answered. Raises StoreUnavailable or StoreRefused."""
    with guarded(seconds):
        await client.admin.command("ping")


async def server_time(client: Client) -> datetime:
    """The server's clock. Raises StoreUnavailable."""
    with guarded():
        hello = await client.admin.command("hello")
    told: datetime = hello["localTime"]
    return told if told.tzinfo is not None else told.replace(tzinfo=UTC)


async def has_change_streams(client: Client) -> bool:
    """Whether the server tells changes by itself: replica sets and sharded clusters do. Raises StoreUnavailable."""
    with guarded():
        hello = await client.admin.command("hello")
    return "setName" in hello or hello.get("msg") == "isdbgrid"
