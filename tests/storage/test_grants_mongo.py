"""What only MongoDB's GrantStore has: zombies between two writes, leftovers of unknown processes, cheap no-ops."""

from __future__ import annotations

from typing import Any

import pytest

from poe_gateway.pool.store import GLOBAL, Ask, LeaseLost
from poe_gateway.storage import grant_updates
from poe_gateway.storage.client import Database
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import account, insert

ONE, TWO = "acct_00001", "acct_00002"


@pytest.fixture
async def store(db: Database) -> MongoGrants:
    await insert(db, [account(1), account(2)])
    return MongoGrants(db)


def both(hold: int) -> list[Ask]:
    return [Ask(key=ONE, hold=hold, cap=3), Ask(key=GLOBAL, hold=hold, cap=3)]


async def raw(db: Database) -> list[dict[str, Any]]:
    rows = [each async for each in db.accounts.find({}, {"grants": 1, "wanted": 1, "freed_at": 1})]
    return rows + [each async for each in db.pool.find({}, {"grants": 1, "wanted": 1, "freed_at": 1})]


@pytest.mark.parametrize("state", ["dead", None])
async def test_declared_dead_between_asking_and_looking(store: MongoGrants, db: Database, state: str | None) -> None:
    """The grant was written after the undertaker had passed: the zombie cleans up after itself."""
    await store.join("zombie", 60.0)
    await store.take("zombie", both(1))
    if state is None:
        await db.instances.delete_one({"_id": "zombie"})
    else:
        await db.instances.update_one({"_id": "zombie"}, {"$set": {"state": state}})
    with pytest.raises(LeaseLost):
        await store.take("zombie", both(3))
    assert all("grants" not in row for row in await raw(db))


async def test_an_undertaker_that_died_on_the_way_is_succeeded(store: MongoGrants, db: Database) -> None:
    await store.join("dead", 60.0)
    await store.take("dead", both(2))
    await db.instances.update_one({"_id": "dead"}, {"$set": {"state": "dead"}})
    assert await store.reclaim() == 0, "it was declared by somebody else"
    assert all("grants" not in row for row in await raw(db))
    assert await db.instances.count_documents({}) == 0


async def test_grants_of_unknown_processes_are_swept(store: MongoGrants, db: Database) -> None:
    await store.join("alive", 60.0)
    await store.take("alive", both(1))
    for name in ("a-stranger", "z-stranger"):
        update = grant_updates.taken(name, hold=1, cap=3)
        await db.accounts.update_many({}, update)
        await db.pool.update_one({"_id": GLOBAL}, update)
    for _ in range(5):
        await store.reclaim()
    left = {row["_id"]: row.get("grants") for row in await raw(db)}
    assert left == {ONE: [{"i": "alive", "n": 1}], TWO: None, GLOBAL: [{"i": "alive", "n": 1}]}


async def test_stale_wishes_are_swept(store: MongoGrants, db: Database) -> None:
    await store.join("a", 60.0)
    await store.take("a", both(1))
    await store.mark_wanted("b", [ONE, GLOBAL], 1.0)
    await db.accounts.update_one({"_id": ONE}, [{"$set": {"wanted.at": {"$subtract": ["$$NOW", 4000]}}}])
    for _ in range(5):
        await store.reclaim()
    assert {row["_id"] for row in await raw(db) if "wanted" in row} == {GLOBAL}


async def test_freed_at_is_set_only_when_others_want(store: MongoGrants, db: Database) -> None:
    for name in ("a", "b"):
        await store.join(name, 60.0)
    await store.take("a", both(3))
    await store.give_back("a", {ONE: 2, GLOBAL: 2})
    assert all("freed_at" not in row for row in await raw(db))
    await store.mark_wanted("b", [ONE, GLOBAL], 1.0)
    await store.give_back("a", {ONE: 2, GLOBAL: 2})
    assert all("freed_at" not in row for row in await raw(db)), "nothing came free"
    await store.give_back("a", {ONE: 1, GLOBAL: 1})
    assert {row["_id"] for row in await raw(db) if "freed_at" in row} == {ONE, GLOBAL}


async def test_the_death_of_a_holder_frees_for_those_who_want(store: MongoGrants, db: Database) -> None:
    for name in ("a", "b"):
        await store.join(name, 60.0)
    await store.take("a", both(3))
    await store.mark_wanted("b", [ONE, GLOBAL], 1.0)
    await store.leave("a")
    assert {row["_id"] for row in await raw(db) if "freed_at" in row} == {ONE, GLOBAL}


async def test_asking_again_writes_nothing(store: MongoGrants, db: Database) -> None:
    await store.join("a", 60.0)
    await store.join("b", 60.0)
    await store.take("a", both(2))
    await store.mark_wanted("b", [ONE], 1.0)
    before = await raw(db)
    result = await db.accounts.update_many({}, grant_updates.taken("a", hold=2, cap=2))
    assert result.modified_count == 1, "only the account that it did not hold"
    await store.take("a", both(2))
    await store.mark_wanted("b", [ONE], 1.0)
    assert [row for row in await raw(db) if row["_id"] != TWO] == [row for row in before if row["_id"] != TWO]


async def test_grants_leave_the_account_alone(store: MongoGrants, db: Database) -> None:
    names = {"grants": 0, "wanted": 0, "freed_at": 0}
    before = [each async for each in db.accounts.find({}, names)]
    await store.join("a", 60.0)
    await store.take("a", both(2))
    await store.mark_wanted("b", [ONE], 1.0)
    await store.give_back("a", {ONE: 0, GLOBAL: 0})
    await store.leave("a")
    assert [each async for each in db.accounts.find({}, names)] == before


async def test_names_are_never_read_as_expressions(store: MongoGrants, db: Database) -> None:
    for name in ("$name", "$$NOW"):
        await store.join(name, 60.0)
        assert (await store.take(name, both(1)))[ONE] == 1
        await store.mark_wanted(name, [ONE], 1.0)
    await store.give_back("$name", {ONE: 0})
    [row] = [row for row in await raw(db) if row["_id"] == ONE]
    assert row["grants"] == [{"i": "$$NOW", "n": 1}]


async def test_looking_for_wishes_and_strangers_reads_little(store: MongoGrants, db: Database) -> None:
    """Both are done all the time; neither may walk through all that is held."""
    await insert(db, [account(number) for number in range(10, 600)])
    await store.join("holder", 60.0)
    keys = [each["_id"] async for each in db.accounts.find({}, {"_id": 1})]
    await store.take("holder", [Ask(key=key, hold=1, cap=1) for key in keys])
    await store.mark_wanted("other", [ONE, TWO], 1.0)
    await db.command({"profile": 2})
    try:
        assert len(await store.wanted("holder")) == 2
        for _ in range(5):
            await store.reclaim()
    finally:
        await db.command({"profile": 0})
    seen = [each async for each in db["system.profile"].find({"ns": f"{db.name}.accounts"})]
    assert len(seen) >= 3
    assert max(each.get("docsExamined", 0) for each in seen) <= 4, seen
    assert max(each.get("keysExamined", 0) for each in seen) <= 12, seen
