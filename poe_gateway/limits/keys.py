"""Which bucket: its kind, its window and how long its document is needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from poe_gateway.limits.terms import BudgetPeriod, RatePeriod

Kind = Literal["rate", "parallel", "budget"]

TICK_SECONDS: Mapping[RatePeriod, int] = {"minute": 1, "hour": 60, "day": 1440}
"""A sixtieth of the period."""


class BucketKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which bucket. ``id`` says all of the rest in one text and is the document's id.

    Rate: ``rate|key|<key id>|requests|minute``; parallel: ``parallel|key|<key id>``; budget:
    ``budget|key|<key id>|USD|day|2026-11-21`` (``total`` for the window of a total).
    """

    id: str
    kind: Kind
    rate: RatePeriod | None = None
    budget: BudgetPeriod | None = None
    ends_at: datetime | None = None
    """End of a budget's window."""
    expires_at: datetime | None = None
    """When the document may go: long after its window; None for what has no end."""

    tick_seconds: int = 1
    """Of a rate."""
    counts_requests: bool = False
    """A rate of requests: one that was admitted stays counted."""


def rate_key(bucket_id: str, period: RatePeriod, expires_at: datetime | None) -> BucketKey:
    """The key of a rate."""
    return BucketKey(
        id=bucket_id,
        kind="rate",
        rate=period,
        tick_seconds=TICK_SECONDS[period],
        counts_requests=bucket_id.split("|")[3] == "requests",
        expires_at=expires_at,
    )


def key_of(bucket_id: str) -> BucketKey:
    """The key of a document's id, as far as arithmetic needs it."""
    kind, _, _, *rest = bucket_id.split("|")
    if kind == "rate":
        return rate_key(bucket_id, msgspec.convert(rest[1], RatePeriod), None)
    if kind == "budget":
        return msgspec.convert({"id": bucket_id, "kind": kind, "budget": rest[1]}, BucketKey)
    return msgspec.convert({"id": bucket_id, "kind": kind}, BucketKey)
