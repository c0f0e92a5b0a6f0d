"""Leadership: of all processes one runs the duties that need to run once.

The leader holds a named lease on the database's clock. It stops believing in its leadership well before the lease can
lapse there, and what it writes carries the lease's token, so that the word of an earlier leader comes to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from poe_gateway.clock import Clock
from poe_gateway.pool.store import StoreUnavailable


class LeaderLease(Protocol):
    """A named lease. Both methods raise StoreUnavailable."""

    async def acquire(self, name: str, owner: str, seconds: float) -> int:
        """The token (1, 2, 3 …) when ``owner`` holds the lease from now for ``seconds``, 0 when somebody else does.

        Whoever holds it already keeps his token.
        """

    async def release(self, name: str, owner: str) -> None:
        """Let others have it at once."""


class Leadership:
    """This process's claim. ``owner`` names the process; ``lifetime`` in seconds: how soon a dead leader is replaced.

    Times as parts of the lifetime: a word with the database every 0.2; belief ends 0.6 after the last good word was
    sent; the lease itself lapses after 1.
    """

    def __init__(
        self, *, lease: LeaderLease, owner: str, clock: Clock, name: str = "scheduler", lifetime: float = 15.0
    ) -> None:
        self.token = 0
        self.on_gained: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._lease = lease
        self._owner = owner
        self._clock = clock
        self._name = name
        self._lifetime = lifetime
        self._valid_until = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this process is surely the leader at this moment."""
        return self.token > 0 and self._clock.monotonic() < self._valid_until

    async def run(self) -> None:
        """Claim and keep the leadership until cancelled."""
        while True:
            await self.claim()
            await asyncio.sleep(0.2 * self._lifetime)

    async def claim(self) -> None:
        """One word with the database."""
        sent = self._clock.monotonic()
        patience = 0.25 * self._lifetime
        if self.token:
            patience = min(patience, max(0.01 * self._lifetime, self._valid_until - sent))
        try:
            async with asyncio.timeout(patience):
                token = await self._lease.acquire(self._name, self._owner, self._lifetime)
        except (StoreUnavailable, TimeoutError):
            if self.token and not self.leads:
                self._lose()
            return
        if token != self.token:
            if self.token:
                self._lose()
            self.token = token
            self._valid_until = sent + 0.6 * self._lifetime
            if token:
                self.on_gained()
        else:
            self._valid_until = sent + 0.6 * self._lifetime

    def _lose(self) -> None:
        self.token = 0
        self._valid_until = float("-inf")
        self.on_lost()

    async def resign(self) -> None:
        """At the end: another process may lead at once. A database that is away is told by the lapse of the lease."""
        if not self.token:
            return
        self._lose()
        try:
            async with asyncio.timeout(2.0):
                await self._lease.release(self._name, self._owner)
        except (StoreUnavailable, TimeoutError):
            return
