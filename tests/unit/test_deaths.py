"""Who is dead and who only seems to be, as a table."""

from __future__ import annotations

import pytest

from poe_gateway.pool.deaths import Judgement, Nowhere, Registration, Residence, Standing, judged, strangers

HERE = "here"


class Seen:
    """This place, and which of its processes exist."""

    def __init__(self, *alive: int) -> None:
        self.alive = alive

    def here(self) -> Residence:
        return Residence(place=HERE, pid=1, started=0)

    def lives(self, residence: Residence) -> bool | None:
        return residence.pid in self.alive if residence.place == HERE else None


def process(
    pid: int, place: str | None = HERE, state: str = "live", *, lapsed: bool = False, overdue: bool = False
) -> Registration:
    home = None if place is None else Residence(place=place, pid=pid, started=0)
    return Registration(
        instance=f"p{pid}", standing=Standing(state), residence=home, lapsed=lapsed or overdue, overdue=overdue
    )


@pytest.mark.parametrize(
    ("registrations", "verdict"),
    [
        ([process(1)], Judgement()),
        ([process(9)], Judgement(gone=("p9",))),
        ([process(9, state="frozen", lapsed=True)], Judgement(gone=("p9",))),
        ([process(9, overdue=True)], Judgement(gone=("p9",))),
        ([process(2, lapsed=True)], Judgement(frozen=("p2",))),
        ([process(2, state="frozen", lapsed=True)], Judgement()),
        ([process(2, state="frozen", overdue=True)], Judgement(overdue=("p2",))),
        ([process(2, overdue=True)], Judgement(overdue=("p2",))),
        # In another place, where nobody lives who could look, and where somebody does.
        ([process(9, "there")], Judgement()),
        ([process(9, "there", lapsed=True)], Judgement(lapsed=("p9",))),
        ([process(9, "there", lapsed=True), process(8, "there")], Judgement()),
        ([process(9, "there", lapsed=True), process(8, "there", lapsed=True)], Judgement(lapsed=("p9", "p8"))),
        ([process(9, "there", lapsed=True), process(8, "there", "frozen", lapsed=True)], Judgement(lapsed=("p9",))),
        ([process(9, "there", overdue=True), process(8, "there")], Judgement(overdue=("p9",))),
        ([process(9, "there", "frozen", lapsed=True)], Judgement()),
        # Where it lives is not known.
        ([process(9, None)], Judgement()),
        ([process(9, None, lapsed=True), process(8, None)], Judgement(lapsed=("p9",))),
        ([process(9, state="dead")], Judgement()),
    ],
)
def test_verdicts(registrations: list[Registration], verdict: Judgement) -> None:
    assert judged(registrations, Seen(1, 2)) == verdict


def test_without_sight_every_process_is_a_stranger() -> None:
    assert judged([process(1), process(2, lapsed=True)], Nowhere()) == Judgement(lapsed=()), (
        "its neighbour lives, and judges"
    )
    assert judged([process(2, lapsed=True)], Nowhere()) == Judgement(lapsed=("p2",))
    assert strangers(Nowhere().here(), [HERE, None]) == 2
    assert strangers(Seen().here(), [HERE, None, "there"]) == 2


def test_after_an_outage_only_what_is_proven_counts() -> None:
    seen = [process(9), process(2, lapsed=True), process(1, overdue=True), process(7, "there", lapsed=True)]
    assert judged(seen, Seen(1, 2), only_proven=True) == Judgement(gone=("p9",))
