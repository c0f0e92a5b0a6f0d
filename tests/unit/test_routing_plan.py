"""Where a name leads: the order of names, profiles, tiers that need a flag, context, health and fallbacks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.errors import (
    Forbidden,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    RequestTooLarge,
    Unavailable,
)
from poe_gateway.routing.plan import profile_of, usable_profiles
from poe_gateway.routing.table import EMPTY
from tests.unit.routes import course, places, table

PROFILES = """
[profiles.default]
classifier = "local:fast"
max_auto_tier = "cloud:economy"
expert_requires_flag = true

[profiles.up]
mode = "escalate"
max_auto_tier = "cloud:standard"
system_prompt = "Be brief."

[profiles.sorting]
mode = "classify"
classifier = "local:fast"
classifier_think = false

[profiles.closed]
mode = "reply"
reply_message = "Come back tomorrow."

[profiles.free]
"""
ROUTES = table(PROFILES)
OPENAI = ("openai_api:api.openai.com",)


@pytest.mark.parametrize(
    ("model", "expected", "prefix", "offers", "labels"),
    [
        ("hint:fast", "local:fast", None, ("openai_api:localhost:11434",), ("backend:near",)),
        ("hint:cheap", "local:fast", None, ("openai_api:localhost:11434",), ("backend:near",)),
        ("smart", "vendor/model:free", None, ("openai_api:openrouter.ai",), ("backend:far",)),
        ("cloud:standard", "cloud:standard", None, ("poe_web",), ("team-a",)),
        ("far:vendor/model:free", "vendor/model:free", "far:", ("openai_api:openrouter.ai",), ("backend:far",)),
        ("openai:gpt-4o", "gpt-4o", "openai:", OPENAI, ()),
        ("OpenAI:gpt-4o", "gpt-4o", "OpenAI:", OPENAI, ()),
        ("mock:mock-1", "mock-1", "mock:", ("mock",), ()),
        ("qwen2.5:7b", "qwen2.5:7b", None, (), ()),
        ("openai:", "openai:", None, (), ()),
        (":x", ":x", None, (), ()),
        ("gpt-4o", "gpt-4o", None, (), ()),
        ("far", "far", None, (), ()),
    ],
)
def test_names_without_a_profile(
    model: str, expected: str, prefix: str | None, offers: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    found = course(ROUTES, model)
    (leg,) = found.legs
    assert places(found) == [expected]
    assert (leg.prefix, leg.offers, leg.labels) == (prefix, offers, labels)
    assert (found.mode, found.profile, found.profiles) == (None, None, ())


def test_each_name_wins_over_the_ones_after_it() -> None:
    """One name that is everything at once; what wins is taken away, and the next one wins."""
    layers = {
        "alias": '"openai:x" = "cloud:economy"',
        "tier": '[[tiers]]\nname = "openai:x"\nbackend = "far"\nmodel = "of the tier"',
        "profile": '[profiles."openai:x"]\nmode = "reply"\nreply_message = "of the profile"',
    }
    winners = ["small", "of the tier", "of the profile", "openai:"]
    for first, winner in enumerate(winners):
        found = course(table("\n".join(list(layers.values())[first:])), "openai:x", provider="mock", knows=_all)
        leg = found.legs[0] if found.legs else None
        assert winner in (found.reply, leg and leg.model, leg and leg.prefix)


def test_the_provider_of_the_header_wins_over_catalogue_and_default() -> None:
    for provider, knows in itertools.product(["mock", "far"], [_all, _none]):
        (leg,) = course(ROUTES, "m", provider=provider, knows=knows, default_provider="openai").legs
        assert leg.offers == (("mock",) if provider == "mock" else ("openai_api:openrouter.ai",))
        assert leg.prefix is None
    (known,) = course(ROUTES, "m", knows=_all, default_provider="openai").legs
    (unknown,) = course(ROUTES, "m", default_provider="openai").legs
    assert (known.offers, unknown.offers) == ((), OPENAI)


@pytest.mark.parametrize("model", ["m", "hint:fast", "far:m", "cloud:expert"])
def test_an_unknown_provider_is_refused_whatever_the_name(model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        course(ROUTES, model, provider="nobody")
    assert (caught.value.code, caught.value.param) == ("unknown_provider", "X-Provider")


def test_an_empty_provider_is_none() -> None:
    assert course(ROUTES, "m", provider=" ").legs[0].offers == ()


def test_a_default_provider_that_is_none_is_not_the_callers_fault() -> None:
    with pytest.raises(Unavailable) as caught:
        course(ROUTES, "m", default_provider="nobody")
    assert caught.value.code == "provider_not_configured"


def test_an_empty_table_knows_providers() -> None:
    assert course(EMPTY, "gpt-4o").legs[0].offers == ()
    assert course(EMPTY, "openai:gpt-4o").legs[0].offers == OPENAI
    assert course(EMPTY, "auto").legs[0].model == "auto"


# ---- dispatch


@pytest.mark.parametrize(
    ("model", "knows", "expected"),
    [
        ("cloud:economy", False, "cloud:economy"),
        ("hint:fast", False, "local:fast"),
        ("nobody-knows", False, "local:fast"),
        ("nobody-knows", True, "nobody-knows"),
        ("auto", False, "local:fast"),
        ("auto", True, "local:fast"),
        ("default:latest", False, "local:fast"),
        ("openai:gpt-4o", False, "gpt-4o"),
    ],
)
def test_dispatch(model: str, knows: bool, expected: str) -> None:
    found = course(ROUTES, model, "default", knows=lambda name: knows)
    assert (found.mode, found.profiles, places(found)) == ("dispatch", ("default",), [expected])


def test_dispatch_without_a_classifier_passes_unknown_names_through() -> None:
    assert places(course(ROUTES, "nobody-knows", "free")) == ["nobody-knows"]
    assert places(course(ROUTES, "free", "default")) == ["local:fast"]
    with pytest.raises(ModelNotFound):
        course(table("[profiles.default]", base=""), "default", "default")


GATED = ["cloud:standard", "cloud:expert", "hint:expert", "far:large", "openrouter: Large", "large", "medium"]


@pytest.mark.parametrize("model", GATED)
def test_above_the_highest_tier_only_with_the_flag(model: str) -> None:
    with pytest.raises(Forbidden) as caught:
        course(ROUTES, model, "default", knows=_all)
    assert caught.value.code == "expert_required"
    assert course(ROUTES, model, "default", knows=_all, expert=True).legs
    assert course(ROUTES, model, "free", knows=_all).legs


def test_a_provider_in_the_header_is_no_way_around_the_flag() -> None:
    with pytest.raises(Forbidden):
        course(ROUTES, "large", "default", provider="far")
    assert course(ROUTES, "small", "default", provider="far").legs


def test_options_of_backend_and_tier() -> None:
    assert course(ROUTES, "cloud:economy").legs[0].options == {"temperature": 0.2}
    assert course(ROUTES, "cloud:standard").legs[0].options == {"reasoning_effort": "medium"}
    assert course(ROUTES, "far:x").legs[0].options == {"temperature": 0.2}
    assert course(ROUTES, "openrouter:x").legs[0].options == {}


# ---- profiles as names


@pytest.mark.parametrize("own", [None, "default", "up", "sorting"])
def test_profiles_are_names_of_models(own: str | None) -> None:
    assert course(ROUTES, "up", own).mode == "escalate"
    assert course(ROUTES, "up:latest", own).profiles == ("up",)
    assert course(ROUTES, "closed", own).reply == "Come back tomorrow."


def test_only_usable_profiles_are_names() -> None:
    with_clients = table(PROFILES + '[[clients]]\nname = "a"\nkey = "key_a"\nprofile = "default"')
    assert places(course(with_clients, "up", "default")) == ["local:fast"]
    assert course(with_clients, "up", "default", usable={"up"}).mode == "escalate"
    assert places(course(with_clients, "up")) == ["up"]


def test_reply_answers_every_name() -> None:
    for model in ("cloud:expert", "openai:gpt-4o", "auto", "anything"):
        found = course(ROUTES, model, "closed", knows=_all)
        assert (found.reply, found.legs, found.mode) == ("Come back tomorrow.", (), "reply")


# ---- escalate


@pytest.mark.parametrize(
    ("model", "knows", "judged", "expected"),
    [
        ("auto", False, True, ["local:fast", "cloud:economy", "cloud:standard"]),
        ("nobody-knows", False, True, ["local:fast", "cloud:economy", "cloud:standard"]),
        ("hint:expert", False, True, ["local:fast", "cloud:economy", "cloud:standard"]),
        ("up", True, True, ["local:fast", "cloud:economy", "cloud:standard"]),
        ("cloud:economy", False, False, ["cloud:economy"]),
        ("cloud:expert", False, False, ["cloud:expert"]),
        ("known", True, False, ["known"]),
        ("openai:gpt-4o", False, False, ["gpt-4o"]),
        ("smart", False, False, ["vendor/model:free"]),
    ],
)
def test_escalate_takes_over_what_is_not_named_exactly(
    model: str, knows: bool, judged: bool, expected: list[str]
) -> None:
    found = course(ROUTES, model, "up", knows=lambda name: knows)
    assert (places(found), found.judged) == (expected, judged)
    assert found.system == ("Be brief.",)


def test_escalate_leaves_out_unhealthy_backends_unless_all_are() -> None:
    assert places(course(ROUTES, "auto", "up", healthy=lambda name: name != "near")) == [
        "cloud:economy",
        "cloud:standard",
    ]
    assert len(course(ROUTES, "auto", "up", healthy=lambda name: False).legs) == 3


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (909, ["local:fast", "cloud:economy", "cloud:standard"]),
        (910, ["cloud:economy", "cloud:standard"]),
        (9_090, ["cloud:economy", "cloud:standard"]),
        (9_091, ["cloud:standard"]),
        (10**9, ["cloud:standard"]),
    ],
)
def test_a_tier_needs_a_tenth_more_room_than_the_prompt_has(tokens: int, expected: list[str]) -> None:
    assert places(course(ROUTES, "auto", "up", tokens=tokens)) == expected
    assert places(course(ROUTES, "local:fast", "up", tokens=tokens)) == expected[:1]
    assert places(course(ROUTES, "hint:fast", tokens=tokens)) == expected[:1]


def test_no_tier_within_reach_is_large_enough() -> None:
    for model in ("auto", "local:fast", "cloud:economy"):
        with pytest.raises(RequestTooLarge) as caught:
            course(ROUTES, model, "default", tokens=20_000)
        assert caught.value.status == 413


# ---- classify


def test_classify_asks_first() -> None:
    found = course(ROUTES, "auto", "sorting")
    assert found.classifier is not None
    assert (found.classifier.tier, found.legs, found.profiles) == ("local:fast", (), ("sorting",))
    assert found.classifier.options == {"reasoning_effort": "none"}
    assert "simple" in found.prompt
    assert places(course(ROUTES, "cloud:economy", "sorting")) == ["cloud:economy"]


# ---- embeddings and pictures


def test_profiles_decide_chats_only() -> None:
    for operation in ("embed", "image"):
        for profile in ("up", "sorting", "default"):
            found = course(ROUTES, "nobody-knows", profile, operation=operation)
            assert (places(found), found.system) == (["nobody-knows"], ())
        assert places(course(ROUTES, "hint:expert", "free", operation=operation)) == ["cloud:expert"]
        for model, own in (("up", None), ("anything", "closed")):
            with pytest.raises(InvalidRequest) as caught:
                course(ROUTES, model, own, operation=operation)
            assert caught.value.code == "unsupported_operation"


# ---- fallbacks

CHAINS = """
[fallbacks]
"cloud:expert" = ["cloud:standard", "smart", "large"]
"hint:fast" = ["hint:expert"]
"gpt-4o" = ["openai:gpt-4o-mini", "cloud:economy"]
"far:x" = "gpt-4o"
"""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("cloud:expert", ["cloud:expert", "cloud:standard", "vendor/model:free", "large"]),
        ("hint:expert", ["cloud:expert", "cloud:standard", "vendor/model:free", "large"]),
        ("hint:fast", ["local:fast", "cloud:expert", "cloud:standard", "vendor/model:free", "large"]),
        ("local:fast", ["local:fast"]),
        ("GPT-4o", ["GPT-4o", "gpt-4o-mini", "cloud:economy"]),
        ("far:x", ["x", "gpt-4o", "gpt-4o-mini", "cloud:economy"]),
        ("openai:gpt-4o", ["gpt-4o", "gpt-4o-mini", "cloud:economy"]),
    ],
)
def test_fallback_chains(model: str, expected: list[str]) -> None:
    found = course(table(CHAINS), model)
    assert places(found) == expected
    assert found.fallback is (len(expected) > 1)
    assert [leg.prefix for leg in found.legs[1:]] == [None] * (len(expected) - 1)


def test_no_place_is_tried_twice() -> None:
    routes = table('[fallbacks]\n"cloud:expert" = ["smart", "local:fast", "smart", "hint:cheap"]')
    assert places(course(routes, "cloud:expert")) == ["cloud:expert", "vendor/model:free", "local:fast"]


def test_a_chain_ends_however_it_is_knotted() -> None:
    deep = "\n".join(f'm{n} = ["m{n + 1}"]' for n in range(3_000))
    assert len(course(table(f"[fallbacks]\n{deep}"), "m0").legs) == 16
    wide = "\n".join(f'm{n} = ["m{n + 1}", "far:m{n + 2}"]' for n in range(60))
    assert len(course(table(f"[fallbacks]\n{wide}"), "m0").legs) == 16


def test_fallbacks_keep_to_what_the_caller_may_have_and_the_prompt_fits_into() -> None:
    routes = table(CHAINS + PROFILES)
    assert places(course(routes, "hint:fast", "default")) == ["local:fast", "vendor/model:free"]
    assert places(course(routes, "gpt-4o", "free", knows=_all, tokens=9_500)) == ["gpt-4o", "gpt-4o-mini"]


# ---- whose profile


CLIENTS = (
    PROFILES
    + """
