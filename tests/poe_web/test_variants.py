"""Where the protocol is uncertain the adapter takes either way: a second, tiny site that differs on purpose."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from poe_gateway.pool.outcome import Unauthorized
from poe_gateway.upstreams.base import AccountRef
from tests.poe_web.kit import QUICK, Said, adapter, ask

KEY = "k" * 32
ACCOUNT = AccountRef(id="a", name="a", offer="poe_web", credentials={"poe_p_b": "abc=="})
CHANNEL = {"minSeq": 5, "channel": "c", "channelHash": "h", "boxName": "b"}
PAGE = (
    "<script src='/_app.js'></script>"
    f"<script>window.f=function(){{return window.secret?'{KEY}tail':'decoy'}}</script>"
    "<script id=__NEXT_DATA__ type=application/json>%s</script>"
)
NODE_ID = base64.b64encode(b"Chat:77").decode()

Script = Callable[["Tiny", dict[str, Any]], Any]


class Tiny:
    """Answers a send by a script, pushes what the script wants."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sockets: list[web.WebSocketResponse] = []
        self.calls: list[str] = []
        self.page_channel: Any = CHANNEL
        self.settings: web.Response | None = None

    async def push(self, *events: tuple[str, Any, dict[str, Any]], **frame: Any) -> None:
        messages: list[Any] = []
        for kind, subject, data in events:
            payload = {"unique_id": f"{kind}:{subject}", "subscription_name": kind, "data": {kind: data}}
            messages.append(json.dumps({"message_type": "subscriptionUpdate", "payload": payload}))
        for ws in self.sockets:
            await ws.send_json({"messages": messages, **frame})

    async def page(self, request: web.Request) -> web.Response:
        self.calls.append("page")
        data = json.dumps({"buildId": "0123456789abcdef0123", "x": {"tchannelData": self.page_channel}})
        return web.Response(text=PAGE % data, content_type="text/html")

    async def bundle(self, request: web.Request) -> web.Response:
        return web.Response(text='let useFormkeyDecode=1;window.secret="s"')

    async def api_settings(self, request: web.Request) -> web.Response:
        self.calls.append("settings")
        return self.settings or web.Response(status=404)

    async def gql(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls.append(body["queryName"])
        if request.headers["Poe-Formkey"] != KEY:
            return web.Response(status=400)
        if body["queryName"] == "sendMessageMutation":
            answer = self.script(self, body["variables"])
            answer = await answer if asyncio.iscoroutine(answer) else answer
            return web.json_response({"data": {"messageEdgeCreate": answer}})
        if body["queryName"] in ("chatPageQuery", "chatListPaginationQuery"):
            edges = [{"node": {"messageId": 2, "author": "bot", "state": "complete", "text": "read"}}]
            return web.json_response({"data": {"node": {"messagesConnection": {"edges": edges}}}})
        return web.json_response({"data": {"ok": True}})

    async def updates(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.sockets.append(ws)
        async for _ in ws:
            pass
        return ws


@asynccontextmanager
async def tiny(script: Script) -> AsyncIterator[tuple[Tiny, Any]]:
    site, app = Tiny(script), web.Application()
    app.add_routes(
        [
            web.get("/", site.page),
            web.get("/_app.js", site.bundle),
            web.get("/api/settings", site.api_settings),
            web.post("/api/gql_POST", site.gql),
            web.get("/up/b/updates", site.updates),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    host, port = runner.addresses[0][:2]
    addresses = SimpleNamespace(base_url=f"http://{host}:{port}", ws_base_url=f"ws://{host}:{port}")
    try:
        async with adapter(addresses) as poe:
            yield site, poe
    finally:
        await runner.cleanup()


async def said_by(script: Script, **more: Any) -> Said:
    async with tiny(script) as (_, poe):
        return await ask(poe, ACCOUNT, "hello", **more)


NEW_CHAT = {"status": "success", "message": {"node": {"messageId": 1}}, "chat": {"chatId": 77}, "botMessage": None}


def _whole(state: str = "complete", **more: Any) -> dict[str, Any]:
    return {"messageId": 2, "author": "bot", "state": state, "text": "Hello", **more}


async def test_the_whole_answer_in_the_answer_to_the_message() -> None:
    said = await said_by(lambda site, variables: {**NEW_CHAT, "botMessage": _whole(author=None)})
    assert said.finished and said.text == "Hello" and said.points is None


@pytest.mark.parametrize("subject", [77, NODE_ID])
async def test_complete_without_anything_before_it(subject: Any) -> None:
    async def script(site: Tiny, variables: dict[str, Any]) -> dict[str, Any]:
        await site.push(("messageAdded", subject, _whole()), min_seq="6")
        return NEW_CHAT

    said = await said_by(script)
    assert said.finished and said.text == "Hello"


async def test_a_chat_named_by_its_global_id_and_a_price_by_job() -> None:
    async def script(site: Tiny, variables: dict[str, Any]) -> dict[str, Any]:
        cost = {"totalCostPoints": "12", "trigger": {"message": {"chat": {"id": NODE_ID}}}}
        await site.push(
            ("messageAdded", 77, _whole("incomplete")), ("jobCostUpdated", 5, cost), ("messageAdded", 77, _whole())
        )
        return {"status": "success", "chat": {"id": NODE_ID}}

    said = await said_by(script)
    assert said.finished and said.text == "Hello" and said.points == 12
    assert said.bound == {"chatId": 77, "chatCode": None, "bot": "gpt4_o_mini"}


async def test_a_continued_chat_is_only_named_in_the_request() -> None:
    async def script(site: Tiny, variables: dict[str, Any]) -> dict[str, Any]:
        assert variables["chatId"] == 77
        await site.push(("messageAdded", 77, _whole()))
        return {"status": "success", "message": {"node": {"messageId": 1}}}

    said = await said_by(script, bound={"chatId": 77, "chatCode": None, "bot": "x"})
    assert said.finished and said.text == "Hello"


async def test_text_and_state_in_events_of_their_own() -> None:
    async def script(site: Tiny, variables: dict[str, Any]) -> dict[str, Any]:
        await site.push(
            ("messageCreated", 77, _whole("incomplete", text="")),
            ("messageTextUpdated", 2, {"messageId": 2, "text": "Hello", "chatId": 77}),
            ("messageStateUpdated", 2, {"messageId": 2, "state": "complete", "chatId": 77}),
        )
        return NEW_CHAT

    said = await said_by(script)
    assert said.finished and said.text == "Hello"


async def test_a_chat_without_code_is_re_read_by_number() -> None:
    async with tiny(lambda site, variables: NEW_CHAT) as (site, poe):
        said = await ask(poe, ACCOUNT, "hello")
        assert said.finished and said.text == "read"
        assert "chatListPaginationQuery" in site.calls


async def test_the_settings_serve_when_the_page_has_no_channel() -> None:
    async with tiny(lambda site, variables: {**NEW_CHAT, "botMessage": _whole()}) as (site, poe):
        site.page_channel = None
        site.settings = web.json_response({"tchannelData": CHANNEL})
        assert (await ask(poe, ACCOUNT, "hello")).finished
        assert site.calls.count("settings") == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_page_for_visitors_and_refused_settings_mean_a_dead_session(status: int) -> None:
    async with tiny(lambda site, variables: NEW_CHAT) as (site, poe):
        site.page_channel = None
        site.settings = web.Response(status=status)
        assert isinstance((await ask(poe, ACCOUNT, "hello")).outcome, Unauthorized)


async def test_a_whole_channel_of_noise_does_not_confuse() -> None:
    async def script(site: Tiny, variables: dict[str, Any]) -> dict[str, Any]:
        for ws in site.sockets:
            for raw in ("", "null", "[]", '{"messages":[null,1,"{}"]}', '{"type":"ping"}', '{"messages":{}}'):
                await ws.send_str(raw)
            await ws.send_bytes(b"\xff\x00")
        await site.push(("messageAdded", "nonsense", _whole(text="no")), ("messageAdded", 77, _whole()))
        return NEW_CHAT

    said = await said_by(script)
    assert said.finished and said.text == "Hello"


def test_the_impatience_of_these_tests_is_not_the_default() -> None:
    assert QUICK.silence < 1 and type(QUICK)().silence == 15.0
