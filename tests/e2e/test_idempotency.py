"""Repetitions through a real gateway, a real database and the real SDK: one call, one row, one answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest
from pymongo import MongoClient

from tests.e2e.conftest import Start
from tests.support.gateway import SERVICE_KEY, GatewayServer

ASK: dict[str, Any] = {"model": "mock-1", "messages": [{"role": "user", "content": "hello"}]}


def rows(mongo_uri: str, db_name: str, at_least: int) -> list[dict[str, Any]]:
    """The ledger's rows, once so many have come; and a little later still."""
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and client[db_name]["ledger"].count_documents({}) < at_least:
            time.sleep(0.05)
        return list(client[db_name]["ledger"].find())


def named(key: str) -> dict[str, dict[str, str]]:
    return {"extra_headers": {"Idempotency-Key": key}}


@pytest.mark.parametrize("streamed", [False, True])
def test_fifty_twins_over_two_workers_cost_one_call(
    gateway: Start, mongo_uri: str, db_name: str, streamed: bool
) -> None:
    server = gateway(workers=2, GATEWAY_DEMO_POOL="true")

    async def twin() -> httpx.Response:
        # A connection of its own, so that both workers get their part.
        async with httpx.AsyncClient(base_url=server.base_url, timeout=60, trust_env=False) as http:
            return await http.post(
                "/v1/chat/completions",
                headers={"Authorization": f"Bearer {SERVICE_KEY}", "Idempotency-Key": '"twins"'},
                json={**ASK, "stream": streamed},
            )

    async def scenario() -> list[httpx.Response]:
        return list(await asyncio.gather(*[twin() for _ in range(50)]))

    answers = asyncio.run(scenario())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len({answer.headers["x-request-id"] for answer in answers}) == 50
    asyncio.run(twin())
    # One more without a key: when its row has come, no other is on its way.
    server.client().chat.completions.create(**ASK)
    found = rows(mongo_uri, db_name, 2)
    [first] = [answer for answer in answers if "idempotent-replayed" not in answer.headers]
    assert len(found) == 2
    assert sum(row["request_id"] == first.headers["x-request-id"] for row in found) == 1


@pytest.fixture
def demo(gateway: Start) -> GatewayServer:
    return gateway(GATEWAY_DEMO_POOL="true")


def test_the_sdk_reads_a_replay_as_the_same_answer(demo: GatewayServer) -> None:
    client = demo.client()
    first = client.chat.completions.with_raw_response.create(**ASK, **named("a"))
    again = client.chat.completions.with_raw_response.create(**ASK, **named("a"))
    assert first.content == again.content
    assert first.headers.get("idempotent-replayed") is None
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-gateway-original-request-id"] == first.headers["x-request-id"]
    assert again.headers["x-gateway-account"] == first.headers["x-gateway-account"]
    chunks = [list(client.chat.completions.create(**ASK, stream=True, **named("b"))) for _ in range(2)]
    assert chunks[0] == chunks[1] and len(chunks[0]) > 1


def test_the_sdk_sees_the_refusals(demo: GatewayServer) -> None:
    client = demo.client(max_retries=2)
    client.chat.completions.create(**ASK, **named("a"))
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        client.chat.completions.create(**{**ASK, "model": "mock-2"}, **named("a"))
    assert reused.value.code == "idempotency_key_reused"
    with pytest.raises(openai.BadRequestError) as malformed:
        client.chat.completions.create(**ASK, **named("x" * 256))
    assert malformed.value.param == "Idempotency-Key"
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**ASK, "model": "no-such-model"}, **named("b"))
    client.chat.completions.create(**ASK, **named("b"))


def test_streams_can_be_refused(gateway: Start) -> None:
    client = gateway(GATEWAY_DEMO_POOL="true", IDEMPOTENCY_STREAMS="reject").client()
    with pytest.raises(openai.BadRequestError, match="Idempotency is not supported with streaming"):
        client.chat.completions.create(**ASK, stream=True, **named("a"))
    client.chat.completions.create(**ASK, **named("a"))


def test_a_restart_forgets_nothing_and_the_database_holds_no_text(gateway: Start, mongo_uri: str, db_name: str) -> None:
    server = gateway(GATEWAY_DEMO_POOL="true")
    ask = {**ASK, "model": "mock-echo", "messages": [{"role": "user", "content": "canary-text-7731"}]}
    first = server.client().chat.completions.with_raw_response.create(**ask, **named("canary-key-4402"))
    assert b"canary-text-7731" in first.content
    server.stop()
    again = (
        gateway(GATEWAY_DEMO_POOL="true")
        .client()
        .chat.completions.with_raw_response.create(**ask, **named("canary-key-4402"))
    )
    assert again.content == first.content and again.headers["idempotent-replayed"] == "true"
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        kept = repr(list(client[db_name]["idempotency"].find()))
    assert "canary" not in kept
