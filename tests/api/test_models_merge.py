"""What may be asked for by name: the catalogue and the routing table as one list, with facts of each."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from poe_gateway.api.v1.model_facts import ModelCapabilities, Price
from poe_gateway.api.v1.model_list import Listed, Sources, find, listed
from poe_gateway.metering.pricing import PriceRule
from poe_gateway.routing.catalog import Catalog, Listing, Model
from poe_gateway.routing.parse import parse
from poe_gateway.routing.table import EMPTY, Table
from poe_gateway.upstreams.base import Capabilities

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUTER, LOCAL, POE = "openai_api:openrouter.ai", "openai_api:localhost:11434", "poe_web"
OFFERS = {ROUTER: "openai_api", LOCAL: "openai_api", POE: "poe_web"}
CAN = {
    "openai_api": Capabilities(
        images=True, tools=True, structured=True, parameters=None, operations=frozenset({"chat", "embed", "image"})
    ),
    "poe_web": Capabilities(images=True, parameters=frozenset({"temperature"})),
}
TABLE = parse(
    {
        "backends": {
            "cloud": {"provider": "openrouter", "api_key_env": "CLOUD_KEY"},
            "local": {"provider": "ollama", "base_url": "http://localhost:11434"},
            "chats": {"provider": "poe", "labels": ["spare"]},
        },
        "tiers": [
            {"name": "local:small", "backend": "local", "model": "qwen3", "max_context_tokens": 8000},
            {"name": "cloud:big", "backend": "cloud", "model": "acme/large"},
        ],
        "aliases": {
            "hint:capable": "cloud:big",
            "fast": "hint:fast",
            "hint:fast": "local:small",
            "sonnet": "chats:Claude",
            "house": "team",
        },
        "profiles": {
            "default": {"mode": "escalate"},
            "team": {"mode": "dispatch", "classifier": "cloud:big"},
            "sort": {"mode": "classify", "classifier": "local:small"},
            "shut": {"mode": "reply"},
        },
    }
)


def model(name: str, **details: Any) -> Model:
    return Model(id=name, upstream=name, owned_by="acme", created=7, details=details)


LISTS = {
    ROUTER: (
        model(
            "acme/large",
            context_length=200_000,
            max_output_tokens=8_000,
            input_modalities=["text", "image"],
            output_modalities=["text"],
            supported_parameters=["tools", "temperature", "top_p"],
            pricing={"prompt": "0.0000025", "completion": "0.00001", "request": "0", "image": "0.0036", "web": "9"},
        ),
        model("Shared", context_length=128_000),
    ),
    LOCAL: (model("qwen3", context_length=32_000), model("shared", context_length=64_000)),
    POE: (model("Claude", images=True, points=20), model("SHARED", images=False)),
}


def sources(table: Table = TABLE, *, rules: tuple[PriceRule, ...] = (), **fields: Any) -> Sources:
    catalog = Catalog()
    lists = {offer: LISTS[offer] for offer in fields.pop("lists", LISTS)}
    catalog.replace([Listing(offer=offer, models=models, fetched_at=NOW) for offer, models in lists.items()])
    offers = fields.pop("offers", OFFERS)

    def rule(provider: str, name: str) -> PriceRule | None:
        return next((each for each in rules if each.matches(None, provider, name)), None)

    return Sources(
        offers=offers,
        offered=catalog.offered(offers),
        table=table,
        capabilities=CAN,
        rule=rule,
        unread=frozenset(offers) - lists.keys(),
        **{"may": lambda name: True, "profiles": table.profiles, **fields},
    )


def names(own: Sources) -> list[str]:
    return [entry.id for entry in listed(own)]


def one(own: Sources, name: str) -> Listed:
    entry = find(own, name)
    assert entry is not None
    return entry


def test_everything_is_listed_once_and_in_order() -> None:
    tiers, aliases = ["local:small", "cloud:big"], ["hint:capable", "fast", "hint:fast", "sonnet", "house"]
    models = ["acme/large", "Claude", "qwen3", "Shared"]
    assert names(sources()) == [*tiers, *aliases, "default", "team", "sort", "shut", *models]
    assert names(sources(EMPTY)) == models


@pytest.mark.parametrize(
    ("name", "kind", "resolves_to"),
    [
        ("local:small", "tier", "local:qwen3"),
        ("cloud:big", "tier", "cloud:acme/large"),
        ("hint:capable", "alias", "cloud:big"),
        ("fast", "alias", "local:small"),
        ("sonnet", "alias", "chats:Claude"),
        ("house", "alias", "team"),
        ("default", "profile", "local:small"),
        ("team", "profile", "cloud:big"),
        ("sort", "profile", None),
        ("shut", "profile", None),
        ("qwen3", "model", None),
    ],
)
def test_names_of_the_table_say_where_they_lead(name: str, kind: str, resolves_to: str | None) -> None:
    entry = one(sources(), name)
    assert (entry.kind, entry.resolves_to) == (kind, resolves_to)
    assert (entry.owned_by == "gateway") == (kind != "model")


def test_a_name_that_leads_to_a_model_has_the_facts_of_that_at_its_own_backend() -> None:
    own = sources()
    big, large = one(own, "hint:capable"), one(own, "acme/large")
    assert (big.capabilities, big.pricing, big.context_length) == (large.capabilities, large.pricing, 200_000)
    assert one(own, "fast").context_length == 8_000 and one(own, "fast").providers == ("openai_api",)
    assert one(own, "sonnet").providers == ("poe_web",) and one(own, "shut").capabilities is None


def test_a_model_has_the_least_context_and_the_best_abilities_of_its_providers() -> None:
    shared = one(sources(), "shared")
    assert shared.id == "Shared" and shared.providers == ("openai_api", "poe_web") and shared.context_length == 64_000
    assert shared.capabilities is not None
    assert (shared.capabilities.tools, shared.capabilities.parameters) == ("native", None)
    alone = one(sources(offers={POE: "poe_web"}), "shared").capabilities
    assert alone == ModelCapabilities(
        operations=("chat",),
        tools="emulated",
        structured_output="emulated",
        vision=False,
        streaming=True,
        parameters=("temperature",),
    )


def test_what_a_provider_tells_of_a_model_wins_over_what_its_adapter_can() -> None:
    large = one(sources(), "acme/large").capabilities
    assert large == ModelCapabilities(
        operations=("chat",),
        tools="native",
        structured_output=None,
        vision=True,
        streaming=True,
        parameters=("temperature", "top_p"),
    )
    plain = one(sources(), "qwen3").capabilities
    assert plain is not None and plain.operations == ("chat", "embed", "image") and plain.vision is None


@pytest.mark.parametrize(
    ("gives", "operations", "streaming"),
    [(["image"], ("image",), False), (["embeddings"], ("embed",), False), (["text", "audio"], ("chat",), True)],
    ids=["pictures", "vectors", "words"],
)
def test_what_a_model_gives_says_what_it_may_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, gives: list[str], operations: tuple[str, ...], streaming: bool
) -> None:
    monkeypatch.setitem(LISTS, LOCAL, (model("special", output_modalities=gives),))
    found = one(sources(), "special").capabilities
    assert found is not None and (found.operations, found.streaming) == (operations, streaming)
    assert (found.tools is None) == (not streaming)
    monkeypatch.setitem(LISTS, POE, (model("painter", output_modalities=["image"]),))
    painter = one(sources(), "painter").capabilities
    assert painter is not None and painter.operations == ("chat",)


# Prices.


def rule(**fields: Any) -> PriceRule:
    return PriceRule(id="price_1", version=1, valid_from=NOW, created_at=NOW, **fields)


def test_a_providers_own_prices_are_told_for_a_million_tokens() -> None:
    listed_price = Price(
        provider="openai_api", source="upstream", currency="USD", input="2.5", output="10", image="0.0036"
    )
    assert one(sources(), "acme/large").pricing == (listed_price,)
    assert one(sources(), "Claude").pricing == (Price(provider="poe_web", source="upstream", points=20),)
    assert one(sources(), "qwen3").pricing == ()


def test_a_rule_wins_and_its_markup_is_in_the_price() -> None:
    dear = rule(input=Decimal("2"), output=Decimal("0"), markup_percent=Decimal("12.5"), currency="EUR")
    price = Price(provider="openai_api", source="rule", currency="EUR", input="2.25", output="0")
    assert one(sources(rules=(dear,)), "acme/large").pricing == (price,)
    only_markup = rule(markup_percent=Decimal(100))
    (price,) = one(sources(rules=(only_markup,)), "acme/large").pricing
    assert (price.input, price.output, price.image) == ("5", "20", "0.0072")
    by_point = rule(provider="poe_web", point=Decimal("0.00003"))
    (price,) = one(sources(rules=(by_point,)), "Claude").pricing
    assert (price.point, price.points, price.currency) == ("0.00003", 20, "USD")


def test_each_provider_has_its_price_and_equal_ones_are_told_once() -> None:
    rules = (rule(provider="poe_web", request=Decimal("0.01")), rule(input=Decimal("0.50")))
    assert [(price.provider, price.input, price.request) for price in one(sources(rules=rules), "shared").pricing] == [
        ("openai_api", "0.5", None),
        ("poe_web", None, "0.01"),
    ]


@pytest.mark.parametrize(
    "amount",
    ["-1", "NaN", "Infinity", "1e999999", "1e-999999", "", "cheap", None, [], 10**400],
    ids=["negative", "nan", "infinite", "huge", "tiny", "empty", "word", "null", "list", "many-digits"],
)
def test_what_is_no_price_is_not_told(monkeypatch: pytest.MonkeyPatch, amount: Any) -> None:
    monkeypatch.setitem(LISTS, LOCAL, (model("odd", pricing={"prompt": amount, "completion": "0.000001"}),))
    (price,) = one(sources(), "odd").pricing
    assert (price.input, price.output) == (None, "1")


# Who sees what.


def test_only_what_a_key_may_use_is_listed() -> None:
    own = sources(may=lambda name: name in ("qwen3", "sonnet"), profiles=())
    assert names(own) == ["local:small", "fast", "hint:fast", "sonnet", "qwen3"]
    assert find(own, "acme/large") is None


def test_profiles_that_a_caller_may_not_name_are_not_listed_nor_their_aliases() -> None:
    shown = names(sources(profiles=("default",)))
    assert "default" in shown and not {"team", "sort", "shut", "house"} & set(shown)


def test_names_whose_backend_has_no_accounts_for_him_are_not_listed() -> None:
    shown = names(sources(offers={LOCAL: "openai_api"}, profiles=()))
    assert shown == ["local:small", "fast", "hint:fast", "qwen3", "shared"]


def test_a_tier_called_like_a_model_is_meant_and_listed_once() -> None:
    table = msgspec.structs.replace(TABLE, aliases={"QWEN3": "cloud:big"})
    shown = names(sources(table))
    assert [name for name in shown if name.lower() == "qwen3"] == ["QWEN3"]
    assert one(sources(table), "qwen3").resolves_to == "cloud:big"


# Lists that nobody read.


def test_the_fallback_is_listed_where_a_list_was_never_read() -> None:
    own = sources(EMPTY, lists=(POE,), fallback=("qwen-plus", "Claude", "qwen-plus", "Qwen-Plus"))
    assert names(own) == ["Claude", "SHARED", "qwen-plus"]
    entry = one(own, "qwen-plus")
    assert (entry.providers, entry.owned_by) == (("openai_api",), "unknown")
    assert entry.capabilities is not None and entry.capabilities.tools == "native"


def test_no_fallback_where_all_lists_are_known_or_nothing_is_allowed() -> None:
    assert "qwen-plus" not in names(sources(fallback=("qwen-plus",)))
    assert names(sources(EMPTY, lists=(), fallback=("qwen-plus",), may=lambda name: False)) == []
    assert names(sources(EMPTY, offers={}, lists=(), fallback=("qwen-plus",))) == []


def test_a_tier_of_a_backend_that_nobody_read_is_listed_with_what_its_kind_can() -> None:
    own = sources(lists=(POE,))
    entry = one(own, "cloud:big")
    assert entry.context_length is None and entry.capabilities is not None and entry.capabilities.tools == "native"
