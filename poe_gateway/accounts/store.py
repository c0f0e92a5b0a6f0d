"""What this room asks of the stored accounts, beyond what the pool asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec

from poe_gateway.pool.account import Account, State
from poe_gateway.pool.store import AccountStore


class AccountFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which accounts to list. An empty filter means all of them."""

    states: tuple[State, ...] = ()
    """As of ``now``: a rest that has lapsed counts as active."""
    provider: str | None = None
    min_points: int | None = None
    max_points: int | None = None
    text: str | None = None
    """Part of the name, in any case."""


class AccountBook(AccountStore, Protocol):
    """The stored accounts as the operator sees them. Every method raises StoreUnavailable."""

    async def upsert(
        self, provider: str, name: str, build: Callable[[Account | None], Account], sealed: bytes, kid: str
    ) -> tuple[Account, bool]:
        """Store ``build(present account or None)`` with its sealed credentials; True when it is a new account.

        One account per provider and lower-cased name, whoever asks at the same time. The credentials are kept under
        the built account's ``credential_rev``.
        """

    async def get(self, account_id: str) -> Account | None:
        """The account as stored."""

    async def find(self, provider: str, name: str) -> Account | None:
        """The account of that name, in any case."""

    async def page(
        self, *, page: int, page_size: int, now: datetime, wanted: AccountFilter
    ) -> tuple[list[Account], int]:
        """One page (from 1) in stable order, oldest account first, and the number of all that fit the filter."""

    async def delete(self, account_id: str) -> bool:
        """Remove the account with its credentials; False when there was none."""

    async def behind(self, day: str, limit: int) -> list[str]:
        """Ids of accounts that renew daily, are not invalid, and whose ``reset_day`` is before ``day`` or unset."""
