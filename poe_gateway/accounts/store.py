"""What this room asks of the stored accounts, beyond what the pool asks. MongoDB's and ``memory`` implement it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from poe_gateway.pool.account import Account


class AccountBook(Protocol):
    """The stored accounts as the operator sees them. Every method raises StoreUnavailable."""

    async def upsert(
        self, provider: str, name: str, build: Callable[[Account | None], Account], sealed: bytes, kid: str
    ) -> tuple[Account, bool]:
        """Store ``build(present account or None)`` with its sealed credentials; True when it is a new account.

        One account per provider and lower-cased name, whoever asks at the same time; ``build`` may be called again.
        Its ``rev`` and ``credential_rev`` are only proposals.
        """

    async def get(self, account_id: str) -> Account | None:
        """The account as stored."""

    async def find(self, provider: str, name: str) -> Account | None:
        """The account of that name, in any case."""

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
        """One page (from 1) in order of creation, and the number of all that fit.

        ``status``: any of the health states as of ``now``, and ``paused``. ``text``: part of the name, in any case.
        ``labels``: all of them.
        """

    async def delete(self, account_id: str) -> bool:
        """Remove the account with its credentials; False when there was none."""
