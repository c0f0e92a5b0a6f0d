"""Choosing a seat: least loaded first, the better of two, in turns; flat in the number of accounts."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.pool.account import Account
from poe_gateway.pool.index import Seat, SeatIndex
from tests.unit.builders import account


def seats(index: SeatIndex, count: int, held: int = 2) -> list[Seat]:
    made = []
    for number in range(count):
        seat = Seat(account(f"acc_{number}"))
        seat.allowed, seat.held = True, held
        index.place(seat)
        made.append(seat)
    return made


def points(candidate: Account) -> float:
    return float(candidate.balance.points or 0)


def take(index: SeatIndex, **options: object) -> Seat | None:
    seat = index.best(["mock"], options.get("refuse"), options.get("tried", ()), options.get("score", points))  # type: ignore[arg-type]
    if seat is not None:
        seat.used += 1
        index.place(seat)
    return seat


def test_equal_accounts_take_turns() -> None:
    index = SeatIndex()
    seats(index, 5)
    chosen = Counter()
    for _ in range(50):
        seat = take(index)
        assert seat is not None
        chosen[seat.account.id] += 1
        seat.used -= 1
        index.place(seat)
    assert set(chosen.values()) == {10}


def test_the_least_loaded_serves_and_nobody_goes_beyond_what_is_held() -> None:
    index = SeatIndex()
    seats(index, 3)
    first = [take(index) for _ in range(3)]
    assert len({seat.account.id for seat in first if seat}) == 3
    for _ in range(3):
        assert take(index) is not None
    assert take(index) is None


def test_the_richer_of_two_is_preferred() -> None:
    index = SeatIndex()
    poor, rich = seats(index, 2)
    assert take(index, score=lambda a: 1.0 if a.id == rich.account.id else 0.0) is rich
    assert take(index, score=lambda a: 1.0 if a.id == rich.account.id else 0.0) is poor


def test_tried_and_refused_accounts_are_passed_over() -> None:
    index = SeatIndex()
    a, b, c = seats(index, 3)
    assert take(index, tried={a.account.id}, refuse=lambda account: account.id == b.account.id) is c
    assert take(index, tried={a.account.id, b.account.id, c.account.id}) is None
    assert index.is_open("mock")
    assert index.best(["other"], None, (), points) is None


def test_however_many_are_refused_the_others_are_found_and_found_quickly() -> None:
    index = SeatIndex()
    seats(index, 6000)
    looks = 0

    def refuse(candidate: Account) -> bool:
        nonlocal looks
        looks += 1
        return int(candidate.id[4:]) < 5000

    assert take(index, refuse=refuse) is not None
    looks = 0
    for _ in range(100):
        assert take(index, refuse=refuse) is not None
    assert looks < 300


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["use", "free", "ban", "allow", "grant", "lower"])), max_size=200
    )
)
def test_rows_hold_exactly_the_open_seats(moves: list[tuple[int, str]]) -> None:
    index = SeatIndex()
    made = seats(index, 10)
    for place, move in moves:
        seat = made[place]
        if move == "use" and seat.allowed and seat.used < seat.held:
            seat.used += 1
        elif move == "free" and seat.used:
            seat.used -= 1
        elif move in ("ban", "allow"):
            seat.allowed = move == "allow"
        elif move == "grant":
            seat.held += 1
        elif move == "lower":
            seat.held = max(0, seat.held - 1)
        index.place(seat)
    open_seats = {seat.account.id: seat for seat in made if seat.allowed and seat.used < seat.held}
    best = index.best(["mock"], None, (), points)
    assert (best is not None) == bool(open_seats)
    if best is not None:
        assert best.account.id in open_seats
        assert best.used == min(seat.used for seat in open_seats.values())
