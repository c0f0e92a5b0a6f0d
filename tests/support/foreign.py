"""Environments of other programs: public clients in venvs of their own, and in a folder of node modules."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"


def foreign_python(folder: str, lock: str) -> Path:
    """The interpreter of a venv that holds what ``requirements/<lock>`` says; made when absent or out of date."""
    home, wanted_by = ROOT / folder, ROOT / "requirements" / lock
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    with _alone(home):
        if not _is_current(home, wanted_by) or not python.exists():
            venv.create(home, clear=True, with_pip=True)
            pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            _run((*pip, "--require-hashes", "-r", str(wanted_by)), ROOT)
            _stamp(home, wanted_by)
    return python


def node_modules() -> Path:
    """The folder whose node modules are those of its lock; skips the test where there is no node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    home, wanted_by = CLIENTS / "node_modules", CLIENTS / "package-lock.json"
    with _alone(home):
        if not _is_current(home, wanted_by):
            _run(("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"), CLIENTS)
            _stamp(home, wanted_by)
    return CLIENTS


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Tests run in several processes; one of them installs."""
    with Path(f"{home}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_current(home: Path, wanted_by: Path) -> bool:
    stamp = home / "installed.sha256"
    return stamp.exists() and stamp.read_text() == _digest(wanted_by)


def _stamp(home: Path, wanted_by: Path) -> None:
    (home / "installed.sha256").write_text(_digest(wanted_by))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(command: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr[-2000:]}")
