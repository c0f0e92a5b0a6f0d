"""On what terms accounts are used: bounds, labels, and that nothing else of an account changes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import asdict

from poe_gateway.accounts.terms import AS_THEY_ARE, DEFAULTS, LABEL, MAX_LABELS, Terms, labels_of
from poe_gateway.errors import InvalidRequest
from poe_gateway.money import LARGEST
from poe_gateway.pool.account import Account, Balance, Intent

ACCOUNT = Account(
    id="acct_1",
    provider="mock",
    name="one",
    offer="mock",
    intent=Intent.PAUSED,
    balance=Balance(points=7),
    priority=3,
    weight=2,
    labels=("eu",),
    keep_percent=5,
    max_inflight=4,
    rev=9,
)
LABELS = st.from_regex(LABEL, fullmatch=True)


def given_terms() -> st.SearchStrategy[Terms]:
    unset = st.just(UNSET)
    return st.builds(
        Terms,
        priority=unset | st.integers(-1_000, 1_000),
        weight=unset | st.integers(1, 1_000),
        labels=unset | st.sets(LABELS, max_size=MAX_LABELS).map(labels_of),
        keep_percent=unset | st.integers(0, 100),
        max_inflight=unset | st.none() | st.integers(1, 10_000),
        vendor=unset | st.none() | st.just("Shop"),
        batch=unset | st.none() | st.just("b 1"),
        purchase_price=unset | st.none() | st.integers(0, LARGEST),
        currency=unset | st.sampled_from(["USD", "EUR"]),
        purchased_at=unset | st.none() | st.datetimes(timezones=st.just(UTC)),
        expires_at=unset | st.none() | st.datetimes(timezones=st.just(UTC)),
    )


@given(given_terms())
def test_what_is_given_changes_and_nothing_else_and_twice_is_once(terms: Terms) -> None:
    after = terms.on(ACCOUNT)
    wanted = {name: value for name, value in asdict(terms).items() if value is not UNSET}
    assert asdict(after) == {**asdict(ACCOUNT), **wanted}
    assert terms.on(after) == after


def test_no_terms_change_nothing() -> None:
    assert AS_THEY_ARE.on(ACCOUNT) is ACCOUNT


def test_the_defaults_are_those_of_a_new_account() -> None:
    fresh = Account(id="a", provider="p", name="n", offer="o")
    assert {name: getattr(fresh, name) for name in DEFAULTS} == DEFAULTS
    assert DEFAULTS.keys() == asdict(AS_THEY_ARE).keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("priority", -1_001), ("priority", 1_001), ("weight", 0), ("weight", 1_001), ("keep_percent", -1)],
        *[("keep_percent", 101), ("max_inflight", 0), ("max_inflight", 10_001)],
        *[("labels", ("b", "a")), ("labels", ("A",)), ("labels", ("a", "a"))],
        *[("vendor", ""), ("vendor", " a"), ("batch", "a\nb"), ("batch", "x" * 101)],
        *[("purchase_price", -1), ("purchase_price", LARGEST + 1), ("currency", "points"), ("currency", "usd")],
        *[("purchased_at", datetime(2026, 5, 1)), ("expires_at", datetime(2026, 5, 1))],
    ],
)
def test_values_out_of_bounds_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as told:
        Terms(**{field: value})
    assert told.value.param == field


def test_new_terms_in_words() -> None:
    bought = Terms(
        labels=("a", "b"), purchase_price=250_000_000, expires_at=datetime(2027, 5, 1, tzinfo=UTC), vendor=None
    )
    assert bought.in_words() == ("labels: a b, vendor: None, purchase_price: 2.5, expires_at: 2027-05-01T00:00+00:00")
    assert AS_THEY_ARE.in_words() == ""


def test_labels_are_kept_sorted_in_lower_case_and_once() -> None:
    assert labels_of([" EU ", "tier:paid", "eu", "a/b=1"]) == ("a/b=1", "eu", "tier:paid")
    assert labels_of([]) == ()


@pytest.mark.parametrize("word", ["", " ", "-a", ".a", "a b", "ä", "a,b", "a" * 64, "a\x00", "İ"])
def test_odd_labels_are_refused(word: str) -> None:
    with pytest.raises(InvalidRequest):
        labels_of([word])


def test_an_account_has_at_most_sixteen_labels() -> None:
    assert len(labels_of(f"l{n}" for n in range(16))) == 16
    with pytest.raises(InvalidRequest):
        labels_of(f"l{n}" for n in range(17))


@given(st.lists(st.text(max_size=70), max_size=20))
def test_whatever_is_taken_as_labels_has_their_form(words: list[str]) -> None:
    try:
        labels = labels_of(words)
    except InvalidRequest:
        return
    assert list(labels) == sorted(set(labels)) and len(labels) <= MAX_LABELS
    assert all(re.fullmatch(LABEL, label) for label in labels)
