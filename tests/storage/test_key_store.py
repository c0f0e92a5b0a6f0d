"""One suite for both KeyStores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from poe_gateway.auth.keys import KeyStore, ServiceKey
from poe_gateway.clock import SystemClock
from poe_gateway.storage.keys import MongoKeys
from tests.storage.making import NOON
from tests.support.memory import MemoryKeys


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Callable[[], KeyStore]:
    """Makes the store of one more process."""
    if request.param == "memory":
        shared = MemoryKeys()
        return lambda: MemoryKeys(shared.table, shared.log)
    db = request.getfixturevalue("db")
    return lambda: MongoKeys(db, SystemClock())


def key(number: int = 1, **fields: Any) -> ServiceKey:
    made: dict[str, Any] = {
        "id": f"key_{number}",
        "name": f"caller {number}",
        "hash": f"{number:064x}",
        "created_at": NOON,
    }
    return ServiceKey(**{**made, **fields})


async def test_added_keys_are_loaded(store: Callable[[], KeyStore]) -> None:
    assert await store().add(key(1)) is True
    assert await store().add(key(2, bootstrap=True)) is True
    assert sorted(await store().load(), key=lambda each: each.id) == [key(1), key(2, bootstrap=True)]


async def test_a_known_hash_changes_nothing(store: Callable[[], KeyStore]) -> None:
    await store().add(key(1))
    assert await store().add(key(1, id="key_other", name="other")) is False
    assert await store().load() == [key(1)]


async def test_a_taken_id_is_an_error(store: Callable[[], KeyStore]) -> None:
    await store().add(key(1))
    with pytest.raises(ValueError, match="key_1"):
        await store().add(key(2, id="key_1"))


async def test_the_same_key_added_by_many_at_once_is_one(store: Callable[[], KeyStore]) -> None:
    added = await asyncio.gather(*(store().add(key(1, id=f"key_{number}")) for number in range(12)))
    assert sum(added) == 1
    assert len(await store().load()) == 1


async def test_revocation_is_final_and_seen_by_others(store: Callable[[], KeyStore]) -> None:
    here, there = store(), store()
    await here.add(key(1))
    await here.add(key(2))
    await there.load()
    off = await here.revoke("key_1", NOON + timedelta(hours=1))
    assert off == key(1, enabled=False, revoked_at=NOON + timedelta(hours=1))
    assert off in await there.changes()
    assert await here.revoke("key_1", NOON + timedelta(hours=2)) == off
    assert await here.revoke("key_nobody", NOON) is None


async def test_changes_tell_new_keys(store: Callable[[], KeyStore]) -> None:
    here, there = store(), store()
    await there.load()
    await here.add(key(1))
    assert await there.changes() == [key(1)]
    await here.add(key(2))
    assert key(2) in await there.changes()
