"""An account's place in this process: what is held of it, what is used, and what it can still pay."""

from __future__ import annotations

from typing import Protocol

from poe_gateway.pool.account import Account

NEVER = float("inf")


class Order(Protocol):
    """Something that keeps seats in order. A row says where a seat stands by load and rung; -1: not open."""

    def place(self, seat: Seat, old: int, new: int) -> None:
        """Bring the seat's place in line with its fields; it comes from row ``old`` and goes to row ``new``."""

    def set_aside(self, seat: Seat) -> None:
        """Take the seat out for now; its turn stays."""

    def drop(self, seat: Seat, old: int) -> None:
        """Forget the seat, which stood in row ``old``."""


class Seat:
    """One account in this process. Whoever changes a field tells the index: ``SeatIndex.place``.

    The last group of fields belongs to the index and says where the seat was placed.
    """

    __slots__ = (
        "account",
        "allowed",
        "funds",
        "held",
        "id",
        "idle_since",
        "number",
        "offer",
        "orders",
        "priority",
        "ramp",
        "reason",
        "renews_at",
        "reserved",
        "row",
        "rung",
        "spendable",
        "turn",
        "used",
    )

    def __init__(self, account: Account, number: int = 0) -> None:
        self.id = account.id
        self.account = account
        self.allowed = False
        self.reason: str | None = None
        """Why it is not allowed, in one word."""
        self.held = 0
        """Slots of the account that this process may use."""
        self.used = 0
        self.idle_since = 0.0
        """Monotonic second at which a slot was last returned."""
        self.number = number
        """Order of joining the pool."""
        self.ramp: int | None = None
        """Slow start: no more than this many at a time. None: no such bound."""
        self.funds: int | None = None
        """Points that the pool may spend before what running leases reserved. None: not known or not metered."""
        self.reserved = 0
        """Points that running leases may still cost."""
        self.spendable: int | None = None
        """``funds`` less ``reserved``."""
        self.renews_at = NEVER
        """Epoch second of the next renewal of points."""

        self.rung = 0
        """0: the points are unknown or unmetered; else one more than the number of prices that it can pay."""
        self.row = -1
        """Load and rung in one figure; -1: not open."""
        self.turn = 0
        """Grows whenever a seat joins the end of a row: compares the fronts of rows."""
        self.offer: str | None = None
        """The account's, since the seat was placed for the first time; None: not placed, or removed."""
        self.priority = 0
        """The account's, of the same moment."""
        self.orders: tuple[Order, ...] = ()

    @property
    def cap(self) -> int:
        """Slots that are usable here now, used ones included."""
        return self.held if self.ramp is None else min(self.held, self.ramp)

    @property
    def open(self) -> bool:
        """Whether one more request may go to the account."""
        return self.allowed and self.used < self.cap

    def can_pay(self, need: int) -> bool:
        """Whether ``need`` points are there, as far as is known."""
        return self.spendable is None or self.spendable >= need

    def __repr__(self) -> str:
        return f"<Seat {self.id} {self.account.health.state} used={self.used} held={self.held}>"
