"""One counted thing: what is spent of it, and what processes have borrowed of it. Pure arithmetic on frozen values.

A process never asks before it spends: it borrows a slice and spends from memory. At every instant
``spent in the window + borrowed <= cap`` by this document, and what a process spends comes out of what it borrowed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from poe_gateway.limits.terms import BudgetPeriod, RatePeriod

Kind = Literal["rate", "parallel", "budget"]


class BucketKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which bucket. ``id`` says all of the rest in one text and is the document's id.

    Rate: ``rate|key|<key id>|requests|minute``; parallel: ``parallel|key|<key id>``; budget:
    ``budget|key|<key id>|USD|day|2026-11-21`` (``total`` for the window of a total).
    """

    id: str
    kind: Kind
    rate: RatePeriod | None = None
    budget: BudgetPeriod | None = None
    expires_at: datetime | None = None
    """When the document may go: long after its window; None for what has no end."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to use ``amount`` of a bucket under the cap that is in force now."""

    bucket: BucketKey
    amount: int
    cap: int
