"""``gateway.toml`` as a document in, a ``Table`` out, or all problems at once. Pure.

Every section is read by itself here; what refers to what is checked in ``references``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from poe_gateway.routing.backends import ENV_NAME, OWN_SECRETS, read_backend
from poe_gateway.routing.fields import LITERAL, Problem, Problems, Section, join, secret_text
from poe_gateway.routing.profiles import read_profile
from poe_gateway.routing.references import connected
from poe_gateway.routing.table import Backend, Client, Profile, Table, Terms, Tier

T = TypeVar("T")
_SECTIONS = ("gateway", "backends", "tiers", "aliases", "profiles", "clients", "fallbacks")
_Port = Annotated[int, Meta(ge=0, le=65_535)]
_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
_TERMS: Mapping[str, Any] = {
    "health_window": Annotated[int, Meta(ge=0, le=10_000)],
    "health_error_threshold": Annotated[float, Meta(gt=0, le=1)],
    "public_profile": str,
    "profile_dir": str,
}
_ELSEWHERE: Mapping[str, tuple[Any, str]] = {
    "client_port": (_Port, "set by GATEWAY_PORT, not here"),
    "admin_port": (_Port, "set by ADMIN_PORT, not here"),
    "log_level": (str, "set by LOG_LEVEL, not here"),
    "rate_limit_rpm": (_Count, "set by RATE_LIMIT_RPM_DEFAULT (by key, not by address), not here"),
    "request_timeout_ms": (_Count, "set by REQUEST_TIMEOUT_SECONDS, not here"),
    "admin_token_env": (str, "set by ADMIN_API_KEY, not here: the admin API is never open"),
    "traffic_log_capacity": (_Count, "set by DECISIONS_STORE_MB, not here"),
    "max_retries": (_Count, "set by MAX_ATTEMPTS, not here"),
    "retry_delay_ms": (_Count, "set by UPSTREAM_RETRY_DELAY_MS, not here"),
}
"""Keys of ``[gateway]`` that have a setting of ours; they are told and otherwise ignored."""


class RoutesError(Exception):
    """The routing file cannot be used. The message lists every problem, one a line, without any secret."""

    def __init__(self, problems: tuple[str, ...], found: tuple[Problem, ...] = ()) -> None:
        """``found``: the same with their places apart, where they are places of the merged document."""
        self.problems = problems
        self.found = found
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"The routing file has {count}:\n" + "\n".join(f"  - {problem}" for problem in problems))


def parse(document: Mapping[str, Any], given: Mapping[str, Backend] | None = None) -> Table:
    """The table of a merged document. Raises RoutesError.

    ``given``: backends that are there besides; one of the same name in the document takes their place.
    """
    problems = Problems()
    notes: list[str] = []
    top = Section(problems, "", document)
    top.known(_SECTIONS)
    _no_secrets(problems, "", document)
    table = Table(
        terms=_terms(top, notes),
        backends={**(given or {}), **_backends(top, notes)},
        tiers=tuple(_listed(top, "tiers", _tier)),
        aliases=_aliases(top),
        profiles=_profiles(top, notes),
        clients=tuple(_listed(top, "clients", _client)),
        fallbacks=_fallbacks(top),
    )
    table = connected(table, problems, notes)
    if problems.found:
        raise RoutesError(tuple(map(str, problems.found)), tuple(problems.found))
    digest = hashlib.sha256(msgspec.json.encode(table, order="deterministic")).hexdigest()[:16]
    return replace(table, notes=tuple(notes), digest=digest)


def missing(table: Table, getenv: Callable[[str], str | None], readable: Callable[[str], bool]) -> tuple[str, ...]:
    """Names of variables and of files that should hold a key and do not. Of a file only its own name is told."""
    holders: list[Backend | Client] = [*table.backends.values(), *table.clients]
    names: list[str] = []
    for holder in holders:
        variable = holder.api_key_env if isinstance(holder, Backend) else holder.key_env
        file = holder.api_key_file if isinstance(holder, Backend) else holder.key_file
        if variable is not None and not (getenv(variable) or "").strip():
            names.append(variable)
        if file is not None and not readable(file):
            names.append(PurePath(file).name)
    return tuple(dict.fromkeys(names))


def _terms(top: Section, notes: list[str]) -> Terms:
    section = Section(top.problems, "gateway", top.raw("gateway") if "gateway" in top else {})
    section.known([*_TERMS, *_ELSEWHERE])
    for key, (kind, told) in _ELSEWHERE.items():
        if section.get(key, kind) is not None:
            notes.append(f"gateway.{key}: {told}")
    section.text("profile_dir", longest=4096)  # read where the files are read
    given = {key: section.get(key, _TERMS[key]) for key in ("health_window", "health_error_threshold")}
    known = {key: value for key, value in given.items() if value is not None}
    return Terms(public_profile=section.text("public_profile"), **known)


def _backends(top: Section, notes: list[str]) -> dict[str, Backend]:
    found: dict[str, Backend] = {}
    names: dict[str, str] = {}
    for name, section in _tables(top, "backends"):
        twin = names.setdefault(name.lower(), name)
        if twin != name:
            section.problem("", f"differs from {twin!r} only in case")
        backend = read_backend(name, section, notes)
        if backend is not None:
            found[name] = backend
    return found


def _profiles(top: Section, notes: list[str]) -> dict[str, Profile]:
    return {name: read_profile(name, section, notes) for name, section in _tables(top, "profiles")}


def _tier(section: Section) -> Tier | None:
    section.known(("name", "backend", "model", "think", "max_context_tokens"))
    name, backend = section.text("name"), section.text("backend")
    model = section.text("model", longest=512)
    think = section.get("think", bool)
    room = section.get("max_context_tokens", Annotated[int, Meta(ge=1, le=1_000_000_000)])
    for key, value in (("name", name), ("backend", backend), ("model", model)):
        _required(section, key, value)
    if name is None or backend is None or model is None:
        return None
    return Tier(name=name, backend=backend, model=model, think=think, max_context_tokens=room)


def _client(section: Section) -> Client | None:
    section.known(("name", "profile", "profiles", "key_env", "key_file", "key", "org"))
    profile = section.text("profile")
    _required(section, "profile", profile)
    variable, file = section.text("key_env"), section.text("key_file", longest=4096)
    key, org = section.text("key"), section.text("org")
    given = [each for each in (variable, file, key, org) if each is not None]
    if len(given) != 1:
        which = "none of them" if not given else "more than one"
        section.problem("", f"must say whose it is by exactly one of key_env, key_file, key, org; it has {which}")
    if variable is not None and not ENV_NAME.fullmatch(variable):
        section.problem("key_env", "must be the name of a variable, not a key")
    if variable in OWN_SECRETS:
        section.problem("key_env", f"{variable} is a secret of the gateway itself and no caller's key")
    if key is not None and _LONG.fullmatch(key):
        section.problem("key", "is the id or the name of a key of the key store, not its text")
    # The name of a variable or of an organisation is as good as one of its own.
    name = section.text("name") or (given[0] if given else None)
    if profile is None or name is None:
        return None
    return Client(
        name=name,
        profile=profile,
        profiles=section.texts("profiles"),
        key_env=variable,
        key_file=file,
        key=key,
        org=org,
    )


def _aliases(top: Section) -> dict[str, str]:
    section = Section(top.problems, "aliases", top.raw("aliases") if "aliases" in top else {})
    found = {name: section.text(name, longest=512) for name in section}
    for name, target in found.items():
        _named(section, name)
        if target is None and isinstance(section.raw(name), str) and not section.raw(name).strip():
            section.problem(name, "leads nowhere")
    return {name: target for name, target in found.items() if target is not None}


def _fallbacks(top: Section) -> dict[str, tuple[str, ...]]:
    section = Section(top.problems, "fallbacks", top.raw("fallbacks") if "fallbacks" in top else {})
    found: dict[str, tuple[str, ...]] = {}
    for name in section:
        _named(section, name)
        one = isinstance(section.raw(name), str)
        targets = tuple([each for each in (section.text(name, longest=512),) if each]) if one else section.texts(name)
        if targets:
            found[name] = targets
    return found


def _tables(top: Section, name: str) -> list[tuple[str, Section]]:
    """The named tables of a section."""
    outer = Section(top.problems, name, top.raw(name) if name in top else {})
    found = []
    for key in outer:
        _named(outer, key)
        if isinstance(outer.raw(key), Mapping):
            found.append((key, Section(top.problems, join(name, key), outer.raw(key))))
        else:
            outer.problem(key, "must be a table")
    return found


def _listed(top: Section, name: str, read: Callable[[Section], T | None]) -> list[T]:
    """The entries of a list of tables."""
    entries = top.raw(name) if name in top else []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        top.problem(name, f"must be a list of tables: [[{name}]]")
        return []
    sections = [Section(top.problems, f"{name}[{place}]", entry) for place, entry in enumerate(entries)]
    return [value for section in sections if (value := read(section)) is not None]


def _required(section: Section, key: str, value: object) -> None:
    if value is None and (key not in section or section.raw(key) == ""):
        section.problem(key, "is missing")


_LONG = re.compile(r"[A-Za-z0-9+/=_.-]{32,}")
"""Longer than ids, and without blanks: the form of a key's text."""
_NAME = re.compile(r"\S(.{0,198}\S)?")


def _named(section: Section, name: str) -> None:
    """A name that can be sent as a model's name and printed in a header."""
    if not (_NAME.fullmatch(name) and name.isprintable()):
        section.problem(name, "a name has 1 to 200 printable characters, no blanks around them")


def _no_secrets(problems: Problems, path: str, value: Any, depth: int = 0) -> None:
    """Texts with the form of a key, wherever they stand."""
    if isinstance(value, str) and secret_text(value):
        problems.add(path, LITERAL)
    elif isinstance(value, Mapping) and depth < 32:
        for key, inner in value.items():
            if secret_text(key):
                problems.add(path or "the file", LITERAL)
            else:
                _no_secrets(problems, join(path, key), inner, depth + 1)
    elif isinstance(value, list) and depth < 32:
        for place, inner in enumerate(value):
            _no_secrets(problems, f"{path}[{place}]", inner, depth + 1)
