"""What the pool asks of its stores, in the pool's own words. Two implementations: MongoDB's and ``memory``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypedDict

import msgspec

from poe_gateway.errors import StoreUnavailable as StoreUnavailable  # part of this interface
from poe_gateway.pool.account import Account, Cause

GLOBAL = "global"
"""Key of the grant document that bounds the whole pool."""


HOLD = 300.0
"""Seconds that a request may last when nobody says otherwise."""

TRIED_AFTER = (Cause.RATE_LIMITED, Cause.ERRORS, Cause.TIMEOUTS)
"""Causes of rests after which one request has to show whether the account is well again."""


class LeaseLost(Exception):
    """This process was declared dead: its grants may already belong to others."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """The processes alive on the database's clock, in stable order."""

    live: tuple[str, ...]
    strangers: int = 0
    """How many of them live where this process cannot see them, nor they this one."""
    now: datetime | None = None
    """The database's time when it was asked."""


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


Holding = TypedDict(
    "Holding",
    {
        "place": str | None,
        "pid": int | None,
        "state": str,
        "expires_in": float | None,
        "accounts": int,
        "slots": int,
        "global": int,
    },
)
"""What one process holds, for operators. ``state``: ``live``, ``lapsed`` (nobody judged it yet), ``frozen`` (withheld
from all), ``dead`` (about to be freed). ``expires_in`` in seconds; ``accounts`` of which it holds ``slots`` in all;
``global``: its part of the whole pool's limit."""


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
        """Register a process for ``lifetime`` seconds of the database's clock, with the place where it lives.

        Raises LeaseLost for a name that was declared dead.
        """

    async def renew(self, instance: str, lifetime: float) -> Membership:
        """Stay alive. Raises LeaseLost when somebody declared this process dead."""

    async def leave(self, instance: str) -> None:
        """Give everything back and go."""

    async def take(self, instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
        """Grant what is free: for each asked key how many slots this process holds now. Raises LeaseLost.

        An account that may not serve (as stored, on the database's clock) grants nothing; one that is on trial after a
        rest grants one slot to one process. The sum over processes never exceeds ``cap``.
        """

    async def give_back(self, instance: str, held: Mapping[str, int]) -> None:
        """Lower the grants to the given figures."""

    async def mark_wanted(self, instance: str, keys: Collection[str], pressure: float) -> None:
        """Tell the holders of these keys that this process needs slots."""

    async def wanted(self, instance: str) -> list[Wanted]:
        """Fresh marks of others on keys that this process holds."""

    async def reclaim(self, hold: float = HOLD, *, only_proven: bool = False) -> int:
        """Judge all registered processes (see ``deaths``); free what the dead hold. How many were declared dead.

        What a frozen process holds is withheld for up to ``hold`` seconds after its registration lapsed.
        ``only_proven``: lapses are not judged.
        """

    async def held_by(self) -> dict[str, Holding]:
        """What each process holds, by its name. A look at everything that is granted: for operators only."""
