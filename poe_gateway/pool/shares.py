"""How a limit is divided between live processes: a deterministic first share; demand moves slots afterwards. Pure.

Exactness never depends on this: the stored grants bound what is used, whatever the shares say. Shares only keep
processes from reaching for the same slots. A small limit goes whole to one process where there are accounts for
all, so that a fault of the account (a challenge above all) is known at once wherever the account is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

_WHOLE = 8
"""Limits up to this are not split while there are at least twice as many accounts as processes."""

STARVING = 100.0
"""Pressure from which on processes take turns, in the order in which they began to wait."""


def _weight(key: str, instance: str) -> bytes:
    return blake2b(f"{key}\x00{instance}".encode(), digest_size=8).digest()


def fair_share(key: str, cap: int, me: str, live: Sequence[str], *, plenty: bool) -> int:
    """How many of ``cap`` slots of ``key`` process ``me`` should hold when nobody is in need.

    The shares of all live processes add up to ``cap``. ``plenty``: there are accounts enough for every process.
    """
    if len(live) <= 1 or me not in live:
        return cap if me in live or not live else 0
    order = sorted(live, key=lambda instance: _weight(key, instance))
    if plenty and cap <= _WHOLE:
        return cap if order[0] == me else 0
    base, rest = divmod(cap, len(order))
    return base + (1 if order.index(me) < rest else 0)


def should_yield(mine_waiting: int, mine_held: int, their_pressure: float) -> bool:
    """Whether a slot should go to a process whose waiting requests per slot are ``their_pressure``.

    The margin keeps two evenly loaded processes from passing slots to and fro.
    """
    if mine_waiting == 0:
        return True
    if mine_held <= 0:
        return False
    return their_pressure > 1.25 * (mine_waiting / mine_held)


def pressure(waiting: int, held: int) -> float:
    """Waiting requests per slot held; a process that holds nothing weighs its requests hundredfold: it starves."""
    return waiting * STARVING if held == 0 else waiting / held
