"""Memory twins of stores whose protocols are outside the pool."""

from __future__ import annotations

from poe_gateway.dispatch.sessions import SessionBinding
from poe_gateway.pool.store import StoreUnavailable


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

    async def drop_account(self, account_id: str) -> int:
        self._call()
        before = len(self.table)
        self.table = {key: each for key, each in self.table.items() if each.account_id != account_id}
        return before - len(self.table)

    async def drop_all(self) -> int:
        self._call()
        before = len(self.table)
        self.table = {}
        return before
