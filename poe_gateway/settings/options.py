"""The options, one frozen group per room. Durations in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import SecretStr


@dataclass(frozen=True, kw_only=True, slots=True)
class MongoOptions:
    """Where the state lives. ``uri`` None: the gateway runs an embedded mongod in ``data_dir``."""

    uri: SecretStr | None
    db: str
    data_dir: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class VaultOptions:
    """Fernet keys, newest first."""

    keys: tuple[SecretStr, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthOptions:
    """The operator's key, and the service keys that exist from the first start."""

    admin_key: SecretStr
    bootstrap_keys: tuple[SecretStr, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolOptions:
    """Limits and patience of the pool."""

    max_inflight_per_account: int
    global_inflight_limit: int
    depleted_threshold: int
    cooldown_seconds: float
    acquire_timeout_seconds: float
    queue_limit: int
    max_attempts: int
    grant_lifetime_seconds: float
    strategy: str
    """A word of the pool's ``Strategy``."""
    model_strategies: tuple[tuple[str, str], ...]
    """Pairs (pattern of the model's public name, strategy); the first that fits wins over ``strategy``."""
    cooldown_max_seconds: float
    retry_after_max_seconds: float
    hold_back_seconds: float
    queue_notice_seconds: float
    """0: waiting requests are told nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleOptions:
    """What happens by itself, and when."""

    reset_timezone: str
    reset_hour: int
    reset_point_balance: int
    refresh_interval_seconds: float
    recent_active_minutes: float
    revalidate_interval_seconds: float
    prewarm_on_startup: bool
    prewarm_concurrency: int
    prewarm_account_timeout_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PoeOptions:
    """The Poe web adapter. ``ws_base_url`` None: the push channel that the site itself names."""

    base_url: str
    ws_base_url: str | None
    revision: str
    auto_fetch_revision: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """The HTTP door."""

    host: str
    port: int
    workers: int
    docs_enabled: bool
    request_timeout_seconds: float
    max_body_bytes: int
    demo_pool: bool
    admin_host: str
    admin_port: int
    """0: none of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogOptions:
    """``auto`` is text on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error", "critical"]
    format: Literal["auto", "json", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """Stickiness of conversations: ``soft`` moves to another account when it must, ``strict`` answers 409.

    After ``max_requests`` or ``max_seconds`` a session may move although its account is well. ``prefix_affinity``:
    conversations without a session id are recognised by how they begin.
    """

    affinity: Literal["soft", "strict"]
    ttl_seconds: float
    prefix_affinity: bool
    max_requests: int
    max_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainOptions:
    """What is kept of decisions, and for how long. ``decisions_store_mb`` 0: in memory only."""

    decisions_store_mb: int
    history_days: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitOptions:
    """What keys may do that say nothing of their own (0: anything), and what all keys together may do."""

    requests_per_minute_default: int
    tokens_per_minute_default: int
    requests_per_minute_global: int
    tokens_per_minute_global: int
    auth_failures_per_minute: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MoneyOptions:
    """Budgets and the ledger. ``unpriced``: what happens under a money budget to a model without a price.

    Days of 0: kept for ever.
    """

    budget_zone: str
    unpriced: Literal["allow", "refuse"]
    ledger_days: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditOptions:
    """What is kept for the auditor. Days of 0: for ever; ``traffic_days`` 0: nothing is kept of requests."""

    traffic_days: int
    changes_days: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IdempotencyOptions:
    """Repetitions of a request. ``streams`` ``reject``: 400 for a stream with an Idempotency-Key."""

    ttl_seconds: float
    streams: Literal["replay", "reject"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutingOptions:
    """Where requests may go. ``providers``: backends that the settings themselves name."""

    routes_file: Path | None
    default_provider: str | None
    providers: tuple[ProviderOptions, ...]
    retry_delay_seconds: float
    models_ttl_seconds: float
    models_fallback: tuple[str, ...]
    outbound_allow: tuple[str, ...]
    responses_ttl_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderOptions:
    """One backend out of the settings; its key is read when it is needed, by the variable's name."""

    name: str
    key_variable: str
    base_url: str | None
    extra: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything the composition root hands out. ``config_file`` is the file that was read, if any."""

    mongo: MongoOptions
    vault: VaultOptions
    auth: AuthOptions
    pool: PoolOptions
    schedule: ScheduleOptions
    poe: PoeOptions
    serve: ServeOptions
    log: LogOptions
    session: SessionOptions
    explain: ExplainOptions
    limits: LimitOptions
    money: MoneyOptions
    audit: AuditOptions
    idempotency: IdempotencyOptions
    routing: RoutingOptions
    references: Mapping[str, SecretStr] = field(default_factory=dict)
    """Secrets of the configuration file that the routing file may name: variables that are none of ours."""
    config_file: Path | None = None
