"""By what each strategy ranks its seats, lowest first. Priority goes before the rank, the order of joining after it.

Ranks belong to one selector and one strategy over all offers: turns go on whichever offer serves.
"""

from __future__ import annotations

from poe_gateway.pool.policy import Strategy
from poe_gateway.pool.seat import NEVER, Seat

_ROUND = 1.0
"""How far a pass may lag behind the latest: weight times slots, in turns of the seat."""


class Ranks:
    """All equal: the order of joining decides."""

    __slots__ = ("__weakref__",)

    def of(self, seat: Seat) -> float:
        """The rank of a seat that may be chosen from now on."""
        return 0.0

    def rests(self, seat: Seat) -> None:
        """The seat may not be chosen for now."""

    def chosen(self, seat: Seat) -> None:
        """The seat was taken. It is placed anew after that."""

    def forget(self, seat: Seat) -> None:
        """The seat is gone."""


class Renewals(Ranks):
    """Soonest renewal first; a seat with nothing to lose counts as one without renewal."""

    __slots__ = ()

    def of(self, seat: Seat) -> float:
        return NEVER if seat.spendable == 0 else seat.renews_at


class Turns(Ranks):
    """The one chosen longest ago. A seat that is not open for a while keeps its turn."""

    __slots__ = ("_count", "_turns")

    def __init__(self) -> None:
        self._count = 0
        self._turns: dict[str, int] = {}

    def of(self, seat: Seat) -> float:
        return self._turns.get(seat.id, 0)

    def chosen(self, seat: Seat) -> None:
        self._count += 1
        self._turns[seat.id] = self._count

    def forget(self, seat: Seat) -> None:
        self._turns.pop(seat.id, None)


class Strides(Ranks):
    """Stride scheduling: lowest pass first; being chosen costs 1 / (weight * slots).

    Newcomers and seats back from a rest start where the last choice was made, so nobody catches up on what was not
    its to serve. A seat that was merely busy, or passed over, keeps its pass, but lags by one round at most.
    """

    __slots__ = ("_away", "_latest", "_passes")

    def __init__(self) -> None:
        self._passes: dict[str, float] = {}
        self._away: set[str] = set()
        self._latest: dict[int, float] = {}
        """Priority -> the highest pass at which a seat was chosen."""

    def of(self, seat: Seat) -> float:
        known = self._passes.get(seat.id)
        if known is None or seat.id in self._away:
            self._away.discard(seat.id)
            start = self._latest.get(seat.priority, 0.0)
            known = self._passes[seat.id] = start if known is None else max(known, start)
        return known

    def rests(self, seat: Seat) -> None:
        if not seat.allowed:
            self._away.add(seat.id)

    def chosen(self, seat: Seat) -> None:
        latest = self._latest.get(seat.priority, 0.0)
        start = max(self.of(seat), latest - _ROUND)
        self._latest[seat.priority] = max(latest, start)
        self._passes[seat.id] = start + 1.0 / (max(1, seat.account.weight) * max(1, seat.cap))

    def forget(self, seat: Seat) -> None:
        self._passes.pop(seat.id, None)
        self._away.discard(seat.id)


_KINDS: dict[Strategy, type[Ranks]] = {
    Strategy.SPEND_FIRST: Renewals,
    Strategy.ROUND_ROBIN: Turns,
    Strategy.WEIGHTED: Strides,
}


def ranks_of(strategy: Strategy) -> Ranks:
    """Fresh ranks, nobody chosen yet."""
    return _KINDS.get(strategy, Ranks)()
