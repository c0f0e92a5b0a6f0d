"""Sessions: which account and upstream conversation a caller's session continues."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from datetime import datetime
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from poe_gateway.pool.store import StoreUnavailable

_PATIENCE = 2.0
_SIZE = 50_000


class SessionBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session lives. ``chain`` holds a digest of every turn that the upstream conversation holds."""

    id: str
    account_id: str
    offer: str
    model: str
    state: dict[str, Any] | None
    chain: tuple[str, ...]
    updated_at: datetime


class SessionStore(Protocol):
    """Where bindings are kept; they vanish after a while without use."""

    async def get(self, session: str) -> SessionBinding | None:
        """Raises StoreUnavailable."""

    async def put(self, binding: SessionBinding) -> None:
        """Raises StoreUnavailable."""

    async def drop(self, session: str) -> None:
        """Raises StoreUnavailable."""

    async def drop_account(self, account_id: str) -> None:
        """Raises StoreUnavailable."""


class SessionBook:
    """Bindings as this process knows them, in front of the store.

    Reading waits for the database at most ``_PATIENCE`` seconds, and only where another process may know better
    (``alone`` says no); without it the session goes on with what is known here. Writing is behind the request's back.
    """

    def __init__(self, store: SessionStore, *, alone: Callable[[], bool], lost: Callable[[str], None]) -> None:
        self._store = store
        self._alone = alone
        self._lost = lost
        self._known: OrderedDict[str, SessionBinding] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()
        self._unstored: Counter[str] = Counter()
        """Sessions whose binding is being written at this moment."""
        self.busy: set[str] = set()
        """Sessions whose upstream conversation is answering in this process."""

    @staticmethod
    def key(principal_id: str, session_id: str) -> str:
        """The stored id: callers' own texts never reach the database, and callers never share a session."""
        return blake2b(f"{principal_id}\x00{session_id}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    async def find(self, session: str) -> SessionBinding | None:
        """The newest known binding."""
        known = self._known.get(session)
        if known is not None and self._alone():
            return known
        try:
            async with asyncio.timeout(_PATIENCE):
                stored = await self._store.get(session)
        except (StoreUnavailable, TimeoutError):
            return known
        if known is not None and self._unstored[session]:
            return self._known.get(session)  # the store cannot know better yet
        if stored is None:
            self._known.pop(session, None)
            return None
        if known is not None and known.updated_at > stored.updated_at:
            return known  # our own write is still on its way
        self._remember(stored)
        return stored

    def put(self, binding: SessionBinding) -> None:
        """Remember now, store behind."""
        self._remember(binding)
        self._unstored[binding.id] += 1
        self._spawn(self._store.put(binding), binding.id)

    def drop(self, session: str) -> None:
        """The upstream conversation is gone."""
        self._known.pop(session, None)
        self._spawn(self._store.drop(session))

    def forget_account(self, account_id: str) -> None:
        """Bindings to a deleted account are void."""
        for session in [key for key, binding in self._known.items() if binding.account_id == account_id]:
            del self._known[session]

    def _remember(self, binding: SessionBinding) -> None:
        self._known[binding.id] = binding
        self._known.move_to_end(binding.id)
        while len(self._known) > _SIZE:
            self._known.popitem(last=False)

    def _spawn(self, work: Coroutine[Any, Any, None], session: str | None = None) -> None:
        task = asyncio.ensure_future(self._quietly(work))
        self._writing.add(task)
        task.add_done_callback(lambda done: self._written(done, session))

    def _written(self, task: asyncio.Task[None], session: str | None) -> None:
        self._writing.discard(task)
        if session is not None:
            self._unstored[session] -= 1
            if self._unstored[session] <= 0:
                del self._unstored[session]

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreUnavailable:
            self._lost("a session binding could not be stored")

    async def drain(self) -> None:
        """Wait for what is being written (at shutdown)."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=2.0)
