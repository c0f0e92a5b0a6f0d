"""``/v1/models`` over the real application: shapes, keys, names with slashes, freshness, and other clients' lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, cast

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, AuthenticationError, NotFoundError, PermissionDeniedError

from poe_gateway.api.application import create_app
from poe_gateway.api.v1.models import CapabilitiesView, ModelList, ModelObject, askable
from poe_gateway.auth.keys import KeyTerms
from poe_gateway.metering.pricelist import PriceDraft
from poe_gateway.routing.parse import parse
from poe_gateway.routing.plan import public_names
from poe_gateway.routing.table import EMPTY, Table, Terms
from tests.accounts.support import House

TABLE = parse(
    {
        "backends": {"house": {"provider": "mock"}},
        "tiers": [{"name": "house:small", "backend": "house", "model": "mock-1", "max_context_tokens": 4000}],
        "aliases": {"hint:fast": "house:small"},
        "profiles": {"default": {"mode": "dispatch"}, "team": {"mode": "escalate"}},
        "clients": [{"name": "ours", "key": "ours", "profile": "team"}],
    }
)


class Routes:
    """The table that holds now."""

    def __init__(self) -> None:
        self.table: Table = EMPTY

    def missing(self) -> tuple[str, ...]:
        return ()


class Shop:
    """One gateway on memory rooms, and clients with keys of their own."""

    def __init__(self) -> None:
        self.house = House()
        rooms = cast(Any, self.house)
        rooms.routes = self.routes = Routes()
        rooms.models_fallback = ()

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield

        self.app = create_app(lifespan, [])
        self.app.state.gateway = self.house

    async def key(self, name: str = "theirs", **terms: Any) -> str:
        _, text = await self.house.keyring.create(name, KeyTerms(**terms))
        return text

    def http(self, key: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers={"Authorization": f"Bearer {key}"}
        )

    def openai(self, key: str) -> AsyncOpenAI:
        return AsyncOpenAI(api_key=key, base_url="http://gateway/v1", http_client=self.http(key), max_retries=0)


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_the_sdk_lists_and_finds_models_and_its_own_class_takes_them(shop: Shop) -> None:
    await shop.house.add("one", models=["acme/large v2"])
    client = shop.openai(await shop.key())
    page = await client.models.list()
    assert page.object == "list" and page.data[0].id == "acme/large v2"
    assert all(model.object == "model" and isinstance(model.created, int) and model.owned_by for model in page.data)
    for model in page.data:
        assert await client.models.retrieve(model.id) == model
    with pytest.raises(NotFoundError) as missing:
        await client.models.retrieve("no-such-model")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(AuthenticationError):
        await shop.openai("svc_wrong_key_123456").models.list()


@pytest.mark.parametrize("path", ["acme/large%20v2", "acme%2Flarge%20v2", "ACME/Large v2", "acme%2flargev2"])
async def test_names_with_slashes_come_in_any_spelling(shop: Shop, path: str) -> None:
    await shop.house.add("one", models=["acme/large v2"])
    async with shop.http(await shop.key()) as http:
        for prefix in ("/v1", ""):
            answer = await http.get(f"{prefix}/models/{path}")
            assert answer.status_code == 200 and answer.json()["id"] == "acme/large v2"


async def test_both_routes_keep_to_their_documented_shapes(shop: Shop) -> None:
    await shop.house.add("one")
    shop.routes.table = TABLE
    async with shop.http(await shop.key()) as http:
        listed = (await http.get("/v1/models")).json()
        ModelList.model_validate(listed, strict=True)
        for entry in listed["data"]:
            assert set(entry) <= set(ModelObject.model_fields)
            assert set(entry["capabilities"] or ()) <= set(CapabilitiesView.model_fields)
            one = (await http.get(f"/v1/models/{entry['id']}")).json()
            assert one == entry and ModelObject.model_validate(one, strict=True).id == entry["id"]
        schema = (await http.get("/openapi.json")).json()
    shown = schema["paths"]["/v1/models"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown["$ref"].endswith("/ModelList")


async def test_who_comes_without_a_key_sees_the_public_profile(shop: Shop) -> None:
    await shop.house.add("one")
    shop.routes.table = table = msgspec.structs.replace(TABLE, terms=Terms(public_profile="team"))
    shop.house.keyring.public.let_in(public_names(table))
    transport = httpx.ASGITransport(app=shop.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        kinds = {entry["id"]: entry["kind"] for entry in (await http.get("/v1/models")).json()["data"]}
    assert kinds == {"house:small": "tier", "hint:fast": "alias", "team": "profile", "mock-1": "model"}


async def test_names_of_the_table_are_listed_and_say_where_they_lead(shop: Shop) -> None:
    await shop.house.add("one")
    shop.routes.table = TABLE
    mine, theirs = await shop.key("ours"), await shop.key("theirs")
    async with shop.http(mine) as http:
        data = (await http.get("/v1/models")).json()["data"]
        assert [entry["id"] for entry in data][:3] == ["house:small", "hint:fast", "team"]
        fast = (await http.get("/v1/models/hint:fast")).json()
    assert fast["lm_gateway"] == {"resolves_to": "house:small"} and fast["resolves_to"] == "house:small"
    assert fast["context_length"] == 4000 and fast["providers"] == ["mock"] and fast["kind"] == "alias"
    assert "resolves_to" not in data[-1] and "lm_gateway" not in data[-1]
    # Another key's profile is the default one, and that alone may it name.
    async with shop.http(theirs) as http:
        kinds = {entry["id"]: entry["kind"] for entry in (await http.get("/v1/models")).json()["data"]}
    assert [name for name, kind in kinds.items() if kind == "profile"] == ["default"]
    principal = shop.house.keyring.known(theirs)
    assert principal is not None
    assert [model.id for model in askable(shop.house, principal)] == list(kinds)


async def test_a_key_sees_only_what_it_may_use(shop: Shop) -> None:
    await shop.house.add("one", models=["acme/large"])
    shop.routes.table = TABLE
    some = await shop.key("some", models=("acme/*", "hint:*"))
    client = shop.openai(some)
    assert [model.id async for model in client.models.list()] == ["hint:fast", "acme/large"]
    with pytest.raises(PermissionDeniedError) as forbidden:
        await client.models.retrieve("mock-1")
    assert forbidden.value.code == "model_not_allowed"
    # Tiers are no secret to those who may use their model.
    own_model = shop.openai(await shop.key("own", models=("mock-1",)))
    assert [model.id async for model in own_model.models.list()] == ["house:small", "hint:fast", "mock-1"]
    # Accounts that it may not use serve it nothing.
    for terms in ({"providers": ("poe_web",)}, {"labels": ("gold",)}):
        client = shop.openai(await shop.key("others", **terms))
        assert [model.id async for model in client.models.list() if model.id != "default"] == []
        with pytest.raises(NotFoundError):
            await client.models.retrieve("mock-1")


async def test_prices_are_those_of_the_keys_organisation(shop: Shop) -> None:
    await shop.house.add("one")
    await shop.house.pricelist.put(PriceDraft(model="mock-1", input=Decimal("2.50"), markup_percent=Decimal(10)))
    await shop.house.pricelist.put(PriceDraft(org="default", model="mock-2", request=Decimal("0.01")))
    async with shop.http(await shop.key()) as http:
        one = (await http.get("/v1/models/mock-1")).json()
        two = (await http.get("/v1/models/mock-2")).json()
    assert one["pricing"] == [{"provider": "mock", "source": "rule", "currency": "USD", "input": "2.75"}]
    assert two["pricing"] == [{"provider": "mock", "source": "rule", "currency": "USD", "request": "0.01"}]


async def test_the_list_tells_how_old_it_is(shop: Shop) -> None:
    key = await shop.key()
    async with shop.http(key) as http:
        meta = (await http.get("/v1/models")).json()["meta"]
        assert meta == {"cached": False, "age_seconds": None, "providers": [], "fallback": False}
        await shop.house.add("one")
        shop.house.clock.pass_(seconds=90)
        meta = (await http.get("/v1/models")).json()["meta"]
    assert meta == {"cached": True, "age_seconds": 90, "providers": ["mock"], "fallback": False}


async def test_the_fallback_stands_in_for_a_list_that_cannot_be_read(shop: Shop) -> None:
    await shop.house.add("one")
    await shop.house.add("two", models=["acme/large"])
    rooms = cast(Any, shop.house)
    rooms.models_fallback = ("qwen-plus",)
    kept = await shop.house.listings.load()
    client = shop.openai(await shop.key())
    assert "qwen-plus" not in [model.id async for model in client.models.list()]
    shop.house.catalog.replace([listing for listing in kept if listing.offer == "mock"])
    async with client:
        assert "qwen-plus" in [model.id async for model in client.models.list()]
        found = await client.models.retrieve("Qwen-Plus")
    assert found.id == "qwen-plus"
    # It can be asked for: where no list was read, the upstream decides.
    plan = shop.house.catalog.plan("qwen-plus", shop.house.broker.offers())
    assert "mock" not in plan.offers and plan.model == "qwen-plus"
