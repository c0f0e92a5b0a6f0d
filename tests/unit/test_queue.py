"""The fair line: whose turn it is, against counts that a reader can do by hand and against a naive model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poe_gateway.pool.fairness import TURN
from poe_gateway.pool.queue import Lane, Ticket, WaitingLine
from poe_gateway.pool.selector import Selector

X = frozenset({"x"})
Y = frozenset({"y"})
GPT = Lane(X, "gpt")
CLAUDE = Lane(X, "claude")
ELSEWHERE = Lane(Y, "gpt")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Line:
    """A line with one slot for all: ``serve`` gives turns and says to whom."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = 10_000) -> None:
        self.line: WaitingLine[Ticket] = WaitingLine(limit)
        self.loop = loop
        self.clock = 0.0

    def ticket(self, caller: str, lane: Lane = GPT, *, priority: int = 0, weight: int = 1) -> Ticket:
        self.clock += 1
        return Ticket(lane, caller, self.clock, self.clock + 30, self.loop, priority=priority, weight=weight)

    def join(
        self, caller: str, count: int = 1, lane: Lane = GPT, *, priority: int = 0, weight: int = 1
    ) -> list[Ticket]:
        tickets = [self.ticket(caller, lane, priority=priority, weight=weight) for _ in range(count)]
        for ticket in tickets:
            self.line.join(ticket)
        return tickets

    def next(self, only: Lane | None = None) -> Ticket:
        """Whose turn it is, in the whole line or in one lane."""
        return next(self.line.tickets(only or self.line.lanes()[0]))

    def serve(self, turns: int | None = None, only: Lane | None = None) -> list[Ticket]:
        """Give turns until nobody waits, or so many; from one lane where only its slots come free."""
        served = []
        while (only in self.line.lanes() if only else len(self.line)) and (turns is None or len(served) < turns):
            ticket = self.next(only)
            self.line.served(ticket)
            served.append(ticket)
        return served

    def callers(self, turns: int | None = None, only: Lane | None = None) -> str:
        return "".join(ticket.caller for ticket in self.serve(turns, only))


@pytest.fixture
def line(loop: asyncio.AbstractEventLoop) -> Line:
    return Line(loop)


# Between callers.


def test_two_keys_alternate_whatever_they_bring(line: Line) -> None:
    line.join("a", 100)
    line.join("b", 2)
    assert line.callers(6) == "abab" + "aa"


def test_turns_follow_weights(line: Line) -> None:
    line.join("a", 100, weight=3)
    line.join("b", 100)
    served = line.callers(80)
    assert Counter(served) == {"a": 60, "b": 20}
    assert all(Counter(served[at : at + 4]) == {"a": 3, "b": 1} for at in range(0, 80, 4))


def test_a_key_gains_nothing_by_waiting_in_many_lanes(line: Line) -> None:
    for number in range(10):
        line.join("a", 1, Lane(X, f"model-{number}"))
    line.join("a", 10, Lane(X, "gpt", account="acc_1"))
    line.join("b", 10)
    assert line.callers(20) == "ab" * 10


def test_one_key_is_served_in_the_order_of_joining_over_all_its_lanes(line: Line) -> None:
    tickets = [
        *line.join("a", 2, GPT),
        *line.join("a", 2, CLAUDE),
        *line.join("a", 1, Lane(X, "gpt", account="acc_1")),
        *line.join("a", 1, GPT),
    ]
    assert line.serve() == tickets


def test_who_comes_back_has_saved_nothing_and_owes_nothing(line: Line) -> None:
    line.join("b")
    line.serve()
    line.join("a", 100)
    assert line.callers(50) == "a" * 50
    line.join("b", 10)
    assert Counter(line.callers(20)) == {"a": 10, "b": 10}


def test_leaving_and_coming_back_wins_no_turn(line: Line) -> None:
    """A caller that had its turn and comes again at once is no better off than one that waits all the time."""
    line.join("a")
    line.join("b", 20)
    served = ""
    for _ in range(12):
        served += line.callers(1)
        if served[-1] == "a":
            line.join("a")
    assert served == "abbababababa"


def test_a_newcomer_does_not_wait_for_the_past_of_others(line: Line) -> None:
    """Slots of x are rare and those of y plenty. In x, a newcomer is level with those who wait there."""
    line.join("s", 100, GPT)
    line.join("f", 1000, ELSEWHERE)
    line.serve(1000, only=ELSEWHERE)
    line.join("n", 10, GPT)
    assert Counter(line.callers(20, only=GPT)) == {"s": 10, "n": 10}


