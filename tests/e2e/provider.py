"""An OpenAI-compatible provider in a thread of the test, with many accounts, a rule by text, and a door that shuts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from tests.support.gateway import GatewayServer
from tests.support.ports import free_port
from tests.upstreams.provider import DONE, chunk

MODEL = "m-1"
T = TypeVar("T")


class Call(NamedTuple):
    """One message that arrived: the account's key, the last text, and when (monotonic seconds)."""

    key: str
    text: str
    at: float


class ProviderSite:
    """Answers ``echo: <text>`` after ``seconds``, unless ``rule`` gives a response or everything hangs.

    Answers that are under way follow a change of ``seconds``. ``calls`` are all messages that arrived, ``turns`` the
    texts in the order in which their answers began.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.turns: list[str] = []
        self.rule: Callable[[Call], web.Response | None] = lambda call: None
        self.hangs = False
        self.seconds = 0.0
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._do(self._open())

    def shut(self) -> None:
        """Refuse connections and break those that stand."""
        self._do(self._shut())

    def end(self) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def enroll(self, server: GatewayServer, count: int) -> list[str]:
        """Hand ``count`` accounts of this provider to the gateway; their ids."""
        ids = []
        with server.admin() as admin:
            for number in range(count):
                credentials = {"base_url": self.url, "api_key": f"sk-test-account-{number:04d}"}
                body = {"provider": "openai_api", "name": f"account-{number}", "credentials": credentials}
                answer = admin.post("/admin/accounts/upsert", json=body)
                assert answer.status_code == 200, answer.text
                ids.append(answer.json()["id"])
        return ids

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _open(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=512).start()

    async def _shut(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.sleep(3600)
        return web.json_response({"object": "list", "data": [{"id": MODEL, "created": 5, "owned_by": "x"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers["Authorization"].removeprefix("Bearer ")
        call = Call(key, body["messages"][-1]["content"], time.monotonic())
        self.calls.append(call)
        if self.hangs:
            await asyncio.sleep(3600)
        refused = self.rule(call)
        if refused is not None:
            return refused
        self.turns.append(call.text)
        while time.monotonic() < call.at + self.seconds:
            await asyncio.sleep(min(0.02, self.seconds))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pieces = (chunk(f"echo: {call.text}"), chunk(finish="stop"), chunk(usage=(3, 1)), DONE)
        await response.write(b"".join(pieces))
        return response


def asked(text: str, model: str = MODEL) -> dict[str, Any]:
    """Arguments of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": text}]}
