"""The way from a process to the database: calls travel, are carried out there, and answers travel back.

A call that was sent is carried out whatever becomes of its sender: it may be frozen or dead by then. While the
database is away calls fail, and now and then an answer is lost although the call was carried out: its fate is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from poe_gateway.clock import Ids
from poe_gateway.dispatch.sessions import SessionBinding
from poe_gateway.pool.account import Account
from poe_gateway.pool.store import (
    HOLD,
    AccountStore,
    Ask,
    Changes,
    GrantStore,
    Holding,
    Membership,
    StoreUnavailable,
    Wanted,
)
from poe_gateway.simulation.virtual_time import World

T = TypeVar("T")


class Line:
    """Between all processes and the database. ``latency`` in seconds for both ways."""

    def __init__(self, world: World, ids: Ids, *, latency: float, losses: float) -> None:
        self.away = False
        self.latency = latency
        self.losses = losses
        """Part of the calls whose answer is lost."""
        self._world = world
        self._rng = ids.rng

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]], *, may_be_lost: bool = True) -> T:
        """Carry out ``work`` at the server. Raises StoreUnavailable, and whatever ``work`` raises."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        world, rng = self._world, self._rng
        lost = may_be_lost and rng.random() < self.losses
        world.call_at(world.now + self.latency * rng.uniform(0.2, 0.8), self._arrive, work, answer, lost, may_be_lost)
        return await answer

    def _arrive(
        self, work: Callable[[], Coroutine[Any, Any, T]], answer: asyncio.Future[T], lost: bool, may_be_lost: bool
    ) -> None:
        result: T | None = None
        failed: Exception | None = None
        if self.away:
            failed = StoreUnavailable("the database is away")
        else:
            try:
                result = _at_once(work())
            except Exception as error:  # noqa: BLE001 - it is the caller's to handle
                failed = error
            if lost:
                failed = StoreUnavailable("the connection broke")
        world = self._world
        back = world.now + self.latency * self._rng.uniform(0.2, 0.8)
        world.call_at(back, self._return, answer, result, failed, may_be_lost)

    def _return(self, answer: asyncio.Future[T], result: T, failed: Exception | None, may_be_lost: bool) -> None:
        if self.away and may_be_lost and failed is None:
            failed = StoreUnavailable("the connection broke")
        if answer.done():
            return  # the caller waits no longer
        if failed is not None:
            answer.set_exception(failed)
        else:
            answer.set_result(result)


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the memory stores: they let others go first, and wait for nothing else."""
    try:
        while True:
            work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result


class RemoteAccounts:
    """AccountStore at the other end of the line."""

    def __init__(self, line: Line, store: AccountStore) -> None:
        self._line = line
        self._store = store

    async def load(self) -> list[Account]:
        return await self._line.call(self._store.load, may_be_lost=False)

    async def changes(self) -> Changes:
        # The memory store remembers what was read: an answer that gets lost would be lost for good.
        return await self._line.call(self._store.changes, may_be_lost=False)

    async def change(self, steps: Mapping[str, Callable[[Account], Account]]) -> dict[str, Account]:
        return await self._line.call(lambda: self._store.change(steps))


class RemoteGrants:
    """GrantStore at the other end of the line."""

    def __init__(self, line: Line, store: GrantStore) -> None:
        self._line = line
        self._store = store

    async def join(self, instance: str, lifetime: float) -> Membership:
        return await self._line.call(lambda: self._store.join(instance, lifetime))

    async def renew(self, instance: str, lifetime: float) -> Membership:
        return await self._line.call(lambda: self._store.renew(instance, lifetime))

    async def leave(self, instance: str) -> None:
        await self._line.call(lambda: self._store.leave(instance))

    async def take(self, instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
        return await self._line.call(lambda: self._store.take(instance, asks))

    async def give_back(self, instance: str, held: Mapping[str, int]) -> None:
        await self._line.call(lambda: self._store.give_back(instance, held))

    async def mark_wanted(self, instance: str, keys: Collection[str], pressure: float) -> None:
        await self._line.call(lambda: self._store.mark_wanted(instance, keys, pressure))

    async def wanted(self, instance: str) -> list[Wanted]:
        return await self._line.call(lambda: self._store.wanted(instance))

    async def reclaim(self, hold: float = HOLD, *, only_proven: bool = False) -> int:
        return await self._line.call(lambda: self._store.reclaim(hold, only_proven=only_proven))

    async def held_by(self) -> dict[str, Holding]:
        return await self._line.call(self._store.held_by)


class RemoteCredentials:
    """CredentialStore at the other end of the line, where ``sealed`` lies: by account id and version."""

    def __init__(self, line: Line, sealed: Mapping[tuple[str, int], bytes]) -> None:
        self._line = line
        self._sealed = sealed

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        async def read() -> bytes | None:
            return self._sealed.get((account_id, credential_rev))

        return await self._line.call(read)

    async def credentials_of(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        async def read() -> dict[tuple[str, int], bytes]:
            return {version: self._sealed[version] for version in versions if version in self._sealed}

        return await self._line.call(read)


class RemoteSessions:
    """SessionStore at the other end of the line, in ``table``."""

    def __init__(self, line: Line, table: dict[str, SessionBinding]) -> None:
        self._line = line
        self._table = table

    async def get(self, session: str) -> SessionBinding | None:
        async def read() -> SessionBinding | None:
            return self._table.get(session)

        return await self._line.call(read)

    async def put(self, binding: SessionBinding) -> None:
        async def write() -> None:
            self._table[binding.id] = binding

        await self._line.call(write)

    async def drop(self, session: str) -> None:
        async def write() -> None:
            self._table.pop(session, None)

        await self._line.call(write)

    async def drop_account(self, account_id: str) -> int:
        async def write() -> int:
            bound = [key for key, binding in self._table.items() if binding.account_id == account_id]
            for key in bound:
                del self._table[key]
            return len(bound)

        return await self._line.call(write)

    async def drop_all(self) -> int:
        async def write() -> int:
            count = len(self._table)
            self._table.clear()
            return count

        return await self._line.call(write)


async def server_time(line: Line, now: Callable[[], datetime]) -> datetime:
    """The database's calendar, asked over the line."""

    async def read() -> datetime:
        return now()

    return await line.call(read)
