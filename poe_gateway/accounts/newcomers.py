"""Accounts that were just handed in are looked at once, behind the operator's back and a few at a time.

Their points are known and dead credentials show before the first caller depends on them. What a look teaches goes to
the broker as news; a look that fails otherwise is left to the regular refresh.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from poe_gateway.errors import GatewayError
from poe_gateway.pool.store import StoreUnavailable

_WAITING = 100_000
"""Bound on the line; whoever hands in more at once has his last accounts measured by the refresh."""


class Newcomers:
    """``look`` measures one account by id; at most ``concurrency`` at a time, none at all with 0."""

    def __init__(self, look: Callable[[str], Awaitable[object]], *, concurrency: int) -> None:
        self._look = look
        self._concurrency = concurrency
        self._waiting: deque[str] = deque(maxlen=_WAITING)
        self._active = 0
        """Workers that will look at the line again. (A finished task leaves ``_working`` only a turn later.)"""
        self._working: set[asyncio.Task[None]] = set()

    def add(self, account_id: str) -> None:
        """Look at the account soon."""
        if self._concurrency <= 0:
            return
        self._waiting.append(account_id)
        if self._active < self._concurrency:
            self._active += 1
            task = asyncio.create_task(self._work(), name="newcomers")
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def _work(self) -> None:
        while self._waiting:
            account_id = self._waiting.popleft()
            try:
                await self._look(account_id)
            except (GatewayError, StoreUnavailable):
                # The visit has told the broker what it met; an account deleted meanwhile concerns nobody.
                continue
            except BaseException:
                self._active -= 1
                raise
        self._active -= 1

    async def close(self) -> None:
        """Stop looking."""
        self._waiting.clear()
        tasks = list(self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
