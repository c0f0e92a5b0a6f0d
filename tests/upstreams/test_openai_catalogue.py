"""What providers tell of their models and of the money left."""

import json

import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.pool.outcome import AdapterDrift, Transient
from poe_gateway.upstreams.base import AccountRef, Reading, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from poe_gateway.upstreams.openai_api.catalogue import read_models


def details(written: str) -> dict:
    (model,) = read_models(f'{{"data": [{{"id": "m", {written}}}]}}'.encode(), None)
    return model.details


ROWS = {
    "openrouter": (
        '"context_length": 8192, "top_provider": {"max_completion_tokens": 4096},'
        '"architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},'
        '"pricing": {"prompt": "0.0000008", "completion": "0.000004", "image": "-1", "Odd": "1"},'
        '"supported_parameters": ["tools", "stop", "tools", 5, "two words"]',
        {
            "context_length": 8192,
            "max_output_tokens": 4096,
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "supported_parameters": ["tools", "stop"],
            "pricing": {"prompt": "0.0000008", "completion": "0.000004"},
        },
    ),
    "poe": (
        '"context_window": {"context_length": 200000, "max_output_tokens": 64000}, "context_length": null,'
        '"pricing": {"prompt": 0.00000080, "completion": 1e-05, "request": null}',
        {
            "context_length": 200000,
            "max_output_tokens": 64000,
            "pricing": {"prompt": "0.0000008", "completion": "0.00001"},
        },
    ),
    "groq": (
        '"context_window": 131072, "max_completion_tokens": 8192',
        {"context_length": 131072, "max_output_tokens": 8192},
    ),
    "vllm": ('"max_model_len": 4096', {"context_length": 4096}),
    "per-million": ('"pricing": {"input": 0.8, "output": 2}', {}),
    "odd": (
        '"context_length": -1, "max_model_len": true, "architecture": [], "pricing": [], "supported_parameters": {}',
        {},
    ),
    "odd-prices": (
        '"pricing": {"prompt": 1e999, "completion": true, "request": 1e-400, "image": 0e-9, "web_search": "x"}',
        {"pricing": {"image": "0"}},
    ),
    "openai": ('"object": "model", "created": 1, "owned_by": "openai"', {}),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_is_told_of_a_model_has_one_set_of_names(name):
    written, told = ROWS[name]
    assert details(written) == told


def test_names_that_are_none_are_left_out():
    body = json.dumps({"data": [{"id": "x" * 300}, {"id": 5}, "x", {"id": "m"}, {"id": "m", "created": 7}]}).encode()
    assert [(model.id, model.created) for model in read_models(body, None)] == [("m", 7)]


@pytest.fixture
async def adapter(provider):
    session = new_session()
    yield OpenAIAPI(
        session=session, clock=SystemClock(), preset_urls={"openrouter": f"{provider.url}/v1"}, small_timeout=2
    )
    await session.close()


def account(**credentials) -> AccountRef:
    return AccountRef(id="a", name="a", offer="o", credentials={"api_key": "k", **credentials})


async def test_openrouter_is_asked_for_models_of_every_kind(adapter, provider):
    seen = []

    async def models(request):
        seen.append(request.query_string)
        return await provider.plain(200, {"data": [{"id": "m"}]})(request)

    provider.models = models
    assert [model.id for model in await adapter.list_models(account(preset="openrouter"))] == ["m"]
    assert seen == ["output_modalities=all"]


async def test_the_allow_list_is_the_catalogue_of_a_provider_that_has_none(adapter, provider):
    provider.models = provider.plain(404, b"<html>")
    ref = account(base_url=provider.url, models=["m-2", "m-1"])
    assert [model.id for model in await adapter.list_models(ref)] == ["m-1", "m-2"]
    provider.models = provider.plain(503, b"")
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.list_models(ref)
    assert isinstance(caught.value.outcome, Transient)


async def test_a_list_that_is_missing_without_an_allow_list_is_drift(adapter, provider):
    provider.models = provider.plain(404, b"<html>")
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.list_models(account(base_url=provider.url))
    assert isinstance(caught.value.outcome, AdapterDrift)


NO_LIMIT = {"data": {"limit": None, "limit_remaining": None}}


@pytest.mark.parametrize(
    ("key", "credits", "balance"),
    [
        ({"data": {"limit_remaining": 7.10}}, None, "7.1"),
        ({"data": {"limit_remaining": 0}}, None, "0"),
        (NO_LIMIT, {"data": {"total_credits": 10.1, "total_usage": 3.3}}, "6.8"),
        (NO_LIMIT, {"data": {"total_credits": 1, "total_usage": 1.000000001}}, "-0.000000001"),
    ],
    ids=["limited", "used-up", "credits", "overdrawn"],
)
async def test_money_left_is_a_decimal(adapter, provider, key, credits, balance):
    provider.key = key
    provider.credits = credits if credits is not None else provider.plain(500, {})
    ref = account(preset="openrouter")
    assert not adapter.describe(ref.credentials).metered
    assert await adapter.read_balance(ref) == Reading(details={"balance": balance, "currency": "USD"})
    assert f"{balance} USD left" in await adapter.probe(ref)


@pytest.mark.parametrize("status", [401, 403])
async def test_credits_that_only_a_management_key_may_see_are_not_told(adapter, provider, status):
    provider.key, provider.credits = NO_LIMIT, provider.plain(status, {"error": {"code": status, "message": "no"}})
    assert await adapter.read_balance(account(preset="openrouter")) == Reading()


@pytest.mark.parametrize("key", [{}, {"data": 5}, {"data": {"limit_remaining": 1e300}}, []])
async def test_a_balance_that_is_not_understood_is_drift(adapter, provider, key):
    provider.key = key
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.read_balance(account(preset="openrouter"))
    assert isinstance(caught.value.outcome, AdapterDrift)
