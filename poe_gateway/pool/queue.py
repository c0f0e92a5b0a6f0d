"""The line of waiting requests: fair between callers, first come first served for each, bounded.

A *lane* holds those who wait for the same thing (offers and model, or one particular account). Within a lane the
callers take turns. Synchronous; futures are resolved by the broker.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

W = TypeVar("W", bound="Ticket")


class Ticket:
    """One waiting request. ``caller`` is the service key it belongs to."""

    __slots__ = ("caller", "deadline", "granted", "lane", "since")

    def __init__(self, lane: Lane, caller: str, since: float, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.lane = lane
        self.caller = caller
        self.since = since
        self.deadline = deadline
        self.granted: asyncio.Future[object] = loop.create_future()


class Lane:
    """What a request waits for."""

    __slots__ = ("account", "model", "offers")

    def __init__(self, offers: frozenset[str], model: str, account: str | None = None) -> None:
        self.offers = offers
        self.model = model
        self.account = account

    def __hash__(self) -> int:
        return hash((self.offers, self.model, self.account))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Lane)
            and self.offers == other.offers
            and self.model == other.model
            and self.account == other.account
        )


class WaitingLine(Generic[W]):
    """All lanes. ``len`` is the number of waiting requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lanes: dict[Lane, OrderedDict[str, deque[W]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        return self._size >= self.limit

    def join(self, ticket: W) -> None:
        """Stand at the end of the caller's own line in the lane."""
        callers = self._lanes.setdefault(ticket.lane, OrderedDict())
        callers.setdefault(ticket.caller, deque()).append(ticket)
        self._size += 1

    def leave(self, ticket: W) -> None:
        """Go away (served, out of time, disconnected). Unknown tickets are ignored."""
        callers = self._lanes.get(ticket.lane)
        line = callers.get(ticket.caller) if callers is not None else None
        if callers is None or line is None:
            return
        try:
            line.remove(ticket)
        except ValueError:
            return
        self._size -= 1
        if not line:
            del callers[ticket.caller]
            if not callers:
                del self._lanes[ticket.lane]

    def lanes(self) -> list[Lane]:
        """Lanes with somebody in them: those of one particular account first, then by their longest wait."""
        if len(self._lanes) == 1:
            return list(self._lanes)
        return sorted(self._lanes, key=lambda lane: (lane.account is None, self._longest(lane)))

    def _longest(self, lane: Lane) -> float:
        return min(line[0].since for line in self._lanes[lane].values())

    def tickets(self, lane: Lane) -> Iterator[W]:
        """Everybody in the lane: the callers in the order of their turns, each with all its requests."""
        for line in list(self._lanes.get(lane, {}).values()):
            yield from tuple(line)

    def served(self, ticket: W) -> None:
        """The ticket got its turn: it leaves, and its caller goes to the end of the round."""
        callers = self._lanes.get(ticket.lane)
        if callers is not None and ticket.caller in callers:
            callers.move_to_end(ticket.caller)
        self.leave(ticket)
