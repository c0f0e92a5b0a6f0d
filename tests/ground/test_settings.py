"""Settings: where they come from, what is refused, and that no secret is ever told."""

from __future__ import annotations

import base64
import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from poe_gateway.pool.policy import PoolPolicy, Strategy
from poe_gateway.settings import VARIABLES, Settings, SettingsError, load_settings
from poe_gateway.settings.lookup import Lookup
from poe_gateway.vault import new_key

FERNET = base64.urlsafe_b64encode(bytes(range(32))).decode()
"""Always the same: it names test cases."""
ADMIN = "adm_kX3vPq8sLw2ZtR5nYb7cDf9g"
SERVICE = "svc_hJ4mTq6xVb8n"
REQUIRED = {"FERNET_KEY": FERNET, "ADMIN_API_KEY": ADMIN}


def load(tmp_path: Path, **more: str) -> Settings:
    return load_settings({**REQUIRED, **more}, tmp_path)


def refusal(tmp_path: Path, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, tmp_path)
    return str(caught.value)


def write(path: Path, **texts: str) -> Path:
    path.write_text("".join(f"{name}={text}\n" for name, text in texts.items()), encoding="utf-8")
    return path


def test_defaults_are_those_of_the_quick_start(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.mongo.uri is None
    assert settings.mongo.db == "poe_gateway"
    assert settings.mongo.data_dir == tmp_path / ".gateway-data"
    assert settings.auth.bootstrap_keys == ()
    assert settings.poe.revision == "b759a4647fa291beba4792e9139bc4c014399434"
    assert settings.poe.auto_fetch_revision is True
    assert (settings.poe.base_url, settings.poe.ws_base_url) == ("https://poe.com", None)
    schedule = settings.schedule
    assert (schedule.reset_timezone, schedule.reset_hour, schedule.reset_point_balance) == (
        "America/Los_Angeles",
        0,
        3000,
    )
    assert (schedule.refresh_interval_seconds, schedule.recent_active_minutes) == (600, 120)
    assert (schedule.prewarm_on_startup, schedule.prewarm_concurrency) == (True, 5)
    assert schedule.prewarm_account_timeout_seconds == 20
    pool = settings.pool
    assert (pool.max_inflight_per_account, pool.global_inflight_limit) == (2, 200)
    assert (pool.depleted_threshold, pool.cooldown_seconds) == (20, 120)
    assert (pool.acquire_timeout_seconds, pool.queue_limit, pool.max_attempts) == (30, 1000, 3)
    assert pool.grant_lifetime_seconds == 20
    assert (settings.session.affinity, settings.session.ttl_seconds) == ("soft", 86_400)
    assert (settings.serve.host, settings.serve.port, settings.serve.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.serve.max_body_bytes, settings.serve.request_timeout_seconds) == (20 * 1024 * 1024, 300)
    assert (settings.serve.demo_pool, settings.serve.docs_enabled) == (False, True)
    assert (settings.log.level, settings.log.format) == ("info", "auto")
    assert schedule.revalidate_interval_seconds == 3600
    assert (pool.strategy, pool.model_strategies) == ("balanced", ())
    assert (pool.cooldown_max_seconds, pool.retry_after_max_seconds) == (1800, 1800)
    assert (pool.hold_back_seconds, pool.queue_notice_seconds) == (0.05, 2)
    assert (settings.session.prefix_affinity, settings.session.max_requests) == (True, 200)
    assert settings.session.max_seconds == 3600
    assert (settings.explain.decisions_store_mb, settings.explain.history_days) == (64, 30)


def test_defaults_of_the_pool_are_those_of_its_policy(tmp_path: Path) -> None:
    pool, policy = load(tmp_path).pool, PoolPolicy()
    assert (pool.cooldown_seconds, pool.cooldown_max_seconds) == (policy.cooldown, policy.cooldown_cap)
    assert pool.retry_after_max_seconds == policy.retry_after_cap
    assert pool.strategy == policy.strategy.value


def test_the_process_environment_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path / ".env.gateway", **REQUIRED, COOLDOWN_SECONDS="5", QUEUE_LIMIT="7")
    settings = load_settings({"COOLDOWN_SECONDS": "9"}, tmp_path)
    assert settings.pool.cooldown_seconds == 9
    assert settings.pool.queue_limit == 7
    assert settings.config_file == tmp_path / ".env.gateway"


