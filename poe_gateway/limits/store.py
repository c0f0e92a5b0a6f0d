"""Where buckets are kept, in the limiter's words. Two implementations: MongoDB's and ``memory``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from poe_gateway.limits.bucket import Bucket, Charge, Move
from poe_gateway.limits.keys import BucketKey


class Moved(msgspec.Struct, frozen=True):
    """What a move granted, and the bucket after it."""

    granted: int
    bucket: Bucket


class BucketStore(Protocol):
    """All methods raise StoreUnavailable: then nothing is known about their fate, and they may be called again."""

    async def move(self, key: BucketKey, move: Move, cap: int, now: datetime) -> Moved:
        """One step of a process; the same number twice is done once."""

    async def charge(self, process: str, charges: Mapping[str, Sequence[Charge]]) -> None:
        """Count rows of a process's spool, by bucket id; those counted before are passed over."""

    async def close(self, process: str, now: datetime) -> None:
        """A process is over and all its rows are counted: it holds nothing any more."""

    async def read(self, ids: Collection[str]) -> dict[str, Bucket]:
        """Those that exist."""

    async def wanted(self, ids: Collection[str]) -> dict[str, dict[str, datetime]]:
        """Of these buckets those that processes were refused: by bucket, who and when."""
