"""Where an account's requests go, and with which key: presets, regions, own servers, references."""

import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.upstreams.base import AccountRef, CredentialError
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from poe_gateway.upstreams.openai_api.endpoint import read_endpoint

KEY = "canary-key-8812345"


def describe(**credentials):
    return OpenAIAPI(session=None, clock=SystemClock()).describe({"api_key": KEY, **credentials})


def test_one_place_has_one_offer_however_it_is_written():
    offers = {
        describe(base_url=url).offer
        for url in (
            "https://api.openai.com",
            "https://API.openai.com/",
            "https://api.openai.com:443/v1",
            "https://api.openai.com/v1/chat/completions",
        )
    }
    assert offers == {"openai_api:api.openai.com", describe(preset="openai").offer}
    assert describe(base_url="https://api.openai.com/v1").details["preset"] == "openai"
    assert describe(base_url="http://localhost:11434").details["host"] == "localhost:11434"
    others = [
        describe(base_url="https://h.example/v1").offer,
        describe(base_url="http://h.example/v1").offer,
        describe(base_url="https://h.example/api").offer,
        describe(base_url="https://h.example/v1beta/openai").offer,
        describe(base_url="https://h.example:8443").offer,
        describe(base_url="https://h.example/v1", models=["a"]).offer,
        describe(base_url="https://h.example/v1", models=["a", "b"]).offer,
    ]
    assert len(set(others)) == len(others)
    assert others[-1] == describe(base_url="https://h.example/v1", models=["b", "a", "a"]).offer


@pytest.mark.parametrize(
    ("credentials", "field"),
    [
        ({}, "base_url"),
        ({"base_url": "https://a.example", "preset": "poe"}, "base_url"),
        ({"preset": "other"}, "preset"),
        ({"preset": "poe", "api_key": ""}, "api_key"),
        ({"preset": "qwen", "api_key": None}, "api_key"),
        ({"base_url": "https://api.openai.com", "api_key": None}, "api_key"),
        ({"preset": "vllm"}, "base_url"),
        ({"preset": "qwen", "region": "eu"}, "region"),
        ({"preset": "openai", "region": "us"}, "region"),
        ({"base_url": "https://a.example", "region": "us"}, "region"),
    ],
)
def test_bad_credentials_name_the_field_and_not_the_value(credentials, field):
    with pytest.raises(CredentialError) as caught:
        describe(**credentials)
    assert caught.value.field == field
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "base"),
    [
        ({"preset": "poe", "api_key": "k"}, "https://api.poe.com/v1"),
        ({"preset": "openai", "api_key": "k"}, "https://api.openai.com/v1"),
        ({"preset": "openrouter", "api_key": "k"}, "https://openrouter.ai/api/v1"),
        ({"preset": "dashscope", "api_key": "k"}, "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        ({"preset": "qwen", "region": "us", "api_key": "k"}, "https://dashscope-us.aliyuncs.com/compatible-mode/v1"),
        ({"preset": "qwen", "region": "cn", "api_key": "k"}, "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ({"preset": "ollama"}, "http://localhost:11434/v1"),
        ({"preset": "ollama", "base_url": "http://gpu:11434"}, "http://gpu:11434/v1"),
        ({"preset": "vllm", "base_url": "http://gpu:8000/v1/", "api_key": "k"}, "http://gpu:8000/v1"),
        ({"base_url": "http://own.example/api"}, "http://own.example/api/v1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_address_of_every_preset(credentials, base):
    endpoint = read_endpoint(credentials)
    assert endpoint.base == base
    assert endpoint.headers.get("Authorization") == ("Bearer k" if "api_key" in credentials else None)


def test_an_address_is_known_for_the_preset_that_it_is():
    cn = "https://dashscope.aliyuncs.com/compatible-mode/v1"
    assert read_endpoint({"base_url": cn, "api_key": "k"}).preset == "dashscope"
    assert read_endpoint({"base_url": "http://own.example"}).preset is None


@pytest.mark.parametrize("name", ["api_key_env", "api_key_file"])
def test_a_reference_stands_for_the_key_when_an_account_is_described(name):
    described = OpenAIAPI(session=None, clock=SystemClock()).describe({"preset": "openai", name: "OPENAI_API_KEY"})
    assert described.offer == "openai_api:api.openai.com"
    assert not read_endpoint({"preset": "openai", name: "X", "api_key": "k"}).unresolved


async def test_a_server_without_keys_gets_none(provider):
    async with new_session() as session:
        adapter = OpenAIAPI(session=session, clock=SystemClock())
        ref = AccountRef(id="a", name="a", offer="o", credentials={"preset": "vllm", "base_url": provider.url})
        assert len(await adapter.list_models(ref)) == 2
        assert "accepts the call" in await adapter.probe(ref)
    assert all("Authorization" not in headers for _, headers, _ in provider.seen)
