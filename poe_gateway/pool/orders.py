"""The orders in which seats are taken: rows for the balanced strategy, ranks for all the others.

An order belongs to one offer, one selector and one strategy. In all of them seats of a higher priority come first.
No choice walks all the seats: those that cannot pay stand on other rungs than those that can, and where the need lies
within a rung no more than ``_LOOKS`` of it are asked. So a seat that could pay may be missed on such a rung.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import reduce
from heapq import merge
from itertools import groupby
from operator import attrgetter, or_

import msgspec

from poe_gateway.pool.account import Account
from poe_gateway.pool.policy import Strategy
from poe_gateway.pool.ranking import Entry, Ranking
from poe_gateway.pool.ranks import Ranks
from poe_gateway.pool.seat import Order, Seat

RUNGS = 6
"""Rungs of a level: unknown points, then 0 to 4 prices that can be paid."""
_LOOKS = 64
"""Seats of one row or rung that are found too poor before it is given up."""
_STEPS = 8
"""Seats that a choice passes over in a row without moving them. More than that go to the end of the row, so that the
next choice does not meet them; a few keep their turn for the requests that may have them."""

_turn = attrgetter("turn")
_rank = attrgetter("rank")


class Wish(msgspec.Struct, gc=False):
    """What a choice has to respect."""

    need: int
    """Points that the request may cost."""
    rung: int
    """The lowest rung with seats that can pay; all seats of the higher ones can, and those of rung 0 always."""
    refuse: Callable[[Account], bool] | None
    tried: Collection[str]
    score: Callable[[Account], float]
    seen: list[tuple[Seat, float]] | None
    refused: list[Seat]
    """Filled with those that ``refuse`` refused."""


class _Tier:
    """The rows of one priority. Bit n of ``bits`` is set when row n has somebody in it: empty rows cost nothing."""

    __slots__ = ("bits", "rank", "rows")

    def __init__(self, priority: int) -> None:
        self.rank = -priority
        self.bits = 0
        self.rows: dict[int, OrderedDict[str, Seat]] = {}


class Rows:
    """Balanced: lowest load, then lowest rung, then turns.

    A row is an OrderedDict because removal from the middle and from the front are both constant in time (a plain
    dict's front is not).
    """

    __slots__ = ("open", "tiers")

    def __init__(self) -> None:
        self.tiers: dict[int, _Tier] = {}
        self.open: list[_Tier] = []
        """Those with somebody in them, highest priority first."""

    def place(self, seat: Seat, old: int, new: int) -> None:
        """Put the seat at the end of its row when that is another one than before."""
        if new == old:
            return
        tier = self.tiers.get(seat.priority)
        if tier is None:
            tier = self.tiers[seat.priority] = _Tier(seat.priority)
        rows = tier.rows
        bits = tier.bits
        if old >= 0:
            row = rows[old]
            del row[seat.id]
            if not row:
                bits ^= 1 << old
        if new >= 0:
            row = rows[new] if new in rows else rows.setdefault(new, OrderedDict())
            if not row:
                bits ^= 1 << new
            row[seat.id] = seat
        if bits != tier.bits:
            if not tier.bits:
                insort(self.open, tier, key=_rank)
            elif not bits:
                self.open.remove(tier)
            tier.bits = bits

    def send_back(self, seats: Iterable[Seat]) -> None:
        """Those of the seats that stand here go to the end of their rows."""
        for seat in seats:
            tier = self.tiers.get(seat.priority)
            row = tier.rows.get(seat.row) if tier is not None else None
            if row is not None and seat.id in row:
                row.move_to_end(seat.id)

    def set_aside(self, seat: Seat) -> None:
        """Take the seat out of its row."""
        self.place(seat, seat.row, -1)

    def drop(self, seat: Seat, old: int) -> None:
        """Take the seat out for good."""
        self.place(seat, old, -1)


def choose_from_rows(orders: Sequence[Rows], wish: Wish) -> Seat | None:
    """The better of the first two that suit, in the best row with one that does."""
    rung = wish.rung
    if len(orders) == 1:
        for tier in orders[0].open:
            bits = tier.bits
            while bits:
                number = (bits & -bits).bit_length() - 1
                if not 0 < number % RUNGS < rung:
                    chosen = _from_row(tier.rows[number].values(), wish, orders)
                    if chosen is not None:
                        return chosen
                bits &= bits - 1
        return None
    tiers = merge(*(order.open for order in orders), key=_rank)
    for _, group in groupby(tiers, key=_rank):
        equal = list(group)
        bits = reduce(or_, (tier.bits for tier in equal))
        while bits:
            number = (bits & -bits).bit_length() - 1
            if not 0 < number % RUNGS < rung:
                rows = [tier.rows[number].values() for tier in equal if tier.bits >> number & 1]
                chosen = _from_row(merge(*rows, key=_turn), wish, orders)
                if chosen is not None:
                    return chosen
            bits &= bits - 1
    return None


def _from_row(seats: Iterable[Seat], wish: Wish, orders: Sequence[Rows]) -> Seat | None:
    """The better of the first two that suit. Those passed over before go to the end when they are many."""
    need, refuse, tried = wish.need, wish.refuse, wish.tried
    first: Seat | None = None
    second: Seat | None = None
    passed: list[Seat] = []
    poor = further = 0
    for seat in seats:
        if seat.spendable is not None and seat.spendable < need:
            passed.append(seat)
            poor += 1
            if poor == _LOOKS:
                break
        elif tried and seat.id in tried:
            pass
        elif refuse is not None and refuse(seat.account):
            passed.append(seat)
            wish.refused.append(seat)
        elif first is None:
            first = seat
            continue
        else:
            second = seat
            break
        if first is not None:
            further += 1
            if further == _STEPS:
                break
    if len(passed) > _STEPS:
        for order in orders:
            order.send_back(passed)
    return first if first is None else _better(first, second, wish)


def _better(first: Seat, second: Seat | None, wish: Wish) -> Seat:
    seen = wish.seen
    score = wish.score(first.account)
    if seen is not None:
        seen.append((first, score))
    if second is None:
        return first
    other = wish.score(second.account)
    if seen is not None:
        seen.append((second, other))
    return second if other > score else first


class Ranked:
    """By rank, then the order of joining the pool. ``busy``: seats that may serve stay in it when they are full."""

    __slots__ = ("_busy", "_entries", "ranks", "rungs")

    def __init__(self, ranks: Ranks, *, busy: bool = False) -> None:
        self.ranks = ranks
        self.rungs = [Ranking() for _ in range(RUNGS)]
        self._busy = busy
        self._entries: dict[str, tuple[int, Entry]] = {}

    def place(self, seat: Seat, old: int, new: int) -> None:
        """Put the seat where its rank and rung belong, or take it out."""
        if new < 0 and not (self._busy and seat.allowed):
            self.ranks.rests(seat)
            self.set_aside(seat)
            return
        rank = self.ranks.of(seat)
        present = self._entries.get(seat.id)
        if present is not None:
            if present[0] == seat.rung and present[1][1] == rank:
                return
            self.rungs[present[0]].remove(present[1])
        entry = (-seat.priority, rank, seat.number, seat.id, seat)
        self.rungs[seat.rung].add(entry)
        self._entries[seat.id] = (seat.rung, entry)

    def set_aside(self, seat: Seat) -> None:
        """Take the seat out; its turn is kept."""
        present = self._entries.pop(seat.id, None)
        if present is not None:
            self.rungs[present[0]].remove(present[1])

    def drop(self, seat: Seat, old: int) -> None:
        """Take the seat out for good."""
        self.set_aside(seat)
        self.ranks.forget(seat)


def choose_from_ranks(orders: Sequence[Ranked], wish: Wish) -> Seat | None:
    """The first that suits, of all rungs that may pay; None while it is full (those are kept under ``single`` only)."""
    need, refuse, tried = wish.need, wish.refuse, wish.tried
    best: Entry | None = None
    for order in orders:
        for rung, ranking in enumerate(order.rungs):
            if not ranking or 0 < rung < wish.rung:
                continue
            poor = 0
            for entry in ranking:
                if best is not None and best < entry:
                    break
                seat = entry[4]
                if seat.spendable is not None and seat.spendable < need:
                    poor += 1
                    if poor == _LOOKS:
                        break
                elif tried and seat.id in tried:
                    continue
                elif refuse is not None and refuse(seat.account):
                    wish.refused.append(seat)
                else:
                    best = entry
                    if wish.seen is not None:
                        wish.seen.append((seat, wish.score(seat.account)))
                    break
    return best[4] if best is not None and best[4].row >= 0 else None


class Narrowed:
    """An order without the accounts that were refused for one and the same reason, until they change.

    Where most accounts may not serve some model, a choice does not ask each of them every time.
    """

    __slots__ = ("_refused", "order")

    def __init__(self, order: Order) -> None:
        self.order = order
        self._refused: dict[str, Account] = {}

    def place(self, seat: Seat, old: int, new: int) -> None:
        """As the order does; a seat that was set aside comes back when its account is another value."""
        refused = self._refused.get(seat.id)
        if refused is None:
            self.order.place(seat, old, new)
        elif refused is not seat.account:
            del self._refused[seat.id]
            self.order.place(seat, -1, new)

    def set_aside(self, seat: Seat) -> None:
        """The account was refused. Only for a seat that the order offered."""
        self._refused[seat.id] = seat.account
        self.order.set_aside(seat)

    def drop(self, seat: Seat, old: int) -> None:
        """Take the seat out for good."""
        aside = self._refused.pop(seat.id, None) is not None
        self.order.drop(seat, -1 if aside else old)


def new_order(strategy: Strategy, ranks: Ranks) -> Rows | Ranked:
    """An empty order."""
    return Rows() if strategy is Strategy.BALANCED else Ranked(ranks, busy=strategy is Strategy.SINGLE)
