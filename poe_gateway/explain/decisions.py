"""The decision log: what was decided about every request, at hand for the operator's questions.

The newest records of this process are in memory; those of all processes are in the database, up to a size. The hot
path pays for one append.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable
from datetime import datetime
from typing import Any, Protocol

import msgspec

from poe_gateway.explain.backlog import Backlog, RecordStore
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.store import StoreUnavailable

REPEATS = 10
"""Records of one request id that are told: a caller may send its own id again and again."""
_REMEMBERED = 2000
_WAITING = 10_000
_PAGE = 200
_LONGEST_MODEL = 200
"""Characters of a model's name that are kept; callers may ask for any."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records. Fields that are None set no bound."""

    model: str | None = None
    key_id: str | None = None
    account_id: str | None = None
    """Tried or chosen."""
    outcome: str | None = None
    """Of any attempt: ``RateLimited`` …"""
    error_code: str | None = None
    since: datetime | None = None

    def admits(self, decision: Decision) -> bool:
        """Whether the record is asked for."""
        return (
            self.model in (None, decision.model)
            and self.key_id in (None, decision.key_id)
            and (self.account_id is None or self.account_id in _accounts(decision))
            and (self.outcome is None or any(each.outcome == self.outcome for each in decision.tries))
            and self.error_code in (None, decision.error_code)
            and (self.since is None or decision.at >= self.since)
        )


def _accounts(decision: Decision) -> set[str | None]:
    return {each.account_id for each in decision.tries} | {each.account_id for each in decision.choices}


ALL = Filter()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Records, newest first."""

    decisions: list[Decision]
    complete: bool
    """False: only what this process remembers, for the database is away or keeps no records."""


class DecisionStore(RecordStore[Decision], Protocol):
    """The records of all processes. Methods raise StoreUnavailable."""

    async def find(self, request_id: str, limit: int) -> list[Decision]:
        """Of one request id, newest first."""

    async def newest(self, limit: int, where: Filter) -> list[Decision]:
        """Newest first."""

    async def page(
        self, since: datetime | None, until: datetime | None, limit: int, after: Any = None
    ) -> tuple[list[Decision], Any]:
        """Oldest first, from ``since`` on and before ``until``; and what to give as ``after`` for the next page,
        None when there is none."""


class DecisionLog:
    """The records of this process, and those that are stored. Without a ``store`` they are kept in memory only."""

    def __init__(self, store: DecisionStore | None) -> None:
        self._store = store
        self._ring: deque[Decision] = deque(maxlen=_REMEMBERED)
        self._backlog = None if store is None else Backlog(store, limit=_WAITING, dispensable=_went_well)

    @property
    def lost(self) -> int:
        """Records that never came to the store. Successes are given up before failures."""
        return 0 if self._backlog is None else self._backlog.lost

    def note(self, decision: Decision) -> None:
        """Keep the record, which must not change any more. Never fails."""
        if len(decision.model) > _LONGEST_MODEL:
            decision.model = decision.model[:_LONGEST_MODEL]
        self._ring.append(decision)
        if self._backlog is not None:
            self._backlog.add(decision)

    async def run(self) -> None:
        """Store what is noted, for ever; to be run as one task."""
        if self._backlog is not None:
            await self._backlog.run()

    async def flush(self) -> bool:
        """Store what is noted; False when the database failed."""
        return self._backlog is None or await self._backlog.flush()

    async def find(self, request_id: str) -> Found:
        """The records of one request id, at most ``REPEATS``. Raises StoreUnavailable when nothing is at hand either.

        A record of another process is found within a second.
        """
        own = [each for each in self._ring if each.request_id == request_id]
        stored = None if self._store is None else self._store.find(request_id, REPEATS)
        return await self._together(own, stored, REPEATS)

    async def newest(self, limit: int, where: Filter = ALL) -> Found:
        """The newest records that are asked for. Raises StoreUnavailable when nothing is at hand either."""
        own = [each for each in self._ring if where.admits(each)]
        stored = None if self._store is None else self._store.newest(limit, where)
        return await self._together(own, stored, limit)

    async def _together(self, own: list[Decision], stored: Awaitable[list[Decision]] | None, limit: int) -> Found:
        found: list[Decision] = []
        if stored is not None:
            try:
                found = await stored
            except StoreUnavailable:
                if not own:
                    raise
                stored = None
        merged = {_identity(each): each for each in (*found, *own)}
        newest = sorted(merged.values(), key=_arrival, reverse=True)[:limit]
        return Found(decisions=newest, complete=stored is not None)

    async def export(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[Decision, None]:
        """All records from ``since`` on and before ``until``, oldest first. Raises StoreUnavailable, at any point."""
        if self._store is None:
            for each in _between(self._ring, since, until):
                yield each
            return
        await self.flush()
        records, after = await self._store.page(since, until, _PAGE)
        while True:
            for each in records:
                yield each
            if after is None:
                return
            records, after = await self._store.page(since, until, _PAGE, after)


def _went_well(decision: Decision) -> bool:
    """An answer that broke half-way has a code, too."""
    return decision.status < 400 and decision.error_code is None


def _identity(decision: Decision) -> tuple[str, str, datetime]:
    """What is stored is kept to the millisecond."""
    return decision.request_id, decision.process, decision.at.replace(microsecond=decision.at.microsecond // 1000)


def _arrival(decision: Decision) -> datetime:
    return decision.at


def _between(records: Iterable[Decision], since: datetime | None, until: datetime | None) -> list[Decision]:
    chosen = [each for each in records if (since is None or each.at >= since) and (until is None or each.at < until)]
    return sorted(chosen, key=_arrival)
