"""What goes on behind the requests' backs: news of other processes, credentials at hand, and the passing of time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.bootstrap.accounts import Accounts
from poe_gateway.bootstrap.pool import Pool
from poe_gateway.clock import Clock
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.store import Changes, StoreUnavailable
from poe_gateway.routing.catalog import Catalog
from poe_gateway.storage.doorbell import Doorbell
from poe_gateway.telemetry.events import LoopLag
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.keychain import Keychain

_FOLLOW = 0.5
"""Seconds between two looks at what other processes changed; a doorbell shortens it."""
_TICK = 0.25
_FETCH_NEXT = 0.05
_FETCH_PAUSE = 1.0


class Follower:
    """Takes over what other processes stored: accounts, keys and rules of prices."""

    def __init__(
        self,
        *,
        doorbell: Doorbell,
        pool: Pool,
        accounts: Accounts,
        catalog: Catalog,
        keyring: KeyRing,
        pricelist: PriceList,
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        """``forget`` drops a removed account's credentials from memory."""
        self._doorbell = doorbell
        self._pool = pool
        self._accounts = accounts
        self._catalog = catalog
        self._keyring = keyring
        self._pricelist = pricelist
        self._forget = forget

    async def run(self) -> None:
        """For as long as the process lives."""
        while True:
            await self._doorbell.wait(_FOLLOW)
            try:
                changes = await self._pool.accounts.changes()
            except StoreUnavailable:
                await asyncio.sleep(_FOLLOW)
                continue
            # Told only once: whatever fails from here on, they must be taken over.
            await self._take_over(changes)
            try:
                await self._keyring.refresh()
                await self._pricelist.refresh()
            except StoreUnavailable:
                await asyncio.sleep(_FOLLOW)

    async def _take_over(self, changes: Changes) -> None:
        """Changed and removed accounts come into force here."""
        broker, keeper, care = self._pool.broker, self._pool.keeper, self._accounts.care
        limits = any(
            (known := broker.account(account.id)) is not None and known.max_inflight != account.max_inflight
            for account in changes.stored
        )
        fresh = any(broker.account(account.id) is None for account in changes.stored)
        broker.accept(changes.stored)
        broker.remove(changes.removed)
        if fresh:
            with contextlib.suppress(StoreUnavailable):
                await self._accounts.desk.retire_demo()
                if not all(self._catalog.has(account.offer) for account in changes.stored):
                    await care.catalogues.sync()
        for account_id in changes.removed:
            self._pool.sessions.forget_account(account_id)
            await self._forget(account_id)
        if limits:
            keeper.limits_changed()
        keeper.ring()


async def fetch_credentials(keychain: Keychain, broker: Broker) -> None:
    """Sealed credentials of the accounts held here are at hand before a request needs them."""
    while True:
        held = (seat.account for seat in broker.seats.values() if seat.held and seat.allowed)
        try:
            fetched = await keychain.prefetch(held)
        except StoreUnavailable:
            fetched = 0
        await asyncio.sleep(_FETCH_NEXT if fetched else _FETCH_PAUSE)


async def tick(broker: Broker, prices: PriceBook, clock: Clock, telemetry: Telemetry) -> None:
    """Due moments of the pool happen even when nobody asks; and the event loop's lag is measured."""
    while True:
        before = clock.monotonic()
        await asyncio.sleep(_TICK)
        telemetry.emit(LoopLag(seconds=max(0.0, clock.monotonic() - before - _TICK)))
        broker.tick()
        broker.price_rungs(prices.rungs(broker.policy.depleted_threshold))
