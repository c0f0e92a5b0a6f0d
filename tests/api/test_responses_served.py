"""``/v1/responses`` from the SDK to the shelf: asked, streamed, kept, gone on from. Only the upstream is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
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
from poe_gateway.api.v1.endpoint import Endpoint
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.responses import OpenAIResponses
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.conversations.memory import MemoryKept
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.dispatch.canned import CannedStream
from poe_gateway.errors import UpstreamFailed
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.vault import Vault, new_key

KEY = "svc_test_key_ann0"


class Parrot:
    """In the router's place: says how many turns it was given, and the last one."""

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []

    async def chat(self, principal: Any, request: ChatRequest, *rest: Any) -> CannedStream:
        self.asked.append(request)
        if request.messages[-1].text == "break":
            raise UpstreamFailed("It broke.")
        return CannedStream(request, "parrot-1", f"{len(request.messages)}: {request.messages[-1].text}", "parrot")


class Served:
    """The endpoint and the routes of kept responses as one application."""

    def __init__(self) -> None:
        clock, ids = SystemClock(), Ids(3)
        self.keyring = KeyRing(store=MemoryKeys(), pepper=b"p", admin_key="admin-key", clock=clock, ids=ids)
        self.store = MemoryKept(clock)
        self.parrot = Parrot()
        shelf = Shelf(store=self.store, vault=Vault((new_key(),)), ids=ids, ttl=60.0)
        self.endpoint = Endpoint(
            OpenAIResponses(),
            router=self.parrot,  # type: ignore[arg-type]
            keyring=self.keyring,
            telemetry=Telemetry(()),
            clock=clock,
            ids=ids,
            max_body=1_000_000,
            shelf=shelf,
        )
        self.app = create_app(_nothing, [responses.router()], docs=False)
        self.app.state.gateway = SimpleNamespace(keyring=self.keyring, shelf=shelf)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/responses":
            await self.endpoint(scope, receive, send, "req_1")
        else:
            await self.app(scope, receive, send)


@asynccontextmanager
async def _nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def served() -> Served:
    served = Served()
    await served.keyring.start([KEY])
    return served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served)) as http:
        yield AsyncOpenAI(api_key=KEY, base_url="http://gateway/v1", http_client=http, max_retries=0)


async def test_an_answer_is_not_kept_by_default(served: Served, client: AsyncOpenAI) -> None:
    told = await client.responses.create(model="m", input="Hi", instructions="Be kind.")
    assert (told.output_text, told.model, told.status) == ("2: Hi", "parrot-1", "completed")
    assert told.to_dict()["store"] is False and served.store.table == {}
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(told.id)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="m", input="More", previous_response_id=told.id)
    assert caught.value.code == "previous_response_not_found"


async def test_a_kept_answer_is_gone_on_from(served: Served, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="m", input="Hi", store=True)
    assert first.to_dict()["store"] is True
    assert (await client.responses.retrieve(first.id)).to_dict() == first.to_dict()
    async with client.responses.stream(model="m", input="More", store=True, previous_response_id=first.id) as stream:
        second = await stream.get_final_response()
    assert second.output_text == "3: More" and second.previous_response_id == first.id
    assert (await client.responses.retrieve(second.id)).output_text == "3: More"
    third = await client.responses.create(
        model="m", input=[{"type": "item_reference", "id": second.output[0].id or ""}, {"role": "user", "content": "?"}]
    )
    assert third.output_text == "2: ?"
    sessions = [request.session_id for request in served.parrot.asked]
    assert sessions[0] == sessions[1] is not None and sessions[2] is None


async def test_with_the_database_away_an_answer_says_that_it_was_not_kept(served: Served, client: AsyncOpenAI) -> None:
    served.store.away = True
    told = await client.responses.create(model="m", input="Hi", store=True)
    assert told.output_text == "1: Hi" and told.to_dict()["store"] is False
    stream = await client.responses.create(model="m", input="Hi", store=True, stream=True)
    last = [event async for event in stream][-1]
    assert last.type == "response.completed" and last.response.to_dict()["store"] is False


async def test_a_stream_is_read_event_by_event(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="m", input="Hi", stream=True)
    told = [event async for event in stream]
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == "1: Hi"


async def test_what_is_refused_is_an_error_of_the_api(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="m", input="Hi", tools=[{"type": "web_search"}])
    assert (caught.value.code, caught.value.param) == ("unsupported_tool", "tools[0]")
    with pytest.raises(openai.InternalServerError) as broken:
        await client.responses.create(model="m", input="break", stream=True)
    assert broken.value.code == "upstream_error"
