"""A newcomer's first minutes: the demo pool behind the real ``openai`` SDK."""

from __future__ import annotations

import re

import httpx
import openai
import pytest

from tests.e2e.conftest import Start
from tests.support.gateway import ADMIN_KEY, SERVICE_KEY, GatewayServer, single


def test_the_seeds_first_request_and_the_sdk_in_both_modes(demo: GatewayServer) -> None:
    answer = single.post(
        f"{demo.base_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {SERVICE_KEY}"},
        json={
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "hello"}],
            "metadata": {"session_id": "s1"},
        },
    )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "[mock] ok: hello"
    assert answer.headers["x-gateway-session"] == "new"
    client = demo.client()
    whole = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
    assert whole.choices[0].message.content == "[mock] ok: hello"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None and whole.usage.total_tokens > 0
    stream = client.chat.completions.create(
        model="mock-echo",
        messages=[{"role": "user", "content": "Grüße, 世界 🌍 " * 50}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Grüße, 世界 🌍 " * 50
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_without_being_asked_a_stream_carries_no_usage(demo: GatewayServer) -> None:
    chunks = list(
        demo.client().chat.completions.create(model="mock-1", messages=[{"role": "user", "content": "hi"}], stream=True)
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_errors_have_the_classes_and_codes_that_the_sdk_knows(demo: GatewayServer) -> None:
    ask = {"model": "mock-1", "messages": [{"role": "user", "content": "hi"}]}
    client = demo.client()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**ask, "model": "no-such-model"})  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as many:
        client.chat.completions.create(**ask, n=2)  # type: ignore[call-overload]
    assert many.value.param == "n"
    for key in ("svc_wrong_key_0000", ADMIN_KEY):
        with pytest.raises(openai.AuthenticationError) as refused:
            demo.client(key).chat.completions.create(**ask)  # type: ignore[call-overload]
        assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model="mock-1", messages=[{"role": "user", "content": "x" * (21 * 1024 * 1024)}])
    assert large.value.status_code == 413


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/models", 405),
        ("POST", "/healthz", 405),
        ("GET", "/v1/models", 401),
        ("GET", "/admin/accounts", 401),
    ],
)
def test_every_refusal_is_json(demo: GatewayServer, method: str, path: str, status: int) -> None:
    answer = single.request(method, demo.base_url + path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"] and error["type"] and "code" in error and "param" in error
    assert answer.headers["x-request-id"]


def test_keys_of_callers_and_operators_are_strictly_separate(demo: GatewayServer) -> None:
    def status(path: str, key: str) -> int:
        return single.get(demo.base_url + path, headers={"Authorization": f"bearer {key}"}).status_code

    assert status("/v1/models", SERVICE_KEY) == 200
    assert status("/v1/models", ADMIN_KEY) == 401
    assert status("/admin/accounts", ADMIN_KEY) == 200
    assert status("/admin/accounts", SERVICE_KEY) == 401
    own = single.get(f"{demo.base_url}/models", headers={"X-API-Key": SERVICE_KEY})
    assert own.status_code == 200


def test_request_ids_are_kept_when_valid_and_made_otherwise(demo: GatewayServer) -> None:
    def sent(value: str) -> str:
        return single.get(f"{demo.base_url}/healthz", headers={"X-Request-ID": value}).headers["x-request-id"]

    assert sent("my-id_1.2:3") == "my-id_1.2:3"
    assert sent("spaces are not allowed").startswith("req_")


def test_health_models_docs_and_metrics(demo: GatewayServer) -> None:
    with httpx.Client(base_url=demo.base_url) as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/readyz").json() == {"status": "ready", "ready_accounts": 3}
        page = http.get("/docs")
        assert "://" not in page.text, "nothing comes from elsewhere"
        for asset in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
            assert http.get(asset).status_code == 200
        assert page.text.count("/docs/assets/") == 2
        schema = http.get("/openapi.json").json()
        assert "post" in schema["paths"]["/v1/chat/completions"]
        assert http.get("/").json()["name"] == "poe_gateway"
        metrics = http.get("/metrics").text
    assert "poe_gateway_requests_total" in metrics
    models = demo.client().models.list()
    assert {"mock-1", "mock-2", "mock-echo", "mock-slow", "gpt-4o-mini"} <= {model.id for model in models}
    assert demo.client().models.retrieve("MOCK-1").id == "mock-1"
    with pytest.raises(openai.NotFoundError):
        demo.client().models.retrieve("a/b/c")


def test_a_bootstrap_key_is_stored_once_and_never_in_the_clear(gateway: Start, mongo_uri: str, db_name: str) -> None:
    from pymongo import MongoClient

    gateway().stop()
    gateway().stop()
    with MongoClient(mongo_uri) as client:
        keys = list(client[db_name]["service_keys"].find())
        assert len(keys) == 1
        assert SERVICE_KEY not in repr(keys)
