"""Whose turn it is. Pure.

Between the callers of one priority: start-time fair queuing. A caller's *tag* is the virtual time at which its next
turn starts; a turn costs ``TURN`` divided by the caller's weight, and the smallest tag is next. Who comes back after a
while starts at the present virtual time: idling earns nothing and costs nothing.

Between priorities: the higher one goes first, but every eighth turn belongs to those below it (by the same rule among
them), so that nobody waits for ever.

Lanes that share no offer do not compete, and a lane may stand still while others move. Its virtual time then stands
still, too: a newcomer is never placed behind the smallest tag of those that it really competes with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import TypeVar

T = TypeVar("T")
Offers = frozenset[str]

TURN = 720_720
"""Virtual time of a turn at weight 1. Integers keep sums exact; 1 to 16 divide it."""
LEAK_AFTER = 7
"""So many turns in a row may a priority take while lower ones wait; the next one is theirs."""
_ROOM = 64
"""Entries of a table before those that mean nothing any more are looked for; then twice what was left."""


def cost_of(weight: int) -> int:
    """Virtual time of one turn."""
    if weight < 1:
        raise ValueError("a weight is at least 1")
    return max(1, TURN // weight)


class Flow:
    """The waiting requests of one caller and one priority."""

    __slots__ = ("caller", "cost", "order", "places", "priority", "tag")

    def __init__(self, caller: str, priority: int) -> None:
        self.caller = caller
        self.priority = priority
        self.cost = TURN
        self.tag = 0
        """Virtual start of the next turn. Grows only, while anything waits."""
        self.order = 0
        """Breaks ties: the number of the request with which the caller began to wait."""
        self.places: Counter[Hashable] = Counter()
        """Waiting requests by place: by lane, and by the lanes' offers."""


class Turns:
    """The flows of one place by tag. A served flow's entries elsewhere lag behind and are mended when they come up."""

    __slots__ = ("_entries", "_heap", "_limit", "_place")

    def __init__(self, place: Hashable) -> None:
        self._place = place
        self._heap: list[tuple[int, int, Flow]] = []
        self._limit = _ROOM
        self._entries: dict[Flow, int] = {}
        """``order`` of each flow's entry in the heap; entries with another one are void."""

    def enter(self, flow: Flow) -> None:
        """The flow has a request here now."""
        if self._entries.get(flow) == flow.order:
            return  # its entry of before, with an equal or smaller tag, will do
        if len(self._heap) >= self._limit:
            self._heap = [entry for entry in self._heap if self._valid(entry[1], entry[2])]
            self._entries = {each: order for _, order, each in self._heap}
            self._limit = max(_ROOM, 2 * len(self._heap))
            heapify(self._heap)
        self._entries[flow] = flow.order
        heappush(self._heap, (flow.tag, flow.order, flow))

    def _valid(self, order: int, flow: Flow) -> bool:
        return order == flow.order and self._place in flow.places

    def best(self) -> Flow | None:
        """Whose turn it is here."""
        while self._heap:
            tag, order, flow = self._heap[0]
            if not self._valid(order, flow):
                heappop(self._heap)
                if self._entries.get(flow) == order:
                    del self._entries[flow]
            elif tag != flow.tag:
                heapreplace(self._heap, (flow.tag, order, flow))
            else:
                return flow
        return None


