"""What one simulated process promises, checked at the moment at which it could be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from poe_gateway.clock import Clock
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause, Intent, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.guard import Verdict
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.outcome import Outcome, Succeeded
from poe_gateway.simulation.judge import Judge
from poe_gateway.simulation.turns import Turns

_INSTANT = 1e-6
_CLEAN_UP = 60.0
"""Seconds that the end of a request may take after its time is up."""


class Leases(set[Lease]):
    """The broker's book of open leases, read at the moment of writing. Keeps the order of writing."""

    def __init__(self, granted: Callable[[Lease], None], closed: Callable[[Lease], None]) -> None:
        super().__init__()
        self._granted = granted
        self._closed = closed
        self._order: dict[Lease, None] = {}

    def add(self, lease: Lease) -> None:
        self._granted(lease)
        super().add(lease)
        self._order[lease] = None

    def discard(self, lease: object) -> None:
        if isinstance(lease, Lease) and lease in self._order:
            super().discard(lease)
            del self._order[lease]
            self._closed(lease)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._order))


class WatchedBroker(Broker):
    """The broker as it is. ``settling``: the request whose failure is being settled right now.

    A success changes others only by proving that what its body met before was true of them: not a fault of its own.
    """

    settling: str | None = None
    undone: Callable[[str, str], None]
    """Told what is taken back of the changes that a request brought about."""

    def settle(self, lease: Lease, outcome: Outcome, **circumstances: Any) -> Verdict:
        self.settling = None if isinstance(outcome, Succeeded) else lease.evidence
        try:
            verdict = super().settle(lease, outcome, **circumstances)
        finally:
            self.settling = None
        for account_id, request in verdict.lifted:
            self.undone(account_id, request)
        return verdict


