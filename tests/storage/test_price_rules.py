"""One suite for both PriceRuleStores, and the price list of two processes on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.metering.pricelist import MemoryPriceRules, PriceDraft, PriceHistory, PriceList, PriceRuleStore
from poe_gateway.metering.pricing import PriceRule
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database
from poe_gateway.storage.price_rules import MongoPriceRules
from tests.storage.making import NOON

Make = Callable[[], PriceRuleStore]


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Make:
    """Makes the store of one more process."""
    if request.param == "memory":
        shared = MemoryPriceRules()
        return lambda: MemoryPriceRules(shared.table)
    db = request.getfixturevalue("db")
    return lambda: MongoPriceRules(db, SystemClock())


def history(rev: int = 1, rule_id: str = "price_1", **fields: Any) -> PriceHistory:
    rule = PriceRule(id=rule_id, version=1, valid_from=NOON, created_at=NOON, **fields)
    return PriceHistory(id=rule_id, rev=rev, versions=(rule,))


FULL = history(
    org="org_1",
    provider="mock",
    model="gpt-*",
    currency="EUR",
    input=Decimal("0.150"),
    output=Decimal("0.123456789012"),
    cached=Decimal(0),
    request=Decimal("1E+2"),
    point=Decimal("0.00003"),
    markup_percent=Decimal("-12.5"),
    retired_at=NOON + timedelta(days=1),
    note="by contract",
)


async def test_what_is_put_is_loaded_and_told_once(store: Make) -> None:
    here, there = store(), store()
    assert await there.load() == []
    assert await here.put(FULL)
    assert await there.changes() == [FULL]
    assert await there.changes() == []
    assert await store().load() == [FULL]


async def test_only_the_next_revision_is_taken(store: Make) -> None:
    assert not await store().put(history(2))
    assert await store().put(history(1))
    assert not await store().put(history(1, note="another first"))
    assert not await store().put(history(3))
    assert await store().put(history(2, note="second"))
    assert await store().load() == [history(2, note="second")]


async def test_of_many_at_once_one_is_stored(store: Make) -> None:
    for rev in (1, 2):
        stored = await asyncio.gather(*(store().put(history(rev, note=f"{each}")) for each in range(8)))
        assert stored.count(True) == 1
        assert (await store().load())[0].versions[0].note == f"{stored.index(True)}"


async def test_prices_made_by_many_processes_at_once_are_all_kept(store: Make) -> None:
    processes = [PriceList(store(), SystemClock()) for _ in range(4)]
    made = await asyncio.gather(*(each.put(PriceDraft(request=Decimal(n))) for n, each in enumerate(processes)))
    assert sorted(each.version for each in made) == [1, 2, 3, 4]
    for each in processes:
        await each.refresh()
        (rule,) = each.rules()
        assert rule.version == 4 and len(each.versions(rule.id)) == 4
        assert each.rule(None, "mock", "gpt-4o", SystemClock().now()) == rule


async def test_what_is_made_is_what_others_read(store: Make) -> None:
    here, there = (PriceList(store(), SystemClock()) for _ in range(2))
    made = await here.put(PriceDraft(input=Decimal("0.1"), markup_percent=Decimal("7.25")))
    await there.load()
    assert there.versions(made.id) == here.versions(made.id) == (made,)
    ended = await here.retire(made.id)
    await there.refresh()
    assert there.versions(made.id) == (ended,) and there.rules() == []


async def test_prices_are_stored_as_text(db: Database) -> None:
    await MongoPriceRules(db, SystemClock()).put(FULL)
    document = await db[schema.PRICE_RULES].find_one({"_id": "price_1"})
    assert document is not None and document["changed_at"] is not None
    (version,) = document["versions"]
    assert (version["input"], version["output"], version["request"]) == ("0.150", "0.123456789012", "1E+2")
    assert not [name for name, value in version.items() if isinstance(value, float)]
