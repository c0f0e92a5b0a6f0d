"""The account book in memory, over the pool's ``MemoryHub``: the twin of MongoDB's for tests and rehearsals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from poe_gateway.pool.account import Account, Intent, State
from poe_gateway.pool.memory import MemoryHub


class MemoryBook:
    """AccountBook and CredentialStore. ``sealed`` holds tokens by account id and version."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self.sealed: dict[tuple[str, int], bytes] = {}

    async def upsert(
        self, provider: str, name: str, build: Callable[[Account | None], Account], sealed: bytes, kid: str
    ) -> tuple[Account, bool]:
        await self._hub.call()
        before = self._named(provider, name)
        account = self._hub.put(build(before))
        self.sealed[account.id, account.credential_rev] = sealed
        return account, before is None

    async def get(self, account_id: str) -> Account | None:
        await self._hub.call()
        return self._hub.accounts.get(account_id)

    async def find(self, provider: str, name: str) -> Account | None:
        await self._hub.call()
        return self._named(provider, name)

    def _named(self, provider: str, name: str) -> Account | None:
        wanted = (provider, name.strip().lower())
        for account in self._hub.accounts.values():
            if (account.provider, account.name.strip().lower()) == wanted:
                return account
        return None

    async def page(
        self,
        page: int,
        page_size: int,
        *,
        now: datetime,
        status: Sequence[str] = (),
        provider: str | None = None,
        min_balance: int | None = None,
        max_balance: int | None = None,
        text: str | None = None,
        labels: Sequence[str] = (),
        priority: int | None = None,
    ) -> tuple[list[Account], int]:
        await self._hub.call()
        found = [
            account
            for account in self._hub.accounts.values()
            if (not status or not _statuses(account, now).isdisjoint(status))
            and provider in (None, account.provider)
            and _within(account.balance.points, min_balance, max_balance)
            and (text or "").lower() in account.name.lower()
            and set(labels).issubset(account.labels)
            and priority in (None, account.priority)
        ]
        found.sort(key=lambda account: (account.created_at, account.id))
        return found[(page - 1) * page_size : page * page_size], len(found)

    async def delete(self, account_id: str) -> bool:
        await self._hub.call()
        for key in [key for key in self.sealed if key[0] == account_id]:
            del self.sealed[key]
        return self._hub.delete(account_id)

    async def credentials_of(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        await self._hub.call()
        return {version: self.sealed[version] for version in versions if version in self.sealed}

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        await self._hub.call()
        return self.sealed.get((account_id, credential_rev))


def _statuses(account: Account, now: datetime) -> set[str]:
    health = account.health
    lapsed = health.state in (State.COOLDOWN, State.DEPLETED) and health.until is not None and health.until <= now
    found = {State.ACTIVE.value if lapsed else health.state.value}
    if account.intent is Intent.PAUSED:
        found.add(Intent.PAUSED.value)
    return found


def _within(points: int | None, low: int | None, high: int | None) -> bool:
    if low is None and high is None:
        return True
    return points is not None and (low is None or points >= low) and (high is None or points <= high)
