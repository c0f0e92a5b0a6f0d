"""The routing table in force, and how another one takes its place: nothing in flight is touched by it.

The table is one immutable value. Every process watches the files by itself, so what is told to one of them (a signal, a
call of the admin API) reaches the others within seconds, because they see the same files. On any error the table before
stays. What goes away with a new table (accounts of backends, keys of clients, allowed addresses) goes a little later:
another process may still route by the table before.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from poe_gateway.accounts.managed import ManagedAccounts
from poe_gateway.accounts.references import References, Unresolved
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.clock import Clock
from poe_gateway.errors import StoreUnavailable, Unprocessable
from poe_gateway.outbound.allowed import NOTHING, Allowed, of_addresses
from poe_gateway.outbound.guard import Guard
from poe_gateway.routing.parse import RoutesError, parse
from poe_gateway.routing.parse import missing as missing_names
from poe_gateway.routing.table import EMPTY, Backend, Client, Table
from poe_gateway.settings.last_good import LastGood
from poe_gateway.settings.routes import OVERLAYS, PROFILES, Sources, read_routes, table_of
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry

_EVERY = 2.0
"""Seconds between two looks at the files."""
_SETTLED = 0.25
"""Seconds for which a changed file must stay as it is: an editor that empties it before it writes is not halfway."""
_WHOLE = 15
"""Looks after which the files are read whatever their dates say."""
_GRACE = 15.0
"""Seconds for which what a new table does not have any more is kept for others."""
_CLIENT = "client:"


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """How a reload went that was not refused. ``warnings``: what does not work yet, or is not as it looks."""

    changed: bool
    digest: str
    loaded_at: datetime | None
    warnings: tuple[str, ...] = ()


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the files, and of what they name."""

    sources: Sources | None
    table: Table
    texts: dict[str, str]
    """Keys by what names them."""
    stamp: object
    """Of the files as they were before."""
    problems: tuple[str, ...] = ()
    """Of the files as they are, where they stand for those that were in force before."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple([each.path for each in self.sources.files]) if self.sources is not None else ()

    @property
    def folders(self) -> tuple[Path, ...]:
        return self.sources.folders if self.sources is not None else ()


class RoutesRefused(Unprocessable):
    """The routing file cannot be used; the table before stays in force."""

    code = "routes_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"The routing file has {count}, the table before stays in force: " + "; ".join(problems))
        self.problems = problems


class Routes:
    """The table of one process. ``path`` None: there is no file.

    ``given``: backends that the settings themselves name; ``applied``: told of each new table; ``allowed``: what may
    be connected to whatever the table says. ``start`` first, then ``run`` for as long as the process lives.
    """

    def __init__(
        self,
        *,
        path: Path | None,
        references: References,
        managed: ManagedAccounts,
        keyring: KeyRing,
        guard: Guard,
        telemetry: Telemetry,
        clock: Clock,
        allowed: Allowed = NOTHING,
        given: Mapping[str, Backend] | None = None,
        applied: Callable[[Table], None] = lambda table: None,
        kept: LastGood | None = None,
    ) -> None:
        self._path = path
        self._references = references
        self._managed = managed
        self._keyring = keyring
        self._guard = guard
        self._telemetry = telemetry
        self._clock = clock
        self._allowed = allowed
        self._given = dict(given or {})
        self._applied = applied
        self._kept = kept
        self.table = EMPTY
        self.files: tuple[Path, ...] = ()
        self._folders: tuple[Path, ...] = ()
        """In which more files may appear."""
        self.loaded_at: datetime | None = None
        self.problems: tuple[str, ...] = ()
        """Of the last try; empty when it went well."""
        self.warnings: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._digest = ""
        """Of the table and the keys that it names, as they are in force."""
        self._refused = ""
        """Of the problems that were told last."""
        self._stamp: object = None
        self._due: float | None = None
        self._turn = asyncio.Lock()
        self._asked = asyncio.Event()

    def missing(self) -> tuple[str, ...]:
        """Names of variables and files that should hold a key and do not."""
        return self._missing

    async def start(self) -> None:
        """Bring the first table into force. Raises RoutesError, StoreUnavailable."""
        await self._bring(first=True)

    async def reload(self) -> Reloaded:
        """Read the files now. Raises RoutesRefused, StoreUnavailable; the table before stays then."""
        before = self._digest
        await self._bring()
        return Reloaded(
            changed=self._digest != before,
            digest=self.table.digest,
            loaded_at=self.loaded_at,
            warnings=self.warnings,
        )

    async def run(self) -> None:
        """Watch the files, and what they name; listen for SIGHUP."""
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):  # not everywhere, nor in threads
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        looks = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._asked.wait()
            looks += 1
            if self._asked.is_set() or looks % _WHOLE == 0 or await self._has_changed():
                self._asked.clear()
                with suppress(RoutesRefused, StoreUnavailable):  # told; the next look tries again
                    await self._bring()
            if self._due is not None and self._clock.monotonic() >= self._due:
                with suppress(StoreUnavailable):
                    await self._retire()

    async def _has_changed(self) -> bool:
        """Whether the files are others than those in force, and nobody is writing; else the next look tells."""
        if await asyncio.to_thread(self._look) == self._stamp:
            return False
        before = await asyncio.to_thread(self._states)
        await asyncio.sleep(_SETTLED)
        return await asyncio.to_thread(self._states) == before

    def _states(self) -> list[tuple[str, int, int, int]]:
        """Of the files alone: a folder's date changes with every other file in it."""
        return [_state(file) for file in dict.fromkeys((self._path, *self.files)) if file is not None]

    async def _bring(self, *, first: bool = False) -> None:
        async with self._turn:
            try:
                read = await asyncio.to_thread(self._read, first)
            except RoutesError as error:
                if first:  # whoever starts us tells it, and there is no table before
                    raise
                self._refuse(error.problems)
                raise RoutesRefused(error.problems) from None
            digest = _digest_of(read.table, read.texts)
            if digest != self._digest:
                await self._apply(read.table, read.texts)
                self._digest, self.loaded_at = digest, self._clock.now()
                self._changed(first)
                if self._kept is not None and read.sources is not None and not read.problems:
                    await asyncio.to_thread(self._kept.write, read.sources)
            self._stamp, self.files, self._folders = read.stamp, read.files, read.folders
            if read.problems:
                self._refuse(read.problems)
            else:
                self.problems, self._refused = (), ""

    def _changed(self, first: bool) -> None:
        if not first:
            self._tell("info", "another routing table is in force", ())
        if self.warnings:
            self._tell("warning", "parts of the routing table do not work yet", self.warnings)

    def _read(self, first: bool) -> _Read:
        """Everything that the files say, in a thread. Raises RoutesError."""
        stamp = self._look()
        if self._path is None:
            return self._understood(None, stamp)
        try:
            return self._understood(read_routes(self._path), stamp)
        except RoutesError as error:
            kept = self._kept.read() if first and self._kept is not None else None
            if kept is None:
                raise
            return replace(self._understood(kept, stamp), problems=error.problems)

    def _understood(self, sources: Sources | None, stamp: object) -> _Read:
        table = EMPTY
        if sources is not None:
            table = table_of(sources, self._given)
        elif self._given:
            table = parse({}, self._given)
        if problems := self._managed.problems(table):
            raise RoutesError(problems)
        return _Read(sources=sources, table=table, texts=self._texts(table), stamp=stamp)

    def _texts(self, table: Table) -> dict[str, str]:
        """What the names of keys lead to now, by the name; those that lead nowhere are left out."""
        found: dict[str, str] = {}
        named = [(each.api_key_env, each.api_key_file) for each in table.backends.values()]
        for variable, path in (*named, *((each.key_env, each.key_file) for each in table.clients)):
            if variable is not None or path is not None:
                with suppress(Unresolved):
                    found[_name(variable, path)] = self._references.text(variable, path)
        return found

    def _look(self) -> object:
        """What changes when a file does: dates and sizes of all files and of the folders that they lie in."""
        if self._path is None:
            return tuple(sorted(self._texts(self.table).items()))
        places = {self._path, self._path.parent / OVERLAYS, self._path.parent / PROFILES, *self._folders}
        places |= {each for file in self.files for each in (file, file.parent)}
        return tuple(_state(place) for place in sorted(places)), tuple(sorted(self._texts(self.table).items()))

    async def _apply(self, table: Table, texts: dict[str, str]) -> None:
        """Everything that the table needs is there before anybody routes by it. Raises StoreUnavailable."""
        before = self._guard.allowed
        self._guard.allow(before | self._allowed | _addresses(table))
        clients, told = await self._keep(table.clients, texts)
        told += await self._managed.sync(table)
        self.warnings = (*table.notes, *told)
        self._missing = missing_names(
            table, lambda name: texts.get(_name(name, None)), lambda path: _name(None, path) in texts
        )
        # Without anything of its own it stays the very value that means so.
        self.table = replace(table, clients=clients) if clients != table.clients else table
        self._applied(self.table)
        self._due = self._clock.monotonic() + _GRACE

    async def _keep(
        self, clients: tuple[Client, ...], texts: dict[str, str]
    ) -> tuple[tuple[Client, ...], tuple[str, ...]]:
        """Clients with the id of their key, where a variable or a file holds it."""
        given = {
            client.key_name: texts[name]
            for client in clients
            if (name := _name(client.key_env, client.key_file)) in texts
        }
        held, problems = await self._keyring.keep(given) if given else ({}, ())
        return tuple([replace(each, key=held.get(each.key_name, each.key)) for each in clients]), problems

    async def _retire(self) -> None:
        async with self._turn:
            await self._managed.retire(self.table)
            await self._keyring.release(_CLIENT, {client.key_name for client in self.table.clients})
            self._guard.allow(self._allowed | _addresses(self.table))
            self._due = None

    def _refuse(self, problems: tuple[str, ...]) -> None:
        """Tell the operator, once for the same problems."""
        self.problems = problems
        digest = hashlib.sha256("\n".join(problems).encode("utf-8", "replace")).hexdigest()
        if digest != self._refused:
            self._refused = digest
            self._tell("error", "the routing file cannot be used; the table before stays in force", problems)

    def _tell(self, level: Literal["info", "warning", "error"], message: str, problems: Iterable[str]) -> None:
        fields = {"digest": self.table.digest, "problems": list(problems)}
        self._telemetry.emit(Notice(level=level, message=message, fields=fields))


def _addresses(table: Table) -> Allowed:
    """The operator's own file may lead anywhere."""
    return of_addresses(each.base_url for each in table.backends.values() if each.base_url is not None)


def _digest_of(table: Table, texts: dict[str, str]) -> str:
    """Of what is in force; the keys' texts are in it, and it never leaves this process."""
    return hashlib.sha256(msgspec.json.encode([table, texts], order="deterministic")).hexdigest()


def _name(variable: str | None, path: str | None) -> str:
    return f"env:{variable}" if variable is not None else f"file:{path}"


def _state(place: Path) -> tuple[str, int, int, int]:
    try:
        status = place.stat()
    except OSError:
        return str(place), 0, 0, 0
    return str(place), status.st_mtime_ns, status.st_size, status.st_ino
