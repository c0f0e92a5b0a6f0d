"""The ledger's records. An attempt is written twice: before the upstream is called, and when it is over.

Amounts are integers as in ``money``. No text of a caller and no credential ever belongs here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

RowStatus = Literal["succeeded", "failed", "cancelled", "orphaned"]
CostSource = Literal["upstream", "rule", "estimate"]


class Intent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One attempt is about to be made. Written before the first byte goes to the upstream."""

    request_id: str
    """As told to the caller; callers may repeat it. The row's own id is given by the ledger."""
    attempt: int
    at: datetime
    org: str
    key_id: str
    provider: str
    offer: str
    account_id: str
    model: str
    """Public name."""
    target: str
    """The upstream's name of the model."""
    stream: bool = False
    unit: str | None = None
    """Currency of the price that applies; None: no price is known."""
    cost: int = 0
    """Billed amount expected at most, in ``unit``: what an attempt costs whose end nobody saw."""
    points: int = 0
    """Points expected at most."""
    charges: dict[str, int] = {}
    """Budget bucket id -> amount reserved for this attempt."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The attempt is over. ``row``: id that ``Ledger.open`` gave."""

    row: str
    at: datetime
    status: RowStatus
    outcome: str = ""
    """Class name of the pool's outcome."""
    fate: str | None = None
    error_code: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    tokens_estimated: bool = False
    points: int | None = None
    points_estimated: bool = False
    unit: str | None = None
    raw_cost: int | None = None
    """What the upstream asks; None: not known."""
    billed_cost: int | None = None
    """With the markup of the price rule."""
    cost_source: CostSource | None = None
    price_rule: str | None = None
    """``<id>@<version>``."""
    upstream_id: str | None = None
    """The upstream's own id of the exchange, for reconciliation."""
    seconds: float = 0.0
    charges: dict[str, int] = {}
    """Budget bucket id -> amount spent."""


class Correction(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Another truth about a row that was closed before: what the upstream's own books say. Amounts are differences."""

    row: str
    at: datetime
    reason: str
    points: int = 0
    raw_cost: int = 0
    billed_cost: int = 0
    upstream_id: str | None = None
    charges: dict[str, int] = {}


class Traffic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shape of one request for the auditor: no text, unless the organisation asked for it (then sealed)."""

    request_id: str
    at: datetime
    org: str
    key_id: str
    route: str
    model: str | None
    status: int
    error_code: str | None = None
    address: str | None = None
    stream: bool = False
    messages: list[dict[str, Any]] = []
    """Role, length in characters, images, keyed digest of each message."""
    answer: dict[str, Any] = {}
    """Length, finish reason, keyed digest."""
    tokens: int = 0
    seconds: float = 0.0
    attempts: int = 0
    replayed: bool = False
    sealed: str | None = None
    """Prompt and answer as a sealed JSON document."""


class Change(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An operator changed something: one link of the audit chain once it is stored."""

    at: datetime
    actor: str
    address: str | None
    action: str
    """``key.create``, ``account.upsert`` … : noun and verb."""
    target: str
    """``key:key_abc``, ``account:acc_…``."""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    request_id: str | None = None


Record = Intent | Outcome | Correction | Traffic | Change
