"""Settings: environment and ``.env.gateway`` in, frozen options out, one group per room.

Every variable is one row of ``VARIABLES``; the table in the README and ``.env.gateway.example`` are made from the
same rows. All problems are collected and told in one ``SettingsError``, which names variables and never shows
the value of a secret. Nothing below this floor reads the environment.

One module although long: more than half of it is the table and its mapping to the groups, and whoever adds a variable
changes the table, the group and the mapping together.
"""

from __future__ import annotations

import base64
import difflib
import math
import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from dotenv.parser import parse_stream
from pydantic import SecretStr

from poe_gateway.vault import BadKey, Vault

CONFIG_FILE_VARIABLE = "GATEWAY_CONFIG_FILE"
DEFAULT_CONFIG_FILE = ".env.gateway"
ADMIN_KEY_MINIMUM = 24
SERVICE_KEY_MINIMUM = 12


class SettingsError(Exception):
    """The settings cannot be used. The message lists every problem, one a line, without any secret."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"The settings have {count}:\n" + "\n".join(f"  - {problem}" for problem in problems))


# --- the options, one group per room ---------------------------------------------------------------------------------


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


@dataclass(frozen=True, kw_only=True, slots=True)
class LogOptions:
    """``auto`` is text on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error", "critical"]
    format: Literal["auto", "json", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """Stickiness of conversations: ``soft`` moves to another account when it must, ``strict`` answers 409."""

    affinity: Literal["soft", "strict"]
    ttl_seconds: float


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
    config_file: Path | None = None


# --- reading one value -----------------------------------------------------------------------------------------------


class _Bad(ValueError):
    """A value does not fit; the text completes the sentence ``NAME …`` and never holds the value itself."""


Reader = Callable[[str], Any]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_SAMPLES = frozenset(
    {
        "adm_7qm2",
        "admin",
        "changeme",
        "cw_0x689rpi-jtrr7oe8h_eqskimvjaplesbxpwf4e4=",  # the Fernet specification's example
        "password",
        "secret",
        "sk-1234",
        "svc_app_a",
        "svc_app_b",
        "test",
        "youradminkey",
        "yourapikey",
        "yoursecretkey",
    }
)
_FEWEST_DISTINCT = 8  # a random key of 24 characters has far more different ones; "aaaa…" and "12341234…" have fewer


def _whole(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise _Bad(f"must be a whole number from {low} to {high}") from None
        if not low <= number <= high:
            raise _Bad(f"must be from {low} to {high}")
        return number

    return read


def _number(low: float, high: float, unit: str) -> Reader:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:  # refuses NaN as well
            raise _Bad(f"must be a number of {unit} from {low:g} to {high:g}")
        return number

    return read


def _switch(text: str) -> bool:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise _Bad("must be true or false")


def _choice(*words: str) -> Reader:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise _Bad("must be " + ", ".join(words[:-1]) + " or " + words[-1])
        return text.lower()

    return read


def _matching(pattern: str, wish: str) -> Reader:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise _Bad(wish)
        return text

    return read


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # an unknown zone is a KeyError, a path or a folder one of the others
        raise _Bad("must be a time zone of the IANA database, such as America/Los_Angeles or Europe/Berlin") from None
    return text


def _base_url(*schemes: str) -> Reader:
    wish = f"must be an address like {schemes[0]}://host or {schemes[0]}://host:port, without user, query or fragment"

    def read(text: str) -> str:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise _Bad(wish) from None
        bare = not (parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme not in schemes or not parts.hostname or port == 0 or not bare or re.search(r"\s", text):
            raise _Bad(wish)
        return text.rstrip("/")

    return read


def _push_url(text: str) -> str:
    address: str = _base_url("wss", "ws", "https", "http")(text)
    return re.sub(r"^http", "ws", address)


def _mongo_uri(text: str) -> SecretStr:
    if not re.fullmatch(r"mongodb(\+srv)?://[^\s/]+(/\S*)?", text):
        raise _Bad(
            "must start with mongodb:// or mongodb+srv:// and name a host; leave it out for the embedded MongoDB"
        )
    return SecretStr(text)


def _refuse_sample(text: str) -> None:
    """Raises _Bad for placeholders, for samples that documents have published, and for a few characters repeated."""
    word = text.lower()
    if re.fullmatch(r"<.*>|.*(\.\.\.|…)", word) or re.sub(r"[.…]+$", "", word) in _SAMPLES:
        raise _Bad("is still a placeholder or a sample from documents; make one of your own")
    if re.sub(r"[^a-z0-9]", "", word) in _SAMPLES or "changeme" in re.sub(r"[-_ ]", "", word):
        raise _Bad("is still a placeholder or a sample from documents; make one of your own")


def _api_key(text: str, minimum: int) -> SecretStr:
    _refuse_sample(text)
    if len(text) < minimum:
        raise _Bad(f"is too short: at least {minimum} characters are needed")
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise _Bad("may hold only visible ASCII characters, no spaces: it travels in an HTTP header")
    if len(set(text)) < min(_FEWEST_DISTINCT, minimum // 2):
        raise _Bad("repeats a few characters; make a random one")
    return SecretStr(text)


def _admin_key(text: str) -> SecretStr:
    return _api_key(text, ADMIN_KEY_MINIMUM)


def _numbered(text: str, read: Callable[[str], SecretStr]) -> tuple[SecretStr, ...]:
    """A comma list. A bad entry is named by its place, since it may not be shown."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    values: dict[str, SecretStr] = {}
    for place, entry in enumerate(entries, 1):
        try:
            values.setdefault(entry, read(entry))
        except _Bad as bad:
            raise _Bad(f"{bad}" if len(entries) == 1 else f"(entry {place} of {len(entries)}) {bad}") from None
    return tuple(values.values())


def _service_keys(text: str) -> tuple[SecretStr, ...]:
    return _numbered(text, lambda entry: _api_key(entry, SERVICE_KEY_MINIMUM))


def _fernet_key(text: str) -> SecretStr:
    _refuse_sample(text)
    try:
        Vault((text,))
    except BadKey:
        raise _Bad(
            "is not a Fernet key: 32 random bytes in URL-safe base64 (make one: poe-gateway vault new-key)"
        ) from None
    if len(set(base64.urlsafe_b64decode(text))) < _FEWEST_DISTINCT:
        raise _Bad("repeats a few bytes; make a random one: poe-gateway vault new-key")
    return SecretStr(text)


def _fernet_keys(text: str) -> tuple[SecretStr, ...]:
    keys = _numbered(text, _fernet_key)
    if not keys:
        raise _Bad("holds no key")
    return keys


# --- the table -------------------------------------------------------------------------------------------------------


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
_SERVER = "Server"
_LOGS = "Logs"


def _row(section: str, name: str, default: str | None, read: Reader, meaning: str, **more: Any) -> Variable:
    return Variable(section=section, name=name, default=default, read=read, meaning=meaning, **more)


VARIABLES: tuple[Variable, ...] = (
    _row(
        _STORAGE,
        "MONGODB_URI",
        None,
        _mongo_uri,
        "Connection string of a MongoDB. Leave it out and the gateway runs a small one of its own on loopback.",
        secret=True,
        sample="mongodb://127.0.0.1:27017",
    ),
    _row(
        _STORAGE,
        "MONGODB_DB",
        "poe_gateway",
        _matching(r"[A-Za-z0-9_-]{1,63}", "must be 1 to 63 letters, digits, underscores or hyphens"),
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
        _fernet_keys,
        "Seals the credentials. Several, separated by commas, newest first: the first seals, all of them open.",
        required=True,
        secret=True,
        sample="<fernet-key>",
    ),
    _row(
        _KEYS,
        "ADMIN_API_KEY",
        None,
        _admin_key,
        f"Opens `/admin/*` and nothing else. A random string of at least {ADMIN_KEY_MINIMUM} characters.",
        required=True,
        secret=True,
        sample="<admin-key>",
    ),
    _row(
        _KEYS,
        "SERVICE_API_KEYS_BOOTSTRAP",
        "",
        _service_keys,
        f"Comma list of service keys that exist from the first start, at least {SERVICE_KEY_MINIMUM} characters each; "
        "stored as keyed hashes. They open `/v1/*` and nothing else.",
        secret=True,
        sample="<service-key-1>,<service-key-2>",
    ),
    _row(
        _POE,
        "POE_BASE_URL",
        "https://poe.com",
        _base_url("https", "http"),
        "Where the Poe site is.",
    ),
    _row(
        _POE,
        "POE_WS_BASE_URL",
        None,
        _push_url,
        "Where the push channel is, in place of the address that the site names.",
        sample="wss://push.example.org",
    ),
    _row(
        _POE,
        "POE_REVISION",
        "b759a4647fa291beba4792e9139bc4c014399434",
        _matching(r"[A-Za-z0-9._-]{1,128}", "must be a revision as the site prints it: letters, digits, . _ -"),
        "Revision of the site that accounts speak when they bring none of their own.",
    ),
    _row(
        _POE,
        "AUTO_FETCH_POE_REVISION",
        "true",
        _switch,
        "Read the current revision from the site at start-up; `POE_REVISION` is then what is used when that fails.",
    ),
    _row(_RESET, "DAILY_RESET_TIMEZONE", "America/Los_Angeles", _zone, "Time zone of the daily renewal of points."),
    _row(_RESET, "DAILY_RESET_HOUR", "0", _whole(0, 23), "Local hour of the renewal, 0 to 23."),
    _row(
        _RESET,
        "DAILY_RESET_POINT_BALANCE",
        "3000",
        _whole(0, 1_000_000_000),
        "Points that an account has after the renewal. A higher measured balance is left alone.",
    ),
    _row(
        _POOL,
        "MAX_INFLIGHT_PER_ACCOUNT",
        "2",
        _whole(1, 10_000),
        "Requests that one account may carry at a time, over all processes.",
    ),
    _row(
        _POOL,
        "GLOBAL_INFLIGHT_LIMIT",
        "200",
        _whole(1, 1_000_000),
        "Requests that the whole pool may carry at a time, over all processes.",
    ),
    _row(
        _POOL,
        "DEPLETED_THRESHOLD",
        "20",
        _whole(0, 1_000_000_000),
        "An account with fewer points than this is depleted and not chosen.",
    ),
    _row(
        _POOL,
        "COOLDOWN_SECONDS",
        "120",
        _number(0, 30 * _DAY, "seconds"),
        "How long an account rests after repeated failures or a rate limit that names no time.",
    ),
    _row(
        _POOL,
        "ACQUIRE_TIMEOUT_SECONDS",
        "30",
        _number(0, _DAY, "seconds"),
        "How long a request may wait for an account; 0 answers at once.",
    ),
    _row(_POOL, "QUEUE_LIMIT", "1000", _whole(0, 1_000_000), "Requests that may wait, per process."),
    _row(
        _POOL,
        "MAX_ATTEMPTS",
        "3",
        _whole(1, 20),
        "Accounts that one request may try, always before its first byte.",
    ),
    _row(
        _POOL,
        "GRANT_LIFETIME_SECONDS",
        "20",
        _number(1, 600, "seconds"),
        "After this long the slots of a process that died are free again. For 0.6 of it a process goes on without "
        "MongoDB.",
    ),
    _row(
        _DUTIES,
        "REFRESH_INTERVAL_SECONDS",
        "600",
        _number(1, 30 * _DAY, "seconds"),
        "How often the points of recently used accounts are read.",
    ),
    _row(
        _DUTIES,
        "RECENT_ACTIVE_MINUTES",
        "120",
        _number(0, 60 * 24 * 366, "minutes"),
        "What counts as recently used.",
    ),
    _row(
        _DUTIES,
        "REVALIDATE_INTERVAL_SECONDS",
        "3600",
        _number(0, 30 * _DAY, "seconds"),
        "How often an invalid account is carefully tried again, never after a challenge; 0 turns it off.",
    ),
    _row(_DUTIES, "PREWARM_ON_STARTUP", "true", _switch, "Open accounts before the first request needs them."),
    _row(_DUTIES, "PREWARM_CONCURRENCY", "5", _whole(1, 1_000), "Accounts opened at a time."),
    _row(
        _DUTIES,
        "PREWARM_ACCOUNT_TIMEOUT_SECONDS",
        "20",
        _number(0.1, 3_600, "seconds"),
        "How long one account may take to open.",
    ),
    _row(
        _SESSIONS,
        "SESSION_AFFINITY",
        "soft",
        _choice("soft", "strict"),
        "What happens when the account of a session is gone: `soft` moves the session to another account, "
        "`strict` answers 409.",
    ),
    _row(
        _SESSIONS,
        "SESSION_TTL_SECONDS",
        "86400",
        _number(1, _YEAR, "seconds"),
        "A session unused for this long is forgotten.",
    ),
    _row(
        _SERVER,
        "GATEWAY_HOST",
        "127.0.0.1",
        _matching(r"[A-Za-z0-9.:_%-]{1,253}", "must be a host name or an IP address, without a port"),
        "Address to listen on; `0.0.0.0` is every network.",
    ),
    _row(_SERVER, "GATEWAY_PORT", "8000", _whole(0, 65_535), "Port to listen on; 0 takes any free one."),
    _row(
        _SERVER,
        "GATEWAY_WORKERS",
        "1",
        _whole(1, 256),
        "Worker processes of `poe-gateway serve`.",
    ),
    _row(
        _SERVER,
        "GATEWAY_DEMO_POOL",
        "false",
        _switch,
        "Serve from built-in mock accounts as long as the pool is empty.",
    ),
    _row(_SERVER, "DOCS_ENABLED", "true", _switch, "Serve `/docs` and `/openapi.json`."),
    _row(
        _SERVER,
        "REQUEST_TIMEOUT_SECONDS",
        "300",
        _number(1, _DAY, "seconds"),
        "How long an upstream may take for one answer, from first to last byte.",
    ),
    _row(
        _SERVER,
        "MAX_BODY_BYTES",
        "20971520",
        _whole(1_024, 1_073_741_824),
        "Largest body of a chat completion; beyond it the answer is 413. Bodies for `/admin` may have 1 MiB.",
    ),
    _row(
        _LOGS,
        "LOG_LEVEL",
        "info",
        _choice("debug", "info", "warning", "error", "critical"),
        "Least severe records that are written.",
    ),
    _row(
        _LOGS,
        "LOG_FORMAT",
        "auto",
        _choice("auto", "json", "text"),
        "`auto` writes text on a terminal and JSON elsewhere.",
    ),
)

_BY_NAME = {variable.name: variable for variable in VARIABLES}


# --- reading all of them ---------------------------------------------------------------------------------------------


def load_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Settings from ``environ`` (default: the process's), over the configuration file, over the defaults.

    The file is the one that GATEWAY_CONFIG_FILE names in ``environ``, else ``.env.gateway`` in ``cwd`` if there is
    one. An empty value counts as the default. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    problems: list[str] = []
    path = _config_path(environ, cwd)
    texts = dict(_read_file(path, problems) if path else {})
    texts.update({name: environ[name] for name in _BY_NAME if name in environ})
    texts = {name: text.strip() for name, text in texts.items()}

    values: dict[str, Any] = {}
    for variable in VARIABLES:
        text = texts.get(variable.name) or variable.default
        if text is None:
            values[variable.name] = None
            if variable.required:
                problems.append(_missing(variable))
            continue
        try:
            values[variable.name] = variable.read(text)
        except _Bad as bad:
            problems.append(f"{variable.name} {bad}{_shown(variable, text, texts)}")
    problems.extend(_together(values))
    if problems:
        raise SettingsError(problems)
    return _grouped(values, cwd, path)


def _config_path(environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = environ.get(CONFIG_FILE_VARIABLE, "").strip()
    if named:
        return cwd / Path(named).expanduser()
    usual = cwd / DEFAULT_CONFIG_FILE
    return usual if usual.exists() else None


def _read_file(path: Path, problems: list[str]) -> dict[str, str]:
    """Names and texts of the file. Bad lines are told in ``problems``, never with a value. Raises SettingsError."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError([f"{CONFIG_FILE_VARIABLE} names a file that does not exist: {path}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError([f"the configuration file {path} cannot be read: {reason}"]) from None
    texts: dict[str, str] = {}
    for binding in parse_stream(StringIO(content)):
        place = f"{path.name}, line {_first_line(binding.original.string, binding.original.line)}"
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(f"{place}: not of the form NAME=value")
        elif binding.key is None:
            continue
        elif binding.key not in _BY_NAME:
            problems.append(f"{place}: {_unknown(binding.key)}")
        elif binding.key in texts:
            problems.append(f"{place}: {binding.key} is set a second time")
        else:
            texts[binding.key] = binding.value or ""
    return texts


def _first_line(original: str, line: int) -> int:
    """The parser counts blank lines before a binding as part of it."""
    return line + original[: len(original) - len(original.lstrip())].count("\n")


def _unknown(name: str) -> str:
    """A name that looks unlike a variable may be a piece of a secret, so it is not repeated."""
    if name == CONFIG_FILE_VARIABLE:
        return f"{name} belongs in the environment: it names this very file"
    near = difflib.get_close_matches(name.upper(), _BY_NAME, n=1, cutoff=0.75)
    if near:
        return f"unknown name {name}; did you mean {near[0]}?"
    return f"unknown name {name}" if re.fullmatch(r"[A-Z][A-Z0-9_]{1,40}", name) else "unknown name"


def _missing(variable: Variable) -> str:
    how = ": make one with poe-gateway vault new-key" if variable.name == "FERNET_KEY" else ""
    return f"{variable.name} is required and not set{how}"


def _shown(variable: Variable, text: str, texts: Mapping[str, str]) -> str:
    """The bad value in brackets, unless it is a secret or could hold one."""
    secrets = [part for other in VARIABLES if other.secret for part in texts.get(other.name, "").split(",") if part]
    if variable.secret or "@" in text or any(part in text for part in secrets):
        return ""
    return f" (it is {text[:60]!r})"


def _together(values: Mapping[str, Any]) -> list[str]:
    """Problems of values that are fine each by itself."""
    problems: list[str] = []
    admin, service = values.get("ADMIN_API_KEY"), values.get("SERVICE_API_KEYS_BOOTSTRAP")
    if admin and service and admin in service:
        problems.append("ADMIN_API_KEY is also in SERVICE_API_KEYS_BOOTSTRAP: they must be different keys")
    threshold, allotment = values.get("DEPLETED_THRESHOLD"), values.get("DAILY_RESET_POINT_BALANCE")
    if threshold is not None and allotment and threshold > allotment:
        problems.append(
            f"DEPLETED_THRESHOLD ({threshold}) is above DAILY_RESET_POINT_BALANCE ({allotment}): "
            "every account would be depleted right after its renewal"
        )
    return problems


def _grouped(values: Mapping[str, Any], cwd: Path, path: Path | None) -> Settings:
    return Settings(
        mongo=MongoOptions(
            uri=values["MONGODB_URI"],
            db=values["MONGODB_DB"],
            data_dir=(cwd / Path(values["GATEWAY_DATA_DIR"]).expanduser()).absolute(),
        ),
        vault=VaultOptions(keys=values["FERNET_KEY"]),
        auth=AuthOptions(admin_key=values["ADMIN_API_KEY"], bootstrap_keys=values["SERVICE_API_KEYS_BOOTSTRAP"]),
        pool=PoolOptions(
            max_inflight_per_account=values["MAX_INFLIGHT_PER_ACCOUNT"],
            global_inflight_limit=values["GLOBAL_INFLIGHT_LIMIT"],
            depleted_threshold=values["DEPLETED_THRESHOLD"],
            cooldown_seconds=values["COOLDOWN_SECONDS"],
            acquire_timeout_seconds=values["ACQUIRE_TIMEOUT_SECONDS"],
            queue_limit=values["QUEUE_LIMIT"],
            max_attempts=values["MAX_ATTEMPTS"],
            grant_lifetime_seconds=values["GRANT_LIFETIME_SECONDS"],
        ),
        schedule=ScheduleOptions(
            reset_timezone=values["DAILY_RESET_TIMEZONE"],
            reset_hour=values["DAILY_RESET_HOUR"],
            reset_point_balance=values["DAILY_RESET_POINT_BALANCE"],
            refresh_interval_seconds=values["REFRESH_INTERVAL_SECONDS"],
            recent_active_minutes=values["RECENT_ACTIVE_MINUTES"],
            revalidate_interval_seconds=values["REVALIDATE_INTERVAL_SECONDS"],
            prewarm_on_startup=values["PREWARM_ON_STARTUP"],
            prewarm_concurrency=values["PREWARM_CONCURRENCY"],
            prewarm_account_timeout_seconds=values["PREWARM_ACCOUNT_TIMEOUT_SECONDS"],
        ),
        poe=PoeOptions(
            base_url=values["POE_BASE_URL"],
            ws_base_url=values["POE_WS_BASE_URL"],
            revision=values["POE_REVISION"],
            auto_fetch_revision=values["AUTO_FETCH_POE_REVISION"],
        ),
        serve=ServeOptions(
            host=values["GATEWAY_HOST"],
            port=values["GATEWAY_PORT"],
            workers=values["GATEWAY_WORKERS"],
            docs_enabled=values["DOCS_ENABLED"],
            request_timeout_seconds=values["REQUEST_TIMEOUT_SECONDS"],
            max_body_bytes=values["MAX_BODY_BYTES"],
            demo_pool=values["GATEWAY_DEMO_POOL"],
        ),
        log=LogOptions(level=values["LOG_LEVEL"], format=values["LOG_FORMAT"]),
        session=SessionOptions(affinity=values["SESSION_AFFINITY"], ttl_seconds=values["SESSION_TTL_SECONDS"]),
        config_file=path,
    )


def environment() -> MutableMapping[str, str]:
    """The process's own environment, for the few libraries that read their options from nowhere else."""
    return os.environ
