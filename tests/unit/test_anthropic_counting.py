"""``/v1/messages/count_tokens``."""

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from poe_gateway.api.v1 import count_tokens
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.memory import MemoryKeys, MemoryOrgs
from poe_gateway.chat import estimate
from poe_gateway.chat.anthropic import parse
from poe_gateway.clock import Ids
from tests.accounts.support import HandClock

BODY = {"model": "claude", "messages": [{"role": "user", "content": "x" * 40}]}
PATH = "/v1/messages/count_tokens"


class Door:
    """The route alone, behind a key ring with one key."""

    def __init__(self, **terms: Any) -> None:
        self.app = FastAPI()
        self.app.include_router(count_tokens.router(**terms))
        self.key = ""

    async def post(self, content: bytes | None = None, headers: dict[str, str] | None = None, **body: Any):
        ring = KeyRing(
            store=MemoryKeys(), orgs=MemoryOrgs(), pepper=b"p", admin_key="a" * 24, clock=HandClock(), ids=Ids(1)
        )
        await ring.start(())
        _, key = await ring.create("app")
        self.app.state.gateway = SimpleNamespace(keyring=ring)
        sent = json.dumps({**BODY, **body}).encode() if content is None else content
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://gateway") as client:
            return await client.post(PATH, content=sent, headers={"x-api-key": key} if headers is None else headers)


async def test_a_request_is_counted_without_a_limit_of_its_answer():
    answer = await Door().post()
    assert answer.status_code == 200
    assert answer.json() == {"input_tokens": estimate.prompt_tokens(parse(json.dumps(BODY).encode(), counting=True))}


async def test_the_count_is_that_of_the_tokenizer_which_is_given():
    seen = []

    def count(request) -> int:
        seen.append(request)
        return 7

    tool = {"name": "look", "input_schema": {"type": "object"}}
    answer = await Door(count=count).post(system="be brief", tools=[tool], max_tokens=5)
    assert answer.json() == {"input_tokens": 7}
    assert [message.text[:8] for message in seen[0].messages] == ["be brief", "x" * 8]
    assert seen[0].tools[0].name == "look"


@pytest.mark.parametrize(
    ("sent", "status", "kind", "param"),
    [
        ({"headers": {}}, 401, "authentication_error", None),
        ({"headers": {"authorization": "Bearer pgw_wrong.key"}}, 401, "authentication_error", None),
        ({"content": b"nonsense"}, 400, "invalid_request_error", None),
        ({"model": 4}, 400, "invalid_request_error", "model"),
        ({"container": "c"}, 400, "invalid_request_error", "container"),
        ({"content": b" " * 2000}, 413, "request_too_large", None),
    ],
    ids=["no-key", "wrong-key", "no-json", "model", "unknown", "too-large"],
)
async def test_failures_have_anthropics_shape(sent, status, kind, param):
    answer = await Door(max_body=1000).post(**sent)
    told = answer.json()
    assert (answer.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert told["error"].get("param") == param
    assert set(told) == {"type", "error", "request_id"}


async def test_a_gateway_that_starts_says_so():
    app = FastAPI()
    app.include_router(count_tokens.router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        answer = await client.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded_error")
