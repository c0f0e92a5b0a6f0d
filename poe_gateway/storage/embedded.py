"""The embedded MongoDB: one mongod of one member, on loopback, started and stopped with the gateway and shared.

Everything is in ``<data_dir>/mongo``:

- ``db/``: the data, and mongod's own lock on it (see ``mongod``).
- ``port``: written before mongod is started, so that a start that was cut short is found again.
- ``turn.lock``: held while somebody joins or leaves, one at a time.
- ``users.lock``: held in shared mode by every process that uses this mongod. The lock of a killed process vanishes
  by itself. Who leaves and can have it alone is the last one, and stops mongod.

If all users are killed, mongod stays; the next start joins it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from poe_gateway.clock import Clock
from poe_gateway.storage.mongod import (
    ESCAPE,
    PATIENCE,
    REPLICA_SET,
    MongoUnavailable,
    PortTaken,
    find_mongod,
    running_pid,
    start_mongod,
    stop_mongod,
)

_POLL = 0.05  # seconds
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94


class EmbeddedMongo:
    """One process's share in the embedded mongod. ``release`` gives it back; the last one stops mongod."""

    def __init__(self, home: Path, port: int, pid: int, users: int, clock: Clock) -> None:
        self.port = port
        self.pid = pid
        self.log = home / "mongod.log"
        self._home = home
        self._users: int | None = users
        self._clock = clock

    @property
    def uri(self) -> str:
        """Connection string, replica set included."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet={REPLICA_SET}"

    def __repr__(self) -> str:
        return f"EmbeddedMongo(port={self.port}, pid={self.pid}, released={self._users is None})"

    async def release(self) -> None:
        """Leave; a second call does nothing. Stops mongod when nobody else uses it."""
        users, self._users = self._users, None
        if users is None:
            return
        try:
            async with _turn(self._home, self._clock):
                await _leave(self._home, users, self._clock, self.pid)
        finally:
            os.close(users)


async def ensure_mongod(data_dir: Path, clock: Clock, *, binary: Path | None = None) -> EmbeddedMongo:
    """Join the mongod of ``data_dir``, starting it if it does not run. Raises MongoUnavailable.

    ``binary`` names another mongod than the one that ``find_mongod`` finds.
    """
    home = _prepare(data_dir)
    users = _open(home / "users.lock")
    try:
        async with _turn(home, clock):
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)  # never refused: it is only had alone during a turn
            try:
                port, pid = await _join_or_start(home, clock, binary)
            except BaseException:
                await _leave(home, users, clock)
                raise
    except BaseException:
        os.close(users)
        raise
    return EmbeddedMongo(home, port, pid, users, clock)


# --- inside one turn -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _turn(home: Path, clock: Clock) -> AsyncIterator[None]:
    """One process at a time. Raises MongoUnavailable when the others take too long."""
    lock = _open(home / "turn.lock")
    try:
        deadline = clock.monotonic() + 2 * PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic() > deadline:
                    raise MongoUnavailable(f"Another process holds {home / 'turn.lock'} for too long.") from None
                await asyncio.sleep(_POLL)
        yield
    finally:
        os.close(lock)  # and so unlocks


async def _join_or_start(home: Path, clock: Clock, binary: Path | None) -> tuple[int, int]:
    """(port, process id) of a mongod that is primary of our replica set."""
    deadline = clock.monotonic() + PATIENCE
    port = _known_port(home)
    if running_pid(home) is None:
        port = await _start(home, binary or find_mongod(), port)
    while not port or not (ours := await _is_ours(port, home)):  # a joined one may just be starting, a busy one be slow
        if running_pid(home) is None:
            raise MongoUnavailable(f"mongod ended right after its start; see {home / 'mongod.log'}.")
        if not port or ours is False or clock.monotonic() > deadline:
            raise MongoUnavailable(
                f"Another mongod (process {running_pid(home)}) uses the data in {home}. Stop it, "
                f"give GATEWAY_DATA_DIR another folder, {ESCAPE}."
            )
        await asyncio.sleep(_POLL)
    await _become_primary(port, clock, deadline)
    return port, running_pid(home) or 0


async def _start(home: Path, binary: Path, port: int | None) -> int:
    """Start on the port of last time if it is free, so that clients of a mongod that crashed find the new one."""
    for _ in range(5):
        if port is None or not _is_free(port):
            port = _free_port()
        (home / "port").write_text(f"{port}\n", encoding="ascii")
        try:
            await start_mongod(binary, home, port)
        except PortTaken:
            port = None
            continue
        return port
    raise MongoUnavailable("No free port on 127.0.0.1 could be had for mongod.")


async def _leave(home: Path, users: int, clock: Clock, pid: int | None = None) -> None:
    """Give up the share; if it was the last one, stop mongod: the one with ``pid``, else one that is surely ours."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        running, port = running_pid(home), _known_port(home)
        if running is not None and (running == pid or (port and await _is_ours(port, home))):
            await stop_mongod(home, clock)
    except BlockingIOError:
        pass  # others stay
    finally:
        fcntl.flock(users, fcntl.LOCK_UN)


