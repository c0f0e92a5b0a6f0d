"""Reading all variables: the process's environment over the configuration file over the defaults."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, MutableMapping
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic import SecretStr

from poe_gateway.settings.options import (
    AuditOptions,
    AuthOptions,
    ExplainOptions,
    IdempotencyOptions,
    LimitOptions,
    LogOptions,
    MoneyOptions,
    MongoOptions,
    PoeOptions,
    PoolOptions,
    ProviderOptions,
    RoutingOptions,
    ScheduleOptions,
    ServeOptions,
    SessionOptions,
    Settings,
    VaultOptions,
)
from poe_gateway.settings.readers import Bad
from poe_gateway.settings.variables import BY_NAME, VARIABLES, Variable

CONFIG_FILE_VARIABLE = "GATEWAY_CONFIG_FILE"
DEFAULT_CONFIG_FILE = ".env.gateway"
DEFAULT_ROUTES_FILE = "gateway.toml"


class SettingsError(Exception):
    """The settings cannot be used. The message lists every problem, one a line, without any secret."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"The settings have {count}:\n" + "\n".join(f"  - {problem}" for problem in problems))


def environment() -> MutableMapping[str, str]:
    """The process's own environment, for the few libraries that read their options from nowhere else."""
    return os.environ  # noqa: TID251 - the one place that touches it


def load_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Settings from ``environ`` (default: the process's), over the configuration file, over the defaults.

    The file is the one that GATEWAY_CONFIG_FILE names in ``environ``, else ``.env.gateway`` in ``cwd`` if there is
    one. An empty value counts as the default. Raises SettingsError.
    """
    environ = environment() if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    problems: list[str] = []
    path = _config_path(environ, cwd)
    references: dict[str, SecretStr] = {}
    texts = dict(_read_file(path, problems, references) if path else {})
    written = frozenset(name for name, text in texts.items() if text.strip())
    texts.update({name: environ[name] for name in BY_NAME if name in environ})
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
        except Bad as bad:
            problems.append(f"{variable.name} {bad}{_shown(variable, text, texts)}")
    problems.extend(_together(values))
    if problems:
        raise SettingsError(problems)
    return _grouped(values, cwd, path, written, references)


def _config_path(environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = environ.get(CONFIG_FILE_VARIABLE, "").strip()
    if named:
        return cwd / Path(named).expanduser()
    usual = cwd / DEFAULT_CONFIG_FILE
    return usual if usual.exists() else None


def _read_file(path: Path, problems: list[str], references: dict[str, SecretStr]) -> dict[str, str]:
    """Names and texts of the file. Bad lines are told in ``problems``, never with a value. Raises SettingsError.

    Names of others' keys go to ``references``: the routing file may name them.
    """
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
        elif binding.key not in BY_NAME and is_reference(binding.key):
            references[binding.key] = SecretStr((binding.value or "").strip())
        elif binding.key not in BY_NAME:
            problems.append(f"{place}: {_unknown(binding.key)}")
        elif binding.key in texts:
            problems.append(f"{place}: {binding.key} is set a second time")
        else:
            texts[binding.key] = binding.value or ""
    return texts


def _first_line(original: str, line: int) -> int:
    """The parser counts blank lines before a binding as part of it."""
    return line + original[: len(original) - len(original.lstrip())].count("\n")


def is_reference(name: str) -> bool:
    """Whether a name that is none of ours may be that of somebody's key."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,100}(_KEY|_TOKEN|_SECRET)", name):
        return False
    return not difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.9)


def _unknown(name: str) -> str:
    """A name that looks unlike a variable may be a piece of a secret, so it is not repeated."""
    if name == CONFIG_FILE_VARIABLE:
        return f"{name} belongs in the environment: it names this very file"
    near = difflib.get_close_matches(name.upper(), BY_NAME, n=1, cutoff=0.75)
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
    rest, longest = values.get("COOLDOWN_SECONDS"), values.get("COOLDOWN_MAX_SECONDS")
    if rest is not None and longest is not None and longest < rest:
        problems.append(
            f"COOLDOWN_MAX_SECONDS ({longest:g}) is below COOLDOWN_SECONDS ({rest:g}): "
            "rests grow from the one to the other"
        )
    return problems