def test_a_key_that_was_busy_elsewhere_is_one_turn_behind_at_most(line: Line) -> None:
    line.join("s", 100, GPT)
    line.join("f", 1000, ELSEWHERE)
    line.serve(only=ELSEWHERE)
    line.join("f", 10, GPT)
    assert Counter(line.callers(21, only=GPT)) == {"s": 11, "f": 10}


def test_a_lane_over_two_offers_is_no_shortcut_past_those_of_the_quicker_one(line: Line) -> None:
    line.join("s", 100, GPT)
    line.join("f", 1000, ELSEWHERE)
    line.serve(500, only=ELSEWHERE)
    line.join("c", 10, Lane(X | Y, "gpt"))
    both = next(lane for lane in line.line.lanes() if len(lane.offers) == 2)
    turns = ""
    for _ in range(10):
        lane = next(lane for lane in line.line.lanes() if lane in (ELSEWHERE, both))
        turns += line.callers(1, only=lane)
    assert Counter(turns) == {"f": 5, "c": 5}


def test_the_newest_weight_is_in_force(line: Line) -> None:
    line.join("a", 50)
    line.join("b", 50)
    line.callers(10)
    line.join("a", 1, weight=3)
    assert Counter(line.callers(40)) == {"a": 30, "b": 10}


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_is_positive(line: Line, weight: int) -> None:
    with pytest.raises(ValueError, match="weight"):
        line.join("a", weight=weight)
    assert (len(line.line), line.line.lanes(), line.line.by_caller()) == (0, [], {})


# Between priorities.

EVERY_EIGHTH = "hhhhhhhl"


@pytest.mark.parametrize(
    ("joining", "order"),
    [
        ({"l": (2, 0), "h": (3, 5)}, "hhhll"),
        ({"l": (3, 0), "h": (16, 5)}, EVERY_EIGHTH * 2 + "hhl"),
        ({"l": (2, -1), "h": (9, 0)}, EVERY_EIGHTH + "hhl"),
        ({"l": (1, 0), "m": (10, 1), "h": (70, 2)}, "hhhhhhhm" * 7 + "hhhhhhhl" + "hhhhhhhm" * 2 + "m"),
    ],
    ids=["higher first", "every eighth turn is for the lower", "negative priorities", "the same rule among the lower"],
)
def test_priorities(line: Line, joining: dict[str, tuple[int, int]], order: str) -> None:
    for caller, (count, priority) in joining.items():
        line.join(caller, count, priority=priority)
    tickets = list(line.line.tickets(GPT))
    assert "".join(ticket.caller for ticket in tickets) == order
    assert line.serve() == tickets


def test_a_stream_of_single_high_requests_does_not_starve_a_low_one(line: Line) -> None:
    """There is never more than one of them in line, so the count must outlive each of them."""
    line.join("l")
    served = ""
    while "l" not in served:
        line.join("h", priority=1)
        served += line.callers(1)
        assert len(served) <= 8
    assert served == EVERY_EIGHTH


def test_lower_turns_of_one_offer_are_not_taken_by_another(line: Line) -> None:
    """x and y serve in alternation: if turns were counted together, every eighth would fall to y."""
    for lane in (GPT, ELSEWHERE):
        line.join("l", 10, lane)
        line.join("h", 100, lane, priority=1)
    turns = ["", ""]
    for _ in range(32):
        turns[0] += line.callers(1, only=GPT)
        turns[1] += line.callers(1, only=ELSEWHERE)
    assert turns == [EVERY_EIGHTH * 4] * 2


def test_a_low_request_of_one_model_gets_its_turn_past_high_ones_of_another(line: Line) -> None:
    line.join("l", 1, CLAUDE)
    line.join("h", 20, GPT, priority=1)
    assert line.callers(9) == EVERY_EIGHTH + "h"


def test_a_low_turn_that_cannot_be_used_keeps_until_it_can(line: Line) -> None:
    own = Lane(X, "gpt", account="acc_1")
    line.join("l", 1, own)
    line.join("h", 40, GPT, priority=1)
    assert line.callers(20, only=GPT) == "h" * 20
    assert line.line.lanes() == [own, GPT]
    assert line.callers(2) == "lh"


def test_a_low_request_for_two_offers_is_passed_in_neither(line: Line) -> None:
    """Only slots of x come free. That it waits for y, too, where higher ones wait, must not hold it back."""
    line.join("l", 1, Lane(X | Y, "gpt"))
    line.join("h", 20, GPT, priority=1)
    line.join("h", 20, ELSEWHERE, priority=1)
    assert "".join(line.callers(1, only=line.line.lanes_of("acc_1", "x")[0]) for _ in range(9)) == EVERY_EIGHTH + "h"


