"""The embedded mongod with real processes: one starts it, all use it, the last one stops it, nobody loses it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from pymongo import AsyncMongoClient

from poe_gateway.clock import SystemClock
from poe_gateway.storage import mongod
from poe_gateway.storage.embedded import ensure_mongod
from poe_gateway.storage.mongod import MongoUnavailable, explain, find_mongod, running_pid, stop_mongod
from tests.support.mongod import start_standalone, temporary_home

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CLOCK = SystemClock()


class User:
    """Another process that uses the mongod of ``home``."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-m", "tests.support.mongod_user", str(home)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def joined(self) -> tuple[int, int]:
        """(process id, port) of the mongod, once joined."""
        assert self.process.stdout is not None
        pid, port = self.process.stdout.readline().split()
        return int(pid), int(port)

    def leave(self) -> None:
        said, _ = self.process.communicate("")
        assert (said.strip(), self.process.returncode) == ("released", 0)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as folder:
        yield folder


def running(home: Path) -> int | None:
    return running_pid(home / "mongo")


async def test_it_takes_writes_and_transactions_and_keeps_its_data(home: Path) -> None:
    for expected in (1, 2):
        mongo = await ensure_mongod(home, CLOCK)
        async with AsyncMongoClient[dict[str, object]](mongo.uri) as client, client.start_session() as session:
            async with await session.start_transaction():
                await client.kept["things"].insert_one({"n": expected}, session=session)
            assert await client.kept["things"].count_documents({}) == expected
        await mongo.release()
        assert running(home) is None


async def test_one_of_many_processes_starts_it_and_the_last_one_stops_it(home: Path) -> None:
    users = [User(home) for _ in range(5)]
    joined = {user.joined() for user in users}
    assert len(joined) == 1
    ((pid, _),) = joined
    for user in users[:-1]:
        user.leave()
        assert running(home) == pid
    users[-1].leave()
    assert running(home) is None


async def test_all_leave_at_once(home: Path) -> None:
    users = [User(home) for _ in range(4)]
    for user in users:
        user.joined()
    await asyncio.gather(*(asyncio.to_thread(user.leave) for user in users))
    assert running(home) is None


async def test_joining_while_the_last_one_leaves(home: Path) -> None:
    leaver = User(home)
    leaver.joined()
    _, mongo = await asyncio.gather(asyncio.to_thread(leaver.leave), ensure_mongod(home, CLOCK))
    assert running(home) == mongo.pid
    await mongo.release()
    assert running(home) is None


async def test_a_mongod_that_is_slow_to_answer_is_joined_and_not_taken_for_a_stranger(home: Path) -> None:
    user = User(home)
    pid, port = user.joined()
    os.kill(pid, signal.SIGSTOP)
    try:
        joining = asyncio.create_task(ensure_mongod(home, CLOCK))
        await asyncio.sleep(0.75)  # longer than one look waits, shorter than two
    finally:
        os.kill(pid, signal.SIGCONT)
    mongo = await joining
    assert (mongo.pid, mongo.port) == (pid, port)
    user.leave()
    assert running(home) == pid
    await mongo.release()
    assert running(home) is None


async def test_a_killed_user_holds_nothing_back(home: Path) -> None:
    starter, other = User(home), User(home)
    pid, _ = starter.joined()
    other.joined()
    starter.kill()
    assert running(home) == pid
    other.leave()
    assert running(home) is None


async def test_when_all_users_were_killed_the_next_start_joins_what_runs(home: Path) -> None:
    users = [User(home), User(home)]
    pids = {user.joined()[0] for user in users}
    for user in users:
        user.kill()
    mongo = await ensure_mongod(home, CLOCK)
    assert pids == {mongo.pid} == {running(home)}
    await mongo.release()
    assert running(home) is None


