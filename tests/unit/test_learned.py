"""What a request will cost before it is made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.metering.learned import ASSUMED_OUTPUT, Expected, Learned


def seen(learned: Learned, offer: str = "a", model: str = "m", **fields: Any) -> None:
    told: dict[str, Any] = {"prompt_estimate": 100, "prompt_tokens": 100, "completion_tokens": 10, "cost": None}
    learned.observe(offer, model, **{**told, **fields})


def asked(learned: Learned, *offers: str, prompt: int = 100, most: int | None = None) -> Expected:
    return learned.estimate(offers or ("a",), "m", prompt_estimate=prompt, max_tokens=most)


def test_before_anything_is_known() -> None:
    for offers in (("a",), ("a", "b"), ()):
        assert Learned().estimate(offers, "m", prompt_estimate=7, max_tokens=None) == Expected(
            prompt_tokens=7, completion_tokens=ASSUMED_OUTPUT, told=None, currency="", priced="unknown"
        )


@pytest.mark.parametrize(("most", "expected"), [(None, 1_024), (50, 50), (4_000, 1_024)])
def test_the_callers_bound_holds(most: int | None, expected: int) -> None:
    assert asked(Learned(), most=most).completion_tokens == expected


def test_few_answers_only_raise_what_is_assumed() -> None:
    learned = Learned()
    seen(learned, completion_tokens=10)
    assert asked(learned).completion_tokens == ASSUMED_OUTPUT
    seen(learned, completion_tokens=3_000)
    assert asked(learned).completion_tokens == 3_000


def test_many_answers_are_believed_and_a_few_long_ones_are_not() -> None:
    learned = Learned()
    for number in range(64):
        seen(learned, completion_tokens=1_000_000 if number in (5, 40, 60) else 200 + number)
    assert asked(learned).completion_tokens == 263
    for _ in range(64):
        seen(learned, completion_tokens=20)
    assert asked(learned).completion_tokens == 20


def test_the_prompt_is_scaled_by_what_upstreams_counted() -> None:
    learned = Learned()
    for _ in range(20):
        seen(learned, prompt_estimate=100, prompt_tokens=250)
    assert asked(learned, prompt=1_000).prompt_tokens == 2_500
    for _ in range(64):
        seen(learned, prompt_estimate=100, prompt_tokens=80)
    assert asked(learned, prompt=1_001).prompt_tokens == 801


def test_short_prompts_teach_nothing_about_long_ones_and_no_ratio_is_absurd() -> None:
    learned = Learned()
    seen(learned, prompt_estimate=1, prompt_tokens=30)
    assert asked(learned, prompt=1_000).prompt_tokens == 1_000
    seen(learned, prompt_estimate=100, prompt_tokens=10**9)
    assert asked(learned, prompt=1_000).prompt_tokens == 20_000


def test_what_upstreams_do_not_tell_changes_nothing() -> None:
    learned = Learned()
    for _ in range(30):
        seen(learned, prompt_tokens=None, completion_tokens=None)
    assert (asked(learned).prompt_tokens, asked(learned).completion_tokens) == (100, ASSUMED_OUTPUT)


def test_three_states_of_the_upstreams_own_figure() -> None:
    learned = Learned()
    seen(learned)
    seen(learned, cost=("nonsense", "USD"))
    assert asked(learned).priced == "unknown"
    seen(learned)
    assert (asked(learned).priced, asked(learned).told) == ("untold", None)
    seen(learned, cost=("0.0125", "usd"))
    told = asked(learned)
    assert (told.priced, told.told, told.currency) == ("told", Decimal("0.0125"), "USD")
    seen(learned, cost=("0.5", "USD"))
    seen(learned)
    assert asked(learned).told == Decimal("0.5")
    seen(learned, cost=("0.25", "EUR"))
    assert (asked(learned).told, asked(learned).currency) == (Decimal("0.25"), "EUR")


def test_free_is_told() -> None:
    learned = Learned()
    seen(learned, cost=("0", "USD"))
    assert (asked(learned).priced, asked(learned).told) == ("told", Decimal(0))


@pytest.mark.parametrize(
    ("offers", "priced", "told"),
    [
        (("told",), "told", "0.2"),
        (("told", "dear"), "told", "0.9"),
        (("dear", "told"), "told", "0.9"),
        (("told", "silent"), "untold", "0.2"),
        (("silent", "told"), "untold", "0.2"),
        (("silent", "new"), "unknown", None),
        (("new", "silent"), "unknown", None),
        (("told", "new", "silent"), "unknown", "0.2"),
    ],
)
def test_the_dearest_offer_counts(offers: tuple[str, ...], priced: str, told: str | None) -> None:
    learned = Learned()
    seen(learned, "told", cost=("0.2", "USD"), completion_tokens=2_000)
    seen(learned, "dear", cost=("0.9", "USD"), prompt_tokens=300)
    for _ in range(3):
        seen(learned, "silent")
    expected = asked(learned, *offers)
    assert (expected.priced, expected.told) == (priced, None if told is None else Decimal(told))
    assert expected.completion_tokens == (2_000 if "told" in offers else ASSUMED_OUTPUT)
    assert expected.prompt_tokens == (300 if "dear" in offers else 100)


def test_models_and_offers_are_apart() -> None:
    learned = Learned()
    seen(learned, "a", "m", completion_tokens=5_000)
    assert learned.estimate(["a"], "n", prompt_estimate=1, max_tokens=None).completion_tokens == ASSUMED_OUTPUT
    assert asked(learned, "b").completion_tokens == ASSUMED_OUTPUT


def test_memory_is_bounded_and_the_longest_unseen_goes_first() -> None:
    learned = Learned(models=2)
    seen(learned, "a", completion_tokens=5_000)
    seen(learned, "b", completion_tokens=6_000)
    seen(learned, "a", completion_tokens=5_000)
    seen(learned, "c", completion_tokens=7_000)
    assert len(learned) == 2
    assert [asked(learned, each).completion_tokens for each in "abc"] == [5_000, ASSUMED_OUTPUT, 7_000]


@given(st.lists(st.integers(0, 100_000), min_size=16, max_size=200))
def test_at_most_one_of_twenty_recent_answers_is_longer_than_expected(lengths: list[int]) -> None:
    learned = Learned()
    for each in lengths:
        seen(learned, completion_tokens=each)
    recent = lengths[-64:]
    expected = asked(learned).completion_tokens
    assert expected in recent
    assert sum(each > expected for each in recent) * 20 <= len(recent)
