"""The key ring: recognises callers from memory; the database is asked only about keys that memory does not know.

A revoked, changed or new key, or organisation, is in force in every process as soon as ``refresh`` has seen it, which
is at most ``_FRESH`` seconds later (and at once with a doorbell). With the database away, known keys go on working and
unknown ones are refused as unknown only after a successful look; otherwise the caller is told to come back.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from msgspec import UNSET

from poe_gateway.auth.keys import KeyStore, KeyTerms, Principal, ServiceKey, keyed_hash, principal_of
from poe_gateway.auth.memory import MemoryOrgs
from poe_gateway.auth.orgs import DEFAULT, DEFAULT_ORG, NameTaken, Org, OrgStore, OrgTerms
from poe_gateway.auth.public import PublicCallers
from poe_gateway.auth.throttle import Throttle
from poe_gateway.clock import Clock, Ids
from poe_gateway.errors import AuthenticationFailed, Conflict, Forbidden, StoreUnavailable
from poe_gateway.limits.terms import Rates, Scope

_FRESH = 1.0
"""Seconds between two looks for changed keys that unknown keys can cause: so long an unknown key waits at most."""
_GLANCE = 0.05
"""Seconds between two looks into memory meanwhile."""
_RELEASED = "not in the routing file"
"""Note of a key that was switched off for that, and not by the operator."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class KeyRing:
    """Service keys, their organisations, and the admin key of this process.

    ``defaults``: rates of keys where they say nothing themselves. ``everywhere``: what all callers together may use.
    ``failures_per_minute``: wrong keys that one address may send; 0 or less is any number.
    """

    def __init__(
        self,
        *,
        store: KeyStore,
        orgs: OrgStore | None = None,
        pepper: bytes,
        admin_key: str,
        clock: Clock,
        ids: Ids,
        defaults: Rates | None = None,
        everywhere: Scope | None = None,
        failures_per_minute: int = 0,
    ) -> None:
        self._store = store
        self._org_store = orgs if orgs is not None else MemoryOrgs()
        self._pepper = pepper
        self._admin = keyed_hash(pepper, admin_key)
        self._clock = clock
        self._ids = ids
        self._defaults = defaults
        self._everywhere = everywhere
        self.public = PublicCallers(defaults or Rates(), everywhere)
        self.throttle = Throttle(failures_per_minute, clock)
        self._keys: dict[str, ServiceKey] = {}
        self._orgs: dict[str, Org] = {DEFAULT_ORG: DEFAULT}
        self._by_hash: dict[str, str] = {}
        """Key ids by the hash of the text in force."""
        self._by_previous: dict[str, str] = {}
        """Key ids by the hash before the last rotation."""
        self._principals: dict[str, Principal] = {}
        """By key id: of keys that are in force."""
        self._looked_at = float("-inf")
        """When the last look began that succeeded."""
        self._failed_at = float("-inf")
        self._look = asyncio.Lock()
        self._store_call = asyncio.Lock()
        """What was read before a change must not be taken over after it."""

    async def start(self, bootstrap: Iterable[str]) -> list[ServiceKey]:
        """Load all keys and store the bootstrap keys that are not there yet (idempotent); those that were new."""
        made: list[ServiceKey] = []
        self._accept_orgs(await self._org_store.load())
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
                if await self._store.add(record):
                    made.append(record)
        self._accept(await self._store.load())
        return made

    async def keep(self, keys: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Have the texts of the routing file's clients in force: name -> text. Name -> id of the key, and problems.

        A text that is a key already stays that key. A name whose text is another one now is rotated at once; one that
        ``release`` switched off works again. Idempotent, and safe beside other processes. What cannot be in force (the
        admin key, a revoked key, the text of another name) is left out and told.
        """
        held: dict[str, str] = {}
        problems: list[str] = []
        async with self._store_call:
            self._accept(await self._store.changes())
            for name, text in keys.items():
                record = None if self.is_admin(text) else await self._kept(name, keyed_hash(self._pepper, text))
                if record is None:
                    problems.append(f"the key of '{name}' is the admin key, or revoked for good")
                elif record.id in held.values():
                    problems.append(f"the key of '{name}' is another client's too")
                else:
                    held[name] = record.id
        return held, tuple(problems)

    async def _kept(self, name: str, digest: str) -> ServiceKey | None:
        record = self._keys.get(self._by_hash.get(digest, ""))
        own = self._of_client(name)
        if record is None and own is not None:
            record = await self._store.rotate(own.id, digest, self._clock.now(), None)
        elif record is None:
            record = ServiceKey(
                id=self._ids.new("key", 12), name=name, hash=digest, created_at=self._clock.now(), bootstrap=True
            )
            if not await self._store.add(record):  # another process was faster
                self._accept(await self._store.load())
                record = self._keys.get(self._by_hash.get(digest, ""))
        if record is not None and record.bootstrap and not record.enabled and record.note == _RELEASED:
            await self._store.switch(record.id, True)
            record = await self._store.change(record.id, KeyTerms(note=""))
        if record is None or record.revoked_at is not None or record.hash != digest:
            return None
        self._accept((record,))
        return record

    async def release(self, prefix: str, names: Collection[str]) -> list[ServiceKey]:
        """Switch off the keys that ``keep`` made under names with this prefix, but for those of ``names``."""
        gone = [
            key
            for key in self._keys.values()
            if key.bootstrap and key.enabled and key.name.startswith(prefix) and key.name not in names
        ]
        async with self._store_call:
            for key in gone:
                await self._store.change(key.id, KeyTerms(note=_RELEASED))
                self._taken(await self._store.switch(key.id, False))
        return gone

    def _of_client(self, name: str) -> ServiceKey | None:
        """The key that ``keep`` made under this name, unless it is revoked."""
        made = (key for key in self._keys.values() if key.bootstrap and key.name == name and key.revoked_at is None)
        return max(made, key=lambda key: key.created_at, default=None)

    def _accept(self, keys: Iterable[ServiceKey]) -> None:
        for key in keys:
            if (before := self._keys.get(key.id)) is not None:
                self._forget(before)
            self._keys[key.id] = key
            self._by_hash[key.hash] = key.id
            if key.previous_hash is not None:
                self._by_previous[key.previous_hash] = key.id
            self._compose(key)

    def _forget(self, key: ServiceKey) -> None:
        """The texts that lead to a key."""
        for table, digest in ((self._by_hash, key.hash), (self._by_previous, key.previous_hash)):
            if digest is not None and table.get(digest) == key.id:
                del table[digest]

    def _compose(self, key: ServiceKey) -> None:
        """The caller of a key: the same object as before unless something of him has changed."""
        if not key.enabled or key.revoked_at is not None:
            self._principals.pop(key.id, None)
            return
        org = self._orgs.get(key.org, DEFAULT)
        principal = principal_of(key, org, self._defaults, self._everywhere)
        if self._principals.get(key.id) != principal:
            self._principals[key.id] = principal

    def _accept_orgs(self, orgs: Iterable[Org]) -> None:
        changed = {org.id: org for org in orgs}
        self._orgs.update(changed)
        if changed:
            for key in self._keys.values():
                if key.org in changed:
                    self._compose(key)

    async def refresh(self) -> None:
        """Take over what changed in the stores. Raises StoreUnavailable."""
        async with self._store_call:
            begun = self._clock.monotonic()
            changed = await self._store.changes()
            try:
                self._accept_orgs(await self._org_store.changes())
            finally:
                self._accept(changed)  # what the store has told once it need not tell again
            self._looked_at = begun

    def known(self, key: str) -> Principal | None:
        """The caller of a key that is known and in force; never waits.

        Raises AuthenticationFailed for a key that has expired, Forbidden where its organisation is switched off.
        """
        return self._in_force(keyed_hash(self._pepper, key))

    def _in_force(self, digest: str) -> Principal | None:
        key_id = self._by_hash.get(digest) or self._overlapping(digest)
        principal = None if key_id is None else self._principals.get(key_id)
        if principal is None:
            return None
        if principal.expires_at is not None and principal.expires_at <= self._clock.now():
            raise AuthenticationFailed("This API key has expired.", code="key_expired")
        org = self._orgs.get(principal.org)
        if org is None or not org.enabled:
            raise Forbidden("The organisation of this API key is switched off.", code="org_disabled")
        return principal

    def _overlapping(self, digest: str) -> str | None:
        """Id of the key that had this hash before its rotation, as long as both texts work."""
        key_id = self._by_previous.get(digest)
        until = None if key_id is None else self._keys[key_id].previous_until
        return key_id if until is not None and self._clock.now() < until else None

    async def recognise(self, key: str) -> Principal | None:
        """The same, after a look into the store for a key that memory does not know.

        The look began after the question: nobody is told that a key is wrong which another process has just made.
        Looks are bounded in rate, so the answer may take a second. Raises StoreUnavailable when the look failed.
        """
        digest = keyed_hash(self._pepper, key)
        principal = self._in_force(digest)
        if principal is not None or digest in self._by_hash or digest in self._by_previous:
            return principal
        asked = self._clock.monotonic()
        async with self._look:
            while self._looked_at < asked and self._in_force(digest) is None:
                if self._failed_at > asked:  # one failure is enough for all who wait
                    raise StoreUnavailable("the keys cannot be looked up")
                wait = self._looked_at + _FRESH - self._clock.monotonic()
                if wait <= 0:
                    try:
                        await self.refresh()
                    except StoreUnavailable:
                        self._failed_at = self._clock.monotonic()
                        raise
                else:
                    await asyncio.sleep(min(wait, _GLANCE))  # the doorbell may be faster
        return self._in_force(digest)

    def is_admin(self, key: str) -> bool:
        """Constant-time comparison of keyed hashes."""
        return hmac.compare_digest(self._admin, keyed_hash(self._pepper, key))

    async def create(self, name: str, terms: KeyTerms | None = None, text: str | None = None) -> tuple[ServiceKey, str]:
        """A new key and its text, which is shown this once and kept nowhere.

        ``text``: of a key that callers have already, in any form. Raises Conflict when it is in use.
        """
        key_id = self._ids.new("key", 12)
        text = text or self._new_text(key_id)
        record = ServiceKey(id=key_id, name=name, hash=keyed_hash(self._pepper, text), created_at=self._clock.now())
        record = terms.on(record) if terms is not None else record
        async with self._store_call:
            if self.is_admin(text) or record.hash in self._by_previous or not await self._store.add(record):
                raise Conflict("Another key has this text.", code="key_exists")
            self._accept((record,))
        return record, text

    def _new_text(self, key_id: str) -> str:
        return f"pgw_{key_id[4:]}.{self._ids.secret(32)}"

    async def rotate(self, key_id: str, overlap: float) -> tuple[ServiceKey, str] | None:
        """Another text for a key. The text before works for ``overlap`` seconds more, with 0 it stops at once.

        None when there is no such key. Raises Conflict for a key that is revoked or comes with the settings: its text
        would come back with the next start.
        """
        present = self._keys.get(key_id)
        if present is not None and present.bootstrap:
            raise Conflict(
                "A bootstrap key is rotated in the settings: put another key into SERVICE_API_KEYS_BOOTSTRAP and "
                "revoke this one.",
                code="key_of_settings",
            )
        text, now = self._new_text(key_id), self._clock.now()
        until = now + timedelta(seconds=overlap) if overlap > 0 else None
        digest = keyed_hash(self._pepper, text)
        async with self._store_call:
            record = await self._store.rotate(key_id, digest, now, until)
            if record is None:
                return None
            self._accept((record,))
        if record.hash != digest:
            raise _revoked()
        return record, text

    async def change(self, key_id: str, terms: KeyTerms) -> ServiceKey | None:
        """Change a key, also one that came with the settings; None when there is no such key."""
        async with self._store_call:
            return self._taken(await self._store.change(key_id, terms))

    async def switch(self, key_id: str, *, enabled: bool) -> ServiceKey | None:
        """Switch a key on or off; None when there is no such key. Raises Conflict for one that is revoked."""
        async with self._store_call:
            record = self._taken(await self._store.switch(key_id, enabled))
        if record is not None and record.revoked_at is not None:
            raise _revoked()
        return record

    async def revoke(self, key_id: str) -> ServiceKey | None:
        """Switch a key off for good; None when there is no such key."""
        async with self._store_call:
            return self._taken(await self._store.revoke(key_id, self._clock.now()))

    def _taken(self, record: ServiceKey | None) -> ServiceKey | None:
        if record is not None:
            self._accept((record,))
        return record

    def keys(self) -> list[ServiceKey]:
        """All keys, oldest first."""
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    def key(self, key_id: str) -> ServiceKey | None:
        """One key, in force or not."""
        return self._keys.get(key_id)

    def orgs(self) -> list[Org]:
        """All organisations, the default one first, then oldest first."""
        return sorted(self._orgs.values(), key=lambda org: (org.id != DEFAULT_ORG, org.created_at or _LONG_AGO, org.id))

    def org(self, named: str) -> Org | None:
        """One organisation by its id or name."""
        return self._orgs.get(named) or next((org for org in self._orgs.values() if org.name == named), None)

    async def create_org(self, name: str, terms: OrgTerms | None = None) -> Org:
        """A new organisation. Raises Conflict when the name is taken."""
        org = Org(id=self._ids.new("org", 12), name=name, created_at=self._clock.now())
        org = terms.on(org) if terms is not None else org
        async with self._store_call:
            try:
                if org.name == DEFAULT_ORG:
                    raise NameTaken
                await self._org_store.add(org)
            except NameTaken:
                raise _taken_name() from None
            self._accept_orgs((org,))
        return org

    async def change_org(self, org_id: str, terms: OrgTerms) -> Org | None:
        """Change an organisation; None when there is no such one. Raises Conflict when the new name cannot be."""
        if terms.name is not UNSET and (org_id == DEFAULT_ORG) != (terms.name == DEFAULT_ORG):
            raise _taken_name()
        async with self._store_call:
            try:
                org = await self._org_store.change(org_id, terms)
            except NameTaken:
                raise _taken_name() from None
            if org is not None:
                self._accept_orgs((org,))
        return org


def _revoked() -> Conflict:
    return Conflict("The key is revoked for good; make a new one.", code="key_revoked")


def _taken_name() -> Conflict:
    return Conflict("Another organisation has this name, or it is the default one's.", code="org_exists", param="name")
