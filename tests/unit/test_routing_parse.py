"""The routing file as a document: what is taken, what is refused and in which words, what is told besides."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.routing.parse import RoutesError, missing, parse
from poe_gateway.routing.table import Backend, Client, Profile, Rule, Table, Terms
from tests.unit.routes import LADDER, table

SEED = """
[gateway]
client_port = 8080
admin_port  = 8081

[backends.anthropic]
provider    = "anthropic"
base_url    = "https://api.anthropic.com"
api_key_env = "ANTHROPIC_API_KEY"

[[tiers]]
name    = "cloud:capable"
backend = "anthropic"
model   = "claude-haiku-4-5-20251001"

[aliases]
"hint:capable" = "cloud:capable"

[profiles.default]
mode               = "escalate"
classifier         = "cloud:capable"
max_auto_tier      = "cloud:capable"
expert_requires_flag = false
"""


def problems(text: str, base: str = "") -> tuple[str, ...]:
    with pytest.raises(RoutesError) as caught:
        parse(tomllib.loads(base + text))
    return caught.value.problems


def test_the_smallest_file_of_the_setup_guide() -> None:
    routes = table(SEED, base="")
    assert routes.backends["anthropic"].label == "backend:anthropic"
    assert [tier.name for tier in routes.tiers] == ["cloud:capable"]
    assert routes.aliases == {"hint:capable": "cloud:capable"}
    assert routes.profiles["default"].mode == "escalate"
    assert routes.notes == (
        "gateway.client_port: set by GATEWAY_PORT, not here",
        "gateway.admin_port: set by ADMIN_PORT, not here",
    )
    assert missing(routes, {}.get, lambda path: False) == ("ANTHROPIC_API_KEY",)
    assert missing(routes, {"ANTHROPIC_API_KEY": "x"}.get, lambda path: False) == ()


def test_the_annotated_example_is_fit_for_use() -> None:
    example = Path(__file__).parents[2] / "deploy" / "gateway.example.toml"
    routes = parse(tomllib.loads(example.read_text("utf-8")))
    assert routes.backends and routes.tiers and routes.aliases and routes.clients and routes.fallbacks
    assert {profile.mode for profile in routes.profiles.values()} == {"dispatch", "escalate", "classify", "reply"}


def test_nothing_is_a_table_too() -> None:
    routes = parse({})
    assert (routes.backends, routes.tiers, routes.notes) == ({}, (), ())


def test_everything_that_can_be_said() -> None:
    routes = table(
        """
