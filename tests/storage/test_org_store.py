"""One suite for both OrgStores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import KeyTerms
from poe_gateway.auth.memory import MemoryOrgs
from poe_gateway.auth.orgs import DEFAULT, DEFAULT_ORG, NameTaken, Org, OrgStore, OrgTerms
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.errors import Forbidden
from poe_gateway.limits.terms import Budget, Rates
from poe_gateway.storage.client import Database
from poe_gateway.storage.keys import MongoKeys
from poe_gateway.storage.orgs import MongoOrgs
from tests.storage.making import NOON

Make = Callable[[], OrgStore]
TERMS = OrgTerms(
    name="renamed",
    enabled=False,
    rates=Rates(parallel=3),
    budgets=(Budget(unit="EUR", period="month", amount=1_250_000),),
    keep_text=True,
    note="pays late",
)


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Make:
    """Makes the store of one more process."""
    if request.param == "memory":
        shared = MemoryOrgs()
        return lambda: MemoryOrgs(shared.table, shared.log)
    db = request.getfixturevalue("db")
    return lambda: MongoOrgs(db, SystemClock())


def org(number: int = 1, **fields: Any) -> Org:
    made: dict[str, Any] = {"id": f"org_{number}", "name": f"org {number}", "created_at": NOON}
    return Org(**{**made, **fields})


async def test_what_is_added_is_loaded_and_told(store: Make) -> None:
    here, there = store(), store()
    assert await there.load() == []
    await here.add(org(1))
    await here.add(TERMS.on(org(2)))
    assert await there.changes() == [org(1), TERMS.on(org(2))]
    assert sorted(await store().load(), key=lambda each: each.id) == [org(1), TERMS.on(org(2))]


async def test_a_name_belongs_to_one_even_when_many_ask_at_once(store: Make) -> None:
    asked = [store().add(org(number, name="acme")) for number in range(8)]
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["NameTaken"] * 7 + ["NoneType"]
    await store().add(org(9))
    with pytest.raises(NameTaken):
        await store().change("org_9", OrgTerms(name="acme"))
    assert len(await store().load()) == 2


async def test_a_taken_id_is_an_error(store: Make) -> None:
    await store().add(org(1))
    with pytest.raises(ValueError, match="org_1"):
        await store().add(org(1, name="other"))
    assert await store().load() == [org(1)]


async def test_what_is_given_changes_and_nothing_else_and_others_see_it(store: Make) -> None:
    here, there = store(), store()
    await here.add(org(1))
    await here.add(org(2))
    await there.load()
    changed = await here.change("org_1", TERMS)
    assert changed == TERMS.on(org(1)) and changed in await there.changes()
    again = await here.change("org_1", OrgTerms(enabled=True, budgets=()))
    assert again == OrgTerms(enabled=True, budgets=()).on(changed)
    assert await here.change("org_1", OrgTerms()) == again
    assert await here.change("org_nobody", TERMS) is None
    assert sorted(await there.load(), key=lambda each: each.id) == [again, org(2)]


async def test_the_default_organisation_is_stored_with_its_first_change(store: Make) -> None:
    here, there = store(), store()
    assert await there.load() == []
    changed = await here.change(DEFAULT_ORG, OrgTerms(note="ours"))
    assert changed == OrgTerms(note="ours").on(DEFAULT)
    assert await there.changes() == [changed]
    assert await here.change(DEFAULT_ORG, OrgTerms(enabled=False)) == OrgTerms(enabled=False).on(changed)
    assert len(await here.load()) == 1


async def test_the_key_rings_of_two_processes_agree_after_one_look(db: Database) -> None:
    def ring(seed: int) -> KeyRing:
        clock = SystemClock()
        stores = {"store": MongoKeys(db, clock), "orgs": MongoOrgs(db, clock)}
        return KeyRing(**stores, pepper=b"p", admin_key="admin", clock=clock, ids=Ids(seed))  # type: ignore[arg-type]

    here, there = ring(1), ring(2)
    await here.start(["svc-bootstrap-key-1"])
    await there.start(["svc-bootstrap-key-1"])
    assert len(here.keys()) == len(there.keys()) == 1
    made = await here.create_org("acme", OrgTerms(rates=Rates(parallel=2)))
    key, old = await here.create("app", KeyTerms(org=made.id))
    await there.refresh()
    assert here.known(old) == there.known(old) is not None
    rotated = await here.rotate(key.id, 60)
    await there.refresh()
    assert rotated is not None and there.known(old) is there.known(rotated[1]) is not None
    await here.change_org(made.id, OrgTerms(enabled=False))
    await there.refresh()
    with pytest.raises(Forbidden):
        there.known(old)
    await here.revoke(key.id)
    await there.refresh()
    assert there.known(old) is None and there.known(rotated[1]) is None
