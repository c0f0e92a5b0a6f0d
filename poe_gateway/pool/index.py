"""The seats of the pool, ordered by load: choosing costs the same at ten accounts and at a hundred thousand.

Everything here is synchronous and in memory. A seat is *open* when its account may serve and this process holds a
slot of it that is not in use. Open seats of one offer stand in one row per load level; a row is an OrderedDict
because removal from the middle and popping the front are both constant in time (a plain dict's front is not).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from itertools import chain, groupby

from poe_gateway.pool.account import Account


class Seat:
    """One account in this process: what is held, what is used. ``level`` is its row, -1 when not open."""

    __slots__ = ("account", "allowed", "held", "idle_since", "level", "used")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.allowed = False
        self.held = 0
        self.used = 0
        self.level = -1
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<Seat {self.account.id} {self.account.health.state} used={self.used} held={self.held}>"


class SeatIndex:
    """Rows of open seats by offer and load."""

    def __init__(self) -> None:
        self._offers: dict[str, list[OrderedDict[str, Seat]]] = {}

    def place(self, seat: Seat) -> None:
        """Put the seat into the row where it belongs now, or take it out. Constant time."""
        level = seat.used if seat.allowed and seat.used < seat.held else -1
        if level == seat.level:
            return
        self.remove(seat)
        if level >= 0:
            rows = self._offers.setdefault(seat.account.offer, [])
            while len(rows) <= level:
                rows.append(OrderedDict())
            rows[level][seat.account.id] = seat
            seat.level = level

    def remove(self, seat: Seat) -> None:
        if seat.level >= 0:
            del self._offers[seat.account.offer][seat.level][seat.account.id]
            seat.level = -1

    def is_open(self, offer: str) -> bool:
        """Whether any seat of the offer is open."""
        return any(self._offers.get(offer, ()))

    def best(
        self,
        offers: Iterable[str],
        refuse: Callable[[Account], bool] | None,
        tried: Collection[str],
        score: Callable[[Account], float],
    ) -> Seat | None:
        """The seat to use: least loaded first, then the better of the two that have waited longest in that row.

        Rows are queues: a chosen seat comes back at the end, so equal accounts take turns and none becomes the
        hot spot. Accounts in ``tried`` or refused by ``refuse`` are passed over; those refused go to the end of their
        row, so that the next choice does not meet them again at once.
        """
        rows = [(level, row) for offer in offers for level, row in enumerate(self._offers.get(offer, ())) if row]
        if len(rows) > 1:
            rows.sort(key=_level)
        refused: list[Seat] = []
        chosen: Seat | None = None
        for _, group in groupby(rows, key=_level):
            for seat in chain.from_iterable(row.values() for _, row in group):
                if seat.account.id in tried:
                    continue
                if refuse is not None and refuse(seat.account):
                    refused.append(seat)
                    continue
                if chosen is not None:
                    chosen = max(chosen, seat, key=lambda each: score(each.account))
                    break
                chosen = seat
            if chosen is not None:
                break
        for seat in refused:
            self._offers[seat.account.offer][seat.level].move_to_end(seat.account.id)
        return chosen


def _level(entry: tuple[int, OrderedDict[str, Seat]]) -> int:
    return entry[0]
