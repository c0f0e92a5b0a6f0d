"""Kept responses over HTTP, by the real SDK: read, replayed, deleted, their input listed. On the store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI

from poe_gateway.api.application import create_app
from poe_gateway.api.v1 import responses
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import Principal
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.chat.events import ChatEvent, ReasoningDelta, TextDelta, ToolCallDelta
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.conversations.memory import MemoryKept
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.vault import Vault, new_key
from tests.support.responses import asked, decoded, head_of, reply_of

ANN, BOB = "svc_test_key_ann0", "svc_test_key_bob0"
CALL = ToolCallDelta(({"index": 0, "id": "c1", "function": {"name": "add", "arguments": "{}"}},))
EVENTS: list[ChatEvent] = [ReasoningDelta("hm"), TextDelta("A"), CALL]
QUESTIONS: list[dict[str, Any]] = [{"role": "user", "content": f"{number}?"} for number in range(5)]


@asynccontextmanager
async def _nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


class Ground:
    """The application with its shelf, and two callers."""

    def __init__(self) -> None:
        clock, self.ids = SystemClock(), Ids(3)
        self.keyring = KeyRing(store=MemoryKeys(), pepper=b"p", admin_key="admin-key", clock=clock, ids=self.ids)
        self.store = MemoryKept(clock)
        self.shelf = Shelf(store=self.store, vault=Vault((new_key(),)), ids=self.ids, ttl=60.0)
        self.app = create_app(_nothing, [responses.router()], docs=False)
        self.app.state.gateway = SimpleNamespace(keyring=self.keyring, shelf=self.shelf)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://gateway")

    def client(self, key: str = ANN) -> AsyncOpenAI:
        return AsyncOpenAI(api_key=key, base_url="http://gateway/v1", http_client=self.http, max_retries=0)

    async def made(self, key: str = ANN, events: list[ChatEvent] = EVENTS, **body: Any) -> str:
        """A response that was asked for and kept."""
        principal = self.keyring.known(key)
        assert isinstance(principal, Principal)
        request = await self.shelf.recall(principal, asked(store=True, **body))
        reply = reply_of(head_of(request, self.ids.new("resp", 24)), events, "tool_calls")
        assert await self.shelf.keep(principal, reply)
        return reply.head.id


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    ground = Ground()
    await ground.keyring.start([ANN, BOB])
    async with ground.http:
        yield ground


async def test_a_kept_response_is_read(ground: Ground) -> None:
    response_id = await ground.made(input="Hi", metadata={"a": "b"})
    told = await ground.client().responses.retrieve(response_id, include=["reasoning.encrypted_content"])
    assert (told.id, told.status, told.output_text, told.metadata) == (response_id, "completed", "A", {"a": "b"})
    assert [item.type for item in told.output] == ["reasoning", "message", "function_call"]
    assert told.to_dict()["store"] is True
    plain = await ground.http.get(f"/responses/{response_id}", headers={"x-api-key": ANN})
    assert plain.json()["id"] == response_id and plain.headers["cache-control"] == "no-store"


async def test_its_events_are_told_anew(ground: Ground) -> None:
    response_id = await ground.made()
    stream = await ground.client().responses.retrieve(response_id, stream=True)
    told = [event async for event in stream]
    assert told[0].type == "response.created" and told[-1].type == "response.completed"
    assert [event.sequence_number for event in told] == list(range(len(told)))
    stream = await ground.client().responses.retrieve(response_id, stream=True, starting_after=3)
    assert [event.sequence_number async for event in stream] == list(range(4, len(told)))
    async with ground.client().responses.stream(response_id=response_id) as helper:
        assert (await helper.get_final_response()).output_text == "A"
    raw = await ground.http.get(f"/v1/responses/{response_id}?stream=true", headers={"x-api-key": ANN})
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert len(decoded(raw.content)) == len(told)


@pytest.mark.parametrize(
    ("query", "param", "status"),
    [
        ("starting_after=1", "starting_after", 400),
        ("stream=true&starting_after=999", "starting_after", 400),
        ("stream=true&starting_after=-1", "starting_after", 422),
        ("stream=true&starting_after=x", "starting_after", 422),
        ("stream=perhaps", "stream", 422),
        ("include[]=web_search_call.results", "include[0]", 400),
    ],
)
async def test_wrong_ways_to_read(ground: Ground, query: str, param: str, status: int) -> None:
    response_id = await ground.made()
    told = await ground.http.get(f"/v1/responses/{response_id}?{query}", headers={"x-api-key": ANN})
    assert told.status_code == status and told.json()["error"]["param"] == param


async def test_it_is_deleted(ground: Ground) -> None:
    response_id = await ground.made()
    told = await ground.http.delete(f"/v1/responses/{response_id}", headers={"x-api-key": ANN})
    assert told.json() == {"id": response_id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await ground.client().responses.retrieve(response_id)
    with pytest.raises(openai.NotFoundError):
        await ground.client().responses.delete(response_id)
    assert ground.store.table == {}


async def test_it_cannot_be_cancelled(ground: Ground) -> None:
    response_id = await ground.made()
    with pytest.raises(openai.BadRequestError) as caught:
        await ground.client().responses.cancel(response_id)
    assert "background" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        await ground.client().responses.cancel("resp_unknown")


async def test_its_input_is_listed(ground: Ground) -> None:
    items = ground.client().responses.input_items
    response_id = await ground.made(input=QUESTIONS)
    first = await items.list(response_id, limit=2)
    texts = [item.content[0].text for item in first.data]  # type: ignore[union-attr]
    assert texts == ["4?", "3?"] and first.has_more
    told = [item.content[0].text async for item in items.list(response_id, limit=2)]  # type: ignore[union-attr]
    assert told == ["4?", "3?", "2?", "1?", "0?"]
    told = [item.content[0].text async for item in items.list(response_id, limit=2, order="asc")]  # type: ignore[union-attr]
    assert told == ["0?", "1?", "2?", "3?", "4?"]
    raw = await ground.http.get(f"/v1/responses/{response_id}/input_items", headers={"x-api-key": ANN})
    body = raw.json()
    assert (body["first_id"], body["last_id"]) == (body["data"][0]["id"], body["data"][-1]["id"])
    assert (body["object"], body["has_more"]) == ("list", False)
    last = await ground.http.get(
        f"/responses/{response_id}/input_items?after={body['last_id']}", headers={"x-api-key": ANN}
    )
    assert last.json() == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


async def test_the_listed_items_are_the_sdk_s(ground: Ground) -> None:
    from openai.types.responses import ResponseItemList

    response_id = await ground.made(
        input=[
            {"role": "developer", "content": "D"},
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://x.example/a.png"}]},
            {"role": "assistant", "content": "A"},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "2"},
            {"type": "image_generation_call", "result": "QUJD"},
        ]
    )
    raw = await ground.http.get(f"/v1/responses/{response_id}/input_items?order=asc", headers={"x-api-key": ANN})
    assert raw.headers["cache-control"] == "no-store"
    told = ResponseItemList.model_validate(raw.json())
    assert [item.type for item in told.data] == [
        "message",
        "message",
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "image_generation_call",
    ]
    assert {item["status"] for item in raw.json()["data"]} == {"completed"}


async def test_a_text_as_input_is_listed_like_a_message(ground: Ground) -> None:
    listed = []
    for given in ("Hi", [{"role": "user", "content": "Hi"}]):
        response_id = await ground.made(input=given)
        raw = await ground.http.get(f"/v1/responses/{response_id}/input_items", headers={"x-api-key": ANN})
        [item] = raw.json()["data"]
        listed.append({name: value for name, value in item.items() if name != "id"})
    assert listed[0] == listed[1]


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=101", "limit"), ("order=up", "order"), ("after=x", "after")]
)
async def test_wrong_ways_to_list(ground: Ground, query: str, param: str) -> None:
    response_id = await ground.made()
    told = await ground.http.get(f"/v1/responses/{response_id}/input_items?{query}", headers={"x-api-key": ANN})
    assert told.status_code in (400, 422) and told.json()["error"]["param"] == param


ROUTES = [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]


@pytest.mark.parametrize(("method", "tail"), ROUTES, ids=["read", "delete", "cancel", "input"])
@pytest.mark.parametrize("prefix", ["/v1", ""], ids=["v1", "bare"])
async def test_whose_it_is(ground: Ground, prefix: str, method: str, tail: str) -> None:
    response_id = await ground.made()
    path = f"{prefix}/responses/{response_id}{tail}"
    told = await ground.http.request(method, path, headers={"authorization": f"Bearer {BOB}"})
    assert told.status_code == 404 and told.json()["error"]["code"] == "response_not_found"
    assert (await ground.http.request(method, path)).status_code == 401
    assert (await ground.http.request(method, path, headers={"x-api-key": "admin-key"})).status_code == 401
    ground.store.away = True
    told = await ground.http.request(method, path, headers={"x-api-key": ANN})
    assert told.status_code == 503 and told.json()["error"]["code"] == "database_unavailable"


async def test_an_id_that_is_none_is_not_found(ground: Ground) -> None:
    for odd in ("x" * 5000, "%00", "%F0%9F%98%80", "resp_%ED%A0%80"):
        told = await ground.http.get(f"/v1/responses/{odd}", headers={"x-api-key": ANN})
        assert told.status_code == 404 and len(told.json()["error"]["message"]) < 300
