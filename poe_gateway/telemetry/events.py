"""The records: one frozen value per thing worth telling.

Plain words and numbers only, so that every room may emit them and every listener may keep them. Times are seconds as
floats, points and tokens integers. No credential, no key material and no text of a caller belongs into a record; an
account is named by its opaque id, a key by its id and the operator's name for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

WaitResult = Literal["leased", "timeout", "refused", "cancelled"]
DriftKind = Literal["foreign", "missing", "corrected"]
"""Spent by somebody else; ours and unknown to the upstream's books; a row of ours that was put right."""
AlertKind = Literal[
    "incident_opened", "incident_closed", "foreign_spend", "price_changed", "clock_skew", "body_quarantined"
]


class AttemptFinished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One try on one account is over."""

    request_id: str
    attempt: int
    """From 1."""
    account_id: str
    provider: str
    model: str
    """The upstream's name of the model."""
    outcome: str
    """Class name of the outcome: ``Succeeded``, ``RateLimited`` …"""
    fate: str | None = None
    """Of the message, when the attempt failed: ``not_sent``, ``unknown``, ``accepted``."""
    ttft_seconds: float | None = None
    """From the start of the attempt to the first piece of the answer."""
    seconds: float = 0.0
    points: int | None = None
    detail: str = ""
    """For the operator; short, without secrets."""


class RequestFinished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One public request is over, however it ended. Stands in for an access log."""

    request_id: str
    route: str
    """The route's template (``/v1/models/{id}``), never the raw path."""
    status: int
    """HTTP status sent; for a stream that broke half-way still the 200 it began with (see ``error_code``)."""
    seconds: float
    key_id: str | None = None
    key_name: str | None = None
    model: str | None = None
    """As the caller wrote it."""
    provider: str | None = None
    account_id: str | None = None
    stream: bool = False
    error_code: str | None = None
    attempts: int = 0
    wait_seconds: float = 0.0
    """Spent in the queue for a slot."""
    ttft_seconds: float | None = None
    """From the arrival of the request to the first piece sent."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    usage_estimated: bool = False
    points: int | None = None
    org: str | None = None
    unit: str | None = None
    """Currency of the costs (or ``points``); None: no price is known."""
    raw_cost: int | None = None
    """What the upstreams ask for all attempts, an integer as in ``money``; shown as a decimal number."""
    billed_cost: int | None = None
    """With the markup."""
    limited_by: str | None = None
    """Kind of the caller's own limit that refused it: ``rate``, ``parallel``, ``budget``."""
    replayed: bool = False
    """Answered from the record of an earlier request with the same idempotency key."""
    session: bool = False
    client_gone: bool = False
    candidates: dict[str, int] = {}
    """The decision in numbers: how many accounts were eligible, and how many passed over for which reason."""


class AccountChanged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An account went from one state to another."""

    account_id: str
    provider: str
    old_state: str
    new_state: str
    cause: str
    until: datetime | None = None
    evidence: str = ""
    """Request or duty that brought it about."""


class WaitFinished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A request that had to queue for a slot waits no longer."""

    request_id: str
    seconds: float
    result: WaitResult
    provider: str | None = None


class GrantsChanged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """This process holds another number of slots. ``account_id`` None: of the whole pool's limit."""

    account_id: str | None
    old: int
    new: int
    cause: str = ""


class LeaseLost(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Slots of this process lapsed, or could not be renewed, while it still used them."""

    account_id: str | None
    slots: int
    cause: str = ""


class DutyFinished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A scheduled duty ran."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""


class PoolSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The pool at this moment: ``accounts`` and ``points`` of the whole pool, the rest of this process alone."""

    accounts: dict[str, dict[str, int]]
    """provider -> state -> number of accounts; states without any may be left out."""
    points: dict[str, int] = {}
    """provider -> points left, measured or estimated."""
    inflight: int = 0
    waiting: int = 0


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The ledger of this process at this moment."""

    waiting: int
    """Records on disk that are not in the database yet."""
    oldest_seconds: float = 0.0
    """Age of the oldest of them."""
    open: int = 0
    """Attempts under way."""
    orphans: int = 0
    """Attempts that became orphaned rows by this process's hand since its start."""


class LedgerDrift(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Our rows and an upstream's own figures differ."""

    account_id: str
    provider: str
    kind: DriftKind
    points: int = 0
    """Size of the difference, never negative."""
    entries: int = 0
    """Of the upstream's books, or rows of ours, that it is about; 0: a balance told it."""
    evidence: str = ""
    """``books`` or ``balance``."""


class LoopLag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How late the event loop woke a timer."""

    seconds: float


class Alert(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that the operator should look at, told once when it begins (and once when it ends)."""

    kind: AlertKind
    message: str
    account_id: str | None = None
    fields: dict[str, Any] = {}


class Escalated(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A request left one leg of its way for the next.

    ``reason``: an error's code, or what was wrong with the answer.
    """

    profile: str
    tier: str
    reason: str


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Anything else that an operator should read."""

    level: Literal["debug", "info", "warning", "error"]
    message: str
    fields: dict[str, Any] = {}


Event = (
    AttemptFinished
    | RequestFinished
    | AccountChanged
    | WaitFinished
    | GrantsChanged
    | LeaseLost
    | DutyFinished
    | PoolSnapshot
    | LedgerSnapshot
    | LedgerDrift
    | LoopLag
    | Alert
    | Escalated
    | Notice
)
