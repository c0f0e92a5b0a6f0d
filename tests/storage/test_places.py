"""Proof of death with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from poe_gateway.pool.deaths import Residence
from poe_gateway.storage.places import LinuxPlaces

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux proves deaths")
TELL = """
import sys
from poe_gateway.storage.places import LinuxPlaces
home = LinuxPlaces().here()
print(home.place, home.pid, home.started, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def neighbour() -> Iterator[tuple[subprocess.Popen[str], Residence]]:
    with subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        place, pid, started = process.stdout.readline().split()
        yield process, Residence(place=place, pid=int(pid), started=int(started))
        process.kill()


def test_this_process_lives_here() -> None:
    places = LinuxPlaces()
    home = places.here()
    assert home is not None and home.pid == os.getpid()
    assert places.lives(home) is True


def test_a_neighbour_is_alive_stopped_a_zombie_and_gone(neighbour: tuple[subprocess.Popen[str], Residence]) -> None:
    process, home = neighbour
    places = LinuxPlaces()
    assert places.lives(home) is True
    os.kill(process.pid, signal.SIGSTOP)
    assert places.lives(home) is True, "a stopped process has its connections still"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its parent was not told yet
    assert "Z" in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert places.lives(home) is False
    process.wait()
    assert places.lives(home) is False


def test_a_number_that_was_given_away_again_is_no_sign_of_life(
    neighbour: tuple[subprocess.Popen[str], Residence],
) -> None:
    _, home = neighbour
    assert LinuxPlaces().lives(replace(home, started=home.started - 1)) is False


def test_of_other_places_nothing_is_claimed(neighbour: tuple[subprocess.Popen[str], Residence], tmp_path: Path) -> None:
    _, home = neighbour
    assert LinuxPlaces().lives(replace(home, place="elsewhere", pid=2**22 + 1)) is None
    blind = LinuxPlaces(tmp_path)
    assert blind.here() is None
    assert blind.lives(home) is None


def test_what_proc_hides_is_not_dead(neighbour: tuple[subprocess.Popen[str], Residence]) -> None:
    """The kernel is asked about the process itself; a guarded /proc only withholds the details."""
    _, home = neighbour
    places = LinuxPlaces()
    places._proc = Path("/nowhere")
    assert places.lives(home) is True


def test_the_first_thread_is_not_the_process() -> None:
    """A process whose first thread has ended looks like a zombie while the others hold its connections."""
    script = (
        "import ctypes, threading, time\n"
        "from poe_gateway.storage.places import LinuxPlaces\n"
        "home = LinuxPlaces().here()\n"
        "print(home.place, home.pid, home.started, flush=True)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place, pid, started = process.stdout.readline().split()
        stat = Path(f"/proc/{pid}/stat")
        for _ in range(100_000):
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                break
        home = Residence(place=place, pid=int(pid), started=int(started))
        assert LinuxPlaces().lives(home) is True
        process.kill()
        process.wait()
        assert LinuxPlaces().lives(home) is False