class Watch:
    """Checks over one process. ``deadlines``: by request, monotonic. ``stepped``: told of the broker's own changes."""

    def __init__(
        self,
        name: str,
        broker: WatchedBroker,
        clock: Clock,
        judge: Judge,
        stepped: Callable[[Account, Account], None] = lambda before, after: None,
    ) -> None:
        self.name = name
        self.deadlines: dict[str, float] = {}
        self.awake_since = 0.0
        """When the process was thawed last: what it could not do before is not held against it."""
        self._broker = broker
        self._clock = clock
        self._judge = judge
        self._told = stepped
        self._turns = Turns(broker)
        self._changed: dict[str, str] = {}
        """Account whose state a request changed."""
        broker.leases = Leases(self._granted, self._closed)
        broker.on_step = self._stepped
        broker.on_waited = self._waited
        broker.undone = self._undone

    def _broken(self, promise: str, what: str) -> None:
        self._judge.broken(promise, f"{self.name}: {what}")

    # A slot is won.

    def _granted(self, lease: Lease) -> None:
        broker, want, seat, account = self._broker, lease.want, lease.seat, lease.account
        self._judge.tell(
            self.name,
            f"{want.evidence} gets {account.id} ({lease.choice.how}), {seat.used}/{seat.held} here,"
            f" {broker.whole.used}/{broker.whole.held} in all",
        )
        if any(other.evidence == want.evidence for other in broker.leases):
            self._broken("one slot for one request", f"{want.evidence} has a slot and was given another, {account.id}")
        ill = self._unfit(account, lease)
        if ill is not None:
            self._broken("never an account out of service", f"{want.evidence} was given {account.id}, which is {ill}")
        if seat.used > seat.held or broker.whole.used > broker.whole.held or not broker.grants_valid():
            valid = "valid" if broker.grants_valid() else "not valid"
            self._broken(
                "only slots that are held",
                f"{seat.used} of {seat.held} slots of {account.id} are used, {broker.whole.used} of"
                f" {broker.whole.held} in all, grants are {valid}",
            )
        if account.health.trial and seat.used > 1:
            self._broken("one request on trial", f"{account.id} is on trial and has {seat.used} requests")
        if want.need and seat.funds is not None and seat.funds < seat.reserved:
            self._broken(
                "never a request that cannot be paid",
                f"{account.id} has {seat.funds} points to spend, {seat.reserved} are reserved with {want.evidence}",
            )
        unfair = self._turns.served(lease) if lease.queued and want.affinity is None else None
        if unfair is not None:
            self._broken("turns are fair", unfair)
        if lease.queued and self._late(want.deadline):
            self._broken("nothing waits past its deadline", f"{want.evidence} was given a slot after its deadline")

    def _unfit(self, account: Account, lease: Lease) -> str | None:
        """Why the account must not serve, by the plain reading of its fields."""
        now, want = self._clock.now(), lease.want
        known = transitions.as_of(account, now, self._broker.policy)
        if known.intent is not Intent.ENABLED:
            return "paused"
        if known.health.state is not State.ACTIVE:
            return f"{known.health.state} ({known.health.cause})"
        if any(block.model == want.model and block.until > now for block in known.model_blocks):
            return f"blocked for {want.model}"
        if account.id in self._broker.guard.held():
            return "held back"
        if account.id in want.tried:
            return "tried already"
        if not want.selector.matches(known) or known.offer not in want.offers:
            return "not selected"
        return None

    def contacting(self, account_id: str, purpose: str) -> None:
        """A request, or a visit, is about to go out."""
        account = self._broker.account(account_id)
        if account is not None and account.health.cause is Cause.CHALLENGED:
            self._broken("nothing goes out after a challenge", f"{purpose} goes to {account_id}")

    # A slot comes back, a wait ends, an account changes.

    def _closed(self, lease: Lease) -> None:
        broker, seat = self._broker, lease.seat
        self._judge.tell(self.name, f"{lease.evidence} leaves {lease.account.id}, {seat.used} used here")
        if seat.used < 0 or broker.whole.used < 0:
            self._broken(
                "a slot comes back once", f"{seat.used} slots of {seat.id} are used, {broker.whole.used} in all"
            )

    def _late(self, deadline: float) -> bool:
        now = self._clock.monotonic()
        return now > max(deadline, self.awake_since) + _INSTANT

    def _waited(self, request: str, seconds: float, result: str) -> None:
        self._judge.tell(self.name, f"{request} waited {seconds:.2f} s: {result}")
        self._turns.left()
        deadline = self.deadlines.get(request)
        if deadline is not None and seconds > _INSTANT and self._late(deadline):
            self._broken("nothing waits past its deadline", f"{request} waited {seconds:.2f} s ({result})")

    def _stepped(self, before: Account, after: Account) -> None:
        """By news of this process itself."""
        self._told(before, after)
        if after.health == before.health and len(after.model_blocks) <= len(before.model_blocks):
            return
        health, request = after.health, self._broker.settling
        self._judge.tell(self.name, f"{after.id} becomes {health.state} ({health.cause}) by {health.evidence}")
        ill = health.state is not State.ACTIVE and health.cause is not Cause.BELOW_THRESHOLD
        blamed = ill and health != before.health and health.evidence == request
        if request is None or not (blamed or len(after.model_blocks) > len(before.model_blocks)):
            return
        first = self._changed.setdefault(request, after.id)
        if first != after.id:
            self._broken("one request changes one account", f"{request} changed {first} and {after.id}")

    def _undone(self, account_id: str, request: str) -> None:
        if self._changed.get(request) == account_id:
            del self._changed[request]

    # At any moment.

    def sweep(self) -> None:
        """What must be true between two events."""
        broker = self._broker
        used = sum(seat.used for seat in broker.seats.values())
        if not used == broker.whole.used == len(broker.leases):
            self._broken(
                "slots and leases agree",
                f"{used} slots of accounts and {broker.whole.used} in all are used by {len(broker.leases)} leases",
            )
        now, longest = self._clock.monotonic(), broker.policy.request_timeout + _CLEAN_UP
        for lease in broker.leases:
            if now - max(lease.taken, self.awake_since) > longest:
                self._broken(
                    "every lease ends", f"{lease.evidence} has {lease.account.id} for {now - lease.taken:.0f} s"
                )

    def empty(self) -> None:
        """Nobody asks for anything any more."""
        broker = self._broker
        left: dict[str, Any] = {
            "leases": len(broker.leases),
            "used": broker.whole.used,
            "waiting": len(broker.line),
            "reserved": sum(seat.reserved for seat in broker.seats.values()),
        }
        if any(left.values()):
            self._broken("every lease ends", f"long after the last request there are left: {left}")
