"""The routing files as they were last in force, kept for workers that are replaced while the files are broken."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from poe_gateway.settings.routes import Source, Sources


class LastGood:
    """The sources last in force, for workers that are replaced while the file is broken.

    Only of the same start of the gateway (``boot``): a gateway that is started with a broken file says so and ends.
    It holds what the files hold: names of keys, no key.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot

    def write(self, sources: Sources) -> None:
        """Keep them. A folder that cannot be written to costs only the convenience."""
        files = [[str(each.path), each.digest] for each in sources.files]
        with suppress(OSError, TypeError):
            content = msgspec.json.encode({"boot": self._boot, "files": files, "document": sources.document})
            draft = self._path.with_suffix(f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_bytes(content)
            draft.replace(self._path)

    def read(self) -> Sources | None:
        """What was kept during this start of the gateway."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return None
        if kept.boot != self._boot:
            return None
        files = tuple([Source(path=Path(path), digest=digest) for path, digest in kept.files])
        return Sources(document=kept.document, files=files)


class _Kept(msgspec.Struct):
    boot: str
    files: list[tuple[str, str]]
    document: dict[str, Any]


def this_boot() -> str | None:
    """What tells one start of a gateway with several workers from all others: its supervisor. None: there is none."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return None
    try:
        fields = Path(f"/proc/{supervisor.pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        machine = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return f"{machine}:{supervisor.pid}:{fields[19]}" if len(fields) > 19 else None  # started at, in ticks