def test_the_named_file_is_read_instead_of_the_usual_one(tmp_path: Path) -> None:
    write(tmp_path / ".env.gateway", **REQUIRED, COOLDOWN_SECONDS="5", QUEUE_LIMIT="7")
    write(tmp_path / "other.env", **REQUIRED, COOLDOWN_SECONDS="6")
    settings = load_settings({"GATEWAY_CONFIG_FILE": "other.env"}, tmp_path)
    assert (settings.pool.cooldown_seconds, settings.pool.queue_limit) == (6, 1000)


def test_a_named_file_that_does_not_exist_is_an_error_although_the_usual_one_is_there(tmp_path: Path) -> None:
    write(tmp_path / ".env.gateway", **REQUIRED)
    message = refusal(tmp_path, {"GATEWAY_CONFIG_FILE": str(tmp_path / "nowhere.env")})
    assert "GATEWAY_CONFIG_FILE" in message
    assert "nowhere.env" in message


def test_a_folder_or_binary_file_is_told_and_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    assert "cannot be read" in refusal(tmp_path, {"GATEWAY_CONFIG_FILE": str(tmp_path)})
    assert "not UTF-8" in refusal(tmp_path, {"GATEWAY_CONFIG_FILE": "binary"})


def test_the_real_environment_and_folder_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name in {variable.name for variable in VARIABLES} | {"GATEWAY_CONFIG_FILE"}:
            monkeypatch.delenv(name)
    write(tmp_path / ".env.gateway", **REQUIRED, QUEUE_LIMIT="7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAX_ATTEMPTS", "4")
    settings = load_settings()
    assert (settings.pool.queue_limit, settings.pool.max_attempts) == (7, 4)


def test_quotes_comments_export_windows_lines_and_dollars_in_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env.gateway").write_bytes(
        f"\ufeff# comment\r\nFERNET_KEY='{FERNET}'\r\nexport ADMIN_API_KEY=\"{ADMIN}$HOME\"\r\n"
        "QUEUE_LIMIT = 12   # why\r\n".encode()
    )
    settings = load_settings({}, tmp_path)
    assert settings.auth.admin_key.get_secret_value() == ADMIN + "$HOME"
    assert settings.pool.queue_limit == 12


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    write(tmp_path / ".env.gateway", **REQUIRED, MONGODB_URI="mongodb://db/", QUEUE_LIMIT="")
    settings = load_settings({"MONGODB_URI": ""}, tmp_path)
    assert settings.mongo.uri is None
    assert settings.pool.queue_limit == 1000
    assert "ADMIN_API_KEY is required" in refusal(tmp_path, {"ADMIN_API_KEY": " "})


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / ".env.gateway", FERNET_KEYS=FERNET, QUEUE_LIMIT="many", MAX_ATTEMPTS="0")
    with pytest.raises(SettingsError) as caught:
        load_settings({"LOG_LEVEL": "loud"}, tmp_path)
    message = str(caught.value)
    assert "6 problems" in message
    assert "line 1: unknown name FERNET_KEYS; did you mean FERNET_KEY?" in message
    for name in (
        "FERNET_KEY is required",
        "ADMIN_API_KEY is required",
        "QUEUE_LIMIT must",
        "MAX_ATTEMPTS",
        "LOG_LEVEL",
    ):
        assert name in message
    assert len(caught.value.problems) == 6
    assert FERNET not in message


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("MONGO_URI", "MONGODB_URI"),
        ("MONGODB_URL", "MONGODB_URI"),
        ("cooldown_seconds", "COOLDOWN_SECONDS"),
        ("MAX_INFLIGHT_PER_ACCOUNTS", "MAX_INFLIGHT_PER_ACCOUNT"),
        ("SERVICE_API_KEY_BOOTSTRAP", "SERVICE_API_KEYS_BOOTSTRAP"),
        ("DAILY_RESET_TIME_ZONE", "DAILY_RESET_TIMEZONE"),
    ],
)
def test_a_near_miss_in_the_file_is_suggested(tmp_path: Path, name: str, suggestion: str) -> None:
    write(tmp_path / ".env.gateway", **REQUIRED, **{name: "x"})
    assert f"unknown name {name}; did you mean {suggestion}?" in refusal(tmp_path, {})


