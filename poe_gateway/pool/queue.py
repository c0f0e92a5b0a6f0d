"""The line of waiting requests: fair between callers, first come first served for each, bounded.

A *lane* holds those who wait for the same thing (offers and model, or one particular account). Turns are counted over
the whole line, so that a caller gains nothing by waiting in many lanes; ``fairness`` holds the rules. Synchronous;
futures are resolved by the broker.

Costs: joining, leaving and being served O(log callers), however many requests one caller has; all lanes in order
O(lanes log lanes); the head of a lane O(log callers) at most; a place in the line O(callers + own requests).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from poe_gateway.pool.fairness import Flow, Leak, Offers, PriorityClass, before_all, cost_of, in_turns, waiting_for
from poe_gateway.pool.selector import EVERY, Selector

W = TypeVar("W", bound="Ticket")


class Lane(msgspec.Struct, frozen=True):
    """What a request waits for: any account of the offers that the selector admits, or one ``account`` by id."""

    offers: Offers
    model: str
    account: str | None = None
    selector: Selector = EVERY


class Ticket:
    """One waiting request.

    ``caller`` is the service key it belongs to, ``weight`` (at least 1) its share of the turns; higher priorities go
    first. ``since`` and ``deadline`` are seconds on the monotonic clock.
    """

    __slots__ = ("caller", "deadline", "granted", "lane", "priority", "since", "weight")

    def __init__(
        self,
        lane: Lane,
        caller: str,
        since: float,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        *,
        priority: int = 0,
        weight: int = 1,
    ) -> None:
        self.lane = lane
        self.caller = caller
        self.since = since
        self.deadline = deadline
        self.granted: asyncio.Future[object] = loop.create_future()
        self.priority = priority
        self.weight = weight


class Place(msgspec.Struct, frozen=True):
    """Where a request stands. ``position`` counts from 1; ``expected`` seconds until it starts, None = not known."""

    position: int
    expected: float | None = None


class WaitingLine(Generic[W]):
    """All lanes. ``len`` is the number of waiting requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lanes: dict[Lane, dict[Flow, OrderedDict[W, int]]] = {}
        """Each flow's tickets in the order of joining, with the number that they got then."""
        self._by_account: dict[str | None, dict[Lane, None]] = {}
        self._classes: dict[int, PriorityClass] = {}
        self._leaks: dict[str, Leak] = {}
        """By offer."""
        self._callers: Counter[str] = Counter()
        self._size = 0
        self._joined = 0

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        return self._size >= self.limit

    def join(self, ticket: W) -> None:
        """Stand at the end of the caller's own requests. The newest weight is in force for all of them."""
        lane, priority = ticket.lane, ticket.priority
        cost = cost_of(ticket.weight)
        among = self._classes.get(priority)
        if among is None:
            among = self._classes[priority] = PriorityClass(priority)
        self._joined += 1
        flow = among.enter(ticket.caller, cost, lane, lane.offers, self._joined)
        self._lanes.setdefault(lane, {}).setdefault(flow, OrderedDict())[ticket] = self._joined
        self._by_account.setdefault(lane.account, {})[lane] = None
        for offer in lane.offers:
            self._leaks.setdefault(offer, Leak()).join(priority)
        self._callers[ticket.caller] += 1
        self._size += 1

    def leave(self, ticket: W) -> None:
        """Go away (out of time, disconnected). Unknown tickets are ignored."""
        flow = self._flow(ticket)
        if flow is not None:
            self._remove(ticket, flow)

    def served(self, ticket: W) -> None:
        """The ticket got its turn: it leaves, and its caller is charged. Unknown tickets are ignored."""
        flow = self._flow(ticket)
        if flow is None:
            return
        self._classes[ticket.priority].charge(flow)
        for offer in ticket.lane.offers:
            self._leaks[offer].turn(ticket.priority)
        self._remove(ticket, flow)

    def _flow(self, ticket: W) -> Flow | None:
        """To which a waiting ticket belongs."""
        among = self._classes.get(ticket.priority)
        flow = among.flows.get(ticket.caller) if among is not None else None
        if flow is None or ticket not in self._lanes.get(ticket.lane, {}).get(flow, ()):
            return None
        return flow

    def _remove(self, ticket: W, flow: Flow) -> None:
        lane, priority = ticket.lane, ticket.priority
        flows = self._lanes[lane]
        del flows[flow][ticket]
        if not flows[flow]:
            del flows[flow]
            if not flows:
                del self._lanes[lane]
                del self._by_account[lane.account][lane]
                if not self._by_account[lane.account]:
                    del self._by_account[lane.account]
        self._classes[priority].leave(flow, lane, lane.offers)
        for offer in lane.offers:
            leak = self._leaks[offer]
            leak.leave(priority)
            if not leak.waiting:
                del self._leaks[offer]
        self._size -= 1
        self._callers[ticket.caller] -= 1
        if not self._callers[ticket.caller]:
            del self._callers[ticket.caller]

    # Whose turn it is.

    def lanes(self) -> list[Lane]:
        """Lanes with somebody in them, the one with the next turn first.

        The rest is in the order of their heads as things stand now; a turn changes that, so ask again after it.
        """
        return self._in_order(list(self._lanes))

    def lanes_of(self, account: str, offer: str) -> list[Lane]:
        """The same for the lanes that one account of an offer may serve (selectors are not looked at)."""
        own = self._by_account.get(account, ())
        every = self._by_account.get(None, ())
        return self._in_order([lane for lanes in (own, every) for lane in lanes if offer in lane.offers])

    def _in_order(self, lanes: list[Lane]) -> list[Lane]:
        if len(lanes) < 2:
            return lanes
        orders = {offer: leak.order() for offer, leak in self._leaks.items()}
        return sorted(lanes, key=lambda lane: self._next_turn(lane, orders))

    def _next_turn(self, lane: Lane, orders: dict[str, list[int]]) -> tuple[int, int, int, int, int]:
        """What lanes are ordered by: priorities, then the caller's tag, then the order of joining."""
        rank, flow = self._head(lane, orders)
        return rank, -flow.priority, flow.tag, flow.order, next(iter(self._lanes[lane][flow].values()))

    def _head(self, lane: Lane, orders: dict[str, list[int]]) -> tuple[int, Flow]:
        """Whose turn it is in a lane, and how near its priority is to its turn."""
        rank, _, flow = min(
            (_rank(lane.offers, priority, orders), -priority, flow)
            for priority, among in self._classes.items()
            if (flow := among.best(lane)) is not None
        )
        return rank, flow

    def tickets(self, lane: Lane) -> Iterator[W]:
        """Everybody in the lane, in the order of turns as it is now. Tickets may leave meanwhile."""
        flows = self._lanes.get(lane)
        if flows is None:
            return
        _, flow = self._head(lane, {offer: self._leaks[offer].order() for offer in lane.offers})
        first = next(iter(flows[flow]))
        yield first
        for ticket in in_turns(self._queues(lane), self._passed(lane.offers)):
            if ticket is not first:
                yield ticket

    def _queues(self, lane: Lane) -> dict[int, list[W]]:
        """The lane's tickets by priority, in the order of turns within each."""
        queues: dict[int, list[tuple[int, int, W]]] = {}
        for flow, tickets in self._lanes.get(lane, {}).items():
            own = queues.setdefault(flow.priority, [])
            own.extend((flow.tag + turn * flow.cost, flow.order, ticket) for turn, ticket in enumerate(tickets))
        return {
            priority: [ticket for _, _, ticket in sorted(own, key=lambda entry: entry[:2])]
            for priority, own in queues.items()
        }

    def _passed(self, offers: Offers) -> dict[int, int]:
        """Turns that each priority took past waiting lower ones, over several offers the most."""
        passed: dict[int, int] = {}
        for offer in offers:
            leak = self._leaks.get(offer)
            for priority, turns in leak.passed.items() if leak is not None else ():
                passed[priority] = max(turns, passed.get(priority, 0))
        return passed

    # What a caller is told.

    def ahead_of(self, ticket: W) -> int:
        """How many requests in lanes that share an offer have their turn before this one, if nobody comes or goes.

        Exact where these lanes have the same offers. Where they have others besides, those may serve some of the
        requests ahead and others in between. 0 for an unknown ticket.
        """
        flow = self._flow(ticket)
        if flow is None:
            return 0
        offers = ticket.lane.offers
        number = self._lanes[ticket.lane][flow][ticket]
        before = -1
        for lane in flow.places:
            if isinstance(lane, Lane) and not lane.offers.isdisjoint(offers):
                before += flow.places[lane]
                for other in reversed(self._lanes[lane][flow].values()):  # one that has just joined is found at once
                    if other <= number:
                        break
                    before -= 1
        return self._ahead(flow.priority, offers, flow.caller, before, flow.tag + before * flow.cost, flow.order)

    def ahead_of_newcomer(self, caller: str, priority: int, weight: int, offers: Offers) -> int:
        """The same for a request that would join now."""
        cost = cost_of(weight)
        among = self._classes.get(priority)
        if among is None:
            return self._ahead(priority, offers, caller, 0, 0, 0)
        flow = among.flows.get(caller)
        if flow is None or not flow.places:
            return self._ahead(priority, offers, caller, 0, among.start(caller, cost, offers), self._joined + 1)
        before = waiting_for(flow, [each for each in among.sizes if not each.isdisjoint(offers)])
        return self._ahead(priority, offers, caller, before, flow.tag + before * cost, flow.order)

    def _ahead(self, priority: int, offers: Offers, caller: str, own: int, start: int, order: int) -> int:
        sizes = {
            each: sum(size for held, size in among.sizes.items() if not held.isdisjoint(offers))
            for each, among in self._classes.items()
        }
        among = self._classes.get(priority)
        rank = own + (among.rivals(offers, caller, start, order) if among is not None else 0)
        return before_all(rank, priority, sizes, self._passed(offers))

    def by_caller(self) -> dict[str, int]:
        """How many requests of each caller wait."""
        return dict(self._callers)

    def oldest(self) -> float | None:
        """``since`` of the longest wait, None when nobody waits."""
        return min(
            (ticket.since for flows in self._lanes.values() for tickets in flows.values() for ticket in tickets),
            default=None,
        )


def _rank(offers: Offers, priority: int, orders: dict[str, list[int]]) -> int:
    """How near a priority is to its turn in a lane: 0 when a turn past a higher one is its own."""
    rank = 0
    for offer in offers:
        order = orders[offer]
        if order[0] == priority and priority != max(order):
            return 0
        rank = max(rank, order.index(priority))
    return 1 + rank
