"""Keeping the sealed credentials in order: a newer key takes over while serving, and what nobody points to goes."""

from __future__ import annotations

from typing import Protocol

import msgspec

from poe_gateway.vault import Vault, VaultError

_BATCH = 100


class SealedStore(Protocol):
    """The cold collection, as this room tends it. Methods raise StoreUnavailable."""

    async def sealed_otherwise(
        self, kid: str, limit: int = 100, after: tuple[str, int] | None = None
    ) -> list[tuple[str, int, bytes]]:
        """Versions (account id, version, token) that another key than ``kid`` sealed, in order, after ``after``."""

    async def reseal(self, account_id: str, credential_rev: int, old: bytes, new: bytes, kid: str) -> bool:
        """Replace a token; False when it is not ``old`` any more."""

    async def purge(self) -> int:
        """Remove versions that no account points to; how many."""


class Resealed(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of sealing anew did."""

    done: int = 0
    unreadable: int = 0
    """Sealed with a key that FERNET_KEY does not hold (any more)."""


async def reseal(store: SealedStore, vault: Vault) -> Resealed:
    """Seal with the newest key whatever older keys sealed. Safe to run twice, late, and beside callers.

    Each token is replaced only if it is still the one that was read: new credentials handed in meanwhile stay.
    """
    done = unreadable = 0
    after: tuple[str, int] | None = None
    while batch := await store.sealed_otherwise(vault.kid, _BATCH, after):
        for account_id, version, token in batch:
            after = (account_id, version)
            try:
                fresh = vault.reseal(token)
            except VaultError:
                unreadable += 1
                continue
            done += await store.reseal(account_id, version, token, fresh, vault.kid)
    return Resealed(done=done, unreadable=unreadable)
