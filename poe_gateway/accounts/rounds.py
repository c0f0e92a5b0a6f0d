"""Rounds over several accounts: bounded, in order, and told in one tally."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from poe_gateway.accounts.visits import SetAside
from poe_gateway.errors import GatewayError
from poe_gateway.pool.store import StoreUnavailable


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How a round over several accounts went. ``failures``: account id -> code of the error."""

    total: int
    succeeded: int
    skipped: int = 0
    """Not contacted: no longer fit when their turn came, gone, or set aside."""
    failures: dict[str, str] = {}

    def __str__(self) -> str:
        return f"{self.succeeded} of {self.total}, {self.skipped} skipped, {len(self.failures)} failed"


async def bounded(keys: Iterable[str], act: Callable[[str], Awaitable[None]], *, concurrency: int) -> None:
    """``act`` on every key, ``concurrency`` at a time, in order."""
    line = iter(keys)

    async def worker() -> None:
        for key in line:
            await act(key)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(max(1, concurrency)):
            tasks.create_task(worker())


async def round_over(account_ids: list[str], act: Callable[[str], Awaitable[object]], *, concurrency: int) -> Tally:
    """``act`` on every account; None counts as skipped, a GatewayError as failure."""
    succeeded = skipped = 0
    failures: dict[str, str] = {}

    async def one(account_id: str) -> None:
        nonlocal succeeded, skipped
        try:
            if await act(account_id) is None:
                skipped += 1
            else:
                succeeded += 1
        except SetAside:
            skipped += 1
        except StoreUnavailable:
            failures[account_id] = "database_unavailable"
        except GatewayError as error:
            failures[account_id] = error.code or "failed"

    await bounded(account_ids, one, concurrency=concurrency)
    return Tally(total=len(account_ids), succeeded=succeeded, skipped=skipped, failures=failures)