def test_an_unknown_name_in_the_environment_is_none_of_our_business(tmp_path: Path) -> None:
    assert load(tmp_path, MONGO_URI="x", PATH="/bin").mongo.uri is None


def test_the_file_cannot_name_itself_nor_set_a_name_twice(tmp_path: Path) -> None:
    path = write(tmp_path / ".env.gateway", **REQUIRED, GATEWAY_CONFIG_FILE="x", QUEUE_LIMIT="1")
    path.write_text(path.read_text() + "\n\nQUEUE_LIMIT=2\nnonsense\nMAX_ATTEMPTS\n")
    message = refusal(tmp_path, {})
    assert "line 3: GATEWAY_CONFIG_FILE belongs in the environment" in message
    assert "line 7: QUEUE_LIMIT is set a second time" in message
    assert "line 8: not of the form NAME=value" in message
    assert "line 9: not of the form NAME=value" in message


def test_a_secret_that_slipped_into_the_place_of_a_name_is_not_repeated(tmp_path: Path) -> None:
    for line in (f"{FERNET}=", f"{ADMIN}=x", "kJ8s-secret-remainder"):
        (tmp_path / ".env.gateway").write_text(f"{line}\n")
        message = refusal(tmp_path, REQUIRED)
        assert "line 1" in message
        assert FERNET[:10] not in message
        assert ADMIN not in message
        assert "remainder" not in message


