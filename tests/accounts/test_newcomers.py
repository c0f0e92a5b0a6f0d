"""Accounts just handed in are looked at once, a few at a time."""

from __future__ import annotations

import asyncio

from poe_gateway.accounts.newcomers import Newcomers
from poe_gateway.errors import NotFound


async def test_each_is_looked_at_once_and_few_at_a_time() -> None:
    seen: list[str] = []
    now = most = 0

    async def look(account_id: str) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        seen.append(account_id)
        if account_id == "a3":
            raise NotFound  # deleted meanwhile: the others have their turn all the same

    newcomers = Newcomers(look, concurrency=2)
    for number in range(10):
        newcomers.add(f"a{number}")
    async with asyncio.timeout(60):
        while len(seen) < 10:
            await asyncio.sleep(0)
    assert sorted(seen) == [f"a{number}" for number in range(10)]
    assert most == 2
    newcomers.add("late")
    async with asyncio.timeout(60):
        while "late" not in seen:
            await asyncio.sleep(0)
    await newcomers.close()


async def test_switched_off_nobody_is_looked_at() -> None:
    async def look(account_id: str) -> None:
        raise AssertionError(account_id)

    newcomers = Newcomers(look, concurrency=0)
    newcomers.add("a")
    await asyncio.sleep(0.01)
    await newcomers.close()
