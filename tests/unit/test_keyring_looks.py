"""How often the key ring looks into its store, and whom a look serves."""

from __future__ import annotations

import asyncio

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import ServiceKey
from poe_gateway.auth.memory import MemoryKeys, MemoryOrgs
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.errors import StoreUnavailable


def ring_of(store: MemoryKeys, seed: int) -> KeyRing:
    return KeyRing(store=store, orgs=MemoryOrgs(), pepper=b"p", admin_key="adm", clock=SystemClock(), ids=Ids(seed))


class Counted(MemoryKeys):
    looks = 0

    async def changes(self) -> list[ServiceKey]:
        self.looks += 1
        return await super().changes()


async def test_a_key_that_another_process_has_just_made_is_never_told_to_be_wrong() -> None:
    store = MemoryKeys()
    counted = Counted(store.table, store.log)
    here, there = ring_of(store, 1), ring_of(counted, 2)
    await here.start(())
    await there.start(())
    await there.refresh()
    _, text = await here.create("app")
    assert await there.recognise(text) is not None, "its look was fresh, and older than the key"
    before = counted.looks
    unknown = await asyncio.gather(*(there.recognise(f"svc_unknown_{number}") for number in range(50)))
    assert set(unknown) == {None}
    assert counted.looks - before <= 2, "one look serves all who ask"


class SlowlyAway(MemoryKeys):
    looks = 0

    async def changes(self) -> list[ServiceKey]:
        self.looks += 1
        await asyncio.sleep(0.1)
        raise StoreUnavailable("away")


async def test_with_the_store_away_unknown_keys_do_not_fail_one_after_the_other() -> None:
    store = SlowlyAway()
    ring = ring_of(store, 1)
    await ring.start(())
    asking = (ring.recognise(f"svc_unknown_{number}") for number in range(20))
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(each) for each in told} == {StoreUnavailable}
    assert store.looks == 1
