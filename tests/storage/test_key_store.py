"""One suite for both KeyStores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from poe_gateway.auth.keys import KeyStore, KeyTerms, ServiceKey
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.clock import SystemClock
from poe_gateway.limits.terms import Budget, Rates
from poe_gateway.storage.client import Database
from poe_gateway.storage.keys import MongoKeys
from tests.storage.making import NOON


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


TERMS = KeyTerms(
    name="renamed",
    priority=-5,
    weight=7,
    providers=("mock",),
    labels=("eu", "paid"),
    without=("trial",),
    org="org_1",
    expires_at=NOON + timedelta(days=1),
    models=("gpt-4o*",),
    addresses=("192.0.2.0/24",),
    rates=Rates(requests_minute=0, tokens_day=10**12),
    budgets=(Budget(unit="USD", period="total", amount=2**62), Budget(unit="points", period="day", amount=3000)),
    note="of a friend",
)


async def test_what_is_given_changes_and_nothing_else_and_others_see_it(store: Callable[[], KeyStore]) -> None:
    here, there = store(), store()
    await here.add(key(1, bootstrap=True))
    await here.add(key(2))
    await there.load()
    changed = await here.change("key_1", TERMS)
    assert changed == TERMS.on(key(1, bootstrap=True)) and changed.priority == -5 and changed.labels == ("eu", "paid")
    assert changed in await there.changes()
    back = KeyTerms(labels=(), weight=1, expires_at=None, rates=Rates(), budgets=())
    again = await here.change("key_1", back)
    assert again == back.on(changed)
    assert await here.change("key_1", KeyTerms()) == again
    assert sorted(await there.load(), key=lambda each: each.id) == [again, key(2)]
    assert await here.change("key_nobody", TERMS) is None


async def test_a_change_does_not_switch_a_revoked_key_on(store: Callable[[], KeyStore]) -> None:
    here = store()
    await here.add(key(1))
    off = await here.revoke("key_1", NOON)
    assert off is not None and await here.change("key_1", TERMS) == TERMS.on(off)


async def test_a_key_is_switched_off_and_on_until_it_is_revoked(store: Callable[[], KeyStore]) -> None:
    here, there = store(), store()
    await here.add(key(1))
    await there.load()
    off = await here.switch("key_1", False)
    assert off == key(1, enabled=False) and off in await there.changes()
    assert await here.switch("key_1", True) == key(1)
    await here.switch("key_1", False)
    revoked = await here.revoke("key_1", NOON)
    assert revoked == key(1, enabled=False, revoked_at=NOON)
    assert await here.switch("key_1", True) == revoked
    assert await here.switch("key_nobody", True) is None


async def test_a_rotation_keeps_the_text_before_until_its_time(store: Callable[[], KeyStore]) -> None:
    here, there = store(), store()
    first, second, third = (key(number).hash for number in (1, 2, 3))
    await here.add(key(1))
    await there.load()
    until = NOON + timedelta(hours=1)
    rotated = await here.rotate("key_1", second, NOON, until)
    assert rotated == key(1, hash=second, previous_hash=first, previous_until=until, last_rotated_at=NOON)
    assert rotated in await there.changes()
    again = await here.rotate("key_1", third, until, None)
    assert again == key(1, hash=third, last_rotated_at=until)
    assert await there.load() == [again]
    assert await here.add(key(4, hash=third)) is False
    revoked = await here.revoke("key_1", until)
    assert await here.rotate("key_1", first, until, None) == revoked
    assert await here.rotate("key_nobody", first, until, None) is None


async def test_rotations_at_once_leave_one_text_and_the_one_before_it(store: Callable[[], KeyStore]) -> None:
    await store().add(key(1))
    until = NOON + timedelta(hours=1)
    hashes = [key(number).hash for number in range(2, 10)]
    await asyncio.gather(*(store().rotate("key_1", each, NOON, until) for each in hashes))
    [read] = await store().load()
    assert read.hash in hashes and read.previous_hash in hashes and read.hash != read.previous_hash


async def test_keys_of_an_older_version_read_as_defaults(db: Database) -> None:
    old = {"_id": "key_1", "name": "old", "hash": "0", "enabled": True, "created_at": NOON, "bootstrap": True}
    await db.service_keys.insert_one({**old, "changed_at": NOON})
    [read] = await MongoKeys(db, SystemClock()).load()
    assert read == key(1, name="old", hash="0", bootstrap=True)
    changed = await MongoKeys(db, SystemClock()).change("key_1", KeyTerms(weight=4))
    assert changed is not None and changed.weight == 4


async def test_a_change_that_another_process_takes_back_is_told_to_who_made_it(store: Callable[[], KeyStore]) -> None:
    here, there = store(), store()
    await here.add(key(1))
    before = await here.load()
    await here.change("key_1", KeyTerms(models=("no",)))
    await there.change("key_1", KeyTerms(models=()))
    assert await here.changes() == before
