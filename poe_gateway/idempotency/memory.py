"""Claims and answers in memory: the twin of MongoDB's store, for tests and rehearsals."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from poe_gateway.clock import Clock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.idempotency.book import Claim, Found


class Entry(msgspec.Struct, kw_only=True):
    """One stored claim."""

    digest: str
    owner: str
    lease_until: datetime
    expires_at: datetime
    sealed: bytes | None = None


class MemoryAnswers:
    """AnswerStore; share one between the processes of a test. ``away`` names the methods that fail."""

    def __init__(self, clock: Clock) -> None:
        self.table: dict[str, Entry] = {}
        self.away: set[str] = set()
        self.calls: list[str] = []
        self._clock = clock

    def _call(self, name: str) -> datetime:
        self.calls.append(name)
        if name in self.away:
            raise StoreUnavailable("the memory store is told to be away")
        return self._clock.now()

    def _held(self, claim: Claim) -> Entry | None:
        entry = self.table.get(claim.id)
        return entry if entry is not None and entry.owner == claim.owner else None

    async def claim(self, claim: Claim, lease: float, ttl: float) -> Found:
        now = self._call("claim")
        entry = self.table.get(claim.id)
        if entry is None or entry.expires_at <= now or _lapsed(entry, claim, now):
            entry = self.table[claim.id] = Entry(
                digest=claim.digest,
                owner=claim.owner,
                lease_until=now + timedelta(seconds=lease),
                expires_at=now + timedelta(seconds=lease + ttl),
            )
        return Found(digest=entry.digest, owner=entry.owner, sealed=entry.sealed)

    async def renew(self, claim: Claim, lease: float, ttl: float) -> bool:
        now = self._call("renew")
        entry = self._held(claim)
        if entry is None or entry.sealed is not None:
            return False
        entry.lease_until = now + timedelta(seconds=lease)
        entry.expires_at = now + timedelta(seconds=lease + ttl)
        return True

    async def finish(self, claim: Claim, status: int, sealed: bytes, kid: str, ttl: float) -> bool:
        now = self._call("finish")
        entry = self._held(claim)
        if entry is None:
            return False
        entry.sealed, entry.expires_at = sealed, now + timedelta(seconds=ttl)
        return True

    async def free(self, claim: Claim) -> None:
        self._call("free")
        entry = self._held(claim)
        if entry is not None and entry.sealed is None:
            del self.table[claim.id]


def _lapsed(entry: Entry, claim: Claim, now: datetime) -> bool:
    return entry.sealed is None and entry.digest == claim.digest and entry.lease_until <= now
