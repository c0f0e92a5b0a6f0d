"""The key ring: recognises callers from memory; the database is asked only about keys that memory does not know.

A revoked, changed or new key is in force in every process as soon as ``refresh`` has seen it, which is at most
``_FRESH`` seconds later (and at once with a doorbell). With the database away, known keys go on working and unknown
ones are refused as unknown only after a successful look; otherwise the caller is told to come back.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable

from poe_gateway.auth.keys import KeyStore, KeyTerms, Principal, ServiceKey, keyed_hash, principal_of
from poe_gateway.clock import Clock, Ids

_FRESH = 1.0
"""Seconds between two looks for changed keys that unknown keys can cause."""


class KeyRing:
    """Service keys and the admin key of this process."""

    def __init__(self, *, store: KeyStore, pepper: bytes, admin_key: str, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._pepper = pepper
        self._admin = keyed_hash(pepper, admin_key)
        self._clock = clock
        self._ids = ids
        self._by_hash: dict[str, ServiceKey] = {}
        self._principals: dict[str, Principal] = {}
        self._looked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def start(self, bootstrap: Iterable[str]) -> None:
        """Load all keys and store the bootstrap keys that are not there yet (idempotent)."""
        self._accept(await self._store.load())
        for number, key in enumerate(bootstrap, 1):
            digest = keyed_hash(self._pepper, key)
            if digest not in self._by_hash:
                record = ServiceKey(
                    id=self._ids.new("key", 12),
                    name=f"bootstrap-{number}",
                    hash=digest,
                    created_at=self._clock.now(),
                    bootstrap=True,
                )
                await self._store.add(record)
        self._accept(await self._store.load())

    def _accept(self, keys: Iterable[ServiceKey]) -> None:
        for key in keys:
            self._by_hash[key.hash] = key
            if key.enabled and key.revoked_at is None:
                self._principals[key.hash] = principal_of(key)
            else:
                self._principals.pop(key.hash, None)

    async def refresh(self) -> None:
        """Take over what changed in the store. Raises StoreUnavailable."""
        self._accept(await self._store.changes())
        self._looked_at = self._clock.monotonic()

    def known(self, key: str) -> Principal | None:
        """The caller of a key that is known and in force; never waits."""
        return self._principals.get(keyed_hash(self._pepper, key))

    async def recognise(self, key: str) -> Principal | None:
        """The same, after one look into the store for a key that memory does not know (bounded in rate).

        Raises StoreUnavailable when that look failed.
        """
        digest = keyed_hash(self._pepper, key)
        principal = self._principals.get(digest)
        if principal is not None or digest in self._by_hash:
            return principal
        async with self._lock:
            if self._clock.monotonic() - self._looked_at >= _FRESH:
                await self.refresh()
        return self._principals.get(digest)

    def is_admin(self, key: str) -> bool:
        """Constant-time comparison of keyed hashes."""
        return hmac.compare_digest(self._admin, keyed_hash(self._pepper, key))

    async def create(self, name: str, terms: KeyTerms | None = None) -> tuple[ServiceKey, str]:
        """A new key and its text, which is shown this once and kept nowhere."""
        key_id = self._ids.new("key", 12)
        text = f"pgw_{key_id[4:]}.{self._ids.secret(32)}"
        record = ServiceKey(id=key_id, name=name, hash=keyed_hash(self._pepper, text), created_at=self._clock.now())
        record = terms.on(record) if terms is not None else record
        await self._store.add(record)
        self._accept((record,))
        return record, text

    async def change(self, key_id: str, terms: KeyTerms) -> ServiceKey | None:
        """Change a key, also one that came with the settings; None when there is no such key."""
        record = await self._store.change(key_id, terms)
        if record is not None:
            self._accept((record,))
        return record

    async def revoke(self, key_id: str) -> ServiceKey | None:
        """Switch a key off for good; None when there is no such key."""
        record = await self._store.revoke(key_id, self._clock.now())
        if record is not None:
            self._accept((record,))
        return record

    def keys(self) -> list[ServiceKey]:
        """All keys, oldest first."""
        return sorted(self._by_hash.values(), key=lambda key: (key.created_at, key.id))
