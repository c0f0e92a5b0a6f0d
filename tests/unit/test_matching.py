"""Rows against the upstream's book: who is who, what is left over, and what a row is put right by."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.metering import amends
from poe_gateway.metering.amends import Price, plain_price
from poe_gateway.metering.matching import BookEntry, Certainty, Matching, Ours, Span, match
from poe_gateway.metering.pricing import PriceRule
from poe_gateway.metering.rows import Intent
from poe_gateway.metering.store import Entry, orphan, row_fields

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = Span(since=NOON - timedelta(days=1), until=NOON + timedelta(days=1))


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def row(name: str, seconds: float, certainty: Certainty = "seen", **more: Any) -> Ours:
    return Ours(**{"id": name, "at": at(seconds), "model": "m", "certainty": certainty, **more})


def entry(name: str, seconds: float, **more: Any) -> BookEntry:
    return BookEntry(**{"id": name, "at": at(seconds), "model": "m", "points": 1, **more})


SCENARIOS: dict[str, tuple[list[Ours], list[BookEntry], Matching]] = {
    "by id, whatever the moment says": (
        [row("a", 0, upstream_id="q2"), row("b", 1, upstream_id="q1")],
        [entry("q1", 0), entry("q2", 1)],
        Matching(pairs={"a": "q2", "b": "q1"}, by_id=frozenset({"a", "b"})),
    ),
    "by model and time": (
        [row("a", 0), row("b", 10)],
        [entry("q1", 0.4), entry("q2", 10.3)],
        Matching(pairs={"a": "q1", "b": "q2"}),
    ),
    "models may differ in case": (
        [row("a", 0, model="Claude-Sonnet-4.5")],
        [entry("q1", 1, model="claude-sonnet-4.5")],
        Matching(pairs={"a": "q1"}),
    ),
    "another model is another exchange": (
        [row("a", 0, "doubtful", model="m"), row("b", 500, model="n")],
        [entry("q1", 500, model="n")],
        Matching(pairs={"b": "q1"}, unseen=("a",)),
    ),
    "ids that the book does not use leave time to tell": (
        [row("a", 0, upstream_id="chatcmpl-1")],
        [entry("q1", 1)],
        Matching(pairs={"a": "q1"}),
    ),
    "where ids are comparable, a row with another id is another exchange": (
        [row("a", 0, upstream_id="q1"), row("b", 1, upstream_id="q9")],
        [entry("q1", 0), entry("q2", 1)],
        Matching(pairs={"a": "q1"}, by_id=frozenset({"a"}), missing=("b",), foreign=("q2",)),
    ),
    "the upstream's clock is two minutes ahead, as the sure pairs tell": (
        [row("a", 0, upstream_id="q1"), row("b", 100, "doubtful")],
        [entry("q1", 120), entry("q2", 221)],
        Matching(pairs={"a": "q1", "b": "q2"}, by_id=frozenset({"a"})),
    ),
    "what the upstream certainly saw has the first claim": (
        [row("lost", 10, "doubtful"), row("told", 11)],
        [entry("q1", 10.1)],
        Matching(pairs={"told": "q1"}, unseen=("lost",)),
    ),
    "the nearest entry, not the first one that fits": (
        [row("a", 50)],
        [entry("q0", 0), entry("q1", 51)],
        Matching(pairs={"a": "q1"}, foreign=("q0",)),
    ),
    "as many as possible, even if not each is nearest": (
        [row("a", 0), row("b", 30)],
        [entry("q1", 29), entry("q2", 80)],
        Matching(pairs={"a": "q1", "b": "q2"}),
    ),
    "too far apart": (
        [row("a", 0), row("b", 300, "doubtful")],
        [entry("q1", 100)],
        Matching(unseen=("b",), missing=("a",), foreign=("q1",)),
    ),
    "a row that was put right keeps its entry, and is not judged again": (
        [row("a", 0, "put_right", upstream_id="q1"), row("b", 1, "doubtful")],
        [entry("q1", 0)],
        Matching(pairs={"a": "q1"}, by_id=frozenset({"a"}), unseen=("b",)),
    ),
    "a row that never was takes no entry": (
        [row("a", 0, "void")],
        [entry("q1", 0)],
        Matching(foreign=("q1",)),
    ),
    "an entry of that moment under a strange name leaves it undecided": (
        [row("a", 0, "doubtful", model="alias")],
        [entry("q1", 1, model="Real-Name")],
        Matching(foreign=("q1",)),
    ),
    "nothing at all": ([], [], Matching()),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_is_who(name: str) -> None:
    rows, entries, expected = SCENARIOS[name]
    assert match(rows, entries, DAY) == expected


def test_nothing_is_judged_before_it_has_settled_nor_where_the_book_is_not_whole() -> None:
    span = Span(since=at(0), until=at(1000))
    rows = [row("before", -500, "doubtful"), row("young", 1000, "doubtful"), row("due", 500, "doubtful")]
    found = match(rows, [entry("early", -200), entry("late", 1200)], span)
    assert found == Matching(unseen=("due",))


def test_drift_is_told_once_and_of_long_answers_only_at_their_end() -> None:
    span = Span(since=at(0), until=at(1000), fresh=at(600), running=timedelta(seconds=300))
    rows = [row("told before", 500), row("new", 700)]
    entries = [entry("told", 250), entry("due", 400), entry("running", 900)]
    assert match(rows, entries, span) == Matching(missing=("new",), foreign=("due",))


def test_a_crowd_is_matched_in_turn() -> None:
    rows = [row(f"r{number}", number / 100) for number in range(700)]
    entries = [entry(f"q{number:03}", number / 100 + 0.2) for number in range(700)]
    found = match(rows, entries, DAY)
    assert len(found.pairs) == 700 and not found.foreign and not found.missing


CERTAINTIES: list[Certainty] = ["seen", "doubtful", "put_right", "void"]
NAMES = st.sampled_from(["m", "n"])
ROWS = st.lists(
    st.tuples(st.integers(0, 400), NAMES, st.sampled_from(CERTAINTIES), st.none() | st.integers(0, 9)), max_size=9
).map(
    lambda drawn: [
        row(f"r{nth}", seconds, certainty, model=model, upstream_id=None if query is None else f"q{query}")
        for nth, (seconds, model, certainty, query) in enumerate(drawn)
    ]
)
ENTRIES = st.lists(st.tuples(st.integers(0, 400), NAMES), max_size=9).map(
    lambda drawn: [entry(f"q{nth}", seconds, model=model) for nth, (seconds, model) in enumerate(drawn)]
)


@given(ROWS, ENTRIES, st.randoms(use_true_random=False))
def test_every_row_and_every_entry_has_one_place_in_any_order(
    rows: list[Ours], entries: list[BookEntry], rng: random.Random
) -> None:
    found = match(rows, entries, DAY)
    assert len(set(found.pairs.values())) == len(found.pairs)
    taken = set(found.pairs.values())
    assert taken | set(found.foreign) == {each.id for each in entries} and not taken & set(found.foreign)
    placed = [*found.pairs, *found.unseen, *found.missing]
    assert len(placed) == len(set(placed))
    certain = {each.id: each.certainty for each in rows}
    assert all(certain[name] == "doubtful" for name in found.unseen)
    assert all(certain[name] == "seen" for name in found.missing)
    assert all(certain[name] != "void" for name in placed)
    rng.shuffle(rows)
    rng.shuffle(entries)
    assert match(rows, entries, DAY) == found


@given(st.lists(st.integers(0, 300), max_size=6), st.lists(st.integers(0, 300), max_size=6))
def test_no_pairing_has_more_pairs(rows: list[int], entries: list[int]) -> None:
    ours = [row(f"r{nth}", seconds) for nth, seconds in enumerate(rows)]
    book = [entry(f"q{nth}", seconds) for nth, seconds in enumerate(entries)]

    def most(left: list[int], right: list[int]) -> int:
        if not left:
            return 0
        best = most(left[1:], right)
        for nth, other in enumerate(right):
            if abs(other - left[0]) <= 60:
                best = max(best, 1 + most(left[1:], right[:nth] + right[nth + 1 :]))
        return best

    assert len(match(ours, book, DAY).pairs) == most(rows, entries)


CENT = 1_000_000
USD, POINTS, OTHER = "budget|key|k|USD|day|2026-11-20", "budget|org|o|points|total", "budget|key|k|EUR|total"


def stored(**fields: Any) -> dict[str, Any]:
    return {
        "_id": "s-1",
        "at": NOON,
        "status": "orphaned",
        "model": "public",
        "target": "m",
        "points": 5,
        "points_estimated": True,
        "unit": "USD",
        "raw_cost": 2 * CENT,
        "billed_cost": 3 * CENT,
        "cost_source": "estimate",
        "charges": [{"b": USD, "n": 3 * CENT}, {"b": POINTS, "n": 5}],
        **fields,
    }


def test_what_was_never_seen_gives_everything_back() -> None:
    correction = amends.unseen(stored(), NOON)
    assert correction is not None
    assert (correction.points, correction.raw_cost, correction.billed_cost) == (-5, -2 * CENT, -3 * CENT)
    assert correction.charges == {USD: -3 * CENT, POINTS: -5} and correction.reason == "unseen"
    free = stored(status="failed", points=None, raw_cost=None, billed_cost=None, charges=[])
    assert amends.unseen(free, NOON) is None, "nothing to give back"


def test_an_orphan_that_was_seen_costs_what_the_book_says() -> None:
    found = entry("q", 0, points=9, cost=Decimal("0.05"), currency="USD")
    correction = amends.seen(stored(), found, plain_price(stored(), found), by_id=False, at=NOON)
    assert correction is not None
    assert (correction.points, correction.raw_cost) == (4, 3 * CENT)
    assert correction.billed_cost == 75 * CENT // 10 - 3 * CENT, "billed in the proportion of before"
    assert correction.charges == {USD: 45 * CENT // 10, POINTS: 4} and correction.upstream_id == "q"


def test_an_orphan_as_expected_is_decided_all_the_same() -> None:
    correction = amends.seen(stored(), entry("q", 0, points=5), None, by_id=False, at=NOON)
    assert correction is not None and correction.upstream_id == "q"
    assert (correction.points, correction.billed_cost, correction.charges) == (0, 0, {})


TOLD: list[tuple[str, dict[str, Any], bool, tuple[int, int]]] = [
    ("an estimate by time", {"points_estimated": True, "cost_source": "estimate"}, False, (4, 3 * CENT)),
    ("the upstream's own figure by id", {"points_estimated": False, "cost_source": "upstream"}, True, (4, 3 * CENT)),
    ("the upstream's own figure by time", {"points_estimated": False, "cost_source": "upstream"}, False, (0, 0)),
    ("nothing known", {"points": None, "raw_cost": None, "cost_source": None}, False, (9, 5 * CENT)),
]


@pytest.mark.parametrize(("fields", "by_id", "expected"), [case[1:] for case in TOLD], ids=[case[0] for case in TOLD])
def test_what_may_be_put_right(fields: dict[str, Any], by_id: bool, expected: tuple[int, int]) -> None:
    found = entry("q", 0, points=9)
    kept = stored(status="succeeded", **fields)
    correction = amends.seen(kept, found, Price(5 * CENT, 5 * CENT), by_id=by_id, at=NOON)
    told = (0, 0) if correction is None else (correction.points, correction.raw_cost)
    assert told == expected


def test_a_budget_of_another_currency_is_left_alone() -> None:
    kept = stored(charges=[{"b": OTHER, "n": 4}])
    correction = amends.seen(kept, entry("q", 0, points=9), Price(CENT, CENT), by_id=True, at=NOON)
    assert correction is not None and correction.charges == {}


@pytest.mark.parametrize(
    ("fields", "more", "expected"),
    [
        ({}, {}, None),
        ({}, {"cost": Decimal("0.01"), "currency": "EUR"}, None),
        ({"raw_cost": 0}, {"cost": Decimal("0.01"), "currency": "USD"}, Price(CENT, CENT)),
        ({"raw_cost": 3, "billed_cost": 2}, {"cost": Decimal("0.00000001"), "currency": "USD"}, Price(1, 1)),
        ({"cost_source": "rule"}, {"cost": Decimal("0.01"), "currency": "USD"}, None),
        ({"unit": "points", "raw_cost": 5, "billed_cost": 10}, {"points": 7}, Price(7, 14)),
    ],
)
def test_the_price_by_an_entry_alone(fields: dict[str, Any], more: dict[str, Any], expected: Price | None) -> None:
    assert plain_price(stored(**fields), entry("q", 0, **more)) == expected


RULES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], Price | None]] = [
    (
        "the book's cost with the markup",
        {},
        {},
        {"cost": Decimal("0.04"), "currency": "USD"},
        Price(4 * CENT, 5 * CENT),
    ),
    ("a rule by request", {"request": Decimal("0.04")}, {}, {}, Price(4 * CENT, 5 * CENT)),
    ("a rule by tokens that nobody counted", {"input": Decimal(1)}, {}, {}, None),
    (
        "a rule by points, with the true ones",
        {"point": Decimal("0.01")},
        {"status": "succeeded", "cost_source": "rule", "price_rule": "pr@1"},
        {"points": 4, "cost": Decimal(9), "currency": "USD"},
        Price(4 * CENT, 5 * CENT),
    ),
    (
        "another version of the rule",
        {"point": Decimal("0.01")},
        {"status": "succeeded", "cost_source": "rule", "price_rule": "pr@0"},
        {},
        None,
    ),
    ("another currency", {"request": Decimal(1), "currency": "EUR"}, {}, {}, None),
]


@pytest.mark.parametrize(
    ("rule", "fields", "more", "expected"), [case[1:] for case in RULES], ids=[c[0] for c in RULES]
)
def test_the_price_by_a_rule(
    rule: dict[str, Any], fields: dict[str, Any], more: dict[str, Any], expected: Price | None
) -> None:
    held = PriceRule(id="pr", version=1, markup_percent=Decimal(25), valid_from=NOON, created_at=NOON, **rule)
    assert amends.rule_price(held, stored(**fields), entry("q", 0, **more)) == expected


def test_the_price_without_a_rule_is_the_books() -> None:
    told = entry("q", 0, cost=Decimal("0.04"), currency="USD")
    assert amends.rule_price(None, stored(), told) == Price(4 * CENT, 4 * CENT)
    assert amends.rule_price(None, stored(), entry("q", 0)) is None


@pytest.mark.parametrize(
    ("fields", "certainty"),
    [
        ({}, "doubtful"),
        ({"status": "succeeded"}, "seen"),
        ({"status": "failed", "fate": "not_sent"}, "void"),
        ({"status": "failed", "fate": "unknown"}, "doubtful"),
        ({"status": "cancelled", "fate": None}, "doubtful"),
        ({"status": "cancelled", "fate": "accepted"}, "seen"),
    ],
)
def test_how_sure_a_row_is(fields: dict[str, Any], certainty: str) -> None:
    assert amends.ours(stored(**fields), {}).certainty == certainty


def test_a_correction_says_what_is_known_of_its_row() -> None:
    seen = amends.ours(stored(), {"s-1": {"reason": "books", "upstream_id": "q7"}})
    assert (seen.certainty, seen.upstream_id) == ("put_right", "q7")
    assert amends.ours(stored(), {"s-1": {"reason": "unseen", "upstream_id": None}}).certainty == "void"


@pytest.mark.parametrize(
    ("unit", "cost", "held"),
    [(None, 0, {USD: 10 * CENT, "budget|org|o|USD|total": 700 * CENT}), ("USD", 30 * CENT, {USD: 20 * CENT})],
)
def test_an_orphan_pays_what_the_book_says_whatever_was_reserved(
    unit: str | None, cost: int, held: dict[str, int]
) -> None:
    names = {"org": "o", "key_id": "k", "provider": "p", "offer": "p:x", "account_id": "a", "model": "m", "target": "m"}
    intent = Intent(request_id="r", attempt=2, at=NOON, unit=unit, cost=cost, charges=held, **names)
    kept = row_fields(Entry("s", 2, orphan(intent, "s-1", NOON), 1, intent))
    found = entry("q", 0, cost=Decimal("0.01"), currency="USD")
    correction = amends.seen(kept, found, plain_price(kept, found), by_id=False, at=NOON)
    assert correction is not None
    assert {each: held[each] + correction.charges[each] for each in held} == dict.fromkeys(held, CENT)
