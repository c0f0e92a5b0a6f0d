"""Keys that are named and not stored: by a variable, or by a file that holds nothing else.

A credential document then holds ``api_key_env`` or ``api_key_file`` in place of ``api_key``. The key is read when it is
used, and lives only as long as what was opened with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from poe_gateway.telemetry.redaction import register_secret
from poe_gateway.vault import VaultError

ENV, FILE, KEY = "api_key_env", "api_key_file", "api_key"
OWN = frozenset({"ADMIN_API_KEY", "FERNET_KEY", "MONGODB_URI", "SERVICE_API_KEYS_BOOTSTRAP"})
"""The gateway's own secrets: they go to nobody, whatever a document says."""
_LARGEST = 64 * 1024
"""Bytes of a file that holds a key."""

GetEnv = Callable[[str], str | None]
ReadFile = Callable[[str], str]
"""The text of a file, by its path. Raises OSError, UnicodeDecodeError."""


class Unresolved(VaultError):
    """A key cannot be had; ``name`` is the variable's name or the file's path, as it was written."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def has_reference(credentials: Mapping[str, Any]) -> bool:
    """Whether the document names a key instead of holding it."""
    return ENV in credentials or FILE in credentials


def resolved(credentials: Mapping[str, Any], getenv: GetEnv, read_file: ReadFile) -> dict[str, Any]:
    """The document with the key itself in place of the reference. Raises Unresolved."""
    document = {name: value for name, value in credentials.items() if name not in (ENV, FILE)}
    if has_reference(credentials):
        document[KEY] = text_of(credentials.get(ENV), credentials.get(FILE), getenv, read_file)
    return document


def text_of(variable: Any, path: Any, getenv: GetEnv, read_file: ReadFile) -> str:
    """The key that a variable or a file holds, without the line's end. Raises Unresolved."""
    name = variable if variable is not None else path
    if not isinstance(name, str) or not name or (variable is not None and path is not None):
        raise Unresolved("", f"a key is named either by {ENV} or by {FILE}")
    if name in OWN and path is None:
        raise Unresolved(name, f"{name} is a secret of the gateway itself and is given to nobody")
    text = (getenv(name) if path is None else _read(name, read_file)) or ""
    text = text.rstrip("\r\n")
    if not text.strip():
        what = f"the variable {name} is not set" if path is None else f"the file {name} is empty"
        raise Unresolved(name, what)
    register_secret(text)
    return text


def _read(path: str, read_file: ReadFile) -> str:
    try:
        return read_file(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise Unresolved(path, f"the file {path} cannot be read: {reason}") from None


def files_from(folder: Path | None) -> ReadFile:
    """Reads files whose relative paths start at ``folder``; only ordinary files of at most 64 KiB."""

    def read(path: str) -> str:
        try:
            place = (folder or Path()) / Path(path).expanduser()
        except RuntimeError:
            raise OSError(0, "nobody has such a home") from None
        if not place.is_file():
            place.stat()
            raise OSError(0, "it is not an ordinary file")
        with place.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise OSError(0, f"it is larger than {_LARGEST} bytes")
        return content.decode()

    return read


class References:
    """Where this process finds the keys that are named."""

    def __init__(self, getenv: GetEnv, read_file: ReadFile) -> None:
        self._getenv = getenv
        self._read_file = read_file

    def resolved(self, credentials: Mapping[str, Any]) -> dict[str, Any]:
        """See ``resolved``. Raises Unresolved."""
        return resolved(credentials, self._getenv, self._read_file)

    def text(self, variable: str | None, path: str | None) -> str:
        """See ``text_of``. Raises Unresolved."""
        return text_of(variable, path, self._getenv, self._read_file)
