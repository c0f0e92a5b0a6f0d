"""An account as the pool sees it: small, frozen, without credentials.

Health is data (state, cause, scope, until, evidence) and derived; ``intent`` belongs to the operator and is
never touched by derived health. Change is a function in ``transitions``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNPRICED_MODELS = 16


class Intent(StrEnum):
    """What the operator wants."""

    ENABLED = "enabled"
    PAUSED = "paused"


class State(StrEnum):
    """What the pool knows."""

    ACTIVE = "active"
    COOLDOWN = "cooldown"
    DEPLETED = "depleted"
    INVALID = "invalid"


class Cause(StrEnum):
    """Why the state is what it is."""

    NEW = "new"
    HEALTHY = "healthy"
    RATE_LIMITED = "rate_limited"
    ERRORS = "errors"
    TIMEOUTS = "timeouts"
    NETWORK = "network"
    """The way to the upstream failed: seconds of rest, no strike."""
    POINTS_GONE = "points_gone"
    BELOW_THRESHOLD = "below_threshold"
    """Fewer points than the depletion threshold, or than what is kept for the owner."""
    UNAUTHORIZED = "unauthorized"
    CHALLENGED = "challenged"
    VAULT = "vault"
    """The stored credential cannot be opened with the configured keys."""
    RENEWED = "renewed"
    OPERATOR = "operator"


class Scope(StrEnum):
    """What a fault is charged to."""

    ACCOUNT = "account"
    ACCOUNT_MODEL = "account+model"
    EGRESS = "egress"
    ADAPTER = "adapter"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Derived health. ``until`` is None for a state that time alone does not end."""

    state: State = State.ACTIVE
    cause: Cause = Cause.NEW
    scope: Scope = Scope.ACCOUNT
    since: datetime = EPOCH
    until: datetime | None = None
    evidence: str = ""
    """Id of the request or duty that brought it about."""
    told: bool = False
    """The upstream itself named ``until``: only time, a success or the operator ends the rest before."""
    trial: bool = False
    """Just back from a rest that failures brought about: exactly one request at a time, until one succeeds."""


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Points left. ``estimated`` is True when nobody measured the figure since it was last changed by rule."""

    points: int | None = None
    estimated: bool = True
    measured_at: datetime | None = None
    subscription_active: bool | None = None
    allotment: int | None = None
    next_grant_at: datetime | None = None
    booked: int = 0
    """Points that we know or believe to have spent since ``measured_at``."""
    unpriced: dict[str, int] = {}
    """Requests since ``measured_at`` whose price nobody told: model -> how many. Bounded by ``UNPRICED_MODELS``."""
    measured: int | None = None
    """Points at ``measured_at``, whatever rules have done to ``points`` since."""
    drift: int = 0
    """Points that were gone at the last measurement without our doing, less those that turned up later."""


class ResetClock(msgspec.Struct, frozen=True, kw_only=True):
    """When in the local day the account's points are renewed, learned from jumps that were observed.

    The jump lies after ``low`` and at or before ``high``: seconds after the configured reset hour, on the wall clock of
    the configured zone; 0 < high <= 86400 and 0 < high - low < 86400 (``low`` is below zero where the window goes over
    the configured hour). ``seen`` jumps agree with it.
    """

    low: float
    high: float
    seen: int = 1
    last_jump_at: datetime


class ModelBlock(msgspec.Struct, frozen=True, kw_only=True):
    """This account may not be used for one model for a while."""

    model: str
    cause: Cause
    until: datetime


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """The newest failure, for the operator."""

    kind: str
    detail: str
    at: datetime


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream account. ``rev`` grows by one with every stored change of anything but grants."""

    id: str
    provider: str
    name: str
    """What the operator calls it; for Poe the e-mail. Unique per provider (compared in lower case)."""
    offer: str
    """Catalogue key: accounts of one offer serve the same models (``poe_web``, ``openai_api:<host>`` …)."""
    intent: Intent = Intent.ENABLED
    health: Health = Health()
    model_blocks: tuple[ModelBlock, ...] = ()
    balance: Balance = Balance()
    metered: bool = False
    """True when the account spends points, so that depletion and renewal apply."""
    renews_daily: bool = False
    """True when the daily reset of the settings applies to the account."""
    reset_day: str | None = None
    """Local day (ISO date in the reset's time zone) whose reset is already in ``balance``."""
    max_inflight: int | None = None
    """Own limit of concurrent requests; None = the pool's default."""
    priority: int = 0
    """Accounts of a higher priority are used first."""
    weight: int = 1
    """Share of work under the weighted strategy, multiplied with the number of slots."""
    labels: tuple[str, ...] = ()
    """Words by which keys choose accounts; sorted, in lower case."""
    keep_percent: int = 0
    """Part of the daily allotment that is kept for the account's owner: never spent by the pool."""
    vendor: str | None = None
    """Where the account was bought. This and the next five are the operator's notes; nothing is decided by them."""
    batch: str | None = None
    """With which others it was bought."""
    purchase_price: int | None = None
    """What it cost, in 10**-8 of ``currency``."""
    currency: str = "USD"
    purchased_at: datetime | None = None
    expires_at: datetime | None = None
    """The account's own end, as far as the operator knows."""
    reset_clock: ResetClock | None = None
    error_count: int = 0
    strikes: int = 0
    """Rests in a row that failures brought about: each is longer than the last. A success ends the row."""
    demo: bool = False
    last_used_at: datetime | None = None
    last_success_at: datetime | None = None
    last_refresh_at: datetime | None = None
    last_error: LastError | None = None
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH
    rev: int = 0
    credential_rev: int = 0
    """Grows when the operator hands in new credentials: adapters drop what they derived from the old ones."""
    details: dict[str, Any] = {}
    """Small public facts from the adapter (base URL host, plan name …), never a secret."""

    @property
    def health_score(self) -> int:
        """The seed's figure: a tenth of the points plus 20 for a subscription, at most 100."""
        points = self.balance.points or 0
        return min(100, points // 10 + (20 if self.balance.subscription_active else 0))
