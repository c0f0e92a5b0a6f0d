"""The price list of one process: look-ups through time, versions, and changes of other processes."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.metering.pricelist import (
    MemoryPriceRules,
    PriceConflict,
    PriceDraft,
    PriceHistory,
    PriceList,
    rule_id,
)
from poe_gateway.metering.pricing import PriceRule, ranked
from tests.accounts.support import START, HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def prices(clock: HandClock) -> PriceList:
    return PriceList(MemoryPriceRules(), clock)


def draft(price: int = 1, **fields: Any) -> PriceDraft:
    return PriceDraft(input=Decimal(price), **fields)


def name(rule: PriceRule | None) -> str | None:
    return None if rule is None else rule.name


async def test_nothing_is_known_until_a_rule_is_made(prices: PriceList, clock: HandClock) -> None:
    assert prices.rule("org_1", "mock", "gpt-4o", clock.now()) is None
    default = await prices.put(draft())
    assert prices.rule("org_1", "mock", "gpt-4o", clock.now()) == default
    own = await prices.put(draft(org="org_1"))
    assert prices.rule("org_1", "mock", "gpt-4o", clock.now()) == own
    assert prices.rule("org_2", "mock", "gpt-4o", clock.now()) == default
    assert prices.ranked("org_1", "mock", "gpt-4o", clock.now()) == [own, default]


async def test_a_new_version_ends_the_one_before_and_both_can_be_read(prices: PriceList, clock: HandClock) -> None:
    first = await prices.put(draft(1))
    clock.pass_(hours=1)
    second = await prices.put(draft(2))
    assert (second.id, second.version, second.input) == (first.id, 2, Decimal(2))
    kept = prices.versions(first.id)
    assert [(each.version, each.input, each.retired_at) for each in kept] == [
        (1, Decimal(1), clock.now()),
        (2, Decimal(2), None),
    ]
    assert prices.rules() == [second]
    assert name(prices.rule(None, "mock", "m", clock.now() - timedelta(minutes=1))) == first.name
    assert name(prices.rule(None, "mock", "m", clock.now())) == second.name


async def test_a_version_to_come_holds_from_its_moment_on(prices: PriceList, clock: HandClock) -> None:
    first = await prices.put(draft(1))
    second = await prices.put(draft(2, valid_from=START + timedelta(days=1)))
    assert prices.rules() == [prices.versions(first.id)[0], second]
    assert name(prices.rule(None, "mock", "m", clock.now())) == first.name
    clock.pass_(days=1, microseconds=-1)
    assert name(prices.rule(None, "mock", "m", clock.now())) == first.name
    clock.pass_(microseconds=1)
    assert name(prices.rule(None, "mock", "m", clock.now())) == second.name


async def test_a_version_replaces_one_to_come(prices: PriceList, clock: HandClock) -> None:
    await prices.put(draft(1))
    await prices.put(draft(2, valid_from=START + timedelta(days=1)))
    third = await prices.put(draft(3))
    assert prices.rules() == [third]
    clock.pass_(days=2)
    assert name(prices.rule(None, "mock", "m", clock.now())) == third.name


async def test_a_retired_rule_leaves_the_more_general_one_and_can_come_back(
    prices: PriceList, clock: HandClock
) -> None:
    default, own = await prices.put(draft(1)), await prices.put(draft(2, model="gpt-*"))
    clock.pass_(hours=1)
    ended = await prices.retire(own.id)
    assert ended is not None and ended.retired_at == clock.now()
    assert name(prices.rule(None, "mock", "gpt-4o", clock.now())) == default.name
    clock.pass_(hours=1)
    assert await prices.retire(own.id) == ended
    assert await prices.retire("price_unknown") is None
    back = await prices.put(draft(3, model="gpt-*"))
    assert (back.id, back.version) == (own.id, 2)
    assert prices.versions(own.id)[0] == ended


async def test_others_see_a_change_with_their_next_look(clock: HandClock) -> None:
    table: dict[str, PriceHistory] = {}
    here, there = (PriceList(MemoryPriceRules(table), clock) for _ in range(2))
    await there.load()
    assert there.rule(None, "mock", "m", clock.now()) is None
    made = await here.put(draft())
    await there.refresh()
    assert there.rule(None, "mock", "m", clock.now()) == made
    await here.retire(made.id)
    await there.refresh()
    assert there.rule(None, "mock", "m", clock.now()) is None


async def test_two_processes_that_change_one_rule_make_two_versions(clock: HandClock) -> None:
    table: dict[str, PriceHistory] = {}
    here, there = (PriceList(MemoryPriceRules(table), clock) for _ in range(2))
    await here.put(draft(1))
    second = await there.put(draft(2))
    third = await here.put(draft(3))
    assert (second.version, third.version) == (2, 3)
    assert [each.retired_at is None for each in table[third.id].versions] == [False, False, True]


async def test_endless_changes_of_others_are_told(clock: HandClock) -> None:
    class Busy(MemoryPriceRules):
        async def put(self, history: PriceHistory) -> bool:
            return False

    prices = PriceList(Busy(), clock)
    with pytest.raises(PriceConflict):
        await prices.put(draft())


def test_an_id_belongs_to_a_scope() -> None:
    scopes = [("a", None, None), (None, "a", None), (None, None, "a"), ("a", "b", None), ("a", None, "b")]
    assert len({rule_id(*each) for each in scopes}) == len(scopes)
    assert rule_id(None, None, None) == rule_id(None, None, None)


WHEN = st.integers(-5, 5).map(lambda hours: START + timedelta(hours=hours))
DRAFTS = st.builds(
    PriceDraft,
    org=st.sampled_from([None, "org_1"]),
    model=st.sampled_from([None, "*", "gpt-*", "gpt-4o"]),
    input=st.just(Decimal(1)),
    valid_from=st.none() | WHEN,
)


@given(st.lists(DRAFTS, max_size=6), st.lists(st.tuples(st.sampled_from([None, "org_1"]), WHEN), max_size=12))
async def test_what_is_remembered_is_what_the_rules_say(
    drafts: list[PriceDraft], asked: list[tuple[str | None, Any]]
) -> None:
    clock = HandClock()
    prices = PriceList(MemoryPriceRules(), clock)
    for each in drafts:
        made = await prices.put(each)
        clock.pass_(minutes=30)
        for org, at in asked:
            every = [version for rule in {made.id, *known(prices)} for version in prices.versions(rule)]
            truth = ranked(every, org, "mock", "gpt-4o", at)
            assert prices.rule(org, "mock", "gpt-4o", at) == (truth[0] if truth else None)


def known(prices: PriceList) -> set[str]:
    return {rule_id(org, None, model) for org in (None, "org_1") for model in (None, "*", "gpt-*", "gpt-4o")}
