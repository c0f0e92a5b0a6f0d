"""The database: reached, of one mind with the gateway about time and shape, and with the vault about its key."""

from __future__ import annotations

import asyncio

import msgspec

from poe_gateway.api.asgi import StartFailed
from poe_gateway.bootstrap.lifetime import Ending
from poe_gateway.clock import Ids, ServerClock
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.settings import Settings
from poe_gateway.settings.options import MongoOptions
from poe_gateway.storage import schema
from poe_gateway.storage.client import Client, Database, StoreRefused, connect, hosts, ping, server_time
from poe_gateway.storage.embedded import ensure_mongod
from poe_gateway.storage.meta import MongoMeta
from poe_gateway.storage.migrations import migrate
from poe_gateway.telemetry.events import Alert, Notice
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.vault import Vault

_PATIENCE = 15.0
"""Seconds that a start waits for the database."""
_SKEW = 5.0
"""Seconds by which this machine's calendar may be off before its operator is told."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Where the state lies, and what it is sealed (``vault``) and disguised (``pepper``) with."""

    client: Client
    db: Database
    vault: Vault
    pepper: bytes


async def open_database(
    settings: Settings, *, clock: ServerClock, ids: Ids, telemetry: Telemetry, ending: Ending
) -> Stored:
    """The database, ready for this release; ``clock`` goes by its time from here on.

    Raises StartFailed, and what the operator can put right by the names of its modules.
    """
    vault = Vault(tuple(key.get_secret_value() for key in settings.vault.keys))
    uri = await _uri(settings.mongo, clock, ending)
    client = connect(uri)
    ending.close(client.close)
    await _answers(client, hosts(uri), clock, telemetry)
    db = client[settings.mongo.db]
    await _set_clock(client, clock, telemetry)
    await migrate(db, ids.new("migrator", 8), clock)
    size = settings.explain.decisions_store_mb
    if size and not await schema.ensure_capped(db, size):
        message = "the database does not let the store of decision records be resized"
        telemetry.emit(Notice(level="warning", message=message))
    meta = MongoMeta(db)
    await meta.self_test(vault)
    return Stored(client=client, db=db, vault=vault, pepper=await meta.pepper(vault, ids))


async def _uri(mongo: MongoOptions, clock: ServerClock, ending: Ending) -> str:
    if mongo.uri is not None:
        return mongo.uri.get_secret_value()
    mongod = await ensure_mongod(mongo.data_dir, clock)
    ending.close(mongod.release)
    return mongod.uri


async def _answers(client: Client, where: str, clock: ServerClock, telemetry: Telemetry) -> None:
    """Wait a little for the database: it may be starting too, or be away just when a worker is replaced."""
    deadline = clock.monotonic() + _PATIENCE
    told = False
    while True:
        try:
            return await ping(client)
        except StoreRefused:
            raise
        except StoreUnavailable as error:
            if clock.monotonic() >= deadline:
                raise StartFailed(f"The gateway cannot start. {error} at {where}; see MONGODB_URI.") from None
            if not told:
                message = f"{error} at {where}; trying again for {_PATIENCE:g} seconds"
                telemetry.emit(Notice(level="warning", message=message))
                told = True
        await asyncio.sleep(0.5)


async def _set_clock(client: Client, clock: ServerClock, telemetry: Telemetry) -> None:
    """Everything that expires goes by the database's clock."""
    sent = clock.monotonic()
    clock.sync(await server_time(client), sent, clock.monotonic())
    if abs(clock.skew) > _SKEW:
        telemetry.emit(
            Alert(
                kind="clock_skew",
                message="this machine's calendar is off; the database's is used",
                fields={"seconds": round(clock.skew, 1)},
            )
        )
