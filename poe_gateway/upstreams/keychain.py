"""The key chain: opened credentials of the accounts in use, for the shortest time that keeps requests fast.

The vault is opened only after a slot was won. Opened credentials live in this process's memory for at most
``_KEEP`` seconds after they were read, for at most ``_SIZE`` accounts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from poe_gateway.clock import Clock
from poe_gateway.pool.account import Account
from poe_gateway.upstreams.base import AccountRef
from poe_gateway.vault import Vault, VaultError

_KEEP = 300.0
_SIZE = 20_000


class CredentialStore(Protocol):
    """The cold collection of sealed credentials."""

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        """The sealed document of that version, None when there is none. Raises StoreUnavailable."""


class Keychain:
    """Opens credentials. Raises VaultError for what is missing or sealed with another key."""

    def __init__(self, store: CredentialStore, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._opened: OrderedDict[str, tuple[float, AccountRef]] = OrderedDict()

    def at_hand(self, account: Account) -> AccountRef | None:
        """The opened credentials if they are in memory; never waits."""
        entry = self._opened.get(account.id)
        if entry is None or entry[1].credential_rev != account.credential_rev or entry[1].offer != account.offer:
            return None
        if entry[0] < self._clock.monotonic():
            del self._opened[account.id]
            return None
        return entry[1]

    async def ref(self, account: Account) -> AccountRef:
        """The account with its credentials. Raises VaultError, StoreUnavailable."""
        ref = self.at_hand(account)
        if ref is not None:
            return ref
        sealed = await self._store.credentials(account.id, account.credential_rev)
        if sealed is None:
            raise VaultError("no credentials are stored for this account")
        ref = AccountRef(
            id=account.id,
            name=account.name,
            offer=account.offer,
            credentials=self._vault.open(sealed),
            credential_rev=account.credential_rev,
        )
        self._opened[account.id] = (self._clock.monotonic() + _KEEP, ref)
        self._opened.move_to_end(account.id)
        while len(self._opened) > _SIZE:
            self._opened.popitem(last=False)
        return ref

    def forget(self, account_id: str) -> None:
        """Drop what is opened of an account."""
        self._opened.pop(account_id, None)
