"""The key chain: credentials of the accounts in use, opened for the shortest time that keeps requests fast.

Sealed credentials are fetched ahead of need, in batches, and kept as they are: useless without the vault. They are
opened only after a slot was won; an opened document lives in this process's memory for at most ``_KEEP`` seconds.
A document that names its key instead of holding it is completed when it is opened, and lives for a shorter time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from poe_gateway.clock import Clock
from poe_gateway.pool.account import Account
from poe_gateway.upstreams.base import AccountRef
from poe_gateway.vault import Vault, VaultError

_KEEP = 300.0
_KEEP_NAMED = 5.0
"""Seconds for credentials whose key is named: what it names may change at any time."""
_SIZE = 200_000
"""Accounts whose credentials are kept here, opened or sealed (about 1 KiB each). Beyond it, and for what was not
fetched yet, ``ref`` asks the store."""
_BATCH = 500
_ABSENT = b""

Version = tuple[str, int]
"""Account id and ``credential_rev``."""


class CredentialStore(Protocol):
    """The cold collection of sealed credentials. Methods raise StoreUnavailable."""

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        """The sealed document of that version, None when there is none."""

    async def credentials_of(self, versions: Sequence[Version]) -> dict[Version, bytes]:
        """The same for many; versions that are not there are left out."""


class Keychain:
    """Opens credentials. ``resolve`` completes what was opened; it raises VaultError where a key cannot be had."""

    def __init__(
        self,
        store: CredentialStore,
        vault: Vault,
        clock: Clock,
        resolve: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._resolve = resolve
        self._sealed: dict[str, tuple[int, bytes]] = {}
        self._opened: OrderedDict[str, tuple[float, AccountRef]] = OrderedDict()

    def at_hand(self, account: Account) -> AccountRef | None:
        """The opened credentials if they are in memory; never waits. Raises VaultError."""
        entry = self._opened.get(account.id)
        if entry is not None and entry[1].credential_rev == account.credential_rev and entry[1].offer == account.offer:
            if entry[0] >= self._clock.monotonic():
                return entry[1]
            del self._opened[account.id]
        version, sealed = self._sealed.get(account.id, (-1, b""))
        if version != account.credential_rev or sealed == _ABSENT:
            return None
        return self._open(account, sealed)

    async def ref(self, account: Account) -> AccountRef:
        """The account with its credentials. Raises VaultError, StoreUnavailable."""
        ref = self.at_hand(account)
        if ref is not None:
            return ref
        sealed = await self._store.credentials(account.id, account.credential_rev)
        if sealed is None:
            raise VaultError("no credentials are stored for this account")
        return self._open(account, sealed)

    def _open(self, account: Account, sealed: bytes) -> AccountRef:
        stored = self._vault.open(sealed)
        credentials = self._resolve(stored)
        ref = AccountRef(
            id=account.id,
            name=account.name,
            offer=account.offer,
            credentials=credentials,
            credential_rev=account.credential_rev,
        )
        keep = _KEEP if credentials == stored else _KEEP_NAMED
        self._opened[account.id] = (self._clock.monotonic() + keep, ref)
        self._opened.move_to_end(account.id)
        while len(self._opened) > _SIZE:
            self._opened.popitem(last=False)
        return ref

    async def prefetch(self, accounts: Iterable[Account]) -> int:
        """Fetch sealed credentials that are not here yet, one batch; how many were fetched. Raises StoreUnavailable."""
        self._lapse()
        unknown = (-1, b"")
        versions = (
            (account.id, account.credential_rev)
            for account in accounts
            if self._sealed.get(account.id, unknown)[0] != account.credential_rev
        )
        missing = list(islice(versions, _BATCH))
        if not missing or len(self._sealed) + len(missing) > _SIZE:
            return 0
        found = await self._store.credentials_of(missing)
        for account_id, version in missing:
            # What is not stored is remembered as such, or it would stand in every batch.
            self._sealed[account_id] = (version, found.get((account_id, version), _ABSENT))
        return len(found)

    def _lapse(self) -> None:
        """Drop what was opened too long ago, used or not. What is kept for less may lie longer, and is not used."""
        now = self._clock.monotonic()
        while self._opened and next(iter(self._opened.values()))[0] < now:
            self._opened.popitem(last=False)

    def forget(self, account_id: str) -> None:
        """Drop what is here of an account."""
        self._opened.pop(account_id, None)
        self._sealed.pop(account_id, None)