[gateway]
health_window = 20
health_error_threshold = 1
public_profile = "p"
[backends.own]
base_url = "https://llm.example.org/v1/"
api_key_secret = { source = "file", path = "/run/secrets/own" }
api_key_env = "IGNORED_KEY"
max_inflight = 7
models = ["a", "b", "a"]
http_referer = "https://me.example"
default_options = { seed = 1, stop = ["x"], nested = { deep = true } }
[profiles.p]
mode = "classify"
classifier = "hint:cheap"
max_auto_tier = "hint:expert"
expert_requires_flag = true
rate_limit_rpm = 30
classifier_prompt = "Which?"
classifier_think = true
classifier_timeout_ms = 1500
classifier_context = 4
system_prompt = "Be kind."
class_prompts = { Greeting = "Hi!" }
min_answer_chars = 0
rules = [
  { when = {}, profile = "q" },
  { when = { Class = "Greeting" }, route_to = "hint:cheap", priority = 5 },
]
[profiles.q]
mode = "reply"
[[clients]]
name = "ha"
key_file = "/run/secrets/ha"
profile = "p"
profiles = ["q"]
"""
    )
    assert routes.terms == Terms(health_window=20, health_error_threshold=1.0, public_profile="p")
    assert routes.backends["own"] == Backend(
        name="own",
        provider="openai",
        base_url="https://llm.example.org/v1",
        api_key_file="/run/secrets/own",
        max_inflight=7,
        default_options={"seed": 1, "stop": ["x"], "nested": {"deep": True}},
        extra={"http_referer": "https://me.example", "models": ["a", "b"]},
    )
    assert routes.profiles["p"] == Profile(
        name="p",
        mode="classify",
        classifier="local:fast",
        max_auto_tier="cloud:expert",
        expert_requires_flag=True,
        requests_per_minute=30,
        classifier_prompt="Which?",
        classifier_think=True,
        classifier_timeout=1.5,
        classifier_context=4,
        system_prompt="Be kind.",
        class_prompts={"greeting": "Hi!"},
        min_answer_chars=0,
        rules=(
            Rule(when={"class": "greeting"}, route_to="local:fast", priority=5),
            Rule(when={}, profile="q"),
        ),
    )
    assert routes.clients == (Client(name="ha", profile="p", profiles=("q",), key_file="/run/secrets/ha"),)
    assert routes.aliases["hint:cheap"] == "local:fast"


ADDRESS = 'base_url = "https://llm.example.org"\n'
ONE = '[backends.b]\nprovider = "mock"\n[[tiers]]\nname = "t"\nbackend = "b"\nmodel = "m"\n'
BROKEN: dict[str, tuple[str, str]] = {
    "tier, unknown backend": (
        '[backends.openrouter]\nprovider = "openrouter"\n[[tiers]]\nname = "t"\nbackend = "openruter"\nmodel = "m"',
        "tiers[0].backend: unknown backend 'openruter'; did you mean 'openrouter'?",
    ),
    "alias, unknown tier": (
        ONE + '[aliases]\n"hint:a" = "tt"',
        "aliases.\"hint:a\": unknown tier 'tt'; did you mean 't'?",
    ),
    "alias, circle": (
        '[aliases]\na = "b"\nb = "c"\nc = "b"',
        "aliases.a: goes in a circle: a -> b -> c -> b",
    ),
    "classifier unknown": (
        ONE + '[profiles.p]\nclassifier = "nowhere"',
        "profiles.p.classifier: unknown tier 'nowhere'",
    ),
    "highest tier unknown": (
        ONE + '[profiles.p]\nmax_auto_tier = "nowhere"',
        "profiles.p.max_auto_tier: unknown tier 'nowhere'",
    ),
    "client, unknown profile": (
        '[[clients]]\nname = "c"\nkey_env = "C_KEY"\nprofile = "defualt"\n[profiles.default]',
        "clients[0].profile: unknown profile 'defualt'; did you mean 'default'?",
    ),
    "client, unknown further profile": (
        '[[clients]]\nname = "c"\nkey_env = "C_KEY"\nprofile = "p"\nprofiles = ["q"]\n[profiles.p]',
        "clients[0].profiles: unknown profile 'q'",
    ),
    "cascade, circle": (
        ONE
        + '[profiles.x]\nmode = "classify"\nclassifier = "t"\nrules = [{ when = {}, profile = "y" }]\n'
        + '[profiles.y]\nmode = "classify"\nclassifier = "t"\nrules = [{ when = {}, route_to = "x" }]',
        "profiles.x.rules: go in a circle: x -> y -> x",
    ),
    "cascade to itself": (
        ONE + '[profiles.x]\nmode = "classify"\nclassifier = "t"\nrules = [{ when = {}, profile = "x" }]',
        "profiles.x.rules: go in a circle: x -> x",
    ),
    "rule, unknown tier": (
        ONE + '[profiles.x]\nmode = "classify"\nclassifier = "t"\nrules = [{ when = {}, route_to = "z" }]',
        "profiles.x.rules: unknown tier 'z'",
    ),
    "rule, unknown profile": (
        ONE + '[profiles.x]\nmode = "classify"\nclassifier = "t"\nrules = [{ when = {}, profile = "z" }]',
        "profiles.x.rules: unknown profile 'z'",
    ),
    "rule to nowhere": (
        ONE + '[profiles.x]\nmode = "classify"\nclassifier = "t"\nrules = [{ when = {} }]',
        "profiles.x.rules[0]: must have either route_to (a tier, an alias or a profile) or profile",
    ),
    "fallback, circle": (
        ONE + '[aliases]\nnick = "t"\n[fallbacks]\nt = ["m"]\nm = ["nick"]',
        "fallbacks.m: goes in a circle: m -> t -> m",
    ),
    "fallback, nearly a tier": (
        ONE.replace('"t"', '"cloud:deep"') + '[fallbacks]\nm = ["cloud:depe"]',
        "fallbacks.m: unknown tier 'cloud:depe'; did you mean 'cloud:deep'?",
    ),
    "public profile": (
        '[gateway]\npublic_profile = "p"',
        "gateway.public_profile: unknown profile 'p'",
    ),
    "provider": (
        '[backends.b]\nprovider = "opnai"',
        "backends.b.provider: unknown provider; did you mean 'openai'?",
    ),
    "section": ('[backend.b]\nprovider = "mock"', "backend: unknown key; did you mean 'backends'?"),
    "key": ('[backends.b]\nbase_uri = "x"', "backends.b.base_uri: unknown key; did you mean 'base_url'?"),
    "key of the gateway": (
        "[gateway]\nhealth_windows = 1",
        "gateway.health_windows: unknown key; did you mean 'health_window'?",
    ),
    "key of another provider": (
        '[backends.b]\nprovider = "anthropic"\nhttp_referer = "x"',
        "backends.b.http_referer: unknown key",
    ),
    "both references": (
        '[backends.b]\napi_key_env = "A"\napi_key_file = "/b"',
        "backends.b.api_key_file: there is api_key_env too: a key comes from one of them",
    ),
    "neither reference": (
        '[backends.b]\nprovider = "openrouter"\nbase_url = "https://openrouter.ai/api"',
        "backends.b.api_key_env: is missing: say which variable holds the key, or api_key_file which file",
    ),
    "neither reference, openai": (
        '[backends.b]\nbase_url = "https://api.openai.com"',
        "backends.b.api_key_env: is missing: say which variable holds the key, or api_key_file which file",
    ),
    "secret source": (
        '[backends.b]\napi_key_secret = { source = "vault" }',
        "backends.b.api_key_secret.source: must be 'env' or 'file'",
    ),
    "secret without a name": (
        '[backends.b]\napi_key_secret = { source = "env" }',
        "backends.b.api_key_secret.name: is missing",
    ),
    "own secret": (
        '[backends.b]\napi_key_env = "ADMIN_API_KEY"',
        "backends.b.api_key_env: ADMIN_API_KEY is a secret of the gateway itself and goes to nobody",
    ),
    "own secret of a client": (
        '[profiles.p]\n[[clients]]\nkey_env = "FERNET_KEY"\nprofile = "p"',
        "clients[0].key_env: FERNET_KEY is a secret of the gateway itself and no caller's key",
    ),
    "address missing": ('[backends.b]\nprovider = "ollama"', "backends.b.base_url: is missing"),
    "address": (
        '[backends.b]\nprovider = "vllm"\nbase_url = "ftp://x"',
        "backends.b.base_url: must be an http or https address with a host",
    ),
    "labels beside an address": (
        '[backends.b]\nprovider = "vllm"\nbase_url = "http://x"\nlabels = ["y"]',
        "backends.b.labels: choose among the pool's accounts; a backend with an address or a key has its own",
    ),
    "address of a pool": (
        '[backends.b]\nprovider = "poe"\nbase_url = "http://x"',
        "backends.b.base_url: accounts of 'poe' lie in the vault: choose them by labels instead",
    ),
    "names in two cases": (
        '[backends.b]\nprovider = "mock"\n[backends.B]\nprovider = "mock"',
        "backends.B: differs from 'b' only in case",
    ),
    "two tiers": (
        ONE + '[[tiers]]\nname = "t"\nbackend = "b"\nmodel = "n"',
        "tiers[1].name: there is another tier 't'",
    ),
    "two clients of a key": (
        '[profiles.p]\n[[clients]]\nname = "a"\nkey_env = "A"\nprofile = "p"\n'
        '[[clients]]\nname = "b"\nkey_env = "A"\nprofile = "p"',
        "clients[1].key_env: another client has the same",
    ),
    "client of nobody": (
        '[profiles.p]\n[[clients]]\nname = "a"\nprofile = "p"',
        "clients[0]: must say whose it is by exactly one of key_env, key_file, key, org; it has none of them",
    ),
    "client of several": (
        '[profiles.p]\n[[clients]]\nname = "a"\nkey = "k"\norg = "o"\nprofile = "p"',
        "clients[0]: must say whose it is by exactly one of key_env, key_file, key, org; it has more than one",
    ),
    "no tiers": ('[profiles.p]\nmode = "escalate"', "profiles.p.mode: 'escalate' needs tiers, and there are none"),
    "nobody classifies": (
        ONE + '[profiles.p]\nmode = "classify"',
        "profiles.p.classifier: is missing: mode 'classify' asks this tier",
    ),
    "flag for nothing": (
        ONE + "[profiles.p]\nexpert_requires_flag = true",
        "profiles.p.expert_requires_flag: needs max_auto_tier: the flag is for the tiers above it",
    ),
    "mode": ('[profiles.p]\nmode = "guess"', "profiles.p.mode: must be one of dispatch, escalate, classify, reply"),
    "tier without a model": (
        '[backends.b]\nprovider = "mock"\n[[tiers]]\nname = "t"\nbackend = "b"',
        "tiers[0].model: is missing",
    ),
    "wrong type": ('[[tiers]]\nname = 1\nbackend = "b"\nmodel = "m"', "tiers[0].name: expected `str`, got `int`"),
    "wrong type inside": (
        "[profiles.p]\nclass_prompts = { a = 1 }",
        "profiles.p.class_prompts.a: expected `str`, got `int`",
    ),
    "tiers are a table": ('[tiers.a]\nmodel = "m"', "tiers: must be a list of tables: [[tiers]]"),
    "backends are a list": ('[[backends]]\nname = "m"', "backends: must be a table, not a list"),
    "a backend is a text": ('[backends]\nb = "mock"', "backends.b: must be a table"),
    "not a number": (
        "[gateway]\nhealth_error_threshold = nan",
        "gateway.health_error_threshold: expected `float` > 0.0",
    ),
    "out of bounds": ("[gateway]\nhealth_window = -1", "gateway.health_window: expected `int` >= 0"),
    "huge": (
        '[[tiers]]\nname = "t"\nbackend = "b"\nmodel = "m"\nmax_context_tokens = 99999999999999999999999',
        "tiers[0].max_context_tokens: ",
    ),
    "an option that cannot be sent": (
        "[backends.b]\ndefault_options = { since = 2026-01-01 }",
        "backends.b.default_options.since: cannot be sent as JSON: texts, numbers, true, false, lists and tables can",
    ),
    "an option without end": (
        "[backends.b]\ndefault_options = { a = inf }",
        "backends.b.default_options.a: cannot be sent as JSON: texts, numbers, true, false, lists and tables can",
    ),
    "control characters": (
        '[[tiers]]\nname = "a\\u0000b"\nbackend = "b"\nmodel = "m"',
        "tiers[0].name: must be one line of printable characters",
    ),
    "names": ('[aliases]\n" x" = "t"', 'aliases." x": a name has 1 to 200 printable characters, no blanks around them'),
    "names of backends": (
        '[backends."a:b"]\nprovider = "mock"',
        'backends."a:b": a backend\'s name has 1 to 48 letters, digits and . _ - with a letter or digit in front',
    ),
    "alias to nowhere": ('[aliases]\nx = ""', "aliases.x: leads nowhere"),
    "two times out": (
        ONE + "[profiles.p]\nclassifier_timeout = 1\nclassifier_timeout_ms = 1",
        "profiles.p.classifier_timeout_ms: there is classifier_timeout (seconds) too: give one of them",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_file_is_told_clearly(name: str) -> None:
    text, expected = BROKEN[name]
    told = problems(text)
    assert any(problem.startswith(expected) for problem in told), told


def test_every_circle_is_told() -> None:
    assert sorted(problems('[fallbacks]\na = ["b", "c"]\nb = ["a"]\nc = ["a"]')) == [
        "fallbacks.a: goes in a circle: a -> b -> a",
        "fallbacks.a: goes in a circle: a -> c -> a",
    ]


def test_all_problems_are_told_at_once() -> None:
    text = '[gateway]\nhealth_window = "x"\n[aliases]\na = "nowhere"\n[profiles.p]\nmode = "guess"\n[nonsense]'
    assert [problem.partition(":")[0] for problem in problems(text)] == [
        "nonsense",
        "gateway.health_window",
        "profiles.p.mode",
        "aliases.a",
    ]


SECRET = "sk-proj-0123456789abcdefghij"
LITERALS: dict[str, str] = {
    "api_key": f'[backends.b]\napi_key = "{SECRET}"',
    "a short api_key": '[backends.b]\napi_key = "hunter2"',
    "in the place of a name": f'[backends.b]\napi_key_env = "{SECRET}"',
    "in a typed reference": f'[backends.b]\napi_key_secret = {{ source = "env", name = "{SECRET}" }}',
    "as a name": f'[aliases]\n"{SECRET}" = "x"',
    "as a target": f'[aliases]\nx = "{SECRET}"',
    "in the address": f'[backends.b]\nbase_url = "https://user:{SECRET}@x.example"',
    "a password in the address": '[backends.b]\nbase_url = "https://user:hunter2@x.example"',
    "in an option": f'[backends.b]\ndefault_options = {{ extra = ["{SECRET}"] }}',
    "by an option's name": '[backends.b]\ndefault_options = { token = "hunter2" }',
    "of a client": '[profiles.p]\n[[clients]]\nkey = "pgw_k1.0123456789abcdef"\nprofile = "p"',
    "of a client, in another form": f'[profiles.p]\n[[clients]]\nkey = "{"hunter2" * 5}"\nprofile = "p"',
    "of a client by variable": f'[profiles.p]\n[[clients]]\nkey_env = "{SECRET}"\nprofile = "p"',
    "in a prompt": f'[profiles.p]\nsystem_prompt = "use {SECRET} for it"',
    "cookies": '[backends.b]\nprovider = "poe"\npoe_p_b = "hunter2"',
    "a section": f'["{SECRET}"]\nx = 1',
}


@pytest.mark.parametrize("name", sorted(LITERALS))
def test_no_secret_may_stand_in_the_file_and_none_is_repeated(name: str) -> None:
    told = problems(LITERALS[name])
    text = "\n".join(told)
    reasons = ("secret", "must be the name of a variable", "the id or the name of a key")
    assert any(reason in text for reason in reasons), told
    assert SECRET not in text and "hunter2" not in text and "0123456789abcdef" not in text


def test_what_only_looks_like_a_secret_is_taken() -> None:
    routes = table(
        '[backends.b]\ndefault_options = { max_tokens = 5, max_completion_tokens = 5, prompt_cache_key = "x" }'
    )
    assert set(routes.backends["b"].default_options) == {"max_tokens", "max_completion_tokens", "prompt_cache_key"}


def test_what_is_set_elsewhere_or_hides_something_is_noted() -> None:
    routes = table(
        """