BAD_VALUES = [
    ("RATE_LIMIT_RPM_DEFAULT", "many"),
    ("RATE_LIMIT_TPM_DEFAULT", "-2"),
    ("RATE_LIMIT_RPM_GLOBAL", "1.5"),
    ("RATE_LIMIT_TPM_GLOBAL", "x"),
    ("AUTH_FAILURES_PER_MINUTE", "-1"),
    ("BUDGET_TIMEZONE", "Nowhere/Else"),
    ("BUDGET_UNPRICED", "maybe"),
    ("LEDGER_DAYS", "-1"),
    ("AUDIT_TRAFFIC_DAYS", "-1"),
    ("AUDIT_CHANGES_DAYS", "for ever"),
    ("IDEMPOTENCY_TTL_SECONDS", "0"),
    ("IDEMPOTENCY_STREAMS", "yes"),
    ("DEFAULT_PROVIDER", "two words"),
    ("OPENAI_API_KEY", "two words"),
    ("OPENAI_BASE_URL", "ftp://host"),
    ("OPENAI_HTTP_REFERER", "ümlaut"),
    ("OPENAI_TITLE", "ümlaut"),
    ("QWEN_API_KEY", "two words"),
    ("QWEN_BASE_URL", "host"),
    ("ANTHROPIC_API_KEY", "two words"),
    ("UPSTREAM_RETRY_DELAY_MS", "-1"),
    ("MODELS_CACHE_TTL_SECONDS", "0"),
    ("RESPONSES_TTL_SECONDS", "1"),
    ("ADMIN_PORT", "65536"),
    ("ADMIN_HOST", "http://host"),
    ("MONGODB_URI", "localhost:27017"),
    ("MONGODB_URI", "mongodb:///somewhere"),
    ("MONGODB_URI", "http://db"),
    ("MONGODB_DB", "a.b"),
    ("MONGODB_DB", "x" * 64),
    ("POE_BASE_URL", "poe.com"),
    ("POE_BASE_URL", "ftp://poe.com"),
    ("POE_BASE_URL", "https://user:pw@poe.com"),
    ("POE_BASE_URL", "https://poe.com?x=1"),
    ("POE_BASE_URL", "https://poe.com:70000"),
    ("POE_WS_BASE_URL", "tch.example.org"),
    ("POE_REVISION", "two words"),
    ("AUTO_FETCH_POE_REVISION", "maybe"),
    ("DAILY_RESET_TIMEZONE", "Mars/Olympus"),
    ("DAILY_RESET_TIMEZONE", "../etc/passwd"),
    ("DAILY_RESET_TIMEZONE", "America"),
    ("DAILY_RESET_HOUR", "24"),
    ("DAILY_RESET_HOUR", "-1"),
    ("DAILY_RESET_HOUR", "midnight"),
    ("DAILY_RESET_POINT_BALANCE", "-5"),
    ("MAX_INFLIGHT_PER_ACCOUNT", "0"),
    ("MAX_INFLIGHT_PER_ACCOUNT", "2.5"),
    ("GLOBAL_INFLIGHT_LIMIT", "0"),
    ("DEPLETED_THRESHOLD", "-1"),
    ("POOL_STRATEGY", "random"),
    ("POOL_STRATEGY", "fill first"),
    ("MODEL_STRATEGIES", "gpt-4o"),
    ("MODEL_STRATEGIES", "=single"),
    ("MODEL_STRATEGIES", "two words=single"),
    ("MODEL_STRATEGIES", "gpt-4o=best"),
    ("MODEL_STRATEGIES", "gpt-*=single,GPT-*=balanced"),
    ("COOLDOWN_SECONDS", "nan"),
    ("COOLDOWN_MAX_SECONDS", "-1"),
    ("RETRY_AFTER_MAX_SECONDS", "0"),
    ("HOLD_BACK_MS", "2001"),
    ("HOLD_BACK_MS", "-1"),
    ("QUEUE_NOTICE_SECONDS", "-0.5"),
    ("COOLDOWN_SECONDS", "inf"),
    ("ACQUIRE_TIMEOUT_SECONDS", "-1"),
    ("QUEUE_LIMIT", "-1"),
    ("MAX_ATTEMPTS", "0"),
    ("GRANT_LIFETIME_SECONDS", "0.1"),
    ("REFRESH_INTERVAL_SECONDS", "0"),
    ("RECENT_ACTIVE_MINUTES", "-1"),
    ("REVALIDATE_INTERVAL_SECONDS", "-1"),
    ("PREWARM_ON_STARTUP", "2"),
    ("PREWARM_CONCURRENCY", "0"),
    ("PREWARM_ACCOUNT_TIMEOUT_SECONDS", "0"),
    ("SESSION_AFFINITY", "sticky"),
    ("SESSION_TTL_SECONDS", "0"),
    ("PREFIX_AFFINITY", "sometimes"),
    ("AFFINITY_MAX_REQUESTS", "0"),
    ("AFFINITY_MAX_SECONDS", "0"),
    ("DECISIONS_STORE_MB", "10001"),
    ("DECISIONS_STORE_MB", "0.5"),
    ("ACCOUNT_HISTORY_DAYS", "0"),
    ("GATEWAY_HOST", "http://x"),
    ("GATEWAY_PORT", "65536"),
    ("GATEWAY_WORKERS", "0"),
    ("GATEWAY_DEMO_POOL", "demo"),
    ("DOCS_ENABLED", "?"),
    ("REQUEST_TIMEOUT_SECONDS", "0"),
    ("MAX_BODY_BYTES", "20MB"),
    ("LOG_LEVEL", "chatty"),
    ("LOG_FORMAT", "xml"),
    ("FERNET_KEY", "kX3vPq8sLw2ZtR5nYb7cDf9g"),
    ("FERNET_KEY", "<fernet-key>"),
    ("FERNET_KEY", base64.urlsafe_b64encode(bytes(32)).decode()),
    ("FERNET_KEY", "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="),
    ("FERNET_KEY", f"{FERNET},broken"),
    ("FERNET_KEY", ","),
    ("ADMIN_API_KEY", "<admin-key>"),
    ("ADMIN_API_KEY", "adm_7Qm2..."),
    ("ADMIN_API_KEY", "change-me"),
    ("ADMIN_API_KEY", "please-change-me-please-change"),
    ("ADMIN_API_KEY", "adm_kX3vPq8sLw2ZtR5nYb7"),  # 23 characters
    ("ADMIN_API_KEY", "a" * 40),
    ("ADMIN_API_KEY", "12341234123412341234123412341234"),
    ("ADMIN_API_KEY", "adm kX3vPq8sLw2ZtR5nYb7cDf9g"),
    ("ADMIN_API_KEY", "adm_kX3vPq8sLw2ZtR5nYb7cDf9ü"),
    ("SERVICE_API_KEYS_BOOTSTRAP", "svc_app_a"),
    ("SERVICE_API_KEYS_BOOTSTRAP", f"{SERVICE},svc_app_b"),
    ("SERVICE_API_KEYS_BOOTSTRAP", "<service-key-1>,<service-key-2>"),
    ("SERVICE_API_KEYS_BOOTSTRAP", "svc_short_1"),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **{name: value})
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert problem.startswith(f"{name} ")
    secret = next(variable.secret for variable in VARIABLES if variable.name == name)
    if secret or "@" in value:
        assert value not in problem
        assert "it is " not in problem
    else:
        assert repr(value[:60]) in problem