def test_callers_of_one_priority_share_its_turns(line: Line) -> None:
    line.join("a", 20, priority=1, weight=2)
    line.join("b", 20, priority=1)
    line.join("l", 20)
    turns = Counter(line.callers(24))
    assert turns == {"a": 14, "b": 7, "l": 3}


# Comings and goings.


def test_leaving_in_the_middle(line: Line) -> None:
    a = line.join("a", 4)
    b = line.join("b", 2)
    line.line.leave(a[1])
    line.line.leave(a[1])
    line.line.leave(b[0])
    assert line.serve() == [a[0], b[1], a[2], a[3]]


def test_unknown_tickets_are_ignored(line: Line) -> None:
    waiting = line.join("a", 2)
    strangers = [line.ticket("a"), line.ticket("b"), line.ticket("a", CLAUDE), line.ticket("a", priority=3)]
    for stranger in strangers:
        line.line.leave(stranger)
        line.line.served(stranger)
        assert line.line.ahead_of(stranger) == 0
    line.join("b")
    assert (len(line.line), line.callers()) == (3, "aba")
    assert waiting[0] not in list(line.line.tickets(GPT))


def test_tickets_may_leave_while_they_are_looked_at(line: Line) -> None:
    joined = [*line.join("a", 3), *line.join("b", 2)]
    seen = []
    for ticket in line.line.tickets(GPT):
        seen.append(ticket)
        line.line.leave(ticket)
    assert set(seen) == set(joined) and len(seen) == 5
    assert (len(line.line), line.line.lanes(), list(line.line.tickets(GPT))) == (0, [], [])


def test_census(line: Line) -> None:
    assert (line.line.oldest(), line.line.by_caller()) == (None, {})
    early = line.ticket("b")
    line.join("a", 2)
    line.join("a", 1, ELSEWHERE, priority=2)
    line.line.join(early)
    assert line.line.oldest() == early.since
    assert line.line.by_caller() == {"a": 3, "b": 1}
    line.line.served(early)
    assert line.line.by_caller() == {"a": 3}


def test_the_line_is_full_at_its_limit(loop: asyncio.AbstractEventLoop) -> None:
    line = Line(loop, limit=2)
    line.join("a")
    assert not line.line.full
    line.join("b")
    assert line.line.full
    line.serve(1)
    assert not line.line.full


def test_lanes_are_told_apart_by_all_that_is_asked_for() -> None:
    assert Lane(X, "gpt") == Lane(frozenset("x"), "gpt", None, Selector())
    others = [
        Lane(Y, "gpt"),
        Lane(X, "claude"),
        Lane(X, "gpt", "acc_1"),
        Lane(X, "gpt", selector=Selector(labels=("a",))),
    ]
    assert len({Lane(X, "gpt"), *others}) == 5


def test_nothing_is_kept_of_those_who_came_and_went(line: Line) -> None:
    """Behind a request that nobody can serve, thousands come and go."""
    own = Lane(X, "gpt", account="acc_1")
    line.join("patient", 1, own)
    for number in range(3000):
        tickets = line.join(f"caller-{number}", 2)
        line.line.leave(tickets[0])
        line.serve(1, only=GPT)
    among = line.line._classes[0]
    assert sum(len(turns._heap) for turns in among._turns.values()) <= 200
    assert line.line.lanes() == [own]
    line.serve()
    for number in range(3000):  # the virtual time goes on, and the past is forgotten
        line.join(f"other-{number}")
        line.join("steady", 2)
        line.serve()
    assert len(among.flows) <= 200
    assert (among._turns, line.line._by_account, line.line._leaks) == ({}, {}, {})


# Places.


def test_a_newcomers_place(line: Line) -> None:
    line.join("a", 10)
    line.join("b", 3, CLAUDE)
    line.join("e", 5, ELSEWHERE)
    line.join("h", 2, priority=1)
    expected = {("a", 0): 15, ("b", 0): 9, ("c", 0): 4, ("h", 1): 2, ("c", 1): 1, ("h", 0): 4, ("c", 2): 0}
    for (caller, priority), ahead in expected.items():
        assert line.line.ahead_of_newcomer(caller, priority, 1, X) == ahead, (caller, priority)
        (ticket,) = line.join(caller, priority=priority)
        assert line.line.ahead_of(ticket) == ahead, (caller, priority)
        line.line.leave(ticket)
    assert line.line.ahead_of_newcomer("e", 0, 1, Y) == 5


def test_other_offers_are_not_ahead(line: Line) -> None:
    line.join("a", 5, ELSEWHERE)
    (one,) = line.join("a", 1, GPT)
    (two,) = line.join("b", 1, Lane(X | Y, "gpt"))
    assert line.line.ahead_of(one) <= 1
    assert 0 < line.line.ahead_of(two) <= 6


