"""Metrics of several processes: a shared directory in which each keeps its figures in files of its own.

``configure_multiprocess`` must run before prometheus_client is imported anywhere: that library decides once, at
import, whether its values live in memory or in those files.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_FILE = re.compile(r"^(?P<kind>counter|histogram|summary|gauge_[a-z]+)_(?P<pid>\d+)\.db$")


class TooLate(RuntimeError):
    """prometheus_client was imported before the metrics directory was configured."""


def configure_multiprocess(directory: Path, environ: MutableMapping[str, str]) -> None:
    """Share metrics through ``directory`` (created if missing), and clear what dead processes left there.

    ``environ`` is the process's own environment, handed in by the settings. Raises TooLate.
    """
    values = sys.modules.get("prometheus_client.values")
    if values is not None and not getattr(values.ValueClass, "_multiprocess", False):
        raise TooLate(str(TooLate.__doc__))
    directory.mkdir(parents=True, exist_ok=True)
    clear_stale(directory)
    environ[_VARIABLE] = str(directory)


def clear_stale(directory: Path) -> None:
    """At the start of a process. Nobody alive: a new beginning, all files go. Else only gauges of the dead go.

    Counters of a dead worker stay while its siblings live; without them the sums would fall.
    """
    own = os.getpid()
    files = list(_files(directory))
    somebody = any(_alive(pid) for _, _, pid in files if pid != own)
    for path, kind, pid in files:
        if (not somebody or kind.startswith("gauge_live")) and (pid == own or not _alive(pid)):
            path.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Before a scrape: a process that was killed no longer counts in the gauges of the living."""
    for path, kind, pid in _files(directory):
        if kind.startswith("gauge_live") and not _alive(pid):
            path.unlink(missing_ok=True)


def mark_process_dead(pid: int, directory: Path) -> None:
    """When a worker ends: its part of the living gauges goes."""
    for path, kind, owner in _files(directory):
        if owner == pid and kind.startswith("gauge_live"):
            path.unlink(missing_ok=True)


def _files(directory: Path) -> Iterator[tuple[Path, str, int]]:
    with contextlib.suppress(FileNotFoundError):
        for path in directory.iterdir():
            if match := _FILE.match(path.name):
                yield path, match["kind"], int(match["pid"])


def _alive(pid: int) -> bool:
    if sys.platform == "win32":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
