"""Reading the routing file with what lies beside it: ``conf.d/*.toml`` over it, ``profiles/*.toml`` into it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poe_gateway.routing.fields import Problem
from poe_gateway.routing.merge import merged, origins, with_profile
from poe_gateway.routing.parse import RoutesError, parse
from poe_gateway.routing.table import Backend, Table
from poe_gateway.routing.words import word_of
from poe_gateway.settings.options import ProviderOptions

OVERLAYS = "conf.d"
PROFILES = "profiles"
_LARGEST = 1024 * 1024
"""Bytes of one file."""
_MOST = 500
"""Files in one folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file that was read, and the SHA-256 of its bytes in hex."""

    path: Path
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What all files say together. ``files`` in the order in which they were merged; ``folders`` those that were
    looked into, whether they exist or not; ``documents`` what each file says by itself, a profile's at its place."""

    document: dict[str, Any]
    files: tuple[Source, ...]
    folders: tuple[Path, ...] = ()
    documents: tuple[tuple[Path, Mapping[str, Any]], ...] = ()

    @property
    def digest(self) -> str:
        """Changes with any byte, name or number of the files."""
        told = "\n".join(f"{source.path} {source.digest}" for source in self.files)
        return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()


def read_routes(path: Path) -> Sources:
    """The file, overlaid and with its profiles. Raises RoutesError, which names files and lines and shows no value.

    Folders that do not exist are as good as empty, but for a ``profile_dir`` that is named.
    """
    problems: list[str] = []
    files: list[Source] = []
    document = _read(path, files, problems) or {}
    documents: list[tuple[Path, Mapping[str, Any]]] = [(path, document)]
    overlays = path.parent / OVERLAYS
    for overlay in _listed(overlays, problems):
        documents.append((overlay, _read(overlay, files, problems) or {}))
        document = merged(document, documents[-1][1])
    profiles = _profile_folder(path, document, problems)
    for file in _listed(profiles, problems):
        profile = _read(file, files, problems)
        if profile is not None:
            document = with_profile(document, file.stem, profile)
            documents.append((file, with_profile({}, file.stem, profile)))
    if problems:
        raise RoutesError(tuple(problems))
    return Sources(document=document, files=tuple(files), folders=(overlays, profiles), documents=tuple(documents))


def table_of(sources: Sources, given: Mapping[str, Backend] | None = None) -> Table:
    """What the files mean. ``given``: as for ``parse``. Raises RoutesError, each problem with the file it stands in."""
    try:
        return parse(sources.document, given)
    except RoutesError as error:
        raise RoutesError(tuple(_located(sources, error.found))) from None


def _located(sources: Sources, problems: Iterable[Problem]) -> Iterator[str]:
    known = origins(sources.documents, sources.document)
    for problem in problems:
        # What is missing has no place of its own: the table that lacks it has.
        start = problem.path
        while start and start not in known:
            start = start[: max(start.rfind("."), start.rfind("["), 0)]
        file, own = known.get(start, (sources.files[0].path, ""))
        yield f"{file}: {own}{problem.path[len(start) :]}: {problem.text}"


def backends_of(providers: Iterable[ProviderOptions]) -> dict[str, Backend]:
    """The backends that the settings themselves name, for ``parse``: the file may refer to them, or replace them."""
    return {
        each.name: Backend(
            name=each.name,
            provider=each.name,
            base_url=each.base_url,
            api_key_env=each.key_variable,
            extra=dict(each.extra),
        )
        for each in providers
        if word_of(each.name) is not None
    }


def _profile_folder(path: Path, document: dict[str, Any], problems: list[str]) -> Path:
    gateway = document.get("gateway")
    named = gateway.get("profile_dir") if isinstance(gateway, dict) else None
    if not isinstance(named, str) or not named.strip():
        return path.parent / PROFILES
    try:
        folder = path.parent / Path(named.strip()).expanduser()
        if folder.is_dir():
            return folder
    except (OSError, RuntimeError):  # a name too long; nobody whose home it could be
        folder = path.parent / PROFILES
    problems.append(f"{path}: gateway.profile_dir: there is no such folder")
    return folder


def _listed(folder: Path, problems: list[str]) -> list[Path]:
    """Its TOML files by name; hidden ones are other programs' drafts."""
    try:
        found = sorted(each for each in folder.glob("*.toml") if not each.name.startswith(".") and not each.is_dir())
    except OSError as error:
        problems.append(f"{folder}: cannot be read: {error.strerror}")
        return []
    if len(found) > _MOST:
        problems.append(f"{folder}: holds more than {_MOST} files")
        return []
    return found


def _read(path: Path, files: list[Source], problems: list[str]) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise _Unreadable("is larger than 1 MiB")
        files.append(Source(path=path, digest=hashlib.sha256(content).hexdigest()))
        return _parsed(content)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror or type(error).__name__}")
    except _Unreadable as error:
        problems.append(f"{path}: {error}")
    return None


class _Unreadable(Exception):
    """What is wrong with one file's text, without any of it."""


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _Unreadable("is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise _Unreadable(_told(str(error))) from None
    except (RecursionError, ValueError):  # nested without end; an impossible number or date
        raise _Unreadable("is not TOML: it holds something that cannot be read") from None


def _told(message: str) -> str:
    """Where the text stops being TOML. What stands there may be a piece of a secret, so the reason is shown only in
    words that are the reader's own, and signs."""
    place = re.search(r"\(at (line \d+, column \d+|end of document)\)", message)
    reason = message[: place.start()].strip() if place else message
    reason = re.sub(r"\(.*\)", "this table", reason)
    reason = re.sub(r"\s*('(?![^\w\s]{1,3}').*'|\".*\")", "", reason)
    return f"is not TOML{', ' + place[1] if place else ''}: {reason[:1].lower()}{reason[1:]}"
