"""A few accounts on the mock upstream while there are no others: a first request works at once."""

from __future__ import annotations

import asyncio

from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.bootstrap.accounts import Accounts
from poe_gateway.bootstrap.pool import Pool
from poe_gateway.clock import Ids
from poe_gateway.metering.changes import Changes
from poe_gateway.storage.leases import MongoLeases

_LEASE = "demo-pool"
_PATIENCE = 20.0
"""Seconds after which the making of the demo pool by a process that died is taken over."""


async def ensure_demo_pool(accounts: Accounts, pool: Pool, *, leases: MongoLeases, changes: Changes, ids: Ids) -> None:
    """One of the processes that start together makes the accounts, the others take them over.

    Raises StoreUnavailable.
    """
    owner = ids.new("demo", 8)
    while not await _has_accounts(accounts.desk):
        if not await leases.acquire(_LEASE, owner, _PATIENCE):
            await asyncio.sleep(0.05)
            continue
        try:
            if not await _has_accounts(accounts.desk):
                await _make(accounts, changes)
        finally:
            await leases.release(_LEASE, owner)
    pool.broker.accept(await pool.accounts.load())
    await accounts.care.catalogues.sync()


async def _has_accounts(desk: AccountDesk) -> bool:
    _, total = await desk.page(page=1, page_size=1)
    return total > 0


async def _make(accounts: Accounts, changes: Changes) -> None:
    credentials = {"models": ["gpt-4o-mini"], "points": 3000, "price": 1}
    for number in range(1, 4):
        account, _ = await accounts.desk.upsert("mock", f"demo-{number}", credentials, demo=True)
        made = {"provider": "mock", "name": account.name, "demo": True}
        changes.record("account.upsert", f"account:{account.id}", after=made, actor="settings")
    await accounts.care.catalogues.load(account.offer)