class PriorityClass:
    """Everybody who waits with one priority."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.flows: dict[str, Flow] = {}
        """By caller: those who wait, and some whose last turn is not long ago."""
        self.now = 0
        """Virtual time: the latest start of a turn."""
        self.sizes: Counter[Offers] = Counter()
        """Waiting requests by offers of their lanes."""
        self._lanes: Counter[Hashable] = Counter()
        """Waiting requests by lane."""
        self._turns: dict[Hashable, Turns] = {}
        """By place: lane or offers."""
        self._limit = _ROOM

    def enter(self, caller: str, cost: int, lane: Hashable, offers: Offers, number: int) -> Flow:
        """One more request of the caller; ``number`` counts all requests that ever joined."""
        flow = self.flows.get(caller)
        if flow is None:
            self._forget()
            flow = self.flows[caller] = Flow(caller, self.priority)
        if not flow.places:
            flow.tag, flow.order = self.start(caller, cost, offers), number
        flow.cost = cost
        self.sizes[offers] += 1
        self._lanes[lane] += 1
        for place in (lane, offers):
            flow.places[place] += 1
            if flow.places[place] == 1:
                self._turns.setdefault(place, Turns(place)).enter(flow)
        return flow

    def start(self, caller: str, cost: int, offers: Offers) -> int:
        """The tag of a caller that begins to wait: the present, or up to one turn later if it just had one."""
        heads = {each: self._turns[each].best() for each in self.sizes if not each.isdisjoint(offers)}
        rivals = [[head.tag for each, head in heads.items() if head is not None and offer in each] for offer in offers]
        present = min(self.now, max((min(tags) for tags in rivals if tags), default=self.now))
        flow = self.flows.get(caller)
        return present if flow is None else max(present, min(flow.tag, present + cost))

    def leave(self, flow: Flow, lane: Hashable, offers: Offers) -> None:
        """One request of the flow waits no longer."""
        for place in (lane, offers):
            _decrease(flow.places, place)
        if not _decrease(self.sizes, offers):
            del self._turns[offers]
        if not _decrease(self._lanes, lane):
            del self._turns[lane]
        if not flow.places and flow.tag <= self.now:
            del self.flows[flow.caller]

    def charge(self, flow: Flow) -> None:
        """The flow had a turn."""
        self.now = max(self.now, flow.tag)
        flow.tag += flow.cost

    def best(self, lane: Hashable) -> Flow | None:
        """Whose turn it is in the lane; None when nobody of this priority waits there."""
        turns = self._turns.get(lane)
        return turns.best() if turns is not None else None

    def rivals(self, offers: Offers, caller: str, start: int, order: int) -> int:
        """How many requests of other callers, in lanes that share an offer, have their turn before this one."""
        shared = [each for each in self.sizes if not each.isdisjoint(offers)]
        count = 0
        for flow in self.flows.values():
            if not flow.places or flow.caller == caller or flow.tag > start:
                continue
            turns, rest = divmod(start - flow.tag, flow.cost)
            earlier = turns + (1 if rest or flow.order < order else 0)
            count += min(earlier, waiting_for(flow, shared))
        return count

    def _forget(self) -> None:
        """Drop callers whose last turn is in the past: they would start at the present anyhow."""
        if len(self.flows) < self._limit:
            return
        self.flows = {name: flow for name, flow in self.flows.items() if flow.places or flow.tag > self.now}
        self._limit = max(_ROOM, 2 * len(self.flows))


def waiting_for(flow: Flow, shared: Sequence[Offers]) -> int:
    """The flow's waiting requests in lanes with one of these sets of offers."""
    return sum(flow.places[each] for each in shared if each in flow.places)


def _decrease(counts: Counter[T], key: T) -> int:
    """One less; what is left. Keys without anything left are removed."""
    counts[key] -= 1
    return counts[key] or counts.pop(key)


class Leak:
    """Which priority is next among those that wait for one offer."""

    __slots__ = ("passed", "waiting")

    def __init__(self) -> None:
        self.waiting: Counter[int] = Counter()
        self.passed: dict[int, int] = {}
        """By priority: turns that it took since a lower one had a turn, while a lower one waited."""

    def join(self, priority: int) -> None:
        self.waiting[priority] += 1

    def leave(self, priority: int) -> None:
        _decrease(self.waiting, priority)

    def turn(self, priority: int) -> None:
        """A request of this priority, which still counts as waiting, is served."""
        self.passed = {each: turns for each, turns in self.passed.items() if each <= priority}
        if min(self.waiting) < priority:
            self.passed[priority] = self.passed.get(priority, 0) + 1
        else:
            self.passed.pop(priority, None)

    def order(self) -> list[int]:
        """The waiting priorities, the one whose turn it is first."""
        order: list[int] = []
        for priority in sorted(self.waiting):
            order = [*order, priority] if self.passed.get(priority, 0) >= LEAK_AFTER else [priority, *order]
        return order


def before_all(rank: int, priority: int, sizes: Mapping[int, int], passed: Mapping[int, int]) -> int:
    """How many requests have their turn before the one at ``rank`` (from 0) of its own priority.

    ``sizes``: waiting requests by priority. ``passed``: as in ``Leak``.
    """
    below = sum(size for each, size in sizes.items() if each < priority)
    first = max(0, LEAK_AFTER - passed.get(priority, 0))
    leaked = 0 if rank < first else 1 + (rank - first) // LEAK_AFTER
    before = rank + min(below, leaked)
    for each in sorted(each for each in sizes if each > priority):
        first = max(0, LEAK_AFTER - passed.get(each, 0))
        before += min(sizes[each], first + LEAK_AFTER * before)
    return before


def in_turns(queues: Mapping[int, Sequence[T]], passed: Mapping[int, int]) -> list[T]:
    """Requests, given in order by priority, in the order of all their turns."""
    order: list[T] = []
    for priority in sorted(queues):
        own, below, order = queues[priority], order, []
        end = max(0, LEAK_AFTER - passed.get(priority, 0))
        order.extend(own[:end])
        for each in below:
            order.append(each)
            order.extend(own[end : end + LEAK_AFTER])
            end += LEAK_AFTER
        order.extend(own[end:])
    return order
