"""Learned prices: robust against outliers, bounded, and quick to see a change."""

from __future__ import annotations

import itertools
import random
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.pool.prices import WINDOW, Sample, assess, at_most, changed, estimate, expected, rungs
from tests.unit.builders import NOON


def samples(*points: int, tokens: int = 100, start: int = 0) -> list[Sample]:
    return [Sample(each, tokens, NOON + timedelta(seconds=start + number)) for number, each in enumerate(points)]


def by_tokens(rng: random.Random, count: int, per_1k: float, base: float, noise: float, start: int = 0) -> list[Sample]:
    made = []
    for number in range(count):
        tokens = rng.randint(100, 8000)
        points = round((base + per_1k * tokens / 1000) * rng.lognormvariate(0, noise))
        made.append(Sample(points, tokens, NOON + timedelta(seconds=start + number)))
    return made


many = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 100_000)), min_size=1, max_size=80).map(
    lambda pairs: [Sample(points, tokens, NOON + timedelta(seconds=n)) for n, (points, tokens) in enumerate(pairs)]
)


class TestEstimate:
    def test_nothing_is_known_without_a_sample(self) -> None:
        assert estimate([]) is None

    def test_one_sample_is_the_price(self) -> None:
        price = estimate(samples(20))
        assert price is not None
        assert (price.typical, price.upper, price.per_1k_tokens, price.samples, price.since) == (20, 20, None, 1, NOON)

    def test_the_bound_covers_nine_of_ten(self) -> None:
        price = estimate(samples(*range(1, 21)))
        assert price is not None
        assert price.typical == 10.5
        assert price.upper >= 18

    def test_only_the_newest_count(self) -> None:
        price = estimate(samples(*range(1000, 1000 + 2 * WINDOW), tokens=0))
        assert price is not None
        assert price.samples == WINDOW
        assert price.since == NOON + timedelta(seconds=WINDOW)

    def test_samples_come_in_any_order(self) -> None:
        given = samples(*[20] * 40, *[60] * 9)
        assert assess(reversed(given)) == assess(given)

    def test_a_price_per_token_is_found_despite_noise(self) -> None:
        price = estimate(by_tokens(random.Random(1), 64, 5.0, 10.0, 0.2))
        assert price is not None and price.per_1k_tokens is not None
        assert price.per_1k_tokens == pytest.approx(5.0, rel=0.3)
        assert expected(price, 8000) == pytest.approx(50, rel=0.25)
        assert expected(price, 200) < expected(price, 4000) < at_most(price, 4000)

    def test_like_prompts_tell_no_price_per_token(self) -> None:
        given = [Sample(20 + n % 3, 1000 + n, NOON + timedelta(seconds=n)) for n in range(40)]
        price = estimate(given)
        assert price is not None and price.per_1k_tokens is None

    def test_longer_prompts_are_never_cheaper(self) -> None:
        given = [Sample(5000 - n * 50, 100 + n * 100, NOON + timedelta(seconds=n)) for n in range(40)]
        price = estimate(given)
        assert price is not None and price.per_1k_tokens is None

    def test_prompts_of_unknown_size_do_not_bend_the_line(self) -> None:
        sized = by_tokens(random.Random(2), 40, 5.0, 10.0, 0.0)
        price = estimate([*sized, *samples(200, 200, 200, tokens=0, start=100)])
        assert price is not None and price.per_1k_tokens == pytest.approx(5.0, rel=0.1)

    @given(many, st.integers(0, 10**7))
    def test_what_is_reserved_is_bounded(self, given: list[Sample], tokens: int) -> None:
        price = estimate(given)
        assert price is not None
        dearest = max(each.points for each in given[-WINDOW:])
        assert 0 <= expected(price, tokens) <= at_most(price, tokens) <= 4 * dearest

    @given(many)
    def test_nine_of_ten_known_requests_could_be_paid_with_what_is_reserved(self, given: list[Sample]) -> None:
        price = estimate(given)
        assert price is not None
        # With a line, of those whose prompt's size is known; without a change of price.
        used = [each for each in given[-price.samples :] if each.tokens or price.per_1k_tokens is None]
        if changed(given) is None:
            paid = sum(each.points <= at_most(price, each.tokens) for each in used)
            assert paid >= 0.9 * len(used) - 1e-9

    @given(
        st.lists(st.integers(10, 1000), min_size=11, max_size=63),
        st.integers(0, 62),
        st.one_of(st.integers(0, 5), st.integers(10_000, 10**9)),
    )
    def test_one_absurd_sample_moves_the_price_within_the_others_only(
        self, honest: list[int], place: int, absurd: int
    ) -> None:
        polluted = [*honest[:place], absurd, *honest[place:]]
        price = estimate(samples(*polluted))
        assert price is not None
        least, most = min(honest), max(honest)
        assert least <= price.typical <= most
        # Nine of ten are to be paid: of ten or fewer that means all, the absurd one too.
        if price.samples > 10:
            assert price.upper <= most + 4.5 * (most - least) + 1

    def test_of_few_samples_since_a_change_the_dearest_counts(self) -> None:
        price = estimate(samples(*[10] * 16, 10_000, 10, 11, 11, 11, 16, 16, 16))
        assert price is not None
        assert (price.samples, price.typical, price.upper) == (8, 13.5, 10_000)

    @given(st.integers(0, 47), st.one_of(st.just(0), st.integers(10_000, 10**9)), st.integers(1, 100_000))
    def test_nor_does_it_bend_the_line(self, place: int, absurd: int, tokens: int) -> None:
        honest = by_tokens(random.Random(3), 48, 5.0, 10.0, 0.1)
        clean = estimate(honest)
        wild = Sample(absurd, tokens, NOON + timedelta(seconds=place, milliseconds=500))
        price = estimate([*honest, wild])
        assert clean is not None and price is not None
        for size in (500, 2000, 8000):
            assert expected(price, size) == pytest.approx(expected(clean, size), rel=0.15)


