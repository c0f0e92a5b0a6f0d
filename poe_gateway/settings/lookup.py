"""Values of variables that others name: keys of providers and clients, looked up when they are needed.

The environment wins over the configuration file. The file is read again when it has changed, so that a key can be
rotated without a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from poe_gateway.settings.loading import environment


class Lookup:
    """``lookup(name)`` is the variable's text, or None when it is not set or empty."""

    def __init__(self, file: Path | None, environ: Mapping[str, str] | None = None) -> None:
        self._file = file
        self._environ = environment() if environ is None else environ
        self._seen: tuple[int, int] | None = None
        self._texts: dict[str, str | None] = {}

    def __call__(self, name: str) -> str | None:
        text = self._environ.get(name)
        if text is None:
            text = self._from_file().get(name)
        return text.strip() or None if text is not None else None

    def _from_file(self) -> Mapping[str, str | None]:
        if self._file is None:
            return {}
        try:
            status = self._file.stat()
        except OSError:
            return self._texts  # it is being replaced, or was removed: what was read stays
        if (seen := (status.st_mtime_ns, status.st_size)) != self._seen:
            try:
                self._texts = dict(dotenv_values(self._file, interpolate=False, encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError):
                return self._texts
            self._seen = seen
        return self._texts
