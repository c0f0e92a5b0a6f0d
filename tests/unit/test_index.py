"""The seat index against a plain model that looks at every seat; its bounds on work; its books."""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from poe_gateway.pool.account import Account, Balance
from poe_gateway.pool.index import Seat, SeatIndex
from poe_gateway.pool.policy import Strategy
from poe_gateway.pool.ranking import Entry, Ranking
from poe_gateway.pool.selector import EVERY, Selector
from tests.unit.builders import account

RED = Selector(labels=("red",))
NOT_RED = Selector(without=("red",))
INF = float("inf")


def points(candidate: Account) -> float:
    return float(candidate.balance.points or 0)


def best(index: SeatIndex, *offers: str, **options: Any) -> Seat | None:
    """``SeatIndex.best`` with plain defaults."""
    plain = {
        "strategy": Strategy.BALANCED,
        "selector": EVERY,
        "need": 0,
        "refuse": None,
        "tried": (),
        "score": points,
    }
    return index.best(offers or ("mock",), **{**plain, **options})


def seated(index: SeatIndex, count: int, held: int = 2, **fields: Any) -> list[Seat]:
    """That many open seats."""
    made = []
    for number in range(count):
        seat = Seat(account(f"acc_{number}", **fields), number)
        seat.allowed, seat.held = True, held
        index.place(seat)
        made.append(seat)
    return made


class Model:
    """What the index promises, by looking at everything each time. Small pools only: no bound on work is modelled."""

    def __init__(self) -> None:
        self.seats: dict[str, dict[str, Seat]] = {}
        self.prices: tuple[int, ...] = ()
        self.clock = 0
        self.rows: dict[str, tuple[int, int] | None] = {}
        """Load and rung by seat."""
        self.since: dict[str, int] = {}
        """When the seat came into its row."""
        self.orders: set[tuple[str, Selector, Strategy]] = set()
        self.turns: dict[tuple[Selector, str], int] = {}
        self.passes: dict[tuple[Selector, str], float] = {}
        self.away: set[tuple[Selector, str]] = set()
        self.latest: dict[tuple[Selector, int], float] = {}

    def rung(self, seat: Seat) -> int:
        return 0 if seat.spendable is None else 1 + sum(price <= seat.spendable for price in self.prices)

    def place(self, seat: Seat) -> None:
        self.seats.setdefault(seat.account.offer, {})[seat.account.id] = seat
        row = (seat.used, self.rung(seat)) if seat.open else None
        if row != self.rows.get(seat.account.id):
            self.rows[seat.account.id] = row
            self.clock += 1
            self.since[seat.account.id] = self.clock
        for offer, selector, strategy in self.orders:
            if strategy is Strategy.WEIGHTED and offer == seat.account.offer and selector.matches(seat.account):
                self.weigh(selector, seat)

    def weigh(self, selector: Selector, seat: Seat) -> None:
        key = (selector, seat.account.id)
        if not seat.allowed:
            self.away.add(key)
        elif seat.open and (key in self.away or key not in self.passes):
            self.away.discard(key)
            self.passes[key] = max(self.passes.get(key, 0.0), self.latest.get((selector, seat.account.priority), 0.0))

    def remove(self, seat: Seat) -> None:
        if self.seats.get(seat.account.offer, {}).pop(seat.account.id, None) is None:
            return
        self.rows.pop(seat.account.id, None)
        for store in (self.turns, self.passes):
            for key in [key for key in store if key[1] == seat.account.id]:
                del store[key]
        self.away = {key for key in self.away if key[1] != seat.account.id}

    def price_rungs(self, prices: tuple[int, ...]) -> None:
        self.prices = prices
        for seats in self.seats.values():
            for seat in seats.values():
                self.place(seat)

    def best(
        self,
        offers: Collection[str],
        strategy: Strategy,
        selector: Selector,
        need: int,
        refuse: Callable[[Account], bool] | None,
        tried: Collection[str],
    ) -> Seat | None:
        for offer in offers:
            seats = self.seats.get(offer, {}).values()
            if (offer, selector, strategy) not in self.orders and any(seat.open for seat in seats):
                self.orders.add((offer, selector, strategy))
                if strategy is Strategy.WEIGHTED:
                    for seat in seats:
                        if selector.matches(seat.account):
                            self.weigh(selector, seat)
        fit = [
            seat
            for offer in offers
            for seat in self.seats.get(offer, {}).values()
            if selector.matches(seat.account)
            and (seat.spendable is None or seat.spendable >= need)
            and seat.account.id not in tried
            and not (refuse and refuse(seat.account))
            and (seat.allowed if strategy is Strategy.SINGLE else seat.open)
        ]
        if not fit:
            return None
        if strategy is Strategy.BALANCED:
            return self.balanced(fit)
        chosen = min(fit, key=lambda seat: (*self.rank(seat, strategy, selector), seat.number, seat.account.id))
        return chosen if chosen.open else None

    def row(self, seat: Seat) -> tuple[int, int, int]:
        return (-seat.account.priority, seat.used, self.rung(seat))

    def balanced(self, fit: list[Seat]) -> Seat:
        first = min(self.row(seat) for seat in fit)
        front = sorted((seat for seat in fit if self.row(seat) == first), key=lambda seat: self.since[seat.account.id])
        return max(front[:2], key=lambda seat: points(seat.account))

    def rank(self, seat: Seat, strategy: Strategy, selector: Selector) -> tuple[int, float]:
        key = (selector, seat.account.id)
        ranks = {
            Strategy.SPEND_FIRST: INF if seat.spendable == 0 else seat.renews_at,
            Strategy.ROUND_ROBIN: self.turns.get(key, 0),
            Strategy.WEIGHTED: self.passes.get(key, 0.0),
        }
        return -seat.account.priority, ranks.get(strategy, 0.0)

    def chosen(self, seat: Seat, strategy: Strategy, selector: Selector) -> None:
        key, tier = (selector, seat.account.id), (selector, seat.account.priority)
        if strategy is Strategy.ROUND_ROBIN:
            self.turns[key] = 1 + max((turn for (each, _), turn in self.turns.items() if each == selector), default=0)
        if strategy is Strategy.WEIGHTED:
            latest = self.latest.get(tier, 0.0)
            start = max(self.passes[key], latest - 1.0)
            self.latest[tier] = max(latest, start)
            self.passes[key] = start + 1 / (seat.account.weight * seat.cap)