class TestChange:
    @pytest.mark.parametrize("before, after", [(20, 40), (40, 20), (20, 27), (0, 15), (300, 150)])
    def test_eight_samples_show_it(self, before: int, after: int) -> None:
        assert changed(samples(*[before] * 30, *[after] * 4)) is None
        price, change = assess(samples(*[before] * 30, *[after] * 8))
        assert change is not None and price is not None
        assert (change.before, change.after, change.at) == (before, after, NOON + timedelta(seconds=30))
        assert change.amount == pytest.approx((after - before) / max(1, before))
        assert (price.typical, price.upper, price.samples) == (after, after, 8), "only the newer ones count"

    @pytest.mark.parametrize("newer", range(8, 48))
    def test_the_old_price_stays_out_as_the_new_one_grows_old(self, newer: int) -> None:
        price = estimate(samples(*[20] * (64 - newer), *[40] * newer))
        assert price is not None
        assert price.typical == 40
        assert price.upper <= 60

    def test_less_than_a_third_is_no_change(self) -> None:
        assert changed(samples(*[100] * 30, *[125] * 30)) is None

    def test_a_stray_sample_does_not_hide_it(self) -> None:
        change = changed(samples(*[20] * 30, 40, 40, 20, 40, 40, 40, 40, 40))
        assert change is not None and change.after == 40

    def test_longer_prompts_are_no_change_of_price(self) -> None:
        short = [Sample(10 + n // 2, 100 * (n + 1), NOON + timedelta(seconds=n)) for n in range(40)]
        long = [Sample(60 + n, 10_000 + 200 * n, NOON + timedelta(seconds=60 + n)) for n in range(10)]
        assert changed([*short, *long]) is None

    def test_a_change_is_seen_through_prompts_of_many_sizes(self) -> None:
        rng = random.Random(4)
        change = changed([*by_tokens(rng, 48, 5.0, 10.0, 0.1), *by_tokens(rng, 16, 15.0, 30.0, 0.1, start=48)])
        assert change is not None and change.amount > 1

    @pytest.mark.parametrize("noise", [0.1, 0.3, 0.5, 1.0])
    def test_noise_is_hardly_ever_taken_for_one(self, noise: float) -> None:
        rng = random.Random(5)
        flagged = sum(
            changed(samples(*(round(100 * rng.lognormvariate(0, noise)) for _ in range(count)))) is not None
            for count in (24, 40, 64) * 60
        )
        assert flagged <= 4


RUNGS = [
    ([], 20, ()),
    ([20, 5], 20, ()),
    ([100], 20, (100,)),
    ([100, 90, 60, 51], 20, (100,)),
    ([100, 50], 20, (100,)),
    ([100, 49], 20, (49, 100)),
    ([21, 50, 120, 300, 700, 1500], 20, (120, 300, 700, 1500)),
    ([1500, 21, 300], 20, (21, 300, 1500)),
]


@pytest.mark.parametrize("prices, threshold, expected_rungs", RUNGS)
def test_rungs(prices: list[int], threshold: int, expected_rungs: tuple[int, ...]) -> None:
    assert rungs(prices, threshold) == expected_rungs


@given(st.lists(st.integers(0, 10_000), max_size=40), st.integers(0, 500))
def test_rungs_are_few_ascending_and_hold_the_dearest(prices: list[int], threshold: int) -> None:
    found = rungs(prices, threshold)
    assert len(found) <= 4
    assert all(2 * low < high for low, high in itertools.pairwise(found))
    assert all(each > threshold and each in prices for each in found)
    if any(each > threshold for each in prices):
        assert found[-1] == max(prices)


def test_the_moment_of_a_change_is_that_of_a_sample() -> None:
    given = samples(*[20] * 40, *[90] * 9)
    change = changed(given)
    assert change is not None
    assert isinstance(change.at, datetime) and change.at in {each.at for each in given}
