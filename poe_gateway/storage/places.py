"""Places on Linux: whether a process of this machine exists, proven by the kernel.

A place is one boot of one machine, as seen from one process namespace by one user. Whatever keeps processes from
seeing each other (another container, another user under a guarded /proc, another clock of the machine's uptime) makes
another place, where nothing is claimed. Elsewhere than on Linux, or where /proc is not what it seems, nothing is known.

Start times are ticks since the boot: unlike times of day they do not move when the machine's clock is set.
"""

from __future__ import annotations

import os
from pathlib import Path

from poe_gateway.pool.deaths import Residence

_GONE = frozenset({"Z", "X", "x"})
_STATE, _STARTED = 0, 19
"""Fields of ``/proc/<pid>/stat`` after the command's name."""


class LinuxPlaces:
    """Places by /proc. Raises nothing: what cannot be read is not known."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._place = self._read_place()

    def here(self) -> Residence | None:
        pid = os.getpid()
        fields = self._fields(f"{pid}/stat")
        if self._place is None or fields is None:
            return None
        return Residence(place=self._place, pid=pid, started=int(fields[_STARTED]))

    def lives(self, residence: Residence) -> bool | None:
        """False when the kernel says that there is no such process, that only its exit status is left (its parent did
        not ask for it yet), or that its number belongs to another one by now."""
        if self._place is None or residence.place != self._place:
            return None
        try:
            os.kill(residence.pid, 0)  # asks; /proc may hide what exists, this does not
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        fields = self._fields(f"{residence.pid}/stat")
        if fields is None:
            return True
        if int(fields[_STARTED]) != residence.started:
            return False
        return fields[_STATE] not in _GONE or self._has_living_threads(residence.pid)

    def _has_living_threads(self, pid: int) -> bool:
        """A process whose first thread ended keeps its connections until the last one has."""
        try:
            threads = os.listdir(self._proc / f"{pid}/task")
        except OSError:
            return False  # reaped in the meantime
        states = [self._fields(f"{pid}/task/{thread}/stat") for thread in threads]
        return any(fields is not None and fields[_STATE] not in _GONE for fields in states)

    def _fields(self, name: str) -> list[str] | None:
        try:
            text = (self._proc / name).read_text("ascii", "replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()  # the name may hold anything, brackets too
        return fields if len(fields) > _STARTED else None

    def _read_place(self) -> str | None:
        try:
            if os.readlink(self._proc / "self") != str(os.getpid()):
                return None  # of another namespace than this process
            boot = (self._proc / "sys/kernel/random/boot_id").read_text("ascii").strip()
            space = os.stat(self._proc / "self/ns/pid").st_ino
        except (OSError, ValueError):
            return None
        try:
            uptime = os.stat(self._proc / "self/ns/time").st_ino
        except OSError:
            uptime = 0  # the kernel knows one for all
        return f"{boot}:{space}:{uptime}:{os.getuid()}" if boot else None
