"""What the pool asks of its stores, in the pool's own words. Two implementations: MongoDB's and ``memory``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from poe_gateway.pool.account import Account

GLOBAL = "global"
"""Key of the grant document that bounds the whole pool."""


class StoreUnavailable(Exception):
    """The database did not answer; nothing is known about the call's fate."""


class LeaseLost(Exception):
    """This process was declared dead: its grants may already belong to others."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """The processes alive on the database's clock, in stable order."""

    live: tuple[str, ...]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Wish to hold ``hold`` slots of ``key`` in all, where ``cap`` is the limit over all processes."""

    key: str
    hold: int
    cap: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Another process asks for slots that we hold."""

    key: str
    by: str
    pressure: float
    """Requests waiting there per slot held there."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts stored or removed since the last call."""

    stored: tuple[Account, ...] = ()
    removed: tuple[str, ...] = ()


class AccountStore(Protocol):
    """The accounts without their credentials."""

    async def load(self) -> list[Account]:
        """All accounts. Raises StoreUnavailable."""

    async def changes(self) -> Changes:
        """What changed since ``load`` or the last call, by any process; may repeat itself."""

    async def change(self, steps: Mapping[str, Callable[[Account], Account]]) -> dict[str, Account]:
        """Apply pure steps to stored accounts, each again and again until nobody interfered.

        Returns what is stored then; accounts that are gone are missing. Raises StoreUnavailable.
        """


class GrantStore(Protocol):
    """Capacity grants: which process may use how many slots of which account."""

    async def join(self, instance: str, lifetime: float) -> Membership:
        """Register a process for ``lifetime`` seconds of the database's clock."""

    async def renew(self, instance: str, lifetime: float) -> Membership:
        """Stay alive. Raises LeaseLost when somebody declared this process dead."""

    async def leave(self, instance: str) -> None:
        """Give everything back and go."""

    async def take(self, instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
        """Grant what is free: for each asked key how many slots this process holds now.

        An account that may not serve (as stored) grants nothing. The sum over processes never exceeds ``cap``.
        """

    async def give_back(self, instance: str, held: Mapping[str, int]) -> None:
        """Lower the grants to the given figures."""

    async def mark_wanted(self, instance: str, keys: Collection[str], pressure: float) -> None:
        """Tell the holders of these keys that this process needs slots."""

    async def wanted(self, instance: str) -> list[Wanted]:
        """Fresh marks of others on keys that this process holds."""

    async def reclaim(self) -> int:
        """Declare lapsed processes dead and free their grants; how many processes were."""