async def test_a_mongod_that_was_killed_is_started_again_on_its_port(home: Path) -> None:
    first = await ensure_mongod(home, CLOCK)
    os.kill(first.pid, signal.SIGKILL)
    while running(home) is not None:
        await asyncio.sleep(0.01)
    second = await ensure_mongod(home, CLOCK)
    assert second.port == first.port
    assert second.pid != first.pid
    await first.release()
    assert running(home) == second.pid
    await second.release()
    assert running(home) is None


async def test_another_port_than_last_time(home: Path) -> None:
    """The replica set's own address moves with it."""
    first = await ensure_mongod(home, CLOCK)
    await first.release()
    with socket.create_server(("127.0.0.1", 0)) as taker:
        taken = taker.getsockname()[1]
        (home / "mongo" / "port").write_text(str(taken))
        second = await ensure_mongod(home, CLOCK)
        assert second.port != taken
        async with AsyncMongoClient[dict[str, object]](second.uri) as client:
            await client.kept["things"].insert_one({})
        await second.release()


async def test_a_start_that_was_cut_short_is_found_again(home: Path) -> None:
    """Killed after mongod came up and before the replica set existed."""
    place = home / "mongo"
    (place / "db").mkdir(parents=True)
    port = int((place / "port").read_text())
    await mongod.start_mongod(find_mongod(), place, port)
    mongo = await ensure_mongod(home, CLOCK)
    assert (mongo.port, mongo.pid) == (port, running(home))
    await mongo.release()
    assert running(home) is None


async def test_release_twice_is_release_once(home: Path) -> None:
    first, second = await ensure_mongod(home, CLOCK), await ensure_mongod(home, CLOCK)
    await first.release()
    await first.release()
    assert running(home) == second.pid
    await second.release()
    assert running(home) is None
    assert repr(second).endswith("released=True)")


async def test_a_cancelled_start_leaves_nothing_behind(home: Path) -> None:
    start = asyncio.create_task(ensure_mongod(home, CLOCK))
    while running(home) is None:
        await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    mongo = await ensure_mongod(home, CLOCK)
    await mongo.release()
    assert running(home) is None


async def test_a_signal_to_the_terminals_group_does_not_reach_it(home: Path) -> None:
    user = User(home)
    pid, _ = user.joined()
    assert os.getsid(pid) != os.getsid(user.process.pid)
    os.killpg(user.process.pid, signal.SIGINT)
    user.process.communicate()
    assert running(home) == pid
    await stop_mongod(home / "mongo", CLOCK)


