"""One bucket: never more than the cap, nothing leaks, whatever is sent twice, lost or left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poe_gateway.limits.bucket import (
    LAPSE,
    TICKS,
    Bucket,
    Move,
    charge,
    close,
    comes_free,
    free,
    lapsed,
    move,
    reserved_of,
    spent_of,
    standing,
)
from poe_gateway.limits.keys import BucketKey, key_of, rate_key
from poe_gateway.metering.store import Charge

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = rate_key("rate|key|k|requests|minute", "minute", None)
BUDGET = BucketKey(id="budget|key|k|USD|total|total", kind="budget", budget="total")
PARALLEL = BucketKey(id="parallel|key|k", kind="parallel")
EMPTY = Bucket(id="b")
NOW_TICK = int(NOON.timestamp())


def test_nobody_borrows_more_than_is_free_and_a_refusal_leaves_a_mark() -> None:
    bucket, granted = move(MINUTE, EMPTY, Move(process="a", number=1, least=1, most=7), 10, NOON)
    assert granted == 7
    bucket, granted = move(MINUTE, bucket, Move(process="b", number=1, least=4, most=4, want=True), 10, NOON)
    assert granted == 0
    assert bucket.wanted == {"b": NOON}
    bucket, granted = move(MINUTE, bucket, Move(process="a", number=2, back=5), 10, NOON)
    bucket, granted = move(MINUTE, bucket, Move(process="b", number=2, least=4, most=9, want=True), 10, NOON)
    assert granted == 8
    assert bucket.wanted == {}


def test_no_more_than_a_share_of_what_is_free_is_taken_ahead() -> None:
    _, granted = move(MINUTE, EMPTY, Move(process="a", number=1, least=1, most=100, share=8), 80, NOON)
    assert granted == 10
    _, granted = move(MINUTE, EMPTY, Move(process="a", number=1, least=20, most=100, share=8), 80, NOON)
    assert granted == 20


def test_a_move_that_is_sent_twice_is_done_once_and_answered_alike() -> None:
    wish = Move(process="a", number=1, least=1, most=5)
    once, granted = move(BUDGET, EMPTY, wish, 10, NOON)
    assert move(BUDGET, once, wish, 10, NOON) == (once, granted)


def test_what_was_spent_is_free_again_when_its_tick_has_left_the_window() -> None:
    bucket, _ = move(MINUTE, EMPTY, Move(process="a", number=1, least=3, most=3), 3, NOON)
    bucket, _ = move(MINUTE, bucket, Move(process="a", number=2, spent={NOW_TICK: 2, NOW_TICK + 10: 1}), 3, NOON)
    assert comes_free(MINUTE, bucket, 1, 3, NOON) == TICKS
    assert comes_free(MINUTE, bucket, 3, 3, NOON) == TICKS + 10
    assert comes_free(MINUTE, bucket, 4, 3, NOON) is None
    for seconds, remaining in ((0, 0), (59.9, 0), (60, 2), (69.9, 2), (70, 3)):
        now = NOON + timedelta(seconds=seconds)
        assert standing(MINUTE, bucket, 3, now).remaining == remaining, seconds


@pytest.mark.parametrize(("key", "spent", "seconds"), [(MINUTE, 4, 90), (PARALLEL, 0, 60.001)])
def test_what_a_process_left_behind_lapses(key: BucketKey, spent: int, seconds: float) -> None:
    """A rate's counts as used as late as its holder could have used it."""
    bucket, _ = move(key, EMPTY, Move(process="a", number=1, least=4, most=4), 10, NOON)
    assert free(key, lapsed(key, bucket, NOON + LAPSE), 10) == 6
    assert free(key, lapsed(key, bucket, NOON + timedelta(seconds=seconds - 0.001)), 10) == 6
    assert free(key, lapsed(key, bucket, NOON + timedelta(seconds=seconds)), 10) == 10
    assert spent_of(key, close(key, bucket, "a", NOON)) == spent


def test_a_budget_is_lent_for_as_long_as_it_takes() -> None:
    bucket, _ = move(BUDGET, EMPTY, Move(process="a", number=1, least=4, most=4), 10, NOON)
    assert free(BUDGET, lapsed(BUDGET, bucket, NOON + timedelta(days=300)), 10) == 6
    assert comes_free(BUDGET, bucket, 7, 10, NOON) is None


