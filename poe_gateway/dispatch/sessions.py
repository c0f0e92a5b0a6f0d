"""Sessions: which account and upstream conversation a caller's session continues."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
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
    bound_at: datetime | None = None
    """Since when it lives on this account."""
    turns: int = 0
    """Requests that this account has answered in it."""


class SessionStore(Protocol):
    """Where bindings are kept; they vanish after a while without use. All methods raise StoreUnavailable."""

    async def get(self, session: str) -> SessionBinding | None:
        """The stored binding."""

    async def put(self, binding: SessionBinding) -> None:
        """Replace it."""

    async def drop(self, session: str) -> None:
        """Forget it."""

    async def drop_account(self, account_id: str) -> int:
        """Forget all of one account; how many there were."""

    async def drop_all(self) -> int:
        """Forget all; how many there were."""


class SessionBook:
    """Bindings as this process knows them, in front of the store.

    Reading waits for the database at most ``_PATIENCE`` seconds, and only where another process may know better
    (``alone`` says no); without it the session goes on with what is known here. Writing is behind the request's back,
    for each session in order: only its newest word is written.
    """

    def __init__(self, store: SessionStore, *, alone: Callable[[], bool], lost: Callable[[str], None]) -> None:
        self._store = store
        self._alone = alone
        self._lost = lost
        self._known: OrderedDict[str, SessionBinding] = OrderedDict()
        self._unstored: dict[str, SessionBinding | None] = {}
        """Newest word on sessions that is not written yet; None: to be forgotten."""
        self._writers: dict[str, asyncio.Task[None]] = {}
        self.on_flush: Callable[[str | None], None] = lambda account_id: None
        """Told that what leans on an account (None: on any) is to choose anew."""
        self.busy: set[str] = set()
        """Sessions whose upstream conversation is answering in this process."""

    @staticmethod
    def key(principal_id: str, session_id: str) -> str:
        """The stored id: callers' own texts never reach the database, and callers never share a session."""
        return blake2b(f"{principal_id}\x00{session_id}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    async def find(self, session: str) -> SessionBinding | None:
        """The newest known binding."""
        known = self._known.get(session)
        if session in self._writers or (known is not None and self._alone()):
            return known  # the store cannot know better
        try:
            async with asyncio.timeout(_PATIENCE):
                stored = await self._store.get(session)
        except (StoreUnavailable, TimeoutError):
            return known
        if session in self._writers:
            return self._known.get(session)
        if stored is None:
            self._known.pop(session, None)
            return None
        if known is not None and known.updated_at > stored.updated_at:
            return known  # our own write was lost: what it said is still true
        self._remember(stored)
        return stored

    def put(self, binding: SessionBinding) -> None:
        """Remember now, store behind."""
        self._remember(binding)
        self._write(binding.id, binding)

    def drop(self, session: str) -> None:
        """The upstream conversation is gone."""
        self._known.pop(session, None)
        self._write(session, None)

    def forget_account(self, account_id: str) -> None:
        """Bindings to a deleted account are void."""
        for session in [key for key, binding in self._known.items() if binding.account_id == account_id]:
            del self._known[session]

    async def flush(self, account_id: str | None = None) -> int:
        """Let every session (of one account) choose anew; how many bindings there were. Raises StoreUnavailable."""
        await self.drain()
        self.on_flush(account_id)
        if account_id is None:
            self._known.clear()
            return await self._store.drop_all()
        self.forget_account(account_id)
        return await self._store.drop_account(account_id)

    def _remember(self, binding: SessionBinding) -> None:
        self._known[binding.id] = binding
        self._known.move_to_end(binding.id)
        while len(self._known) > _SIZE:
            self._known.popitem(last=False)

    def _write(self, session: str, binding: SessionBinding | None) -> None:
        self._unstored[session] = binding
        if session not in self._writers:
            self._writers[session] = asyncio.ensure_future(self._write_out(session))

    async def _write_out(self, session: str) -> None:
        try:
            while session in self._unstored:
                binding = self._unstored.pop(session)
                try:
                    if binding is None:
                        await self._store.drop(session)
                    else:
                        await self._store.put(binding)
                except StoreUnavailable:
                    self._lost("a session binding could not be stored")
        finally:
            del self._writers[session]

    async def drain(self) -> None:
        """Wait for what is being written (at shutdown)."""
        if self._writers:
            await asyncio.wait(set(self._writers.values()), timeout=2.0)
