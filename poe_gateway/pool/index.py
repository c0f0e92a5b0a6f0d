"""The seats of the pool: choosing costs the same at ten accounts and at a hundred thousand.

Everything here is synchronous and in memory. A seat is *open* when its account may serve and this process holds a
usable slot of it that is not in use. Seats lie on shelves by offer; a shelf keeps an order of its seats for every
strategy and selector that was asked for, and ``place`` brings them all in line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any
from weakref import WeakValueDictionary

from poe_gateway.pool.account import Account
from poe_gateway.pool.orders import RUNGS, Narrowed, Wish, choose_from_ranks, choose_from_rows, new_order
from poe_gateway.pool.policy import Strategy
from poe_gateway.pool.ranks import Ranks, ranks_of
from poe_gateway.pool.seat import Order, Seat
from poe_gateway.pool.selector import EVERY, Selector

__all__ = ["Seat", "SeatIndex"]

_turn = attrgetter("turn")
_PRICES = RUNGS - 2
_SELECTED_ORDERS = 32
_SELECTED_SHARE = 4
_SELECTED_MOST = 1024
"""Orders that an offer keeps beside those of all its accounts. Selectors belong to service keys, and each order costs
memory and time by account; making one is a look at all accounts. So the one that was not used for longest goes when
there are more than so many and they hold more than so many times the accounts together, or when there are too many."""
_MANY = 64
"""Refused in one choice, this many are worth an order of their own."""

_Key = tuple[Selector, Strategy, Hashable]
"""Of an order: the last is what seats were refused for, None for an order with all of them."""


class _Shelf:
    """The seats of one offer."""

    __slots__ = ("every", "open", "seats", "selected", "sizes")

    def __init__(self) -> None:
        self.seats: dict[str, Seat] = {}
        self.open = 0
        self.every: dict[Strategy, Order] = {}
        self.selected: OrderedDict[_Key, Order] = OrderedDict()
        self.sizes: dict[_Key, int] = {}
        """Seats of each when it was made."""

    def find(self, key: _Key) -> Order | None:
        """The order, if it was asked for before."""
        if key[2] is None and key[0] == EVERY:
            return self.every.get(key[1])
        found = self.selected.get(key)
        if found is not None:
            self.selected.move_to_end(key)
        return found

    def add(self, key: _Key, order: Order) -> None:
        """Put every seat that the selector lets through into a new order."""
        selector, strategy, refusal = key
        if refusal is None and selector == EVERY:
            self.every[strategy] = order
        else:
            self.selected[key] = order
            self._make_room(sum([selector.matches(seat.account) for seat in self.seats.values()]), key)
        shared: dict[tuple[Order, ...], tuple[Order, ...]] = {}  # seats in the same orders hold the same tuple
        for seat in sorted(self.seats.values(), key=_turn):
            if selector.matches(seat.account):
                seat.orders = shared.setdefault(seat.orders, (*seat.orders, order))
                order.place(seat, -1, seat.row)

    def _make_room(self, size: int, key: _Key) -> None:
        sizes = self.sizes
        sizes[key] = size
        while len(self.selected) > _SELECTED_ORDERS:
            if len(sizes) <= _SELECTED_MOST and sum(sizes.values()) <= _SELECTED_SHARE * len(self.seats):
                break
            old, order = self.selected.popitem(last=False)
            del sizes[old]
            self._forget(order)

    def _forget(self, order: Order) -> None:
        for seat in self.seats.values():
            if order in seat.orders:
                seat.orders = tuple(each for each in seat.orders if each is not order)

    def orders_for(self, account: Account) -> tuple[Order, ...]:
        """The orders in which the account's seat stands."""
        chosen = [order for key, order in self.selected.items() if key[0].matches(account)]
        return (*self.every.values(), *chosen)


