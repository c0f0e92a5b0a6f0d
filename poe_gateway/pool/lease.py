"""What a request asks of the pool, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from poe_gateway.pool.account import Account
from poe_gateway.pool.decision import Choice
from poe_gateway.pool.seat import Seat
from poe_gateway.pool.selector import EVERY, Selector


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for one slot. ``deadline`` is on the monotonic clock."""

    offers: frozenset[str]
    model: str
    """Public name."""
    caller: str
    evidence: str
    """Request id."""
    deadline: float
    tried: frozenset[str] = frozenset()
    affinity: str | None = None
    """Account that should serve if it is healthy."""
    patience: float | None = None
    """Seconds to wait for that account while it is busy; None: as the policy says, 0: not at all."""
    steadfast: bool = False
    """True: that account or none."""
    selector: Selector = EVERY
    """The accounts that the caller's key may use."""
    key: str = ""
    """The model's name in the same spelling for all callers: of prices, and of faults."""
    need: int = 0
    """Points that the request may cost; an account that cannot pay them is not chosen. 0: free or not known."""
    expected: int = 0
    """Points that it will probably cost, for upstreams that do not tell."""
    priority: int = 0
    weight: int = 1
    """Of the caller in the line."""
    fingerprint: str = ""
    """Of the body: who is at fault is judged by it."""


class Lease:
    """One slot of one account, until ``Broker.settle``. ``account`` is as it was when the slot was won."""

    __slots__ = (
        "account",
        "began",
        "choice",
        "closed",
        "epoch",
        "on_revoked",
        "queued",
        "revoked",
        "seat",
        "taken",
        "waited",
        "want",
    )

    def __init__(
        self,
        seat: Seat,
        want: Want,
        choice: Choice,
        *,
        epoch: str,
        taken: float,
        began: datetime,
        waited: float,
        queued: bool,
    ) -> None:
        self.seat = seat
        self.account: Account = seat.account
        self.want = want
        self.choice = choice
        self.epoch = epoch
        """Name under which this process held the slot: a lease of an earlier one cannot settle."""
        self.taken = taken
        """Monotonic second."""
        self.began = began
        self.waited = waited
        self.queued = queued
        self.closed = False
        self.revoked = False
        """True when this process lost its grants while the lease was open."""
        self.on_revoked: Callable[[], object] | None = None
        """Called when this process lost its grants: the work must stop."""

    @property
    def model(self) -> str:
        return self.want.model

    @property
    def evidence(self) -> str:
        """Request id."""
        return self.want.evidence

    def __repr__(self) -> str:
        return f"<Lease {self.account.id} {self.model} closed={self.closed}>"
