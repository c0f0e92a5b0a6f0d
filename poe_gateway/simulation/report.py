"""What came of a run, in figures and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from poe_gateway.simulation.judge import Violation, clock_face


class Report(msgspec.Struct, kw_only=True):
    """One run. ``waits``: seconds in the line until a slot was won, ascending."""

    seed: int
    days: float
    processes: int
    accounts: int
    limit: int
    """Of the pool as a whole."""
    requests: int
    served: int
    failed_over: int
    refused: dict[str, int]
    """Code -> requests."""
    lost: int
    """Requests of processes that died meanwhile."""
    waits: list[float]
    most_running: int
    """At the site, in all."""
    fullest: str
    """The account with most requests at a time: ``used/limit``."""
    upstream: dict[str, int]
    """How requests ended at the site."""
    troubles: dict[str, int]
    events: int
    steps: int
    digest: str
    violation: Violation | None

    def line(self) -> str:
        """All in one line."""
        refused = ", ".join(f"{code} {count}" for code, count in sorted(self.refused.items())) or "none"
        troubles = " ".join(f"{kind} {count}" for kind, count in sorted(self.troubles.items())) or "none"
        return (
            f"seed {self.seed}: {self.processes} processes, {self.accounts} accounts; {self.requests} requests,"
            f" {self.served} served, {self.failed_over} after a failover, {self.lost} lost with their process;"
            f" waits p50 {quantile(self.waits, 0.5):.1f} s, p95 {quantile(self.waits, 0.95):.1f} s;"
            f" most at once {self.most_running} of {self.limit}, {self.fullest} on one account;"
            f" refused: {refused}; troubles: {troubles};"
            f" {self.events} events, digest {self.digest}; {'VIOLATION' if self.violation else 'no violation'}"
        )


def told(violation: Violation, seed: int) -> str:
    """A broken promise, readable by a person."""
    return "\n".join(
        (
            f"Broken promise: {violation.promise}",
            f"  {violation.what}",
            f"  seed {seed}, at {clock_face(violation.at)} (second {violation.at:.3f} of virtual time)",
            f"The last {len(violation.events)} events:",
            *(f"  {event}" for event in violation.events),
        )
    )


def quantile(ascending: Sequence[float], part: float) -> float:
    """Nearest rank; 0 of nothing."""
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))] if ascending else 0.0


def counted(words: Counter[str]) -> dict[str, int]:
    """The same in order of the words."""
    return dict(sorted(words.items()))
