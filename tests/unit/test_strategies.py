"""What each strategy means to an operator, one scenario each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.pool.account import Account
from poe_gateway.pool.index import Seat, SeatIndex
from poe_gateway.pool.policy import Strategy
from poe_gateway.pool.selector import EVERY, Selector
from tests.unit.builders import account


class Pool:
    """Seats under one strategy."""

    def __init__(self, strategy: Strategy = Strategy.BALANCED, *prices: int) -> None:
        self.strategy = strategy
        self.index = SeatIndex()
        self.index.price_rungs(prices)
        self.seats: dict[str, Seat] = {}

    def add(self, name: str, *, held: int = 2, spendable: int | None = None, **fields: Any) -> Seat:
        renews_at = fields.pop("renews_at", float("inf"))
        seat = self.seats[name] = Seat(account(name, **fields), len(self.seats))
        seat.allowed, seat.held, seat.spendable, seat.renews_at = True, held, spendable, renews_at
        self.index.place(seat)
        return seat

    def set(self, name: str, **fields: Any) -> None:
        for field, value in fields.items():
            setattr(self.seats[name], field, value)
        self.index.place(self.seats[name])

    def take(
        self, need: int = 0, selector: Selector = EVERY, offers: tuple[str, ...] = ("mock",), **options: Any
    ) -> str:
        """The name of the account that got the request; empty when none may have it."""
        plain: dict[str, Any] = {"refuse": None, "tried": (), "score": _points}
        seat = self.index.best(offers, strategy=self.strategy, selector=selector, need=need, **{**plain, **options})
        if seat is None:
            return ""
        self.index.chosen(seat, self.strategy, selector)
        seat.used += 1
        self.index.place(seat)
        return seat.account.id

    def give_back(self, name: str) -> None:
        self.set(name, used=self.seats[name].used - 1)

    def serve(self, count: int = 1, **options: Any) -> Counter[str]:
        """Requests one at a time: each ends before the next begins."""
        served: Counter[str] = Counter()
        for _ in range(count):
            name = self.take(**options)
            served[name] += 1
            if name:
                self.give_back(name)
        return served

    def relabel(self, name: str, **fields: Any) -> None:
        seat = self.seats[name]
        self.index.remove(seat)
        seat.account = replace(seat.account, **fields)
        self.index.place(seat)


def _points(candidate: Account) -> float:
    return float(candidate.balance.points or 0)


# Balanced.


def test_balanced_equal_accounts_take_turns() -> None:
    pool = Pool()
    for name in "abcde":
        pool.add(name)
    assert set(pool.serve(50).values()) == {10}


def test_balanced_the_least_loaded_serves_and_nobody_goes_beyond_what_is_held() -> None:
    pool = Pool()
    for name in "abc":
        pool.add(name)
    assert {pool.take() for _ in range(3)} == set("abc")
    assert {pool.take() for _ in range(3)} == set("abc")
    assert pool.take() == ""


def test_balanced_the_better_of_the_first_two_is_preferred() -> None:
    pool = Pool()
    pool.add("poor")
    pool.add("rich")
    assert pool.take(score=lambda each: 1.0 if each.id == "rich" else 0.0) == "rich"
    assert pool.take(score=lambda each: 1.0 if each.id == "rich" else 0.0) == "poor"


def test_balanced_load_is_compared_across_offers_and_turns_are_shared() -> None:
    pool = Pool()
    pool.add("a")
    pool.add("b")
    pool.add("c", offer="other")
    assert pool.serve(30, offers=("mock", "other"), score=lambda _: 0.0) == {"a": 10, "b": 10, "c": 10}
    assert {pool.take(offers=("other", "mock")) for _ in range(3)} == {"a", "b", "c"}


# Points: nobody is sent what it cannot pay, and large balances are kept for dear models.


def test_cheap_requests_leave_large_balances_alone() -> None:
    pool = Pool(Strategy.BALANCED, 20, 100, 1000)
    pool.add("small", spendable=60)
    pool.add("middle", spendable=500)
    pool.add("large", spendable=3000)
    pool.add("unknown")
    assert pool.serve(5, need=20) == {"unknown": 5}
    pool.set("unknown", allowed=False)
    assert pool.serve(5, need=20) == {"small": 5}
    assert pool.serve(5, need=100) == {"middle": 5}
    assert pool.serve(5, need=1000) == {"large": 5}
    # Load goes first: what is idle serves before what is in use.
    assert [pool.take(need=20) for _ in range(4)] == ["small", "middle", "large", "small"]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_need_is_never_sent_to_who_cannot_pay_it(strategy: Strategy) -> None:
    pool = Pool(strategy, 100)
    for points in (0, 99, 100, 149, 150, 151):
        pool.add(f"p{points}", held=1, spendable=points)
    assert {pool.take(need=150) for _ in range(2)} <= {"p150", "p151", ""}
    assert pool.take(need=152) == ""
    # What is reserved is spent: the account falls to another rung at once.
    pool.set("p151", used=0, spendable=151 - 60)
    pool.set("p150", used=0, spendable=151 - 60)
    assert pool.take(need=150) == ""
    pool.set("p151", spendable=None)
    assert pool.take(need=150) in ("p151", "")


def test_new_prices_make_new_rungs() -> None:
    pool = Pool(Strategy.BALANCED)
    pool.add("large", spendable=3000)
    pool.add("small", spendable=60)
    assert pool.serve(1, need=20) == {"large": 1}
    pool.index.price_rungs([20, 100])
    assert pool.serve(9, need=20) == {"small": 9}


# Spend first.


def test_spend_first_takes_what_is_renewed_soonest() -> None:
    pool = Pool(Strategy.SPEND_FIRST)
    pool.add("never")
    pool.add("late", spendable=900, renews_at=7200.0)
    pool.add("soon", spendable=100, renews_at=3600.0)
    pool.add("soon_too", spendable=900, renews_at=3600.0)
    assert [pool.take() for _ in range(8)] == ["soon"] * 2 + ["soon_too"] * 2 + ["late"] * 2 + ["never"] * 2
    for name in list(pool.seats):
        pool.set(name, used=0)
    pool.set("soon", spendable=0)
    assert pool.take() == "soon_too", "an empty account has nothing to lose"
    pool.set("soon_too", renews_at=90_000.0)
    assert pool.take() == "late", "its renewal came: it goes to the end of the day"


# Fill first.


def test_fill_first_fills_the_oldest_then_the_next() -> None:
    pool = Pool(Strategy.FILL_FIRST)
    for name in "abc":
        pool.add(name)
    assert [pool.take() for _ in range(5)] == ["a", "a", "b", "b", "c"]
    pool.give_back("a")
    assert pool.take() == "a"


# Round robin.


def test_round_robin_keeps_strict_turns_whatever_the_load() -> None:
    pool = Pool(Strategy.ROUND_ROBIN)
    for name in "abc":
        pool.add(name, held=3)
    assert [pool.take() for _ in range(4)] == ["a", "b", "c", "a"]
    for _ in range(2):
        pool.give_back("a")
    assert [pool.take() for _ in range(3)] == ["b", "c", "a"], "an idle account does not jump the queue"


def test_round_robin_a_seat_that_was_closed_keeps_its_turn() -> None:
    pool = Pool(Strategy.ROUND_ROBIN)
    for name in "abc":
        pool.add(name, held=9)
    assert pool.take() == "a"
    pool.set("b", allowed=False)
    assert [pool.take() for _ in range(3)] == ["c", "a", "c"]
    pool.set("b", allowed=True)
    assert [pool.take() for _ in range(3)] == ["b", "a", "c"]
    pool.add("new", held=9)
    assert [pool.take() for _ in range(2)] == ["new", "b"], "who never served is first"


def test_round_robin_takes_turns_across_offers() -> None:
    pool = Pool(Strategy.ROUND_ROBIN)
    pool.add("a", held=9)
    pool.add("b", held=9, offer="other")
    assert [pool.take(offers=("mock", "other")) for _ in range(4)] == ["a", "b", "a", "b"]


# Weighted.


@pytest.mark.parametrize("held", [1, 3])
def test_weighted_shares_are_exact_in_an_idle_pool_too(held: int) -> None:
    pool = Pool(Strategy.WEIGHTED)
    for weight in (1, 5, 20):
        pool.add(f"w{weight}", held=held, weight=weight)
    served = pool.serve(260)
    assert abs(served["w1"] - 10) <= 1
    assert abs(served["w5"] - 50) <= 1
    assert abs(served["w20"] - 200) <= 1


def test_weighted_counts_slots_as_capacity() -> None:
    pool = Pool(Strategy.WEIGHTED)
    pool.add("one", held=1)
    pool.add("four", held=4)
    pool.add("starting", held=8)
    pool.set("starting", ramp=1)
    served = pool.serve(60)
    assert [abs(served[name] - share) <= 1 for name, share in (("one", 10), ("four", 40), ("starting", 10))]


def test_weighted_nobody_catches_up_on_what_was_not_its_to_serve() -> None:
    pool = Pool(Strategy.WEIGHTED)
    for name in "abc":
        pool.add(name)
    pool.serve(30)
    pool.set("a", allowed=False)
    assert pool.serve(100) == {"b": 50, "c": 50}
    pool.set("a", allowed=True)
    pool.add("new")
    assert all(abs(count - 10) <= 1 for count in pool.serve(40).values())


def test_weighted_a_rest_is_no_way_to_be_first_again() -> None:
    pool = Pool(Strategy.WEIGHTED)
    for name in "abc":
        pool.add(name)
    assert pool.serve() == {"a": 1}
    pool.set("a", allowed=False)
    pool.set("a", allowed=True)
    assert [pool.take(), pool.take()] == ["b", "c"]


def test_weighted_who_was_passed_over_for_long_catches_up_by_one_round_at_most() -> None:
    pool = Pool(Strategy.WEIGHTED)
    for name in "ab":
        pool.add(name, weight=3)
    pool.serve(1000, refuse=lambda each: each.id == "a")
    assert pool.serve(106) == pytest.approx({"a": 56, "b": 50}, abs=1)


# Single.


def test_single_waits_for_its_account_and_moves_only_when_it_leaves_service() -> None:
    pool = Pool(Strategy.SINGLE)
    for name in "ab":
        pool.add(name, held=1)
    assert [pool.take(), pool.take()] == ["a", ""]
    pool.set("a", allowed=False)
    assert [pool.take(), pool.take()] == ["b", ""]
    pool.set("a", allowed=True, used=0)
    assert pool.take() == "a"


@pytest.mark.parametrize(
    "reason",
    [{"tried": {"a"}}, {"refuse": lambda each: each.id == "a"}, {"need": 100}, {"selector": Selector(without=("x",))}],
)
def test_single_goes_on_when_the_first_may_not_have_the_request(reason: dict[str, Any]) -> None:
    pool = Pool(Strategy.SINGLE, 50)
    pool.add("a", spendable=60, labels=("x",))
    pool.add("b", spendable=200)
    assert pool.take() == "a"
    assert pool.take(**reason) == "b"


def test_single_waits_even_when_another_offer_is_open() -> None:
    pool = Pool(Strategy.SINGLE)
    pool.add("a", held=1)
    pool.add("b", offer="other")
    assert [pool.take(offers=("mock", "other")) for _ in range(2)] == ["a", ""]


def test_single_prefers_a_higher_priority_and_waits_for_it() -> None:
    pool = Pool(Strategy.SINGLE)
    pool.add("low")
    pool.add("high", held=1, priority=1)
    assert [pool.take(), pool.take()] == ["high", ""]
    pool.set("high", allowed=False)
    assert pool.take() == "low"


# What holds under every strategy.

_QUEUED = [strategy for strategy in Strategy if strategy is not Strategy.SINGLE]


@pytest.mark.parametrize("strategy", _QUEUED)
def test_a_lower_priority_serves_only_when_no_higher_one_can(strategy: Strategy) -> None:
    pool = Pool(strategy)
    pool.add("low", held=9)
    pool.add("high", held=2, priority=3)
    pool.add("highest", held=1, priority=10)
    assert [pool.take() for _ in range(4)] == ["highest", "high", "high", "low"]
    pool.give_back("highest")
    assert pool.take(refuse=lambda each: each.id == "highest") == "low"
    assert pool.take() == "highest"
    pool.relabel("low", priority=20)
    assert pool.take() == "low"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_selector_is_kept_through_changes_of_labels(strategy: Strategy) -> None:
    pool = Pool(strategy)
    red, not_red = Selector(labels=("red",)), Selector(providers=("mock",), without=("red",))
    pool.add("a", held=90, labels=("red",))
    pool.add("b", held=90)
    assert pool.serve(5, selector=red) == {"a": 5}
    assert pool.serve(5, selector=not_red) == {"b": 5}
    pool.relabel("a", labels=())
    pool.relabel("b", labels=("blue", "red"))
    assert pool.serve(5, selector=red) == {"b": 5}
    assert pool.serve(5, selector=not_red) == {"a": 5}
    assert pool.serve(5, selector=Selector(labels=("red", "green"))) == {"": 5}
    assert pool.serve(5, selector=Selector(providers=("elsewhere",))) == {"": 5}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_slow_start_bounds_what_runs_at_a_time(strategy: Strategy) -> None:
    pool = Pool(strategy)
    pool.add("a", held=4)
    pool.set("a", ramp=1)
    assert [pool.take(), pool.take()] == ["a", ""]
    pool.set("a", ramp=2)
    assert [pool.take(), pool.take()] == ["a", ""]
    pool.set("a", ramp=None)
    assert [pool.take(), pool.take(), pool.take()] == ["a", "a", ""]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_tried_and_refused_accounts_are_passed_over(strategy: Strategy) -> None:
    pool = Pool(strategy)
    for name in "abc":
        pool.add(name)
    assert pool.take(tried={"a"}, refuse=lambda each: each.id == "b") == "c"
    assert pool.take(tried={"a", "b", "c"}) == ""
    assert pool.take(offers=("elsewhere",)) == ""
