"""What is kept of a response, and the store that keeps it.

Each response holds its own items only, and the ids of those that it goes on from: a conversation is read by one query
for these. Keeping the whole conversation with every response would grow with the square of its length; following one
link after another would take a round trip for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One response as it is stored: plain facts, and everything that was said under seal."""

    id: str
    key_id: str
    """The service key that asked: nobody else ever sees it."""
    org: str
    path: tuple[str, ...] = ()
    """Ids of the responses that it goes on from, the oldest first."""
    deleted: bool = False
    """Nobody may read it or go on from it any more: it is there for what went on from it before."""
    weight: int = 0
    """Bytes under seal, its own and those of its path."""
    sealed: bytes
    kid: str
    """Name of the key that sealed it."""


class KeptStore(Protocol):
    """Where kept responses live, on one clock. All methods raise StoreUnavailable."""

    async def put(self, kept: Kept, ttl: float) -> None:
        """Keep it for ``ttl`` seconds from now, and what is left of its path no shorter."""

    async def fetch(self, key_id: str, ids: Sequence[str]) -> dict[str, Kept]:
        """Those of the key that are there and have not expired, by id.

        Deleted ones too, while others go on from them.
        """

    async def drop(self, key_id: str, response_id: str) -> bool:
        """Delete it; False when it was not there, or was not the key's.

        While a response that goes on from it is there, it stays as ``deleted``; it goes with the last of these.
        """
