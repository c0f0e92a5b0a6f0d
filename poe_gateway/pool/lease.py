"""What a request asks of the pool, and what it gets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from poe_gateway.pool.account import Account
from poe_gateway.pool.index import Seat


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for one slot. ``deadline`` is on the monotonic clock."""

    offers: frozenset[str]
    model: str
    caller: str
    evidence: str
    """Request id."""
    deadline: float
    tried: frozenset[str] = frozenset()
    affinity: str | None = None
    """Account that should serve if it is healthy."""
    steadfast: bool = False
    """True: that account or none."""


class Lease:
    """One slot of one account, until ``Broker.settle``. ``account`` is as it was when the slot was won."""

    __slots__ = ("account", "closed", "evidence", "model", "on_revoked", "queued", "revoked", "seat", "taken", "waited")

    def __init__(self, seat: Seat, model: str, evidence: str, taken: float, waited: float, *, queued: bool) -> None:
        self.seat = seat
        self.account: Account = seat.account
        self.model = model
        self.evidence = evidence
        self.taken = taken
        """Monotonic second."""
        self.waited = waited
        self.queued = queued
        self.closed = False
        self.revoked = False
        """True when this process lost its grants while the lease was open."""
        self.on_revoked: Callable[[], object] | None = None
        """Called when this process lost its grants: the work must stop."""

    def __repr__(self) -> str:
        return f"<Lease {self.account.id} {self.model} closed={self.closed}>"
