"""News about accounts on its way to the database: applied in memory at once, written behind, never lost in order.

Each account's news is a list of pure steps. What is stored is the stored account with the steps applied to it, so
another process's change in between is not overwritten. A failing database leaves the news here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from poe_gateway.pool.account import Account
from poe_gateway.pool.store import AccountStore, StoreUnavailable

Step = Callable[[Account], Account]
_QUIET = 1.0
"""Seconds between two writes of unhurried news (successes)."""
_SHARE = 200
"""Accounts whose unhurried news is written at a time: bounds what the database costs, however busy the pool is. News
of one account gathers until its turn comes; in a pool of 10,000 busy accounts that is within a minute."""
_RETRY = 0.5
"""Seconds between attempts while the database is away."""
_BATCH = 500


class Journal:
    """Write-behind for account changes. ``flush_forever`` is run as one task."""

    def __init__(self, store: AccountStore, stored: Callable[[Iterable[Account]], None]) -> None:
        self._store = store
        self._stored = stored
        self._pending: OrderedDict[str, list[Step]] = OrderedDict()
        self._urgent: set[str] = set()
        self._writing: dict[str, list[Step]] = {}
        """Being written at this moment."""
        self._wake = asyncio.Event()

    def note(self, account_id: str, step: Step, *, urgent: bool) -> None:
        """Remember a step; ``urgent`` news is written at once."""
        self._pending.setdefault(account_id, []).append(step)
        if urgent:
            self._urgent.add(account_id)
            self._wake.set()

    def hurried(self, account_id: str) -> bool:
        """Whether urgent news about the account is not stored yet."""
        return account_id in self._urgent or account_id in self._writing

    def on_top_of(self, account: Account) -> Account:
        """A stored account with the news that is not stored yet."""
        for steps in (self._writing.get(account.id, ()), self._pending.get(account.id, ())):
            for step in steps:
                account = step(account)
        return account

    def drop(self, account_id: str) -> None:
        """The account is gone, and what is being written of it must not bring it back."""
        self._pending.pop(account_id, None)
        self._writing.pop(account_id, None)
        self._urgent.discard(account_id)

    async def flush_forever(self) -> None:
        """Write urgent news at once and a share of the rest every ``_QUIET`` seconds."""
        loop = asyncio.get_running_loop()
        turn = loop.time() + _QUIET
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(turn):
                    await self._wake.wait()
            hurried = loop.time() < turn  # however much urgent news there is, the rest has its turns
            if not hurried:
                turn = loop.time() + _QUIET
            self._wake.clear()
            done = await self.flush(only_urgent=True)
            if done and not hurried and self._pending:
                done = await self._write(list(islice(self._pending, _SHARE)))
            if not done:
                await asyncio.sleep(_RETRY)

    async def flush(self, *, only_urgent: bool = False) -> bool:
        """Write what waits (all of it, or the urgent part); False when the database failed: the news stays here."""
        waiting = list(self._urgent if only_urgent else self._pending)
        for start in range(0, len(waiting), _BATCH):
            batch = [key for key in waiting[start : start + _BATCH] if key in self._pending]
            if batch and not await self._write(batch):
                return False
        return True

    async def _write(self, batch: list[str]) -> bool:
        taken = {key: self._pending.pop(key) for key in batch}
        urgent = self._urgent & taken.keys()
        self._urgent -= urgent
        self._writing = taken
        try:
            stored = await self._store.change({key: _fold(steps) for key, steps in taken.items()})
        except BaseException as error:
            for key, steps in taken.items():
                self._pending[key] = steps + self._pending.get(key, [])
            self._urgent |= urgent
            if not isinstance(error, StoreUnavailable):
                raise
            return False
        finally:
            self._writing = {}
        self._stored([account for key, account in stored.items() if key in taken])
        return True


def _fold(steps: list[Step]) -> Step:
    def folded(account: Account) -> Account:
        for step in steps:
            account = step(account)
        return account

    return folded
