"""What the mock upstream remembers of its accounts, in process memory."""

from __future__ import annotations

from collections import Counter, OrderedDict

import msgspec

from poe_gateway.upstreams.mock.plan import FaultKind, Operation, Plan

_MAX_CONVERSATIONS = 1_000  # per account; the oldest goes first


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of one account's counters."""

    calls: dict[str, int] = {}
    """Calls per operation: chat, balance, models, prewarm, probe."""
    answered: int = 0
    """Chats answered whole."""
    cancelled: int = 0
    """Chats that the caller left before the end."""
    violations: int = 0
    """Chats refused because ``max_concurrent`` of the account were running."""
    after_challenge: int = 0
    """Calls of any kind that arrived after this account had answered with a challenge."""
    faults: dict[str, int] = {}
    """Faults shown, per kind."""
    current: int = 0
    peak: int = 0
    points: int | None = None
    """Points left; None for an account without a purse."""
    spent: int = 0
    conversations: dict[str, int] = {}
    """Turns per conversation id."""


class Total:
    """Running calls and the most that ever ran at once."""

    __slots__ = ("current", "peak")

    def __init__(self) -> None:
        self.current = 0
        self.peak = 0

    def enter(self) -> None:
        self.current += 1
        self.peak = max(self.peak, self.current)

    def leave(self) -> None:
        self.current -= 1


class Memory(Total):
    """One account. Plain counters: everything runs on one event loop."""

    __slots__ = (
        "_challenged",
        "after_challenge",
        "answered",
        "calls",
        "cancelled",
        "conversations",
        "faults",
        "plan",
        "points",
        "revision",
        "spent",
        "violations",
    )

    def __init__(self, plan: Plan, revision: int) -> None:
        super().__init__()
        self.answered = self.cancelled = self.violations = self.after_challenge = 0
        self.conversations: OrderedDict[str, int] = OrderedDict()
        self.faults: Counter[str] = Counter()
        self.renew(plan, revision)

    def renew(self, plan: Plan, revision: int) -> None:
        """New credentials: purse and rehearsal start again; concurrency and totals go on."""
        self.plan = plan
        self.revision = revision
        self.points = plan.points
        self.spent = 0
        self.calls: Counter[str] = Counter()
        self._challenged = False

    def called(self, operation: Operation) -> int:
        """Counts the call; its number since the credentials were set, from 1."""
        if self._challenged:
            self.after_challenge += 1
        self.calls[operation] += 1
        return self.calls[operation]

    def note(self, kind: FaultKind) -> None:
        self.faults[kind.value] += 1
        if kind is FaultKind.CHALLENGED:
            self._challenged = True

    def charge(self) -> int | None:
        """Takes the price of one message; None when the purse does not hold it."""
        price = self.plan.price
        if self.points is not None:
            if self.points < price:
                return None
            self.points -= price
        self.spent += price
        return price

    def turn(self, conversation: str) -> None:
        """One more turn in the conversation."""
        self.conversations[conversation] = self.conversations.get(conversation, 0) + 1
        self.conversations.move_to_end(conversation)
        if len(self.conversations) > _MAX_CONVERSATIONS:
            self.conversations.popitem(last=False)

    def snapshot(self) -> Stats:
        return Stats(
            calls=dict(self.calls),
            answered=self.answered,
            cancelled=self.cancelled,
            violations=self.violations,
            after_challenge=self.after_challenge,
            faults=dict(self.faults),
            current=self.current,
            peak=self.peak,
            points=self.points,
            spent=self.spent,
            conversations=dict(self.conversations),
        )
