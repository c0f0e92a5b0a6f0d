"""A folder of records that this process has promised to keep, until they are in the database.

``append`` is one write into the page cache: once it returned, no death of this process loses the record. Power loss may
lose what was written since the last ``sync_files`` (a fifth of a second in practice); nothing is shipped before it is
on the disk, so that database and disk never contradict each other.

The lock file is held by ``flock`` for as long as the process lives; that it is free proves death on this machine. Data
folders on network file systems without such locks are not supported. Files are named by the first seq in them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from poe_gateway.metering.frames import frame
from poe_gateway.metering.rows import Intent, Record

FORMAT = b"poe_gateway spool 1\n"
SEGMENT = 16 * 1024 * 1024
"""Bytes after which a new file is begun."""
_LOCK = "lock"
_SHIPPED = "shipped"
_MAKING = ".new-"
_LOST_RACES = 100


class SpoolFailed(Exception):
    """A record could not be kept: the disk is full or broken. Nothing of it is left behind."""


class Unreadable(Exception):
    """A spool of another version, or one that this process may not read."""


class Spool:
    """The spool of this process. Not to be shared between threads, ``sync_files`` excepted."""

    def __init__(self, folder: Path, lock: int, segment: int = SEGMENT) -> None:
        """Use ``create``. Raises OSError."""
        self.folder = folder
        self.lock = lock
        self.last = 0
        """Highest seq that is written."""
        self.open: dict[int, Intent] = {}
        """Intents without an outcome, by their seq: carried over into each new file."""
        self._limit = segment
        self._fd = _new_file(_segment(folder, 1))
        self._size = 0
        self._begun = 0
        """Size of the file when its first own record came: what was carried over does not count."""
        self._torn = False
        self._retired: list[int] = []
        self._synced = 0

    @classmethod
    def create(cls, directory: Path, name: str, segment: int = SEGMENT) -> Spool:
        """Make ``directory/name``: it appears with its lock already held. Raises SpoolFailed."""
        making = directory / (_MAKING + name)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for _ in range(_LOST_RACES):
                making.mkdir(mode=0o700, exist_ok=True)
                with suppress(FileNotFoundError, BlockingIOError):  # somebody swept it away: once more
                    lock = _new_file(making / _LOCK)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        _write(lock, FORMAT)
                        making.rename(directory / name)
                        return cls(directory / name, lock, segment)
                    except BaseException:
                        os.close(lock)
                        raise
        except OSError as error:
            raise SpoolFailed(f"the spool cannot be made ({error.strerror})") from error
        raise SpoolFailed("the spool cannot be made (others keep removing it)")

    @property
    def name(self) -> str:
        return self.folder.name

    def append(self, record: Record) -> int:
        """Keep a record; its seq. One write. Raises SpoolFailed."""
        if self._size - self._begun >= self._limit:
            self._rotate()
        seq = self.last + 1
        line = frame(seq, record)
        try:
            if self._torn:
                self._mend()
            written = os.write(self._fd, line)
        except OSError as error:
            self._torn = True
            raise SpoolFailed(f"the spool cannot be written ({error.strerror})") from error
        if written != len(line):
            self._torn = True
            with suppress(OSError):
                self._mend()
            raise SpoolFailed("the spool cannot be written (no space left)")
        self._size += written
        self.last = seq
        return seq

    def _mend(self) -> None:
        """Cut off what a failed write has left. Raises OSError."""
        os.ftruncate(self._fd, self._size)
        self._torn = False

    def _rotate(self) -> None:
        """Go on in a new file, which begins with the intents still open. A failure leaves things as they are."""
        path = _segment(self.folder, self.last + 1)
        making = path.with_suffix(_MAKING)
        try:
            if self._torn:
                self._mend()
            carried = b"".join([frame(seq, intent) for seq, intent in sorted(self.open.items())])
            fd = _new_file(making)
            try:
                _write(fd, carried)
                making.rename(path)
            except BaseException:
                os.close(fd)
                raise
        except OSError:
            with suppress(OSError):
                making.unlink(missing_ok=True)
            return
        self._retired.append(self._fd)
        self._fd, self._size, self._begun = fd, len(carried), len(carried)

    def unsynced(self) -> tuple[list[int], int] | None:
        """Files to be synced, and the seq up to which everything is on the disk afterwards; None: it is already."""
        return None if self._synced == self.last else ([*self._retired, self._fd], self.last)

    def synced(self, files: list[int], seq: int) -> None:
        """``sync_files`` succeeded for what ``unsynced`` told."""
        self._synced = max(self._synced, seq)
        for fd in [each for each in self._retired if each in files]:
            self._retired.remove(fd)
            os.close(fd)

    def close(self) -> None:
        """Let go of all files and of the lock. What is there may be drained by others from now on."""
        for fd in (*self._retired, self._fd, self.lock):
            os.close(fd)
        self._retired, self._fd, self.lock = [], -1, -1


def sync_files(folder: Path, files: list[int]) -> None:
    """Bring files and their names to the disk. For a thread. Raises OSError."""
    for fd in files:
        os.fdatasync(fd)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def claim(folder: Path) -> int | None:
    """The lock of a spool whose process is dead; None: it lives, or somebody drains it, or it is gone.

    The lock is let go of by closing it. Raises Unreadable.
    """
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        try:
            folder.rmdir()  # its removal was broken off at the very end
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unreadable("it has no lock") from error
        return None
    except OSError as error:
        raise Unreadable(error.strerror or "no access") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A folder that was removed meanwhile leaves a lock that locks nothing.
        if os.fstat(lock).st_ino == os.stat(folder / _LOCK).st_ino:
            told = os.pread(lock, 2 * len(FORMAT), 0)
            if told != FORMAT:
                raise Unreadable("another format")
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def spools(directory: Path) -> list[Path]:
    """All spools here, in stable order. What was begun and never finished is removed. Raises OSError."""
    found = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(_MAKING):
            _sweep(path)
        elif path.name.startswith("spool_") and path.is_dir():
            found.append(path)
    return found


def _sweep(path: Path) -> None:
    """Remove a folder that its maker has not finished; one that is just being made is made once more."""
    with suppress(OSError):
        path.rmdir()
    with suppress(OSError):
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(lock)


def remove(folder: Path) -> None:
    """Remove a spool of which nothing is needed any more. For a thread. Raises OSError.

    The lock goes last: as long as anything is left, the folder is known for a spool.
    """
    for path in sorted(folder.iterdir()):
        if path.name != _LOCK:
            path.unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)
    folder.rmdir()


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Files of records with the first seq in each, oldest first. Raises OSError, Unreadable."""
    try:
        return sorted((int(path.stem), path) for path in folder.iterdir() if path.suffix == ".log")
    except ValueError:
        raise Unreadable("it holds files of another format") from None