def test_every_variable_that_can_be_wrong_has_a_bad_value_above() -> None:
    free = {"GATEWAY_DATA_DIR", "GATEWAY_ROUTES_FILE", "MODELS_FALLBACK", "OUTBOUND_ALLOW"}
    assert {name for name, _ in BAD_VALUES} == {variable.name for variable in VARIABLES} - free


def test_the_bad_entry_of_a_list_is_told_by_its_place(tmp_path: Path) -> None:
    message = refusal(tmp_path, {**REQUIRED, "SERVICE_API_KEYS_BOOTSTRAP": f"{SERVICE},tiny,{SERVICE}2"})
    assert "(entry 2 of 3)" in message


def test_a_secret_pasted_into_a_plain_variable_is_not_shown(tmp_path: Path) -> None:
    for name in ("QUEUE_LIMIT", "DAILY_RESET_TIMEZONE", "LOG_LEVEL"):
        message = refusal(tmp_path, {**REQUIRED, name: f"x {ADMIN}"})
        assert name in message
        assert ADMIN not in message


def test_admin_and_service_keys_must_differ(tmp_path: Path) -> None:
    message = refusal(tmp_path, {**REQUIRED, "SERVICE_API_KEYS_BOOTSTRAP": f"{SERVICE},{ADMIN}"})
    assert "ADMIN_API_KEY is also in SERVICE_API_KEYS_BOOTSTRAP" in message
    assert ADMIN not in message


def test_a_threshold_above_the_daily_points_would_starve_the_pool(tmp_path: Path) -> None:
    message = refusal(tmp_path, {**REQUIRED, "DEPLETED_THRESHOLD": "5000"})
    assert "DEPLETED_THRESHOLD (5000) is above DAILY_RESET_POINT_BALANCE (3000)" in message