[gateway]
log_level = "debug"
retry_delay_ms = 200
[backends.openai]
provider = "anthropic"
[backends.slow]
timeout_ms = 1000
[backends.home]
provider = "ollama"
base_url = "http://localhost:11434"
default_options = { num_ctx = 16384, temperature = 0 }
[aliases]
"cloud:economy" = "local:fast"
auto = "local:fast"
[profiles.auto]
rules = [{ when = {}, route_to = "local:fast" }]
thinking_messages = {}
class_prompts = { system_prompt = "lost" }
[profiles."local:fast"]
[fallbacks]
x = ["gpt-4o"]
""",
        base=LADDER.split("[aliases]")[0],
    )
    assert sorted(routes.notes) == [
        'aliases."cloud:economy": hides the tier of the same name',
        "aliases.auto: hides the profile of the same name",
        "backends.home.default_options.num_ctx: has no effect: Ollama takes it from the model's Modelfile, "
        "or from OLLAMA_CONTEXT_LENGTH",
        "backends.openai: hides the provider of the same name",
        "backends.slow.timeout_ms: set by REQUEST_TIMEOUT_SECONDS, not here",
        "fallbacks.x: 'gpt-4o' is no tier and no alias: it is taken for a model of the catalogue",
        "gateway.log_level: set by LOG_LEVEL, not here",
        "gateway.retry_delay_ms: set by UPSTREAM_RETRY_DELAY_MS, not here",
        'profiles."local:fast": as a model\'s name it is hidden by the tier of the same name',
        "profiles.auto.class_prompts.system_prompt: is taken for a label; "
        "a key of the profile stands before [class_prompts]",
        "profiles.auto.thinking_messages: not used: nothing is put before what a model says",
        "profiles.auto: class_prompts and rules hold where something was classified, mode is 'dispatch'",
    ]


def test_backends_of_the_settings_may_be_referred_to_and_replaced() -> None:
    given_backends = {"openai": Backend(name="openai", provider="openai", api_key_env="OPENAI_API_KEY")}
    document = tomllib.loads('[[tiers]]\nname = "t"\nbackend = "openai"\nmodel = "m"')
    assert parse(document, given_backends).backends == given_backends
    own = {**document, "backends": {"openai": {"provider": "mock"}}}
    assert parse(own, given_backends).backends["openai"].provider == "mock"


def test_names_of_missing_keys() -> None:
    routes = table(
        '[profiles.p]\n[backends.f]\napi_key_file = "/run/secrets/f"\n[[clients]]\nkey_env = "C_KEY"\nprofile = "p"\n'
        '[[clients]]\nkey_file = "/run/secrets/c"\nprofile = "p"'
    )
    assert missing(routes, {"OPENROUTER_KEY": " \n"}.get, lambda path: path.endswith("f")) == (
        "OPENROUTER_KEY",
        "C_KEY",
        "c",
    )


def test_the_digest_is_of_what_is_said_not_of_how() -> None:
    assert table().digest == table("\n# a comment\n").digest == parse(tomllib.loads(LADDER)).digest
    assert table().digest != table('[profiles.p]\nmode = "dispatch"').digest


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
SECTIONS = st.sampled_from(["gateway", "backends", "tiers", "aliases", "profiles", "clients", "fallbacks", "other"])
KEYS = st.sampled_from(
    ["name", "provider", "backend", "model", "mode", "rules", "when", "profile", "base_url", "default_options", "p"]
)
SHAPED = st.dictionaries(
    SECTIONS,
    st.dictionaries(KEYS, st.dictionaries(KEYS, JSON_LIKE, max_size=3) | JSON_LIKE, max_size=3)
    | st.lists(st.dictionaries(KEYS, JSON_LIKE, max_size=4), max_size=3)
    | JSON_LIKE,
    max_size=4,
)


@given(document=SHAPED)
def test_any_document_is_a_table_or_has_problems_in_words(document: dict[str, Any]) -> None:
    try:
        assert isinstance(parse(document), Table)
    except RoutesError as error:
        assert error.problems and all(": " in problem and problem.isprintable() for problem in error.problems)