async def test_its_environment_and_files_are_closed_to_others(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERNET_KEY", "canary")
    mongo = await ensure_mongod(home / "own", CLOCK)
    assert b"canary" not in Path(f"/proc/{mongo.pid}/environ").read_bytes()
    assert stat.S_IMODE((home / "own" / "mongo").stat().st_mode) == 0o700
    await mongo.release()


def test_it_does_not_hold_the_servers_socket(home: Path) -> None:
    """Workers of uvicorn have an inheritable listening socket, and uvloop hands such sockets to its children."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            mongo = runner.run(ensure_mongod(home, CLOCK))
            held = set()
            for entry in Path(f"/proc/{mongo.pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # mongod goes on opening and closing files
                    held.add(os.readlink(entry))
            assert os.readlink(f"/proc/self/fd/{listening.fileno()}") not in held
            runner.run(mongo.release())


async def test_it_listens_on_loopback_only(home: Path) -> None:
    mongo = await ensure_mongod(home, CLOCK)
    async with AsyncMongoClient[dict[str, object]](mongo.uri) as client:
        options = await client.admin.command("getCmdLineOpts")
    assert options["parsed"]["net"]["bindIp"] == "127.0.0.1"
    await mongo.release()


async def test_a_foreign_mongod_on_the_data_is_told_and_left_alone(home: Path) -> None:
    await start_standalone(home)
    (home / "mongo" / "port").unlink()  # nobody of ours was ever here
    pid = running(home)
    with pytest.raises(MongoUnavailable, match=f"Another mongod \\(process {pid}\\)"):
        await ensure_mongod(home, CLOCK)
    assert running(home) == pid
    await stop_mongod(home / "mongo", CLOCK)


async def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MongoUnavailable, match="cannot be written"):
        await ensure_mongod(tmp_path / "file", CLOCK)


async def test_data_that_no_mongod_can_read(home: Path) -> None:
    (home / "mongo" / "db").mkdir(parents=True)
    (home / "mongo" / "db" / "storage.bson").write_bytes(b"not bson")
    with pytest.raises(MongoUnavailable, match=r"mongod could not start \(exit code \d+\): .+ Its log is "):
        await ensure_mongod(home, CLOCK)
    assert running(home) is None


def fake(tmp_path: Path, script: str) -> Path:
    binary = tmp_path / "mongod"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return binary


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file' >&2\n"
            "exit 127",
            "Debian package libcurl4 (libcurl4t64",
        ),
        (
            "echo 'mongod: /lib/x86_64-linux-gnu/libcrypto.so.3: version `OPENSSL_3.0.0` not found' >&2\nexit 1",
            "Debian package libssl3 ",
        ),
        ("echo 'liblzma.so.5: cannot open shared object file' >&2\nexit 127", "Debian package liblzma5"),
        ("echo 'libodd.so.1: cannot open shared object file' >&2\nexit 127", "system library libodd"),
        ("kill -ILL $$", "AVX"),
        ("echo something odd; exit 3", "exit code 3): something odd"),
        ("exit 3", "it said nothing"),
    ],
)
async def test_what_is_told_when_the_binary_does_not_start(tmp_path: Path, script: str, told: str) -> None:
    with pytest.raises(MongoUnavailable) as caught:
        await ensure_mongod(tmp_path / "data", CLOCK, binary=fake(tmp_path, script))
    assert told in str(caught.value)


async def test_a_binary_that_cannot_be_run(tmp_path: Path) -> None:
    binary = tmp_path / "mongod"
    binary.write_text("")
    with pytest.raises(MongoUnavailable, match="cannot be run"):
        await ensure_mongod(tmp_path / "data", CLOCK, binary=binary)


async def test_a_port_that_is_always_taken(tmp_path: Path) -> None:
    with pytest.raises(MongoUnavailable, match="No free port"):
        await ensure_mongod(tmp_path / "data", CLOCK, binary=fake(tmp_path, "exit 48"))


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('{"s":"E","msg":"write","attr":{"error":"No space left on device"}}', "no space left"),
        ('{"s":"F","msg":"UPGRADE PROBLEM: too new"}', "another version of MongoDB"),
        ('{"s":"E","msg":"Invalid featureCompatibilityVersion document"}', "another version of MongoDB"),
        ('{"s":"E","msg":"error","attr":{"error":"DBPathInUse: x"}}', "Another mongod uses the data"),
        ('{"s":"E","msg":"Odd","attr":{"error":{"code":7}}}\nnot json\n{"s":"I","msg":"no"}', 'Odd {"code": 7}'),
    ],
)
def test_what_is_told_from_the_log(record: str, told: str, tmp_path: Path) -> None:
    assert told in explain(100, "", record, tmp_path / "mongod.log")


def test_no_mongod_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(mongod, "WHEEL", "no-such-distribution")
    monkeypatch.setattr(mongod.platform, "system", lambda: "Linux")
    monkeypatch.setattr(mongod.platform, "machine", lambda: "x86_64")
    with pytest.raises(MongoUnavailable, match="MONGODB_URI") as caught:
        find_mongod()
    assert "poe-gateway[embedded]" in str(caught.value)
    monkeypatch.setattr(mongod.platform, "machine", lambda: "aarch64")
    with pytest.raises(MongoUnavailable, match="Linux on x86-64 only and this machine is Linux on aarch64"):
        find_mongod()


def test_a_mongod_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = fake(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mongod() == binary


async def test_the_log_of_earlier_runs_is_put_aside_when_it_is_long(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongod, "_LOG_LIMIT", 100)
    for _ in range(2):
        await (await ensure_mongod(home, CLOCK)).release()
    assert (home / "mongo" / "mongod.log.old").exists()
