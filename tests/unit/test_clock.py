"""The database's calendar on the machine's monotonic clock."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.clock import ServerClock
from tests.unit.builders import NOON, StepClock

HOUR = timedelta(hours=1)


def test_before_the_first_answer_it_is_the_machines_calendar() -> None:
    clock = ServerClock(StepClock())
    assert (clock.now(), clock.error, clock.skew) == (NOON, None, 0.0)


@given(
    skew=st.floats(-3600, 3600),
    ways=st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 30)), min_size=1, max_size=8),
)
def test_it_is_never_off_by_more_than_it_says(skew: float, ways: list[tuple[float, float, float]]) -> None:
    """``ways``: seconds to the database, back, and until the next question."""
    machine = StepClock(NOON + timedelta(seconds=skew))
    clock = ServerClock(machine)
    best = float("inf")
    for there, back, pause in ways:
        sent = machine.monotonic()
        machine.step(there)
        told = NOON + timedelta(seconds=machine.monotonic() - 1000)
        machine.step(back)
        clock.sync(told.replace(microsecond=told.microsecond // 1000 * 1000), sent, machine.monotonic())
        best = min(best, (there + back) / 2)
        for _ in range(2):
            true = NOON + timedelta(seconds=machine.monotonic() - 1000)
            assert clock.error is not None
            assert abs((clock.now() - true).total_seconds()) <= clock.error + 1e-5
            assert abs(clock.skew - skew) <= clock.error + 1e-5
            machine.step(pause)
        assert clock.error <= best + 0.001 + 0.001 * len(ways) * 40, "the best way counts, and ages slowly"


def test_setting_the_machines_calendar_does_not_move_it() -> None:
    machine = StepClock()
    clock = ServerClock(machine)
    clock.sync(NOON, machine.monotonic(), machine.monotonic())
    before = clock.now()
    machine.current += HOUR
    assert clock.now() == before
    machine.step(5)
    assert clock.now() - before == timedelta(seconds=5)


def test_a_slow_answer_does_not_spoil_what_a_quick_one_told() -> None:
    machine = StepClock()
    clock = ServerClock(machine)
    clock.sync(NOON, machine.monotonic(), machine.monotonic())
    quick = clock.now()
    clock.sync(NOON, machine.monotonic() - 2.0, machine.monotonic())
    assert clock.now() == quick


def test_it_follows_when_the_databases_own_clock_is_set() -> None:
    machine = StepClock()
    clock = ServerClock(machine)
    clock.sync(NOON, machine.monotonic(), machine.monotonic())
    clock.sync(NOON - HOUR, machine.monotonic() - 1.0, machine.monotonic())
    assert abs(clock.now() - (NOON - HOUR)) < timedelta(seconds=1.1)
