"""With the store away nobody waits for the failures of others."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import Ask, BucketKey, Move
from poe_gateway.limits.limiter import Limiter
from poe_gateway.limits.memory import MemoryBuckets
from poe_gateway.limits.store import Moved
from tests.unit.limiting import LeapClock


class SlowlyAway(MemoryBuckets):
    """A store whose every move fails, after a while."""

    async def move(self, key: BucketKey, wish: Move, cap: int, now: datetime) -> Moved:
        self.calls += 1
        await asyncio.sleep(0.1)
        raise StoreUnavailable("away")


async def test_one_failure_of_the_store_is_enough_for_all_who_wait_for_it() -> None:
    store = SlowlyAway()
    limiter = Limiter(store=store, process="a", clock=LeapClock())
    ask = Ask(bucket=BucketKey(id="parallel|key|k", kind="parallel"), amount=1, cap=5)
    told = await asyncio.gather(*(limiter.reserve([ask]) for _ in range(20)), return_exceptions=True)
    assert {type(each) for each in told} == {StoreUnavailable}
    assert store.calls == 1, "they would otherwise fail one after the other, each after the store's whole patience"
    with pytest.raises(StoreUnavailable):
        await limiter.reserve([ask])
    assert store.calls == 2, "who comes later tries again"
