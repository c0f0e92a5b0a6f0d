"""Turns between callers, judged from outside: how far one got ahead of another who was waiting for the same."""

from __future__ import annotations

from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Lease

_BOUND = 2.0
"""In fair queuing nobody is ahead by more than one turn of each, in shares of their weights; this is twice as much."""


class Turns:
    """Of one process. A pair is looked at while the one who is behind waits without a break."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._ahead: dict[tuple[str, str], float] = {}
        """(served, waiting) -> by how much the first got ahead of the second: turns, each divided by its weight."""
        self._seen: dict[str, None] = {}

    def served(self, lease: Lease) -> str | None:
        """Somebody got a slot out of the line. What is wrong with that, if anything."""
        want, ahead = lease.want, self._ahead
        turn = 1.0 / want.weight
        waiting = self._broker.line.by_caller()
        for pair in [pair for pair in ahead if pair[1] == want.caller]:
            # Turns are counted over the whole line: who had some where the other could not is behind afterwards.
            least = float("-inf") if waiting.get(pair[0]) else 0.0
            ahead[pair] = max(least, ahead[pair] - turn)
        for caller, weight in self._passed_over(lease).items():
            self._seen[caller] = None
            gap = ahead[want.caller, caller] = ahead.get((want.caller, caller), 0.0) + turn
            if gap > _BOUND * (turn + 1.0 / weight):
                return f"{want.caller} is {gap:.2f} turns ahead of {caller}, who waited all the time"
        return None

    def _passed_over(self, lease: Lease) -> dict[str, int]:
        """Callers of the same lane and priority who could have had this slot, with their weights."""
        want, line = lease.want, self._broker.line
        found: dict[str, int] = {}
        if len(line.by_caller()) < 2:
            return found
        for lane in line.lanes():
            if lane.account is not None or (lane.offers, lane.model, lane.selector) != (
                want.offers,
                want.model,
                want.selector,
            ):
                continue
            for ticket in line.tickets(lane):
                other = ticket.want
                able = not other.tried and other.need <= want.need and not ticket.granted.done()
                if able and other.caller != want.caller and ticket.priority == want.priority:
                    found[other.caller] = other.weight
        return found

    def left(self) -> None:
        """Somebody waits no longer."""
        if not self._seen:
            return
        waiting = self._broker.line.by_caller()
        for caller in [caller for caller in self._seen if not waiting.get(caller)]:
            del self._seen[caller]
            for pair in [pair for pair in self._ahead if pair[1] == caller]:
                del self._ahead[pair]
