"""Odd requests: whatever is sent, the answer is a clear refusal in OpenAI's shape; who leaves, frees his slot."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.support.gateway import ADMIN_KEY, SERVICE_KEY, GatewayServer, single

CHAT = "/v1/chat/completions"
UPSERT = "/admin/accounts/upsert"
RAW = [
    b"",
    b"nope",
    b"[]",
    b"null",
    b"1",
    b"{",
    b"\xff\xfe",
    b"\x00",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"model": 1e999}',
    b"1" * 10_000,
    b'{"\\ud800": 1}',
]
VALUES: list[Any] = [
    *(None, True, 0, -1, 1.5, 2**70, "", "\x00", "x" * 70_000, "\ud800"),
    *([], [1], [[]], {}, {"a": 1}, {"$ne": None}),
]
TURN = {"role": "user", "content": "hi"}


class Caller:
    """Sends and checks. ``code`` of an answer below 400 is free."""

    def __init__(self, server: GatewayServer) -> None:
        self.http = httpx.Client(base_url=server.base_url, timeout=30)

    def send(self, path: str, body: object, *, refused: bool = False) -> None:
        key = ADMIN_KEY if path.startswith("/admin") else SERVICE_KEY
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        answer = self.http.post(path, content=raw, headers=headers)
        told = (path, raw[:200], answer.status_code, answer.text[:300])
        assert answer.headers["x-request-id"], told
        assert answer.status_code < 500 and (answer.status_code >= 400 or not refused), told
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert isinstance(error["message"], str) and isinstance(error["type"], str), told
            assert "param" in error and isinstance(error["code"], str | None), told
            assert "CANARY" not in answer.text, told


def test_whatever_is_sent_is_answered_or_refused_clearly(gateway: Start) -> None:
    demo = gateway(GATEWAY_DEMO_POOL="true")
    caller = Caller(demo)
    for raw in RAW:
        for path in (CHAT, UPSERT, "/admin/accounts/refresh-points", "/admin/keys"):
            caller.send(path, raw, refused=True)
    whole = {"model": "mock-1", "messages": [TURN]}
    poe = {"email": "odd@example.com", "poe_p_b": "CANARY-1"}
    other = {"base_url": "http://127.0.0.1:9/v1", "api_key": "CANARY-2"}
    for value in VALUES:
        for field in ("messages", "stream", "stream_options", "n", "user", "metadata", "temperature", "tools"):
            caller.send(CHAT, {**whole, field: value})
            caller.send(CHAT, {**whole, "stream": True, field: value})
        caller.send(CHAT, {**whole, "metadata": {"session_id": value}})
        caller.send(CHAT, {**whole, "stream": True, "stream_options": {"include_usage": value}})
        for field in ("role", "content", "name", "tool_calls"):
            caller.send(CHAT, {**whole, "messages": [{**TURN, field: value}, TURN]})
        for part in ({"type": value}, {"type": "text", "text": value}, {"type": "image_url", "image_url": value}):
            caller.send(CHAT, {**whole, "messages": [{"role": "user", "content": [part]}]})
        for field in ("email", "poe_p_b", "user_agent", "max_inflight", "credentials", "\ud800"):
            caller.send(UPSERT, {**poe, field: value})
        for field in ("models", "points", "faults", "\ud800"):
            caller.send(UPSERT, {"provider": "mock", "name": "odd", "credentials": {field: value}})
        for field in ("base_url", "api_key", "\ud800"):
            caller.send(UPSERT, {"provider": "openai_api", "name": "odd", "credentials": {**other, field: value}})
    assert not [line for line in demo.log_lines() if "unforeseen" in line["msg"]]
    assert "CANARY" not in demo.output()


def test_compressed_bodies_are_refused_as_such(demo: GatewayServer) -> None:
    raw = gzip.compress(json.dumps({"model": "mock-1", "messages": [TURN]}).encode())
    headers = {"Authorization": f"Bearer {SERVICE_KEY}", "Content-Encoding": "gzip"}
    for path, shape in ((CHAT, "error"), ("/v1/messages", "type"), ("/v1/messages/count_tokens", "type")):
        answer = single.post(demo.base_url + path, content=raw, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_encoding"), answer.text
        assert shape in answer.json() and "Content-Encoding" in answer.text
    plain = single.post(
        demo.base_url + CHAT, content=gzip.decompress(raw), headers={**headers, "Content-Encoding": "identity"}
    )
    assert plain.status_code == 200, plain.text


def test_head_is_get_without_a_body(demo: GatewayServer) -> None:
    with httpx.Client(base_url=demo.base_url, headers={"Authorization": f"Bearer {SERVICE_KEY}"}) as http:
        for path in ("/", "/healthz", "/v1/models", "/api/tags", "/api/version", "/v1/nowhere"):
            asked, told = http.head(path), http.get(path)
            assert (asked.status_code, asked.content) == (told.status_code, b""), path
            assert asked.headers["content-length"] == told.headers["content-length"], path
        assert http.head(CHAT).status_code == 405


def test_unknown_addresses_are_named_by_both_names_where_anthropics_clients_ask(demo: GatewayServer) -> None:
    answer = single.post(demo.base_url + "/v1/messages/batches", json={})
    told = answer.json()
    assert (answer.status_code, told["type"]) == (404, "error")
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == told["request_id"]


def test_documented_routes_refuse_other_methods(demo: GatewayServer) -> None:
    with httpx.Client(base_url=demo.base_url) as http:
        paths = http.get("/openapi.json").json()["paths"]
        named = {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2].startswith("{")}
        for path, routes in paths.items():
            for method in {"GET", "POST", "PUT", "DELETE"} - {each.upper() for each in routes}:
                answer = http.request(method, path, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
                if path.rpartition("/")[0] in named and not path.endswith("}"):
                    assert answer.status_code in (404, 405)  # its last word may be read as an id
                    continue
                error = answer.json()["error"]  # Ollama's is a text
                assert answer.status_code == 405, path
                assert isinstance(error, str) or error["type"] == "invalid_request_error", path
                assert answer.headers["allow"]


def test_strangers_hand_in_nothing(demo: GatewayServer) -> None:
    for body in (b"nope", b"x" * 2_000_000):
        answer = single.post(demo.base_url + UPSERT, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 401
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
    large = single.post(demo.base_url + UPSERT, content=b"x" * 2_000_000, headers=headers)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")


def test_who_leaves_frees_his_slot(gateway: Start) -> None:
    server = gateway(GATEWAY_DEMO_POOL="true", MAX_INFLIGHT_PER_ACCOUNT="1", GLOBAL_INFLIGHT_LIMIT="2")
    headers = {"Authorization": f"Bearer {SERVICE_KEY}"}
    body = {"model": "mock-slow", "messages": [{"role": "user", "content": "long " * 200}], "stream": True}

    def busy() -> tuple[int, int]:
        with server.admin() as admin:
            shown = admin.get("/admin/accounts/summary").raise_for_status().json()
        assert sum(each["inflight"] for each in server.accounts()) == shown["inflight"]
        return shown["inflight"], shown["waiting"]

    def until(wanted: tuple[int, int]) -> None:
        deadline = time.monotonic() + 30
        while busy() != wanted:
            assert time.monotonic() < deadline, busy()
            time.sleep(0.05)

    with httpx.Client(base_url=server.base_url, timeout=60) as first, httpx.Client(timeout=60) as second:
        with (
            first.stream("POST", CHAT, json=body, headers=headers) as one,
            second.stream("POST", server.base_url + CHAT, json=body, headers=headers) as two,
        ):
            pieces = (one.iter_lines(), two.iter_lines())
            assert all("assistant" in next(each) for each in pieces)
            until((2, 0))
            with pytest.raises(httpx.ReadTimeout):  # in the queue
                single.post(server.base_url + CHAT, json=body, headers=headers, timeout=0.5)
            until((2, 0))
        until((0, 0))
    accounts = server.accounts()
    assert {each["status"] for each in accounts} == {"active"}, "leaving is nobody's fault"
