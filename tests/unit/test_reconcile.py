"""Our ledger against measurements: renewals, prices, and spending that is not ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.pool.account import Balance
from poe_gateway.pool.prices import Price, Sample, estimate
from poe_gateway.pool.reconcile import Kind, Reconciliation, reconcile, tolerance
from tests.unit.builders import NOON


def learned(*points: int) -> Price:
    price = estimate([Sample(each, 0, NOON) for each in points])
    assert price is not None
    return price


PRICES = {"dear": learned(200), "wide": learned(10, 20, 20, 20, 40), "free": learned(0)}
"""``wide`` costs 20 as a rule and 40 at most."""


def books(last: int, booked: int = 0, **fields: Any) -> Balance:
    return Balance(points=max(0, last - booked), booked=booked, measured_at=NOON, **fields)


def judged(balance: Balance, measured: int, last: int | None, **how: Any) -> Reconciliation:
    return reconcile(balance, measured, PRICES.get, last=last, **{"renewal_due": False, **how})


OK, REFILL, FOREIGN, PRICE = Kind.AS_EXPECTED, Kind.REFILL, Kind.FOREIGN_SPEND, Kind.PRICE
# name, last measured, the books since, measured now, in flight -> kind, amount, alarm, drift, samples
SCENARIOS: list[tuple[str, int | None, Balance, int, int, Kind, int, bool, int, tuple[tuple[str, int], ...]]] = [
    ("never measured before", None, Balance(), 500, 0, OK, 0, False, 0, ()),
    ("nothing happened", 1000, books(1000), 1000, 0, OK, 0, False, 0, ()),
    ("all we spent is gone", 1000, books(1000, 300), 700, 0, OK, 0, False, 0, ()),
    ("a small gap is carried on", 1000, books(1000), 992, 0, OK, 0, False, 8, ()),
    ("it turned up", 1000, books(1000, 8, drift=8), 1000, 0, OK, 0, False, 0, ()),
    ("it stays small", 1000, books(1000, drift=8), 1000, 0, OK, 0, False, 4, ()),
    ("it grows, but not twice above", 1000, books(1000, drift=8), 992, 0, OK, 0, False, 16, ()),
    ("above twice", 1000, books(1000, drift=16), 1000, 0, FOREIGN, 16, True, 0, ()),
    ("one middling gap is no alarm", 1000, books(1000), 960, 0, FOREIGN, 40, False, 40, ()),
    ("still there", 1000, books(1000, drift=40), 1000, 0, FOREIGN, 40, True, 0, ()),
    ("late news explained it", 1000, books(1000, 40, drift=40), 1000, 0, OK, 0, False, 0, ()),
    ("a large fall alarms at once", 1000, books(1000), 900, 0, FOREIGN, 100, True, 0, ()),
    ("beside our own spending", 3000, books(3000, 1000), 1700, 0, FOREIGN, 300, True, 0, ()),
    ("a fifth of a small balance", 100, books(100), 75, 0, FOREIGN, 25, True, 0, ()),
    ("in flight explains it", 1000, books(1000), 900, 100, OK, 0, False, 100, ()),
    ("everything is gone", 1000, books(1000), 0, 0, FOREIGN, 1000, True, 0, ()),
    ("we spent more than there was", 100, books(100, 130), 0, 0, OK, 0, False, -10, ()),
    ("late news of an empty account", 0, books(0, 30, drift=30), 0, 0, OK, 0, False, 0, ()),
    ("a refill", 200, books(200, 150), 3000, 0, REFILL, 2950, False, 0, ()),
    ("a refill covers a drift", 200, books(200, drift=100), 3000, 0, REFILL, 2800, False, 0, ()),
    ("what turns up is no refill", 1000, books(1000, drift=100), 1090, 0, OK, 0, False, 10, ()),
    ("a little more is no refill", 1000, books(1000), 1010, 0, OK, 0, False, -10, ()),
    ("more is one", 1000, books(1000), 1011, 0, REFILL, 11, False, 0, ()),
    ("a price is learned", 1000, books(1000, unpriced={"new": 3}), 940, 0, PRICE, 0, False, 0, (("new", 20),)),
    ("beside known ones", 1000, books(1000, 100, unpriced={"new": 1}), 880, 0, PRICE, 0, False, 0, (("new", 20),)),
    ("one that costs nothing", 1000, books(1000, unpriced={"new": 3}), 1000, 0, PRICE, 0, False, 0, (("new", 0),)),
    ("two unknown ones tell nothing", 1000, books(1000, unpriced={"new": 1, "b": 1}), 900, 0, OK, 0, False, 0, ()),
    ("known and believed", 1000, books(1000, 40, unpriced={"wide": 2}), 960, 0, PRICE, 0, False, 0, (("wide", 20),)),
    ("cheaper than believed", 1000, books(1000, 40, unpriced={"wide": 2}), 980, 0, PRICE, 0, False, 0, (("wide", 10),)),
    ("as dear as it may be", 1000, books(1000, 40, unpriced={"wide": 2}), 920, 0, PRICE, 0, False, 0, (("wide", 40),)),
    ("free after all", 1000, books(1000, 40, unpriced={"wide": 2}), 1000, 0, PRICE, 0, False, 0, (("wide", 0),)),
    ("dearer", 1000, books(1000, 40, unpriced={"wide": 2}), 880, 0, PRICE, 0, False, 0, (("wide", 60),)),
    ("much dearer", 1000, books(1000, 20, unpriced={"wide": 1}), 860, 0, FOREIGN, 100, True, 0, (("wide", 140),)),
    ("too dear to be a price", 1000, books(1000, 20, unpriced={"wide": 1}), 780, 0, FOREIGN, 180, True, 0, ()),
    ("too much else in it", 1000, books(1000, 20, unpriced={"wide": 1}), 960, 20, OK, 0, False, 0, ()),
    ("two priced ones", 1000, books(1000, 220, unpriced={"wide": 1, "dear": 1}), 780, 0, OK, 0, False, 0, ()),
    ("two and a thief", 1000, books(1000, 220, unpriced={"wide": 1, "dear": 1}), 600, 0, FOREIGN, 160, True, 0, ()),
]  # fmt: skip


@pytest.mark.parametrize("case", SCENARIOS, ids=[case[0] for case in SCENARIOS])
def test_scenarios(case: tuple[Any, ...]) -> None:
    _, last, balance, measured, in_flight, kind, amount, alarm, drift, samples = case
    found = judged(balance, measured, last, in_flight=in_flight)
    assert (found.kind, found.amount, found.alarm, found.drift, found.samples) == (kind, amount, alarm, drift, samples)
    assert found.measured == measured


def test_what_is_expected_is_told_where_it_is_known() -> None:
    assert judged(books(1000, 300), 700, 1000).expected == 700
    assert judged(books(1000, unpriced={"new": 1}), 700, 1000).expected is None
    assert judged(books(1000), 700, None).expected is None


class TestRenewal:
    def test_a_fall_says_nothing_when_one_was_due(self) -> None:
        found = judged(books(5000), 3000, 5000, renewal_due=True)
        assert (found.kind, found.alarm, found.drift, found.expected) == (OK, False, 0, None)

    def test_a_jump_is_a_refill_all_the_same(self) -> None:
        found = judged(books(500), 3000, 500, renewal_due=True)
        assert (found.kind, found.amount, found.renewal) == (REFILL, 2500, True)

    def test_a_figure_set_by_rule_is_no_ledger(self) -> None:
        by_rule = Balance(points=3000, booked=0, measured_at=NOON)
        assert judged(by_rule, 400, 1000).kind is OK
        assert judged(by_rule, 2990, 1000).renewal
        assert judged(Balance(measured_at=NOON), 400, 1000).kind is OK

    def test_a_small_refill_teaches_no_clock(self) -> None:
        assert not judged(books(1000), 1030, 1000).renewal
        assert judged(books(1000), 1060, 1000).renewal


def test_tolerance() -> None:
    assert tolerance(0, 0) == 10
    assert tolerance(1000, 0) == 50
    assert tolerance(1000, 70) == 70


class Upstream:
    """One account that several processes use: charges at once, news of them later."""

    def __init__(self, points: int) -> None:
        self.points = points
        self.outstanding = 0
        """Charged, but not in our books yet."""
        self.last = points
        self.balance = books(points)

    def charge(self, points: int) -> None:
        points = min(points, self.points)
        self.points -= points
        self.outstanding += points

    def settle(self) -> None:
        """All news arrives."""
        booked = self.balance.booked + self.outstanding
        self.balance = replace(self.balance, points=max(0, self.last - booked), booked=booked)
        self.outstanding = 0

    def measure(self, in_flight: int) -> Reconciliation:
        found = judged(self.balance, self.points, self.last, in_flight=in_flight)
        self.last = self.points
        self.balance = books(self.points, drift=found.drift)
        return found


steps = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), st.integers(1, 60)),
        st.tuples(st.sampled_from(["settle", "measure"]), st.just(0)),
    ),
    max_size=60,
)


@given(steps, st.integers(0, 5000))
def test_our_own_spending_never_alarms(steps: list[tuple[str, int]], points: int) -> None:
    """Whatever the order of settles and measurements, as long as the bound of what is in flight is true."""
    one = Upstream(points)
    for name, amount in steps:
        if name == "charge":
            one.charge(amount)
        elif name == "settle":
            one.settle()
        else:
            found = one.measure(in_flight=one.outstanding)
            assert not found.alarm
            assert not found.renewal


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(200, 5000))
def test_one_late_booking_never_alarms(spends: list[int], points: int) -> None:
    """Beyond the bound of what is in flight, but booked before the next measurement."""
    one = Upstream(points + sum(spends))
    for spent in spends:
        one.charge(spent)
        assert not one.measure(in_flight=0).alarm
        one.settle()
        assert not one.measure(in_flight=0).alarm


@given(
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=8),
    st.integers(11, 2000),
    st.lists(st.integers(0, 300), max_size=4),
)
def test_foreign_spending_is_told_with_its_amount(
    before: list[tuple[int, bool]], foreign: int, meanwhile: list[int]
) -> None:
    one = Upstream(20_000)
    for spent, measured in before:
        one.charge(spent)
        one.settle()
        if measured:
            assert not one.measure(in_flight=0).alarm
    for spent in meanwhile:
        one.charge(spent)
    one.settle()
    one.points -= foreign
    slack = tolerance(one.balance.booked, 0)
    found = [one.measure(in_flight=0) for _ in range(3)]
    alarms = [each for each in found if each.alarm]
    if foreign > slack:
        assert len(alarms) == 1
        assert abs(alarms[0].amount - foreign) <= slack
    assert not one.measure(in_flight=0).alarm, "told once"


@given(st.integers(1, 9), st.integers(5, 40))
def test_slow_foreign_spending_is_found(each: int, rounds: int) -> None:
    """Below the tolerance at every measurement, but at each of them."""
    one = Upstream(20_000)
    told = 0
    for _ in range(rounds):
        one.points -= each
        told += one.measure(in_flight=0).amount
    assert each * rounds - told <= 30


@given(
    st.integers(0, 5000),
    st.integers(0, 6000),
    st.integers(0, 6000),
    st.integers(-50, 500),
    st.dictionaries(st.sampled_from(["wide", "dear", "free", "new", "b"]), st.integers(1, 9)),
    st.integers(0, 200),
)
def test_a_measurement_above_all_we_had_is_never_foreign(
    last: int, booked: int, measured: int, drift: int, unpriced: dict[str, int], in_flight: int
) -> None:
    found = judged(books(last, booked, drift=drift, unpriced=unpriced), measured, last, in_flight=in_flight)
    if measured > last + tolerance(booked, in_flight) + max(0, drift):
        assert found.kind is REFILL and not found.alarm and found.drift == 0
    if found.alarm:
        assert found.kind is FOREIGN and found.amount > 0 and found.drift == 0
    assert all(points >= 0 for _, points in found.samples)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(1, 50))
def test_an_unpriced_model_within_its_bounds_never_alarms(counts: list[int], cost: int) -> None:
    """Whatever a request costs up to its bound and a little more: it is told as a price."""
    points = 20_000
    drift = 0
    for count in counts:
        unpriced = books(points, 20 * count, unpriced={"wide": count}, drift=drift)
        found = judged(unpriced, points - cost * count, points)
        assert not found.alarm
        assert found.samples == (("wide", cost),)
        points, drift = points - cost * count, found.drift
        assert drift == 0


def test_two_readings_within_seconds_are_no_proof_that_news_will_not_come() -> None:
    late = books(1000, drift=40)
    assert judged(late, 960, 1000).alarm
    assert not judged(late, 960, 1000, apart=0.1).alarm
    assert judged(late, 960, 1000, apart=10.0).alarm
