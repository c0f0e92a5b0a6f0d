"""Planted bugs: each must be caught by the simulation, or its silence proves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from poe_gateway.pool.account import Cause
from poe_gateway.pool.deaths import Residence
from poe_gateway.pool.guard import Verdict
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.outcome import Cancelled, Outcome
from poe_gateway.pool.store import Ask, Changes
from poe_gateway.simulation.watch import WatchedBroker
from poe_gateway.simulation.wire import RemoteAccounts, RemoteGrants
from poe_gateway.simulation.wiring import Kinds, Machines


class _OneTooMany(RemoteGrants):
    """Believes to have been granted one slot more than it was."""

    async def take(self, instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
        held = await super().take(instance, asks)
        return {key: slots + 1 if slots else 0 for key, slots in held.items()}


class _FreesTwice(WatchedBroker):
    """The slot of a further attempt comes back twice."""

    def give_up(self, lease: object) -> None:
        again = isinstance(lease, Lease) and not lease.closed and lease.want.tried
        super().give_up(lease)
        if again and isinstance(lease, Lease):
            lease.seat.used -= 1


class _Keeps(WatchedBroker):
    """The slot of a caller who left never comes back."""

    def settle(self, lease: Lease, outcome: Outcome, **circumstances: Any) -> Verdict:
        if isinstance(outcome, Cancelled):
            lease.closed = True
            self.leases.discard(lease)
        return super().settle(lease, outcome, **circumstances)


class _Favours(WatchedBroker):
    """A turn is not charged: who waits first is served for ever."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.line.served = self.line.leave  # type: ignore[method-assign]


class _Deaf(RemoteAccounts):
    """Does not hear of challenges that others met."""

    async def changes(self) -> Changes:
        heard = await super().changes()
        return replace(heard, stored=tuple(each for each in heard.stored if each.health.cause is not Cause.CHALLENGED))


class _Hasty(Machines):
    """Takes whoever is frozen for dead."""

    def lives(self, residence: Residence) -> bool | None:
        alive = super().lives(residence)
        return False if alive and not self.sees(residence).awake else alive


PLANTS = {
    "slot_off_by_one": Kinds(grants=_OneTooMany),
    "double_release": Kinds(broker=_FreesTwice),
    "lost_slot": Kinds(broker=_Keeps),
    "turn_not_charged": Kinds(broker=_Favours),
    "deaf_to_challenges": Kinds(accounts=_Deaf),
    "frozen_is_dead": Kinds(machines=_Hasty),
}
"""What is put in the place of the real parts."""
