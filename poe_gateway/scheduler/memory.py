"""Leases and duty records in memory: twins of MongoDB's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from poe_gateway.pool.memory import MemoryHub


class MemoryLeases:
    """LeaderLease; any number of processes may share one, on the hub's clock."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._held: dict[str, tuple[str | None, float]] = {}
        self._tokens: dict[str, int] = {}

    async def acquire(self, name: str, owner: str, seconds: float) -> int:
        await self._hub.call()
        now = self._hub.clock.monotonic()
        holder, until = self._held.get(name, (None, 0.0))
        if holder != owner:
            if holder is not None and until > now:
                return 0
            self._tokens[name] = self._tokens.get(name, 0) + 1
        self._held[name] = (owner, now + seconds)
        return self._tokens[name]

    async def release(self, name: str, owner: str) -> None:
        await self._hub.call()
        if self._held.get(name, (None, 0.0))[0] == owner:
            self._held[name] = (None, 0.0)


class MemoryDuties:
    """DutyRecords."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self.records: dict[str, dict[str, Any]] = {}

    async def get(self, name: str) -> dict[str, Any] | None:
        await self._hub.call()
        return self.records.get(name)

    async def put(
        self, name: str, *, last_run_at: datetime, last_day: str | None, ok: bool, detail: str = "", token: int = 0
    ) -> bool:
        await self._hub.call()
        if self.records.get(name, {}).get("token", 0) > token:
            return False
        self.records[name] = {
            "last_run_at": last_run_at,
            "last_day": last_day,
            "ok": ok,
            "detail": detail,
            "token": token,
        }
        return True
