"""Service keys and organisations in memory: the twins of MongoDB's stores, for tests and rehearsals."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

from msgspec.structs import replace

from poe_gateway.auth.keys import KeyTerms, ServiceKey
from poe_gateway.auth.orgs import DEFAULT, DEFAULT_ORG, NameTaken, Org, OrgTerms

T = TypeVar("T", ServiceKey, Org)


class _Followed(Generic[T]):
    """What both stores are. Share ``table`` (by id) and ``log`` (ids as they changed) between processes.

    While ``failure`` is set, every call raises it.
    """

    def __init__(self, table: dict[str, T] | None = None, log: list[str] | None = None) -> None:
        self.table: dict[str, T] = {} if table is None else table
        self.log: list[str] = [] if log is None else log
        self.failure: Exception | None = None
        self._read = 0

    def _call(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _put(self, value: T) -> T:
        self.table[value.id] = value
        self.log.append(value.id)
        return value

    async def load(self) -> list[T]:
        self._call()
        self._read = len(self.log)
        return list(self.table.values())

    async def changes(self) -> list[T]:
        self._call()
        changed = dict.fromkeys(self.log[self._read :])
        self._read = len(self.log)
        return [self.table[each] for each in changed]


class MemoryKeys(_Followed[ServiceKey]):
    """KeyStore of one process."""

    async def add(self, key: ServiceKey) -> bool:
        self._call()
        if any(other.hash == key.hash for other in self.table.values()):
            return False
        if key.id in self.table:
            raise ValueError(f"the key id {key.id} is taken")
        self._put(key)
        return True

    async def revoke(self, key_id: str, at: datetime) -> ServiceKey | None:
        self._call()
        key = self.table.get(key_id)
        if key is None or key.revoked_at is not None:
            return key
        return self._put(replace(key, enabled=False, revoked_at=at))

    async def change(self, key_id: str, terms: KeyTerms) -> ServiceKey | None:
        self._call()
        key = self.table.get(key_id)
        return None if key is None else self._put(terms.on(key))

    async def switch(self, key_id: str, enabled: bool) -> ServiceKey | None:
        self._call()
        key = self.table.get(key_id)
        if key is None or key.revoked_at is not None:
            return key
        return self._put(replace(key, enabled=enabled))

    async def rotate(self, key_id: str, digest: str, at: datetime, until: datetime | None) -> ServiceKey | None:
        self._call()
        key = self.table.get(key_id)
        if key is None or key.revoked_at is not None:
            return key
        previous = key.hash if until is not None else None
        return self._put(replace(key, hash=digest, previous_hash=previous, previous_until=until, last_rotated_at=at))


class MemoryOrgs(_Followed[Org]):
    """OrgStore of one process."""

    def _put(self, value: Org) -> Org:
        if any(other.name == value.name and other.id != value.id for other in self.table.values()):
            raise NameTaken
        return super()._put(value)

    async def add(self, org: Org) -> None:
        self._call()
        if org.id in self.table:
            raise ValueError(f"the organisation's id {org.id} is taken")
        self._put(org)

    async def change(self, org_id: str, terms: OrgTerms) -> Org | None:
        self._call()
        org = self.table.get(org_id, DEFAULT if org_id == DEFAULT_ORG else None)
        return None if org is None else self._put(terms.on(org))