def test_rests_cannot_have_a_longest_below_their_first(tmp_path: Path) -> None:
    message = refusal(tmp_path, {**REQUIRED, "COOLDOWN_SECONDS": "3600"})
    assert "COOLDOWN_MAX_SECONDS (1800) is below COOLDOWN_SECONDS (3600)" in message
    pool = load(tmp_path, COOLDOWN_SECONDS="3600", COOLDOWN_MAX_SECONDS="3600").pool
    assert pool.cooldown_seconds == pool.cooldown_max_seconds == 3600


@pytest.mark.parametrize("strategy", Strategy)
def test_every_strategy_of_the_pool_can_be_set(tmp_path: Path, strategy: Strategy) -> None:
    for word in (strategy.value, strategy.value.replace("_", "-").upper()):
        assert Strategy(load(tmp_path, POOL_STRATEGY=word).pool.strategy) is strategy


def test_strategies_by_model_keep_their_order_and_serve_the_policy(tmp_path: Path) -> None:
    pool = load(tmp_path, MODEL_STRATEGIES=" GPT-4o*=spend-first , claude-[34]*=single,, a=b=weighted ").pool
    assert pool.model_strategies == (("gpt-4o*", "spend_first"), ("claude-[34]*", "single"), ("a=b", "weighted"))
    policy = PoolPolicy(model_strategies=tuple((name, Strategy(word)) for name, word in pool.model_strategies))
    assert policy.strategy_for("GPT-4o-mini") is Strategy.SPEND_FIRST
    assert policy.strategy_for("Claude-3-Opus") is Strategy.SINGLE
    assert policy.strategy_for("other") is Strategy.BALANCED


def test_a_strategy_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    message = refusal(tmp_path, {**REQUIRED, "MODEL_STRATEGIES": "gpt-4o=best"})
    assert "spend_first" in message and "weighted or single" in message


def test_lists_keep_their_order_and_lose_repetitions(tmp_path: Path) -> None:
    newest, oldest = new_key(), new_key()
    settings = load(tmp_path, FERNET_KEY=f" {newest} , {oldest},", SERVICE_API_KEYS_BOOTSTRAP=f"{SERVICE},,{SERVICE}")
    assert [key.get_secret_value() for key in settings.vault.keys] == [newest, oldest]
    assert [key.get_secret_value() for key in settings.auth.bootstrap_keys] == [SERVICE]


def test_spellings_that_are_fine(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        POE_BASE_URL="http://127.0.0.1:9000/",
        POE_WS_BASE_URL="http://127.0.0.1:9001",
        PREWARM_ON_STARTUP="Off",
        LOG_LEVEL="WARNING",
        HOLD_BACK_MS="0",
        DECISIONS_STORE_MB="0",
        QUEUE_NOTICE_SECONDS="0",
        COOLDOWN_SECONDS="0.5",
        GATEWAY_DATA_DIR="/var/lib/gateway",
        MONGODB_URI="mongodb+srv://user:word@cluster.example.org/?retryWrites=true",
        GATEWAY_HOST="::1",
    )
    assert settings.poe.base_url == "http://127.0.0.1:9000"
    assert settings.poe.ws_base_url == "ws://127.0.0.1:9001"
    assert settings.schedule.prewarm_on_startup is False
    assert settings.log.level == "warning"
    assert settings.pool.cooldown_seconds == 0.5
    assert (settings.pool.hold_back_seconds, settings.pool.queue_notice_seconds) == (0, 0)
    assert settings.explain.decisions_store_mb == 0
    assert settings.mongo.data_dir == Path("/var/lib/gateway")


