"""Failures in a row, and who was seen last: the small memories from which incidents are read. Pure and bounded.

``now`` is a monotonic second and never falls.
"""

from __future__ import annotations

from collections import Counter, deque

from poe_gateway.pool.account import Scope
from poe_gateway.pool.outcome import AdapterDrift, NetworkFault, Outcome, RateLimited, Transient
from poe_gateway.pool.verdict import Report


class Failure:
    """One failure in a streak. ``applied``: it changed its account."""

    __slots__ = ("account_id", "applied", "at", "body", "kind", "model", "request_id")

    def __init__(self, report: Report, kind: str, at: float) -> None:
        self.account_id = report.account_id
        self.request_id = report.request_id
        self.body = report.body
        self.model = report.model
        self.kind = kind
        self.at = at
        self.applied = False


class Lately:
    """The two names seen last: whether any but a given one was seen since then is answered in constant space."""

    __slots__ = ("at", "name", "other_at")

    def __init__(self) -> None:
        self.name = ""
        self.at = float("-inf")
        self.other_at = float("-inf")

    def saw(self, name: str, now: float) -> None:
        if name != self.name:
            self.other_at = self.at
            self.name = name
        self.at = now

    def other_than(self, name: str, since: float) -> bool:
        return (self.other_at if name == self.name else self.at) >= since


class Streak:
    """Failures in a row: none succeeded in between. Within a window, bounded, with distinct counts at hand."""

    __slots__ = ("_limit", "_window", "accounts", "bodies", "failures", "models")

    def __init__(self, window: float, limit: int) -> None:
        self._window = window
        self._limit = limit
        self.failures: deque[Failure] = deque()
        self.accounts: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self.models: Counter[str] = Counter()

    def add(self, failure: Failure) -> None:
        self.failures.append(failure)
        for counter, name in self._counted(failure):
            counter[name] += 1
        while len(self.failures) > self._limit or self.failures[0].at < failure.at - self._window:
            for counter, name in self._counted(self.failures.popleft()):
                counter[name] -= 1
                if not counter[name]:
                    del counter[name]

    def _counted(self, failure: Failure) -> tuple[tuple[Counter[str], str], ...]:
        return (self.accounts, failure.account_id), (self.bodies, failure.body), (self.models, failure.model)

    def reaches(self, accounts: int, bodies: int) -> bool:
        return len(self.accounts) >= accounts and len(self.bodies) >= bodies

    def clear(self) -> None:
        if self.failures:
            for each in (self.failures, self.accounts, self.bodies, self.models):
                each.clear()


def kind_of(outcome: Outcome) -> str | None:
    """How an upstream failed; None for outcomes that say nothing about the way or the site."""
    if isinstance(outcome, Transient):
        return "timeout" if outcome.timeout else "server"
    if isinstance(outcome, NetworkFault):
        return "network"
    if isinstance(outcome, AdapterDrift):
        return "drift"
    if isinstance(outcome, RateLimited) and outcome.model is None:
        return "limited"
    return None


def blame(kinds: Counter[str]) -> tuple[Scope, str]:
    """What most accounts speak against (kind of failure -> accounts), and the code that callers are told."""
    egress = kinds["timeout"] + kinds["network"] + kinds["limited"]
    if egress >= kinds["server"] + kinds["drift"]:
        return Scope.EGRESS, "upstream_down"
    return Scope.ADAPTER, "upstream_changed" if kinds["drift"] >= kinds["server"] else "upstream_down"
