"""Bringing a database to this version: numbered, idempotent steps, run in order by exactly one process.

The version is in ``meta``: ``{_id: "schema", version}``. A new database is made from ``schema`` at once; an older one
walks the steps; a newer one is refused. Processes that start together queue up behind a lease on the database's
clock and find the work done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from poe_gateway.clock import Clock
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, guarded
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.migrations import (
    m0001_first,
    m0002_explanation,
    m0003_money,
    m0004_responses,
    m0005_successors,
)

STEPS: dict[int, Callable[[Database], Awaitable[None]]] = {
    1: m0001_first.apply,
    2: m0002_explanation.apply,
    3: m0003_money.apply,
    4: m0004_responses.apply,
    5: m0005_successors.apply,
}
"""Version -> what leads there from the version before."""

_LEASE = "migration"
_LEASE_SECONDS = 20.0
_POLL = 0.1
_PATIENCE = 300.0
"""Seconds to wait for another process that migrates."""


class SchemaTooNew(Exception):
    """The database was written by a newer gateway."""

    def __init__(self, found: int) -> None:
        super().__init__(
            f"The database has schema version {found}, this gateway knows versions up to {schema.VERSION}. "
            "Start the newer gateway, name another database in MONGODB_DB, or restore a backup of the older version."
        )
        self.found = found


class MigrationStuck(Exception):
    """Another process migrates the database and does not come to an end."""


async def version(db: Database) -> int:
    """The database's version, 0 for a new one. Raises StoreUnavailable."""
    with guarded():
        document = await db[schema.META].find_one({"_id": "schema"})
    return 0 if document is None else int(document["version"])


async def check(db: Database) -> list[str]:
    """What is not as it should be, changing nothing; empty when all is well. Raises SchemaTooNew, StoreUnavailable."""
    found = await version(db)
    if found > schema.VERSION:
        raise SchemaTooNew(found)
    if found < schema.VERSION:
        return [f"the database has schema version {found}, this gateway needs {schema.VERSION}"]
    return await schema.differences(db)


async def migrate(db: Database, owner: str, clock: Clock) -> int:
    """Bring the database to ``schema.VERSION``; the number of steps that this process did.

    ``owner`` names this process. Raises SchemaTooNew, MigrationStuck, StoreUnavailable.
    """
    deadline = clock.monotonic() + _PATIENCE
    leases = MongoLeases(db)
    while True:
        found = await version(db)
        if found > schema.VERSION:
            raise SchemaTooNew(found)
        if found == schema.VERSION:
            return 0
        if await leases.acquire(_LEASE, owner, _LEASE_SECONDS):
            break
        if clock.monotonic() > deadline:
            raise MigrationStuck(f"Another process holds the migration lease for more than {_PATIENCE:.0f} seconds.")
        await asyncio.sleep(_POLL)
    holding = asyncio.create_task(_hold(leases, owner))
    try:
        return await _run(db)
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await leases.release(_LEASE, owner)


async def _hold(leases: MongoLeases, owner: str) -> None:
    while True:
        await asyncio.sleep(_LEASE_SECONDS / 4)
        await leases.renew(_LEASE, owner, _LEASE_SECONDS)


async def _run(db: Database) -> int:
    found = await version(db)
    if found == 0:
        await schema.create(db)
        await _record(db, schema.VERSION)
        return 1
    done = 0
    for number in range(found + 1, schema.VERSION + 1):
        await STEPS[number](db)
        await _record(db, number)
        done += 1
    return done


async def replay(db: Database) -> None:
    """Walk all steps from the first on, as a database that was there from the beginning did."""
    for number in sorted(STEPS):
        await STEPS[number](db)
        await _record(db, number)


async def _record(db: Database, number: int) -> None:
    with guarded():
        await db[schema.META].update_one({"_id": "schema"}, {"$max": {"version": number}}, upsert=True)