def _routes_file(named: str, cwd: Path) -> Path | None:
    if named:
        return (cwd / Path(named).expanduser()).absolute()
    usual = cwd / DEFAULT_ROUTES_FILE
    return usual.absolute() if usual.exists() else None


def _providers(values: Mapping[str, Any], written: frozenset[str]) -> tuple[ProviderOptions, ...]:
    """A key of the environment alone is not taken for ours: it may be there for other programs."""
    default = values["DEFAULT_PROVIDER"]
    openai = {"http_referer": values["OPENAI_HTTP_REFERER"], "title": values["OPENAI_TITLE"]}
    known: tuple[tuple[str, str, str | None, dict[str, str]], ...] = (
        ("openai", "OPENAI_API_KEY", values["OPENAI_BASE_URL"], {name: text for name, text in openai.items() if text}),
        ("qwen", "QWEN_API_KEY", values["QWEN_BASE_URL"], {}),
        ("anthropic", "ANTHROPIC_API_KEY", None, {}),
    )
    return tuple(
        ProviderOptions(name=name, key_variable=variable, base_url=url, extra=extra)
        for name, variable, url, extra in known
        if (values[variable] is not None and variable in written) or name == default
    )


def _grouped(
    values: Mapping[str, Any],
    cwd: Path,
    path: Path | None,
    written: frozenset[str],
    references: Mapping[str, SecretStr],
) -> Settings:
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
            strategy=values["POOL_STRATEGY"],
            model_strategies=values["MODEL_STRATEGIES"],
            cooldown_max_seconds=values["COOLDOWN_MAX_SECONDS"],
            retry_after_max_seconds=values["RETRY_AFTER_MAX_SECONDS"],
            hold_back_seconds=values["HOLD_BACK_MS"] / 1000,
            queue_notice_seconds=values["QUEUE_NOTICE_SECONDS"],
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
            admin_host=values["ADMIN_HOST"],
            admin_port=values["ADMIN_PORT"],
        ),
        log=LogOptions(level=values["LOG_LEVEL"], format=values["LOG_FORMAT"]),
        session=SessionOptions(
            affinity=values["SESSION_AFFINITY"],
            ttl_seconds=values["SESSION_TTL_SECONDS"],
            prefix_affinity=values["PREFIX_AFFINITY"],
            max_requests=values["AFFINITY_MAX_REQUESTS"],
            max_seconds=values["AFFINITY_MAX_SECONDS"],
        ),
        explain=ExplainOptions(
            decisions_store_mb=values["DECISIONS_STORE_MB"], history_days=values["ACCOUNT_HISTORY_DAYS"]
        ),
        limits=LimitOptions(
            requests_per_minute_default=values["RATE_LIMIT_RPM_DEFAULT"],
            tokens_per_minute_default=values["RATE_LIMIT_TPM_DEFAULT"],
            requests_per_minute_global=values["RATE_LIMIT_RPM_GLOBAL"],
            tokens_per_minute_global=values["RATE_LIMIT_TPM_GLOBAL"],
            auth_failures_per_minute=values["AUTH_FAILURES_PER_MINUTE"],
        ),
        money=MoneyOptions(
            budget_zone=values["BUDGET_TIMEZONE"],
            unpriced=values["BUDGET_UNPRICED"],
            ledger_days=values["LEDGER_DAYS"],
        ),
        audit=AuditOptions(traffic_days=values["AUDIT_TRAFFIC_DAYS"], changes_days=values["AUDIT_CHANGES_DAYS"]),
        idempotency=IdempotencyOptions(
            ttl_seconds=values["IDEMPOTENCY_TTL_SECONDS"], streams=values["IDEMPOTENCY_STREAMS"]
        ),
        routing=RoutingOptions(
            routes_file=_routes_file(values["GATEWAY_ROUTES_FILE"] or "", cwd),
            default_provider=values["DEFAULT_PROVIDER"] or None,
            providers=_providers(values, written),
            retry_delay_seconds=values["UPSTREAM_RETRY_DELAY_MS"] / 1000,
            models_ttl_seconds=values["MODELS_CACHE_TTL_SECONDS"],
            models_fallback=values["MODELS_FALLBACK"] or (),
            outbound_allow=values["OUTBOUND_ALLOW"] or (),
            responses_ttl_seconds=values["RESPONSES_TTL_SECONDS"],
        ),
        references=references,
        config_file=path,
    )