def test_rows_are_counted_once_and_corrections_leave_the_lien_alone() -> None:
    bucket, _ = move(BUDGET, EMPTY, Move(process="a", number=1, least=10, most=10), 10, NOON)
    rows = [Charge(3, 4, True), Charge(5, 2, True)]
    bucket = charge(bucket, "a", rows)
    assert charge(bucket, "a", rows) is bucket
    bucket = charge(bucket, "a", [*rows, Charge(9, -1, False)])
    assert (bucket.spent, bucket.liens["a"].amount) == (5, 4)
    bucket = close(BUDGET, bucket, "a", NOON)
    assert (bucket.spent, reserved_of(bucket), bucket.holders) == (5, 0, set())


def test_keys_are_read_back_from_ids() -> None:
    for key in (MINUTE, BUDGET, PARALLEL, rate_key("rate|org|o|tokens|day", "day", None)):
        assert key_of(key.id) == key


class Budget(RuleBasedStateMachine):
    """Processes that borrow, spend, die and are drained, over one document that may be asked twice."""

    CAP = 100

    def __init__(self) -> None:
        super().__init__()
        self.bucket = Bucket(id=BUDGET.id)
        self.held: dict[str, int] = {}
        self.rows: dict[str, list[Charge]] = {}
        self.numbers: dict[str, int] = {}
        self.count = 0
        self.sum = 0
        self.over = 0
        """What attempts cost beyond all that their process had borrowed."""

    def _move(self, process: str, **wish: int) -> int:
        self.numbers[process] += 1
        debt = max(0, -self.held[process])
        self.held[process] += debt
        step = Move(process=process, number=self.numbers[process], debt=debt, **wish)
        self.bucket, granted = move(BUDGET, self.bucket, step, self.CAP, NOON)
        again, same = move(BUDGET, self.bucket, step, self.CAP, NOON)
        assert (again, same) == (self.bucket, granted)
        return granted

    @rule()
    def begin(self) -> None:
        self.count += 1
        name = f"p{self.count}"
        self.held[name], self.rows[name], self.numbers[name] = 0, [], 0

    @precondition(lambda self: self.held)
    @rule(data=st.data(), least=st.integers(1, 60), more=st.integers(0, 60), share=st.integers(1, 8))
    def borrow(self, data: st.DataObject, least: int, more: int, share: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        debt = max(0, -self.held[name])
        before = free(BUDGET, self.bucket, self.CAP)
        granted = self._move(name, least=least, most=least + more, share=share)
        assert granted == 0 or least <= granted <= before
        assert granted or before < least + debt
        self.held[name] += granted
        if granted:
            borrowed = sum(max(0, held) for held in self.held.values())
            assert self.bucket.spent + borrowed <= self.CAP, "a debt of one let another borrow"

    @precondition(lambda self: any(held > 0 for held in self.held.values()))
    @rule(data=st.data(), extra=st.sampled_from([0, 0, 0, 1, 20, 200]))
    def spend(self, data: st.DataObject, extra: int) -> None:
        name = data.draw(st.sampled_from(sorted(each for each, held in self.held.items() if held > 0)))
        amount = data.draw(st.integers(1, self.held[name])) + extra
        self.held[name] -= amount
        self.over += max(0, -self.held[name])
        self.sum += amount
        self.rows[name].append(Charge(len(self.rows[name]) + 1, amount, True))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        amount = data.draw(st.integers(0, max(0, self.held[name])))
        self._move(name, back=amount)
        self.held[name] -= amount

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def ship(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        start = data.draw(st.integers(0, len(self.rows[name])))
        part = self.rows[name][: max(start, self.bucket.applied.get(name, 0))]
        self.bucket = charge(self.bucket, name, part)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill_and_drain(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.bucket = charge(self.bucket, name, self.rows.pop(name))
        self.bucket = close(BUDGET, self.bucket, name, NOON)
        self.bucket = close(BUDGET, self.bucket, name, NOON)
        del self.held[name]

    @invariant()
    def within_the_cap(self) -> None:
        assert self.bucket.spent + reserved_of(self.bucket) <= self.CAP + self.over
        assert self.sum <= self.CAP + self.over

    @invariant()
    def liens_are_what_is_held_or_not_yet_charged(self) -> None:
        for name, held in self.held.items():
            uncharged = sum(row.amount for row in self.rows[name] if row.seq > self.bucket.applied.get(name, 0))
            lien = self.bucket.liens.get(name)
            assert (lien.amount if lien is not None else 0) == held + uncharged

    def teardown(self) -> None:
        for name in list(self.held):
            self.bucket = close(BUDGET, charge(self.bucket, name, self.rows[name]), name, NOON)
        assert self.bucket.spent == self.sum
        assert not self.bucket.holders


Budget.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestBudget = Budget.TestCase