[[clients]]
name = "ha"
key_env = "CLIENT_HA_KEY"
profile = "up"
profiles = ["closed"]

[[clients]]
name = "by-name"
key = "bot"
profile = "sorting"
profiles = ["*"]

[[clients]]
name = "everyone there"
org = "org_1"
profile = "closed"
"""
)


@pytest.mark.parametrize(
    ("key_id", "key_name", "org", "expected", "usable"),
    [
        ("key_1", "client:ha", "default", "up", {"up", "closed"}),
        ("key_1", "client:ha", "org_1", "up", {"up", "closed"}),
        ("key_2", "bot", "org_1", "sorting", {"default", "up", "sorting", "closed", "free"}),
        ("bot", None, None, "sorting", {"default", "up", "sorting", "closed", "free"}),
        ("key_3", "x", "org_1", "closed", {"closed"}),
        ("key_4", "client:by-name", "default", "default", {"default"}),
        ("key_5", "x", "default", "default", {"default"}),
        (None, None, None, "default", {"default"}),
    ],
)
def test_profile_of_a_caller(
    key_id: str | None, key_name: str | None, org: str | None, expected: str, usable: set[str]
) -> None:
    routes = table(CLIENTS)
    caller = {"key_id": key_id, "key_name": key_name, "org": org}
    found = profile_of(routes, **caller)
    assert found is not None and found.name == expected
    assert usable_profiles(routes, **caller) == usable


def test_public_and_no_profile() -> None:
    nobody: dict[str, Any] = {"key_id": None, "key_name": None, "org": None}
    public = table('[gateway]\npublic_profile = "closed"\n' + PROFILES)
    assert (found := profile_of(public, **nobody)) is not None and found.name == "closed"
    assert profile_of(table(), key_id="k", key_name="n", org="o") is None
    assert usable_profiles(ROUTES, **nobody) == set(ROUTES.profiles)


# ---- whatever comes

NAMES = st.one_of(
    st.sampled_from([*ROUTES.aliases, *(tier.name for tier in ROUTES.tiers), *ROUTES.profiles, "auto", "auto:latest"]),
    st.text(max_size=20),
    st.builds("{}:{}".format, st.sampled_from(["openai", "far", "mock", "vllm", ""]), st.text(max_size=10)),
)
CHAINED = table(CHAINS + PROFILES)


@given(
    model=NAMES,
    own=st.sampled_from([None, *ROUTES.profiles]),
    known=st.booleans(),
    expert=st.booleans(),
    tokens=st.integers(0, 10**12),
    operation=st.sampled_from(["chat", "embed", "image"]),
)
def test_every_name_leads_somewhere_or_is_refused_clearly(
    model: str, own: str | None, known: bool, expert: bool, tokens: int, operation: str
) -> None:
    try:
        found = course(CHAINED, model, own, knows=lambda name: known, expert=expert, tokens=tokens, operation=operation)
    except GatewayError as error:
        assert error.status in (400, 403, 404, 413)
        return
    assert found.legs or found.reply is not None or found.classifier is not None
    assert (found.profile is None) == (found.profiles == ())
    allowed = {tier.name for tier in CHAINED.tiers[:2]}
    if found.profile is CHAINED.profiles["default"] and not expert:
        assert {leg.tier for leg in found.legs if leg.tier} <= allowed
    for leg in found.legs:
        tier = CHAINED.tier(leg.tier) if leg.tier else None
        assert tier is None or tier.fits(tokens)
    assert found == course(
        CHAINED, model, own, knows=lambda name: known, expert=expert, tokens=tokens, operation=operation
    )


def _all(name: str) -> bool:
    return True


def _none(name: str) -> bool:
    return False