async def _become_primary(port: int, clock: Clock, deadline: float) -> None:
    """Found the replica set on first use, correct its address after a change of port, wait until it takes writes."""
    host = f"127.0.0.1:{port}"
    async with _client(port) as client:
        while True:
            try:
                if (await client.admin.command("hello")).get("isWritablePrimary"):
                    return
                await _configure(client, host)
            except OperationFailure as error:  # 94 and 23 also while an existing configuration is still being read
                if error.code not in (_ALREADY_INITIALIZED, _NOT_YET_INITIALIZED):
                    raise MongoUnavailable(f"The replica set of the embedded MongoDB failed: {error.code}.") from error
            except PyMongoError as error:
                if clock.monotonic() > deadline:
                    raise MongoUnavailable("The embedded MongoDB stopped answering.") from error
            if clock.monotonic() > deadline:
                raise MongoUnavailable("The embedded MongoDB did not become primary in time.")
            await asyncio.sleep(_POLL)


async def _configure(client: AsyncMongoClient[dict[str, Any]], host: str) -> None:
    try:
        config = (await client.admin.command("replSetGetConfig"))["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        fresh = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}], "settings": {"electionTimeoutMillis": 1000}}
        await client.admin.command("replSetInitiate", fresh)
        return
    if config["members"][0]["host"] != host:
        config["members"][0]["host"] = host
        config["version"] += 1
        await client.admin.command("replSetReconfig", config, force=True)


async def _is_ours(port: int, home: Path) -> bool | None:
    """Whether the mongod behind the port keeps its data in ``home/db``; None while nobody answers there.

    One question, so that silence at one moment and an answer at the next are never taken together for a stranger.
    """
    async with _client(port) as client:
        try:
            options = await client.admin.command("getCmdLineOpts")
        except OperationFailure:
            return False  # answers, and does not tell us: one with users of its own
        except PyMongoError:
            return None
    path = options.get("parsed", {}).get("storage", {}).get("dbPath")
    return _same(path, home / "db")


def _client(port: int) -> AsyncMongoClient[dict[str, Any]]:
    return AsyncMongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500)


# --- files and ports -------------------------------------------------------------------------------------------------


def _prepare(data_dir: Path) -> Path:
    home = data_dir.absolute() / "mongo"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "db").mkdir(mode=0o700, exist_ok=True)
        os.close(_open(home / "turn.lock"))
    except OSError as error:
        raise MongoUnavailable(
            f"The data folder {home} cannot be written ({error.strerror}). Give GATEWAY_DATA_DIR a folder of your own, "
            + ESCAPE
            + "."
        ) from None
    return home


def _same(path: str | None, folder: Path) -> bool:
    return path is not None and os.path.realpath(path) == os.path.realpath(folder)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _known_port(home: Path) -> int | None:
    try:
        text = (home / "port").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() and 0 < int(text) < 65_536 else None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