def test_options_are_frozen_and_their_repr_shows_no_secret(tmp_path: Path) -> None:
    uri = "mongodb://user:canary-password@db/"
    settings = load(tmp_path, SERVICE_API_KEYS_BOOTSTRAP=SERVICE, MONGODB_URI=uri)
    shown = repr(settings) + str(settings)
    for secret in (FERNET, ADMIN, SERVICE, "canary-password"):
        assert secret not in shown
    groups = [getattr(settings, field.name) for field in dataclasses.fields(settings)]
    for group in [settings, *filter(dataclasses.is_dataclass, groups)]:
        name = dataclasses.fields(group)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group, name, None)
    assert isinstance(settings.mongo.uri, SecretStr)


def test_keys_of_others_may_stand_in_the_file_and_are_kept_as_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env.gateway").write_text("ANTHROPIC_STAGING_API_KEY=canary-1\nHOME_TOKEN=canary-2\n")
    settings = load_settings(REQUIRED, tmp_path)
    assert {name: each.get_secret_value() for name, each in settings.references.items()} == {
        "ANTHROPIC_STAGING_API_KEY": "canary-1",
        "HOME_TOKEN": "canary-2",
    }
    assert "canary" not in repr(settings)
    (tmp_path / ".env.gateway").write_text("ADMIN_API_KEYS=x\nADMIN_API_KE=y\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(REQUIRED, tmp_path)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("file", "environ", "made"),
    [
        ("OPENAI_API_KEY=sk-1", {}, ["openai"]),
        ("", {"OPENAI_API_KEY": "sk-1"}, []),
        ("", {"OPENAI_API_KEY": "sk-1", "DEFAULT_PROVIDER": "openai"}, ["openai"]),
        ("QWEN_API_KEY=sk-1\nANTHROPIC_API_KEY=sk-2", {}, ["qwen", "anthropic"]),
        ("OPENAI_API_KEY=", {}, []),
    ],
    ids=["file", "environment only", "default provider", "several", "empty"],
)
def test_a_provider_is_made_of_variables_that_are_meant_for_us(
    tmp_path: Path, file: str, environ: dict[str, str], made: list[str]
) -> None:
    (tmp_path / ".env.gateway").write_text(file)
    providers = load_settings({**REQUIRED, **environ}, tmp_path).routing.providers
    assert [each.name for each in providers] == made


def test_variables_of_others_are_looked_up_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / ".env.gateway"
    file.write_text("ONE_KEY=a\nTWO_KEY=b\nNONE_KEY=\n")
    lookup = Lookup(file, {"TWO_KEY": "from outside"})
    assert [lookup(name) for name in ("ONE_KEY", "TWO_KEY", "NONE_KEY", "NO_KEY")] == ["a", "from outside", None, None]
    file.write_text("ONE_KEY=rotated\n")
    assert lookup("ONE_KEY") == "rotated"
    file.unlink()
    assert lookup("ONE_KEY") == "rotated"
    assert Lookup(None, {})("ONE_KEY") is None


def test_the_routes_file_beside_is_found_by_itself(tmp_path: Path) -> None:
    assert load_settings(REQUIRED, tmp_path).routing.routes_file is None
    (tmp_path / "gateway.toml").write_text("")
    assert load_settings(REQUIRED, tmp_path).routing.routes_file == tmp_path / "gateway.toml"
    named = load_settings({**REQUIRED, "GATEWAY_ROUTES_FILE": "other.toml"}, tmp_path)
    assert named.routing.routes_file == tmp_path / "other.toml"


@given(st.sampled_from([v for v in VARIABLES if v.secret]), st.text(st.characters(codec="ascii"), min_size=6))
def test_no_text_of_a_secret_variable_is_ever_told(variable: object, text: str) -> None:
    name = variable.name  # type: ignore[attr-defined]
    canary = f"cAnArY{text}".replace("\0", "")
    try:
        load_settings({**REQUIRED, name: canary}, Path("/nonexistent"))
    except SettingsError as error:
        assert "cAnArY" not in str(error)


def test_names_are_unique_and_every_default_is_valid() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    for variable in VARIABLES:
        assert variable.meaning.endswith(".")
        if variable.default is not None:
            variable.read(variable.default)