def lines(files: list[tuple[int, Path]]) -> Iterator[bytes]:
    """The lines of all files. A torn end of the last one is left out; elsewhere it is damage. Raises OSError."""
    for number, (_, path) in enumerate(files, 1):
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") and number == len(files):
                    return  # what is written while we read belongs to another reading
                yield line


def trim(folder: Path, shipped: int) -> None:
    """Remove files in which everything is shipped, the newest file excepted. For a thread. Raises OSError."""
    files = segments(folder)
    for (_, path), (following, _) in pairwise(files):
        if following <= shipped + 1:
            path.unlink(missing_ok=True)


def remember(folder: Path, shipped: int) -> None:
    """Note the seq up to which everything is shipped: it saves work after a crash. For a thread. Raises OSError."""
    making = folder / (_SHIPPED + _MAKING)
    fd = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, b"%d" % shipped)
    finally:
        os.close(fd)
    making.replace(folder / _SHIPPED)


def remembered(folder: Path) -> int:
    """What ``remember`` noted last; 0 when that is not known."""
    try:
        return int((folder / _SHIPPED).read_bytes())
    except (OSError, ValueError):
        return 0


def set_aside(directory: Path, name: str, damaged: list[bytes]) -> Path:
    """Keep what cannot be read, for the operator. For a thread. Raises OSError."""
    kept = directory / "damaged"
    kept.mkdir(mode=0o700, exist_ok=True)
    fd = _new_file(kept / f"{name}.log")
    try:
        _write(fd, b"".join(line if line.endswith(b"\n") else line + b"\n" for line in damaged))
    finally:
        os.close(fd)
    return kept / f"{name}.log"


def _segment(folder: Path, first: int) -> Path:
    return folder / f"{first:016}.log"


def _new_file(path: Path) -> int:
    """Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _write(fd: int, content: bytes) -> None:
    """All of it. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
