"""Many accounts at once: which of them are meant, and new terms for all of those."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice

import msgspec
from msgspec.structs import replace

from poe_gateway.accounts.store import AccountBook
from poe_gateway.accounts.terms import Terms
from poe_gateway.pool.account import Account

SHOWN = 100
"""Changed accounts that are named in an answer."""
_PAGE = 500
_WALKS = 3
_SLICE = 100
"""Accounts changed in one breath of the event loop."""

Change = Callable[[Mapping[str, Callable[[Account], Account]]], Awaitable[object]]
"""Applies steps to stored accounts."""


class AccountFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which accounts are meant; empty fields set no bound."""

    labels: tuple[str, ...] = ()
    """All of these."""
    provider: str | None = None
    status: tuple[str, ...] = ()
    """Any of these health states, or ``paused``."""


class BulkChange(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, or would come of it."""

    matched: int
    changed: int
    """Those of them that were otherwise before."""
    ids: tuple[str, ...]
    """Of the changed ones, at most ``SHOWN``."""


class Applied:
    """A step that puts terms on accounts and remembers what it changed. It may run again on a newer account."""

    def __init__(self, terms: Terms, now: datetime) -> None:
        self._terms = terms
        self._now = now
        self._changed: dict[str, bool] = {}
        self._resized: dict[str, bool] = {}

    def __call__(self, account: Account) -> Account:
        after = self._terms.on(account)
        self._changed[account.id] = after != account
        self._resized[account.id] = after.max_inflight != account.max_inflight
        return replace(after, updated_at=self._now) if after != account else account

    @property
    def changed(self) -> list[str]:
        """Ids of the accounts that were otherwise before."""
        return [account_id for account_id, changed in self._changed.items() if changed]

    @property
    def resized(self) -> bool:
        """Whether a limit of concurrent requests is among what changed."""
        return any(self._resized.values())


async def chosen_accounts(book: AccountBook, chosen: AccountFilter, now: datetime) -> list[Account]:
    """The stored accounts that are meant, as of ``now``. Raises StoreUnavailable.

    Pages move while accounts come and go, so a walk during which the number of accounts changed is repeated a few
    times; what any walk found counts.
    """
    found: dict[str, Account] = {}
    for _ in range(_WALKS):
        totals, page = set[int](), 1
        while True:
            accounts, total = await book.page(
                page, _PAGE, now=now, status=chosen.status, provider=chosen.provider, labels=chosen.labels
            )
            found.update((account.id, account) for account in accounts)
            totals.add(total)
            page += 1
            if len(accounts) < _PAGE:
                break
        if len(totals) == 1:
            break
    return list(found.values())


async def apply_to(accounts: Sequence[Account], step: Applied, change: Change) -> BulkChange:
    """Change these accounts, slice by slice. May be repeated after a failure: what is done stays done."""
    left = iter(account.id for account in accounts)
    while part := list(islice(left, _SLICE)):
        await change(dict.fromkeys(part, step))
    return outcome(accounts, step)


def outcome(accounts: Sequence[Account], step: Applied) -> BulkChange:
    """The figures, once ``step`` ran over the accounts."""
    changed = step.changed
    return BulkChange(matched=len(accounts), changed=len(changed), ids=tuple(changed[:SHOWN]))