class SeatIndex:
    """Seats by offer, in the orders of all strategies in use."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._prices: tuple[int, ...] = ()
        self._turn = 0
        self._ranks: WeakValueDictionary[tuple[Selector, Strategy], Ranks] = WeakValueDictionary()

    def place(self, seat: Seat) -> None:
        """Bring all orders in line with the seat's fields, after any change of them. Cheap when nothing moved."""
        offer = seat.offer
        if offer is None:
            offer = self._join(seat)
        old, row = seat.row, -1
        if seat.allowed:
            spendable, ramp, used = seat.spendable, seat.ramp, seat.used
            seat.rung = rung = 0 if spendable is None else 1 + bisect_right(self._prices, spendable)
            if used < seat.held and (ramp is None or used < ramp):
                row = used * RUNGS + rung
        if row != old:
            seat.row = row
            self._turn = seat.turn = self._turn + 1
            if old < 0 or row < 0:
                self._shelves[offer].open += 1 if old < 0 else -1
        for order in seat.orders:
            order.place(seat, old, row)

    def _join(self, seat: Seat) -> str:
        account = seat.account
        shelf = self._shelves.get(account.offer)
        if shelf is None:
            shelf = self._shelves[account.offer] = _Shelf()
        shelf.seats[seat.id] = seat
        seat.offer, seat.priority, seat.orders = account.offer, account.priority, shelf.orders_for(account)
        return account.offer

    def remove(self, seat: Seat) -> None:
        """Take the seat out: before its account's offer, provider, labels or priority change, and for good."""
        if seat.offer is None:
            return
        shelf = self._shelves[seat.offer]
        old, seat.row = seat.row, -1
        shelf.open -= old >= 0
        for order in seat.orders:
            order.drop(seat, old)
        del shelf.seats[seat.id]
        seat.offer, seat.orders = None, ()

    def is_open(self, offer: str) -> bool:
        """Whether any seat of the offer is open."""
        return self.open_count(offer) > 0

    def open_count(self, offer: str) -> int:
        """How many seats of the offer are open."""
        shelf = self._shelves.get(offer)
        return 0 if shelf is None else shelf.open

    def price_rungs(self, prices: Sequence[int]) -> None:
        """The prices that matter, ascending, four at most. Every seat is placed anew when they changed."""
        wanted = tuple(prices)
        if wanted == self._prices:
            return
        if len(wanted) > _PRICES or any(low >= high for low, high in pairwise(wanted)):
            raise ValueError(f"at most {_PRICES} ascending prices: {wanted}")
        self._prices = wanted
        for shelf in self._shelves.values():
            for seat in shelf.seats.values():
                self.place(seat)

    def best(
        self,
        offers: Iterable[str],
        *,
        strategy: Strategy,
        selector: Selector,
        need: int,
        refuse: Callable[[Account], bool] | None,
        tried: Collection[str],
        score: Callable[[Account], float],
        seen: list[tuple[Seat, float]] | None = None,
        refusal: Hashable = None,
    ) -> Seat | None:
        """The open seat to use, or None. Takes nothing; see ``chosen``.

        Seats that cannot pay ``need`` points, whose account is in ``tried`` or refused by ``refuse`` are passed over.
        ``seen`` is filled with the seats that were compared last and their scores. ``refusal`` names what ``refuse``
        judges by beside the account's value (the model, say): accounts that it refused in masses are not asked again
        for the same name before they change.
        """
        orders: list[Any] = []  # all of the strategy's kind
        for offer in offers:
            shelf = self._shelves.get(offer)
            # A single seat is waited for though another offer has an open one.
            if shelf is None or not (shelf.open or strategy is Strategy.SINGLE):
                continue
            if refuse is not None and refusal is not None:
                narrowed = shelf.find((selector, strategy, refusal))
                if isinstance(narrowed, Narrowed):
                    orders.append(narrowed.order)
                    continue
            order = shelf.every.get(strategy) if selector is EVERY else shelf.find((selector, strategy, None))
            if order is None:
                order = self._new_order(selector, strategy)
                shelf.add((selector, strategy, None), order)
            orders.append(order)
        if not orders:
            return None
        rung = 1 + bisect_right(self._prices, need)
        wish = Wish(need, rung, refuse, tried, score, seen, [])
        chosen = (choose_from_rows if strategy is Strategy.BALANCED else choose_from_ranks)(orders, wish)
        if wish.refused and refusal is not None:
            self._narrow(wish.refused, (selector, strategy, refusal))
        return chosen

    def _new_order(self, selector: Selector, strategy: Strategy) -> Order:
        ranks = self._ranks.get((selector, strategy))
        if ranks is None:
            ranks = self._ranks[selector, strategy] = ranks_of(strategy)
        return new_order(strategy, ranks)

    def _narrow(self, refused: list[Seat], key: _Key) -> None:
        """Leave the refused out of what the next choice with the same refusal looks at, when they are many."""
        for offer in {seat.offer: None for seat in refused if seat.offer is not None}:
            shelf = self._shelves[offer]
            order = shelf.find(key)
            if order is None and len(refused) > _MANY:
                order = Narrowed(self._new_order(key[0], key[1]))
                shelf.add(key, order)
            if order is not None:
                for seat in refused:
                    if seat.offer == offer:
                        order.set_aside(seat)

    def chosen(self, seat: Seat, strategy: Strategy, selector: Selector) -> None:
        """The seat that ``best`` returned is taken: turns advance. Before its fields change and it is placed."""
        if strategy is not Strategy.BALANCED:
            ranks = self._ranks.get((selector, strategy))
            if ranks is not None:
                ranks.chosen(seat)