SEATS = st.integers(0, 7)


class IndexMachine(RuleBasedStateMachine):
    """Eight seats in two offers under random changes; every choice is compared."""

    @initialize()
    def begin(self) -> None:
        self.index, self.model = SeatIndex(), Model()
        self.seats = []
        for number in range(8):
            made = account(f"acc_{number}", offer="mock" if number < 5 else "other", balance=Balance(points=number % 3))
            # Numbers run against the names, and two joined at the same moment: there the id decides.
            self.seats.append(Seat(made, (7 - number) // 2))
        self.placed: set[str] = set()

    def place(self, seat: Seat) -> None:
        self.placed.add(seat.account.id)
        self.index.place(seat)
        self.model.place(seat)

    @rule(at=SEATS, allowed=st.booleans(), held=st.integers(0, 3), ramp=st.sampled_from([None, 1, 2]))
    def change_slots(self, at: int, allowed: bool, held: int, ramp: int | None) -> None:
        seat = self.seats[at]
        seat.allowed, seat.held, seat.ramp = allowed, held, ramp
        self.place(seat)

    @rule(at=SEATS)
    def open_wide(self, at: int) -> None:
        self.change_slots(at, True, 3, None)

    @rule(at=SEATS, spendable=st.sampled_from([None, 0, 40, 99, 100, 150, 300]), renews_at=st.sampled_from([5, 9, INF]))
    def change_points(self, at: int, spendable: int | None, renews_at: float) -> None:
        self.seats[at].spendable, self.seats[at].renews_at = spendable, renews_at
        self.place(self.seats[at])

    @rule(
        at=SEATS,
        offer=st.sampled_from(["mock", "other"]),
        labels=st.sampled_from([(), ("red",)]),
        priority=st.sampled_from([0, 0, 5]),
        weight=st.sampled_from([1, 5, 20]),
    )
    def move_account(self, at: int, offer: str, labels: tuple[str, ...], priority: int, weight: int) -> None:
        seat = self.seats[at]
        self.index.remove(seat)
        self.model.remove(seat)
        seat.account = replace(seat.account, offer=offer, labels=labels, priority=priority, weight=weight)
        self.place(seat)

    @rule(at=SEATS, points=st.integers(0, 2))
    def change_account(self, at: int, points: int) -> None:
        seat = self.seats[at]
        seat.account = replace(seat.account, balance=Balance(points=points))
        if seat.account.id in self.placed:
            self.place(seat)

    @rule(at=SEATS)
    def remove(self, at: int) -> None:
        self.index.remove(self.seats[at])
        self.model.remove(self.seats[at])
        self.placed.discard(self.seats[at].account.id)

    @rule(at=SEATS)
    def give_back(self, at: int) -> None:
        seat = self.seats[at]
        seat.used = max(0, seat.used - 1)
        if seat.account.id in self.placed:
            self.place(seat)

    @rule(prices=st.sampled_from([(), (100,), (50, 100, 200), (1, 100, 150, 300)]))
    def learn_prices(self, prices: tuple[int, ...]) -> None:
        if prices != self.model.prices:
            self.index.price_rungs(prices)
            self.model.price_rungs(prices)

    @rule(
        offers=st.sampled_from([["mock"], ["other"], ["mock", "other"], ["other", "mock", "none"]]),
        strategy=st.sampled_from(Strategy),
        selector=st.sampled_from([EVERY, EVERY, RED, NOT_RED]),
        need=st.sampled_from([0, 40, 60, 100, 120]),
        refused=st.none() | st.sets(SEATS, max_size=3),
        tried=st.sets(SEATS, max_size=2),
        take=st.integers(0, 3),
        refusal=st.none() | st.integers(0, 2),
    )
    def choose(
        self,
        offers: list[str],
        strategy: Strategy,
        selector: Selector,
        need: int,
        refused: set[int] | None,
        tried: set[int],
        take: int,
        refusal: int | None,
    ) -> None:
        refuse = None if refused is None else (lambda candidate: int(candidate.id[4:]) in refused)
        if refusal is not None:
            refuse = lambda candidate: candidate.balance.points == refusal  # noqa: E731
        left_out = {f"acc_{number}" for number in tried}
        for _ in range(1 + take):
            options = {"strategy": strategy, "selector": selector, "need": need, "refuse": refuse, "tried": left_out}
            found = best(self.index, *offers, **options, refusal=refusal)
            wanted = self.model.best(offers, **options)
            if refusal is not None and strategy is Strategy.BALANCED and found is not None and wanted is not None:
                # Coming back from where the refused are kept, seats join their row anew.
                assert refuse is None or not refuse(found.account)
                assert found.account.id not in left_out
                assert self.model.row(found) == self.model.row(wanted)
            else:
                assert found is wanted
            if found is None or not take:
                return
            assert found.open
            self.index.chosen(found, strategy, selector)
            self.model.chosen(found, strategy, selector)
            found.used += 1
            self.place(found)

    @invariant()
    def books_are_right(self) -> None:
        for offer in ("mock", "other"):
            open_seats = sum(seat.open for seat in self.model.seats.get(offer, {}).values())
            assert self.index.open_count(offer) == open_seats
            assert self.index.is_open(offer) == (open_seats > 0)


IndexMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestIndexAgainstModel = IndexMachine.TestCase


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("seed", range(8))
def test_long_walks_agree_with_the_model(strategy: Strategy, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same changes as the machine's, many more of them, with most seats open and one strategy most of the time."""
    rng = random.Random(seed)
    monkeypatch.setattr("poe_gateway.pool.index._MANY", seed % 3)
    machine = IndexMachine()
    machine.begin()
    if seed % 2:
        machine.learn_prices((50, 100, 200))
    for at in rng.sample(range(8), 6):
        machine.open_wide(at)
    selector = rng.choice([EVERY, EVERY, NOT_RED])
    for _ in range(400):
        at = rng.randrange(8)
        match rng.randrange(20):
            case 0:
                machine.change_slots(at, rng.random() < 0.6, rng.randrange(4), rng.choice([None, 1, 2]))
            case 1:
                machine.open_wide(at)
            case 2 | 3:
                points = rng.choice([None, 0, 40, 99, 100, 150, 300])
                machine.change_points(at, points, rng.choice([5.0, 9.0, INF]))
            case 4:
                red, priority = rng.choice([(), (), ("red",)]), rng.choice([0, 0, 0, 5])
                machine.move_account(at, rng.choice(["mock", "other"]), red, priority, rng.choice([1, 2, 5]))
            case 5 if rng.random() < 0.3:
                machine.remove(at)
            case 6 if rng.random() < 0.3:
                machine.learn_prices(rng.choice([(), (100,), (50, 100, 200), (1, 100, 150, 300)]))
            case 7:
                machine.change_account(at, rng.randrange(3))
            case 8 | 9 | 10 | 11 | 12:
                machine.give_back(at)
            case _:
                machine.choose(
                    rng.choice([["mock"], ["mock"], ["other"], ["mock", "other"], ["other", "mock", "none"]]),
                    strategy if rng.random() < 0.9 else rng.choice(list(Strategy)),
                    selector if rng.random() < 0.8 else rng.choice([EVERY, RED, NOT_RED]),
                    rng.choice([0, 0, 0, 40, 60, 100, 120]),
                    set(rng.sample(range(8), 2)) if rng.random() < 0.2 else None,
                    set(rng.sample(range(8), 1)) if rng.random() < 0.2 else set(),
                    rng.choice([0, 1, 1, 2]),
                    rng.choice([None, None, 0, 1]),
                )
        machine.books_are_right()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_a_ranking_is_a_sorted_list(seed: int) -> None:
    rng = random.Random(seed)
    seat = Seat(account())
    entries: list[Entry] = []
    ranking = Ranking()
    # Grows over several blocks, then shrinks to nothing.
    for grow in (0.9, 0.1):
        for step in range(2000):
            if rng.random() < grow:
                # Sometimes in order, as turns come; sometimes anywhere.
                rank = step if seed % 2 else rng.randrange(50)
                entry = (-rng.randrange(2), float(rank), rng.randrange(5), f"{grow}_{step}", seat)
                insort(entries, entry)
                ranking.add(entry)
            elif entries:
                entry = entries.pop(0 if seed % 3 == 0 else rng.randrange(len(entries)))
                ranking.remove(entry)
            if step % 100 == 0:
                assert list(ranking) == entries
    while entries:
        ranking.remove(entries.pop())
    assert not ranking


def test_a_second_to_compare_with_is_not_sought_for_long() -> None:
    index = SeatIndex()
    seated(index, 1000)
    looks = 0

    def refuse(candidate: Account) -> bool:
        nonlocal looks
        looks += 1
        return candidate.id != "acc_0"

    assert best(index, refuse=refuse) is not None
    assert looks < 12


def test_an_order_in_use_is_not_the_one_that_is_dropped() -> None:
    index = SeatIndex()
    first, second = seated(index, 2, held=9)
    ours = {"selector": Selector(without=("ours",)), "strategy": Strategy.ROUND_ROBIN}
    assert best(index, **ours) is first
    index.chosen(first, ours["strategy"], ours["selector"])
    index.place(first)
    for number in range(100):
        assert best(index, selector=Selector(without=(f"label_{number}",))) is not None
        assert best(index, **ours) is second, "it would be the first again in an order made anew"


def test_however_many_are_refused_the_others_are_found_and_found_quickly() -> None:
    index = SeatIndex()
    seated(index, 6000)
    looks = 0

    def refuse(candidate: Account) -> bool:
        nonlocal looks
        looks += 1
        return int(candidate.id[4:]) < 5000

    found = best(index, refuse=refuse)
    assert found is not None
    looks = 0
    for _ in range(100):
        seat = best(index, refuse=refuse)
        assert seat is not None
        seat.used += 1
        index.place(seat)
    assert looks < 300


@pytest.mark.parametrize("strategy", list(Strategy))
def test_masses_refused_for_the_same_model_are_not_asked_again_before_they_change(strategy: Strategy) -> None:
    index = SeatIndex()
    seats = seated(index, 3000)
    looks = 0

    def refuse(candidate: Account) -> bool:
        nonlocal looks
        looks += 1
        return not candidate.details

    def serve() -> Seat | None:
        seat = best(index, strategy=strategy, refuse=refuse, refusal="dear-model")
        if seat is not None:
            index.chosen(seat, strategy, EVERY)
            seat.used += 1
            index.place(seat)
            seat.used -= 1
            index.place(seat)
        return seat

    def grant(seat: Seat) -> None:
        seat.account = replace(seat.account, details={"plan": "paid"})
        index.place(seat)

    grant(seats[-1])
    assert serve() is seats[-1]
    looks = 0
    for _ in range(20):
        assert serve() is seats[-1]
    assert looks <= 20 * 12
    # Other requests go on as ever, and do not bring the refused back.
    assert best(index, strategy=strategy, refusal="dear-model") is not seats[-1]
    for _ in range(50):
        other = best(index, strategy=strategy)
        assert other is not None
        other.used += 1
        index.place(other)
        other.used -= 1
        index.place(other)
    looks = 0
    assert [serve(), serve()] == [seats[-1]] * 2
    assert looks <= 24
    # An account that changed is asked again.
    grant(seats[1500])
    served = {seat.number for _ in range(4) if (seat := serve()) is not None}
    assert 1500 in served
    index.remove(seats[-1])
    index.remove(seats[0])
    assert serve() is seats[1500]


def test_a_few_that_are_refused_keep_their_turn_for_others() -> None:
    index = SeatIndex()
    seats = seated(index, 5)
    served = []
    for turn in range(20):
        # Two callers alternate; the first may not have the first account.
        seat = best(index, refuse=(lambda candidate: candidate.id == "acc_0") if turn % 2 == 0 else None)
        assert seat is not None
        served.append((turn % 2, seat.account.id))
        seat.used += 1
        index.place(seat)
        seat.used -= 1
        index.place(seat)
    assert (0, "acc_0") not in served
    assert (1, "acc_0") in served
    assert {name for _, name in served} == {seat.account.id for seat in seats}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_rung_full_of_poor_seats_is_given_up_and_those_that_surely_pay_serve(strategy: Strategy) -> None:
    index = SeatIndex()
    index.price_rungs([100, 200])
    asked = 0

    class Counted(Seat):
        __slots__ = ()

        @property
        def spendable(self) -> int:
            nonlocal asked
            asked += 1
            return 110

        @spendable.setter
        def spendable(self, value: int | None) -> None:
            pass

    for number in range(5000):
        poor = Counted(account(f"poor_{number}"), number)
        poor.allowed, poor.held = True, 1
        index.place(poor)
    rich = Seat(account("rich"), 9999)
    rich.allowed, rich.held, rich.spendable = True, 1, 250
    index.place(rich)
    assert best(index, strategy=strategy, need=150) is rich
    asked = 0
    assert best(index, strategy=strategy, need=150) is rich
    assert best(index, strategy=strategy, need=250) is rich
    assert asked <= 2 * 64, "no more than the bound for the one request whose need lies within the rung"
    assert best(index, strategy=strategy, need=251) is None


def test_the_end_of_the_row_comes_into_view_after_a_rung_was_given_up() -> None:
    index = SeatIndex()
    index.price_rungs([100, 200])
    for seat in seated(index, 300):
        seat.spendable = 190 if seat.number == 299 else 110
        index.place(seat)
    found = [best(index, need=150) for _ in range(5)]
    assert found[0] is None
    assert found[4] is not None
    assert found[4].number == 299


def test_only_so_many_orders_by_selector_are_kept_and_those_of_all_accounts_stay() -> None:
    index = SeatIndex()
    (seat,) = seated(index, 1)
    for number in range(40):
        assert best(index, selector=Selector(without=(f"label_{number}",))) is seat
        assert best(index, selector=Selector(without=("label_0",)), strategy=Strategy.FILL_FIRST) is seat
        for strategy in Strategy:
            assert best(index, strategy=strategy) is seat
    assert len(seat.orders) == 32 + len(Strategy)
    # Dropped ones are made again when they are asked for, and are in line.
    seat.used = seat.held
    index.place(seat)
    assert all(best(index, selector=Selector(without=(f"label_{number}",))) is None for number in range(40))


@pytest.mark.parametrize("prices", [(1, 2, 3, 4, 5), (2, 1), (1, 1)])
def test_prices_that_make_no_rungs_are_refused(prices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending prices"):
        SeatIndex().price_rungs(prices)


def test_placing_without_a_change_keeps_the_place_in_the_row() -> None:
    index = SeatIndex()
    seats = seated(index, 3)
    index.place(seats[0])
    assert best(index, score=lambda _: 0.0) is seats[0]


def test_an_order_made_late_knows_who_has_waited_longest() -> None:
    index = SeatIndex()
    seats = seated(index, 3)
    for allowed in (False, True):
        seats[0].allowed = allowed
        index.place(seats[0])
    assert best(index, score=lambda _: 0.0) is seats[1]


def test_what_was_compared_is_told() -> None:
    index = SeatIndex()
    poor, rich = seated(index, 2)
    rich.account = replace(rich.account, balance=Balance(points=2000))
    seen: list[tuple[Seat, float]] = []
    assert best(index, seen=seen) is rich
    assert seen == [(poor, 1000.0), (rich, 2000.0)]
    for strategy in Strategy:
        told: list[tuple[Seat, float]] = []
        chosen = best(index, strategy=strategy, tried={"acc_0"}, seen=told)
        assert told == [(chosen, 2000.0)]


def test_a_seat_that_was_removed_is_gone_from_every_order_and_may_come_back() -> None:
    index = SeatIndex()
    (seat,) = seated(index, 1)
    for strategy in Strategy:
        assert best(index, strategy=strategy) is seat
    index.remove(seat)
    index.remove(seat)
    assert not index.is_open("mock")
    assert all(best(index, strategy=strategy) is None for strategy in Strategy)
    index.place(seat)
    assert all(best(index, strategy=strategy) is seat for strategy in Strategy)
