"""The table of all variables.

One module although long: it is one table, and the README and ``.env.gateway.example`` are made from it. Whoever adds a
variable changes this table, a group in ``options`` and the mapping in ``loading`` together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from poe_gateway.settings.readers import (
    Reader,
    base_url,
    choice,
    header_text,
    matching,
    model_strategies,
    names,
    number,
    push_url,
    strategy,
    switch,
    whole,
    zone,
)
from poe_gateway.settings.secret_readers import (
    ADMIN_KEY_MINIMUM,
    SERVICE_KEY_MINIMUM,
    admin_key,
    fernet_keys,
    mongo_uri,
    service_keys,
    upstream_key,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """One variable: how it is called, what it is when nobody sets it, what it means and how its text is read."""

    name: str
    default: str | None
    """As text; None: no default."""
    meaning: str
    section: str
    read: Reader = field(repr=False)
    required: bool = False
    secret: bool = False
    sample: str | None = None
    """Stands in ``.env.gateway.example`` where a default would be wrong."""


_DAY = 86_400
_YEAR = 366 * _DAY

_STORAGE = "MongoDB and the vault"
_KEYS = "Keys"
_POE = "Poe"
_RESET = "Daily reset"
_POOL = "Pool"
_DUTIES = "Background duties"
_SESSIONS = "Sessions"
_EXPLAIN = "Explanations"
_LIMITS = "Limits and budgets"
_LEDGER = "Ledger, audit and repetitions"
_SERVER = "Server"
_LOGS = "Logs"
_ROUTING = "Routing and providers"


def _row(section: str, name: str, default: str | None, read: Reader, meaning: str, **more: Any) -> Variable:
    return Variable(section=section, name=name, default=default, read=read, meaning=meaning, **more)


VARIABLES: tuple[Variable, ...] = (
    _row(
        _STORAGE,
        "MONGODB_URI",
        None,
        mongo_uri,
        "Connection string of a MongoDB. Leave it out and the gateway runs a small one of its own on loopback.",
        secret=True,
        sample="mongodb://127.0.0.1:27017",
    ),
    _row(
        _STORAGE,
        "MONGODB_DB",
        "poe_gateway",
        matching(r"[A-Za-z0-9_-]{1,63}", "must be 1 to 63 letters, digits, underscores or hyphens"),
        "Name of the database.",
    ),
    _row(
        _STORAGE,
        "GATEWAY_DATA_DIR",
        "./.gateway-data",
        str,
        "Folder for what is kept outside MongoDB, the embedded database included. Relative to the working directory.",
    ),
    _row(
        _STORAGE,
        "FERNET_KEY",
        None,
        fernet_keys,
        "Seals the credentials. Several, separated by commas, newest first: the first seals, all of them open.",
        required=True,
        secret=True,
        sample="<fernet-key>",
    ),
    _row(
        _KEYS,
        "ADMIN_API_KEY",
        None,
        admin_key,
        f"Opens `/admin/*` and nothing else. A random string of at least {ADMIN_KEY_MINIMUM} characters.",
        required=True,
        secret=True,
        sample="<admin-key>",
    ),
    _row(
        _KEYS,
        "SERVICE_API_KEYS_BOOTSTRAP",
        "",
        service_keys,
        f"Comma list of service keys that exist from the first start, at least {SERVICE_KEY_MINIMUM} characters each; "
        "stored as keyed hashes. They open `/v1/*` and nothing else.",
        secret=True,
        sample="<service-key-1>,<service-key-2>",
    ),
    _row(
        _POE,
        "POE_BASE_URL",
        "https://poe.com",
        base_url("https", "http"),
        "Where the Poe site is.",
    ),
    _row(
        _POE,
        "POE_WS_BASE_URL",
        None,
        push_url,
        "Where the push channel is, in place of the address that the site names.",
        sample="wss://push.example.org",
    ),
    _row(
        _POE,
        "POE_REVISION",
        "b759a4647fa291beba4792e9139bc4c014399434",
        matching(r"[A-Za-z0-9._-]{1,128}", "must be a revision as the site prints it: letters, digits, . _ -"),
        "Revision of the site that accounts speak when they bring none of their own.",
    ),
    _row(
        _POE,
        "AUTO_FETCH_POE_REVISION",
        "true",
        switch,
        "Read the current revision from the site at start-up; `POE_REVISION` is then what is used when that fails.",
    ),
    _row(_RESET, "DAILY_RESET_TIMEZONE", "America/Los_Angeles", zone, "Time zone of the daily renewal of points."),
    _row(_RESET, "DAILY_RESET_HOUR", "0", whole(0, 23), "Local hour of the renewal, 0 to 23."),
    _row(
        _RESET,
        "DAILY_RESET_POINT_BALANCE",
        "3000",
        whole(0, 1_000_000_000),
        "Points that an account has after the renewal. A higher measured balance is left alone.",
    ),
    _row(
        _POOL,
        "POOL_STRATEGY",
        "balanced",
        strategy,
        "In which order accounts of one priority are used: `balanced` (fewest requests in flight), `spend_first` "
        "(points renewed soonest), `fill_first` (the oldest up to its limit), `round_robin`, `weighted` (by weight "
        "times slots) or `single` (one until it leaves service).",
    ),
    _row(
        _POOL,
        "MODEL_STRATEGIES",
        "",
        model_strategies,
        "Comma list of `pattern=strategy` for models that want another order; the first pattern that fits a model's "
        "public name wins.",
        sample="gpt-4o*=spend_first,*-mini=round_robin",
    ),
    _row(
        _POOL,
        "MAX_INFLIGHT_PER_ACCOUNT",
        "2",
        whole(1, 10_000),
        "Requests that one account may carry at a time, over all processes.",
    ),
    _row(
        _POOL,
        "GLOBAL_INFLIGHT_LIMIT",
        "200",
        whole(1, 1_000_000),
        "Requests that the whole pool may carry at a time, over all processes.",
    ),
    _row(
        _POOL,
        "DEPLETED_THRESHOLD",
        "20",
        whole(0, 1_000_000_000),
        "An account with fewer points than this is depleted and not chosen.",
    ),
    _row(
        _POOL,
        "COOLDOWN_SECONDS",
        "120",
        number(0, 30 * _DAY, "seconds"),
        "How long an account rests after repeated failures or a rate limit that names no time; each further time in a "
        "row twice as long.",
    ),
    _row(
        _POOL,
        "COOLDOWN_MAX_SECONDS",
        "1800",
        number(0, 30 * _DAY, "seconds"),
        "The longest that such a rest may become.",
    ),
    _row(
        _POOL,
        "RETRY_AFTER_MAX_SECONDS",
        "1800",
        number(1, 30 * _DAY, "seconds"),
        "Up to this an upstream is believed that says when to come back.",
    ),
    _row(
        _POOL,
        "ACQUIRE_TIMEOUT_SECONDS",
        "30",
        number(0, _DAY, "seconds"),
        "How long a request may wait for an account; 0 answers at once.",
    ),
    _row(_POOL, "QUEUE_LIMIT", "1000", whole(0, 1_000_000), "Requests that may wait, per process."),
    _row(
        _POOL,
        "QUEUE_NOTICE_SECONDS",
        "2",
        number(0, _DAY, "seconds"),
        "After waiting this long a streaming request gets its 200 and comments with its place in the queue; 0 turns it "
        "off.",
    ),
    _row(
        _POOL,
        "MAX_ATTEMPTS",
        "3",
        whole(1, 20),
        "Accounts that one request may try, always before its first byte.",
    ),
    _row(
        _POOL,
        "HOLD_BACK_MS",
        "50",
        number(0, 2_000, "milliseconds"),
        "How long the first piece of a streamed answer may be held back, so that an error right behind it can still be "
        "hidden by another account.",
    ),
    _row(
        _POOL,
        "GRANT_LIFETIME_SECONDS",
        "20",
        number(1, 600, "seconds"),
        "After this long the slots of a process that died are free again. For 0.6 of it a process goes on without "
        "MongoDB.",
    ),
    _row(
        _DUTIES,
        "REFRESH_INTERVAL_SECONDS",
        "600",
        number(1, 30 * _DAY, "seconds"),
        "How often the points of recently used accounts are read.",
    ),
    _row(
        _DUTIES,
        "RECENT_ACTIVE_MINUTES",
        "120",
        number(0, 60 * 24 * 366, "minutes"),
        "What counts as recently used.",
    ),
    _row(
        _DUTIES,
        "REVALIDATE_INTERVAL_SECONDS",
        "3600",
        number(0, 30 * _DAY, "seconds"),
        "How often an invalid account is carefully tried again, never after a challenge; 0 turns it off.",
    ),
    _row(_DUTIES, "PREWARM_ON_STARTUP", "true", switch, "Open accounts before the first request needs them."),
    _row(_DUTIES, "PREWARM_CONCURRENCY", "5", whole(1, 1_000), "Accounts opened at a time."),
    _row(
        _DUTIES,
        "PREWARM_ACCOUNT_TIMEOUT_SECONDS",
        "20",
        number(0.1, 3_600, "seconds"),
        "How long one account may take to open.",
    ),
    _row(
        _SESSIONS,
        "SESSION_AFFINITY",
        "soft",
        choice("soft", "strict"),
        "What happens when the account of a session is gone: `soft` moves the session to another account, "
        "`strict` answers 409.",
    ),
    _row(
        _SESSIONS,
        "SESSION_TTL_SECONDS",
        "86400",
        number(1, _YEAR, "seconds"),
        "A session unused for this long is forgotten.",
    ),
    _row(
        _SESSIONS,
        "PREFIX_AFFINITY",
        "true",
        switch,
        "Conversations without a session id go back to the account that knows how they began.",
    ),
    _row(
        _SESSIONS,
        "AFFINITY_MAX_REQUESTS",
        "200",
        whole(1, 1_000_000),
        "After this many requests a session may move although its account is well.",
    ),
    _row(
        _SESSIONS,
        "AFFINITY_MAX_SECONDS",
        "3600",
        number(1, _YEAR, "seconds"),
        "After this long on one account a session may move.",
    ),
    _row(
        _EXPLAIN,
        "DECISIONS_STORE_MB",
        "64",
        whole(0, 10_000),
        "Room in MongoDB for the records of how requests were decided, in megabytes, the oldest go first; 0 keeps them "
        "in memory only.",
    ),
    _row(
        _EXPLAIN,
        "ACCOUNT_HISTORY_DAYS",
        "30",
        whole(1, 3_650),
        "How long the history of accounts is kept.",
    ),
    _row(
        _ROUTING,
        "GATEWAY_ROUTES_FILE",
        "",
        str,
        "File with backends, tiers, aliases and profiles (see `docs/routing.md`). Relative to the working directory; "
        "left out, `gateway.toml` there is read if it exists.",
    ),
    _row(
        _ROUTING,
        "DEFAULT_PROVIDER",
        None,
        matching(r"[A-Za-z0-9_.-]{1,64}", "must be the name of a provider or of a backend, such as mock or openai"),
        "Where a model goes that no catalogue knows; left out, it goes to accounts whose catalogue is not known yet, "
        "or the answer is 404.",
    ),
    _row(
        _ROUTING,
        "OPENAI_API_KEY",
        None,
        upstream_key,
        "Key of an OpenAI-compatible provider. Becomes the backend `openai` if it stands in the configuration file or "
        "`DEFAULT_PROVIDER` is `openai`. It is never stored.",
        secret=True,
    ),
    _row(
        _ROUTING,
        "OPENAI_BASE_URL",
        "https://api.openai.com/v1",
        base_url("https", "http"),
        "Address of that provider, with or without `/v1`.",
    ),
    _row(_ROUTING, "OPENAI_HTTP_REFERER", "", header_text, "Sent to that provider as `HTTP-Referer`."),
    _row(_ROUTING, "OPENAI_TITLE", "", header_text, "Sent to that provider as `X-Title`."),
    _row(
        _ROUTING,
        "QWEN_API_KEY",
        None,
        upstream_key,
        "Key of DashScope. Becomes the backend `qwen` under the same conditions.",
        secret=True,
    ),
    _row(
        _ROUTING,
        "QWEN_BASE_URL",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        base_url("https", "http"),
        "Address of DashScope in the key's own region (`us`, `intl` or `cn`); a key is refused in any other.",
    ),
    _row(
        _ROUTING,
        "ANTHROPIC_API_KEY",
        None,
        upstream_key,
        "Key of Anthropic. Becomes the backend `anthropic` under the same conditions.",
        secret=True,
    ),
    _row(
        _ROUTING,
        "UPSTREAM_RETRY_DELAY_MS",
        "200",
        whole(0, 60_000),
        "Where no other account is left, one that failed for a moment is tried again after so long, doubling up to ten "
        "times as long, within `MAX_ATTEMPTS`; 0 never does.",
    ),
    _row(
        _ROUTING,
        "MODELS_CACHE_TTL_SECONDS",
        "3600",
        number(1, _YEAR, "seconds"),
        "Age at which a provider's list of models is read again. The old one serves meanwhile.",
    ),
    _row(
        _ROUTING,
        "MODELS_FALLBACK",
        "",
        names,
        "Models that are listed when no provider's list can be read and none is stored, separated by commas.",
    ),
    _row(
        _ROUTING,
        "OUTBOUND_ALLOW",
        "",
        names,
        "Hosts and networks inside your own network that images and addresses set at run time may lead to, separated "
        "by commas: `localhost:11434, 10.0.0.0/8`. All others that are not public are refused.",
    ),
    _row(
        _ROUTING,
        "RESPONSES_TTL_SECONDS",
        "2592000",
        number(60, 10 * _YEAR, "seconds"),
        "How long a response of `/v1/responses` is kept that was asked for with `store: true`.",
    ),
    _row(
        _LIMITS,
        "RATE_LIMIT_RPM_DEFAULT",
        "0",
        whole(-1, 1_000_000_000),
        "Requests per minute of a service key that has no limit of its own; 0 or less is unlimited.",
    ),
    _row(
        _LIMITS,
        "RATE_LIMIT_TPM_DEFAULT",
        "0",
        whole(-1, 1_000_000_000_000),
        "Tokens per minute of a service key that has no limit of its own; 0 or less is unlimited.",
    ),
    _row(
        _LIMITS,
        "RATE_LIMIT_RPM_GLOBAL",
        "0",
        whole(-1, 1_000_000_000),
        "Requests per minute of all keys together; 0 or less is unlimited.",
    ),
    _row(
        _LIMITS,
        "RATE_LIMIT_TPM_GLOBAL",
        "0",
        whole(-1, 1_000_000_000_000),
        "Tokens per minute of all keys together; 0 or less is unlimited.",
    ),
    _row(
        _LIMITS,
        "AUTH_FAILURES_PER_MINUTE",
        "30",
        whole(0, 1_000_000),
        "Wrong keys that one address may send per minute, to each process; beyond it the answer is 429. 0 turns it "
        "off.",
    ),
    _row(_LIMITS, "BUDGET_TIMEZONE", "UTC", zone, "Time zone in which the days and months of budgets begin."),
    _row(
        _LIMITS,
        "BUDGET_UNPRICED",
        "allow",
        choice("allow", "refuse"),
        "What happens to a request under a money budget when nothing is known about the model's price: `allow` "
        "counts it as free, `refuse` answers 403.",
    ),
    _row(
        _LEDGER,
        "LEDGER_DAYS",
        "0",
        whole(0, 36_500),
        "How long the ledger's rows are kept; 0 is for ever.",
    ),
    _row(
        _LEDGER,
        "AUDIT_TRAFFIC_DAYS",
        "30",
        whole(0, 36_500),
        "How long the shape of requests (roles, lengths, digests; no text) is kept for the auditor; 0 turns it off.",
    ),
    _row(
        _LEDGER,
        "AUDIT_CHANGES_DAYS",
        "0",
        whole(0, 36_500),
        "How long the chain of the operators' changes is kept; 0 is for ever.",
    ),
    _row(
        _LEDGER,
        "IDEMPOTENCY_TTL_SECONDS",
        "86400",
        number(1, _YEAR, "seconds"),
        "How long an answer to a request with an `Idempotency-Key` is kept and given again.",
    ),
    _row(
        _LEDGER,
        "IDEMPOTENCY_STREAMS",
        "replay",
        choice("replay", "reject"),
        "Streams with an `Idempotency-Key`: `replay` records and repeats them, `reject` answers 400.",
    ),
    _row(
        _SERVER,
        "GATEWAY_HOST",
        "127.0.0.1",
        matching(r"[A-Za-z0-9.:_%-]{1,253}", "must be a host name or an IP address, without a port"),
        "Address to listen on; `0.0.0.0` is every network.",
    ),
    _row(_SERVER, "GATEWAY_PORT", "8000", whole(0, 65_535), "Port to listen on; 0 takes any free one."),
    _row(
        _SERVER,
        "ADMIN_PORT",
        "0",
        whole(0, 65_535),
        "Port that alone serves `/admin`, `/metrics` and the dashboard; 0: the main port serves them too.",
    ),
    _row(
        _SERVER,
        "ADMIN_HOST",
        "127.0.0.1",
        matching(r"[A-Za-z0-9.:_%-]{1,253}", "must be a host name or an IP address, without a port"),
        "Address of the admin port.",
    ),
    _row(
        _SERVER,
        "GATEWAY_WORKERS",
        "1",
        whole(1, 256),
        "Worker processes of `poe-gateway serve`.",
    ),
    _row(
        _SERVER,
        "GATEWAY_DEMO_POOL",
        "false",
        switch,
        "Serve from built-in mock accounts as long as the pool is empty.",
    ),
    _row(_SERVER, "DOCS_ENABLED", "true", switch, "Serve `/docs` and `/openapi.json`."),
    _row(
        _SERVER,
        "REQUEST_TIMEOUT_SECONDS",
        "300",
        number(1, _DAY, "seconds"),
        "How long an upstream may take for one answer, from first to last byte.",
    ),
    _row(
        _SERVER,
        "MAX_BODY_BYTES",
        "20971520",
        whole(1_024, 1_073_741_824),
        "Largest body of a chat completion; beyond it the answer is 413. Bodies for `/admin` may have 1 MiB.",
    ),
    _row(
        _LOGS,
        "LOG_LEVEL",
        "info",
        choice("debug", "info", "warning", "error", "critical"),
        "Least severe records that are written.",
    ),
    _row(
        _LOGS,
        "LOG_FORMAT",
        "auto",
        choice("auto", "json", "text"),
        "`auto` writes text on a terminal and JSON elsewhere.",
    ),
)

BY_NAME = {variable.name: variable for variable in VARIABLES}