# Against a naive model.

LANES = (GPT, CLAUDE, Lane(X, "gpt", account="acc_1"), Lane(X, "gpt", account="acc_2"))
WEIGHTS = {"a": 1, "b": 3, "c": 1, "d": 7}
PRIORITY = {"a": 0, "b": 0, "c": 0, "d": 0, "p": 1, "q": 1, "z": -2}
callers = st.sampled_from([*PRIORITY, "a", "b"])


class LineMachine(RuleBasedStateMachine):
    """Any order of comings, goings and turns. The model is the list of those who wait, in the order of joining."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = Line(self.loop)
        self.line = self.bench.line
        self.waiting: list[Ticket] = []
        self.shares: dict[tuple[str, str], Counter[str]] = {}
        """Turns of two callers of one priority since both wait."""

    def teardown(self) -> None:
        self.loop.close()

    @rule(caller=callers, lane=st.sampled_from(LANES), count=st.integers(1, 12))
    def join(self, caller: str, lane: Lane, count: int) -> None:
        ahead = self.line.ahead_of_newcomer(caller, PRIORITY[caller], WEIGHTS.get(caller, 1), X)
        joined = self.bench.join(caller, count, lane, priority=PRIORITY[caller], weight=WEIGHTS.get(caller, 1))
        self.waiting += joined
        assert self.line.ahead_of(joined[0]) == ahead
        self._watch()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 999))
    def leave(self, which: int) -> None:
        """Somebody goes away."""
        self.line.leave(self.waiting.pop(which % len(self.waiting)))
        self._watch()

    @precondition(lambda self: self.waiting)
    @rule(turns=st.integers(1, 20))
    def serve(self, turns: int) -> None:
        for _ in range(min(turns, len(self.waiting))):
            self._turn()

    @precondition(lambda self: self.waiting)
    @rule()
    def serve_everybody(self) -> None:
        """Each stands exactly where it was told."""
        told = [self.line.ahead_of(ticket) for ticket in self.waiting]
        assert sorted(told) == list(range(len(told)))
        expected = [ticket for _, ticket in sorted(zip(told, self.waiting, strict=True), key=lambda pair: pair[0])]
        assert [self._turn() for _ in expected] == expected

    def _turn(self) -> Ticket:
        lanes = self.line.lanes()
        ticket = next(self.line.tickets(lanes[0]))
        assert ticket.lane == lanes[0]
        mine = [each for each in self.waiting if (each.caller, each.priority) == (ticket.caller, ticket.priority)]
        assert ticket is mine[0], "not the caller's first"
        for shares in self.shares.values():
            shares[ticket.caller] += 1
        self.line.served(ticket)
        self.waiting.remove(ticket)
        self._watch()
        return ticket

    def _watch(self) -> None:
        present = {ticket.caller for ticket in self.waiting}
        for pair in [pair for pair in self.shares if not present.issuperset(pair)]:
            del self.shares[pair]
        for one in present:
            for two in present:
                if one < two and PRIORITY[one] == PRIORITY[two]:
                    self.shares.setdefault((one, two), Counter())

    @invariant()
    def turns_follow_weights(self) -> None:
        """Over any time in which both wait, normalised turns differ by no more than one turn of each."""
        for (one, two), turns in self.shares.items():
            costs = TURN // WEIGHTS.get(one, 1), TURN // WEIGHTS.get(two, 1)
            assert abs(turns[one] * costs[0] - turns[two] * costs[1]) <= sum(costs), (one, two, turns)

    @invariant()
    def everybody_is_there_once(self) -> None:
        assert len(self.line) == len(self.waiting)
        lanes = self.line.lanes()
        assert sorted(map(hash, lanes)) == sorted(map(hash, {ticket.lane for ticket in self.waiting}))
        for lane in lanes:
            tickets = list(self.line.tickets(lane))
            assert set(tickets) == {ticket for ticket in self.waiting if ticket.lane == lane}
            assert len(tickets) == len(set(tickets))
        assert self.line.by_caller() == Counter(ticket.caller for ticket in self.waiting)
        assert self.line.oldest() == min((ticket.since for ticket in self.waiting), default=None)

    @invariant()
    def the_first_lane_has_the_next_turn(self) -> None:
        lanes = self.line.lanes()
        assert [self.line.ahead_of(next(self.line.tickets(lane))) for lane in lanes[:1]] in ([], [0])
        for account in ("acc_1", "acc_2"):
            assert self.line.lanes_of(account, "x") == [lane for lane in lanes if lane.account in (None, account)]
        assert self.line.lanes_of("acc_1", "y") == []


LineMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
TestLine = LineMachine.TestCase
