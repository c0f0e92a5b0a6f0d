"""Memory twins of stores whose protocols are outside the pool."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from poe_gateway.auth.keys import ServiceKey
from poe_gateway.dispatch.sessions import SessionBinding
from poe_gateway.pool.store import StoreUnavailable


class MemoryKeys:
    """KeyStore; share ``table`` (keys by id) and ``log`` between processes of one test."""

    def __init__(self, table: dict[str, ServiceKey] | None = None, log: list[str] | None = None) -> None:
        self.table: dict[str, ServiceKey] = {} if table is None else table
        self.log: list[str] = [] if log is None else log
        self.away = False
        self._read = 0

    def _call(self) -> None:
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")

    async def load(self) -> list[ServiceKey]:
        self._call()
        self._read = len(self.log)
        return list(self.table.values())

    async def changes(self) -> list[ServiceKey]:
        self._call()
        changed = dict.fromkeys(self.log[self._read :])
        self._read = len(self.log)
        return [self.table[key] for key in changed]

    async def add(self, key: ServiceKey) -> bool:
        self._call()
        if any(other.hash == key.hash for other in self.table.values()):
            return False
        if key.id in self.table:
            raise ValueError(f"the key id {key.id} is taken")
        self.table[key.id] = key
        self.log.append(key.id)
        return True

    async def revoke(self, key_id: str, at: datetime) -> ServiceKey | None:
        self._call()
        key = self.table.get(key_id)
        if key is not None and key.enabled:
            key = self.table[key_id] = replace(key, enabled=False, revoked_at=at)
            self.log.append(key_id)
        return key


class MemorySessions:
    """SessionStore without expiry."""

    def __init__(self) -> None:
        self.table: dict[str, SessionBinding] = {}
        self.away = False

    def _call(self) -> None:
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")

    async def get(self, session: str) -> SessionBinding | None:
        self._call()
        return self.table.get(session)

    async def put(self, binding: SessionBinding) -> None:
        self._call()
        self.table[binding.id] = binding

    async def drop(self, session: str) -> None:
        self._call()
        self.table.pop(session, None)

    async def drop_account(self, account_id: str) -> None:
        self._call()
        self.table = {key: each for key, each in self.table.items() if each.account_id != account_id}
