"""Two doors of one application: what is behind which, and what happens when the second one cannot be opened."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from poe_gateway.api.application import create_app
from poe_gateway.api.asgi import Front, Receive, Scope, Send, StartFailed
from poe_gateway.api.second_door import TwoDoors, second_door
from poe_gateway.clock import Ids
from poe_gateway.telemetry.events import RequestFinished
from poe_gateway.telemetry.hub import Recorder, Telemetry
from tests.support.ports import free_port

OPERATORS = ["/admin/accounts", "/admin", "/metrics", "/dashboard", "/dashboard/data"]
BOTH = ["/", "/healthz", "/health", "/readyz", "/status", "/docs", "/openapi.json"]
CALLERS = ["/v1/chat/completions", "/v1/models", "/v1/models/metrics", "/administrator", "/metricsx"]


class House:
    """An application whose every path answers, with two doors."""

    def __init__(self) -> None:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield

        everything = APIRouter()

        @everything.get("/{path:path}")
        async def here(path: str) -> str:
            return path

        app = FastAPI(lifespan=lifespan, openapi_url=None)
        app.include_router(everything)
        self.doors = TwoDoors(Front(app, ids=Ids()), Ids())
        self.heard = Recorder()
        self.doors.serve({"/v1/chat/completions": hot}, Telemetry(self.heard))

    def client(self, *, operators: bool, root_path: str = "") -> httpx.AsyncClient:
        app = self.doors.operators if operators else self.doors
        transport = httpx.ASGITransport(app=app, root_path=root_path)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def hot(scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hot"})


@pytest.fixture
def house() -> House:
    return House()


async def open_paths(client: httpx.AsyncClient) -> list[str]:
    async with client:
        return [path for path in (*OPERATORS, *BOTH, *CALLERS) if (await client.get(path)).status_code == 200]


async def test_each_door_has_its_own_side(house: House) -> None:
    assert await open_paths(house.client(operators=False)) == [*BOTH, *CALLERS]
    assert await open_paths(house.client(operators=True)) == [*OPERATORS, *BOTH]


@pytest.mark.parametrize("path", ["/admin/../admin/keys", "/%61dmin/keys", "/admin/keys/", "/admin/%2e%2e"])
async def test_no_spelling_opens_the_wrong_door(house: House, path: str) -> None:
    async with house.client(operators=False) as client:
        assert (await client.get(path)).status_code == 404


async def test_where_the_application_is_mounted_does_not_matter(house: House) -> None:
    async with house.client(operators=False, root_path="/api") as client:
        assert (await client.get("/api/admin/keys")).status_code == 404
        assert (await client.get("/api/v1/models")).status_code == 200
    async with house.client(operators=True, root_path="/api") as client:
        assert (await client.get("/api/admin/keys")).status_code == 200


async def test_a_shut_door_looks_like_an_unknown_path_and_is_told_like_one(house: House) -> None:
    async with house.client(operators=False) as client:
        answer = await client.get("/admin/keys", headers={"X-Request-ID": "req_mine"})
        empty = await client.head("/metrics")
    unknown = httpx.AsyncClient(transport=httpx.ASGITransport(app=create_app(_nothing, [])), base_url="http://gateway")
    async with unknown:
        usual = await unknown.get("/no/such/path")
    assert answer.json()["error"]["message"] == "Unknown request URL: GET /admin/keys."
    assert {**answer.json()["error"], "message": ""} == {**usual.json()["error"], "message": ""}
    assert (answer.status_code, answer.headers["x-request-id"]) == (404, "req_mine")
    assert (empty.status_code, empty.content) == (404, b"")
    assert [(record.route, record.status) for record in house.heard.of(RequestFinished)] == [("unknown", 404)] * 2


@asynccontextmanager
async def _nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


async def test_the_second_door_answers_on_its_port_and_shuts_with_the_first(house: House) -> None:
    port = free_port()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        async with second_door(house.doors, "127.0.0.1", port):
            assert (await client.get("/admin/keys")).json() == "admin/keys"
            assert (await client.get("/v1/models")).status_code == 404
        with pytest.raises(httpx.ConnectError):
            await client.get("/admin/keys")


async def test_answers_under_way_are_given_before_it_shuts() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await hot(scope, receive, send, "")

    port = free_port()
    doors = TwoDoors(Front(slow, ids=Ids()), Ids())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        async with second_door(doors, "127.0.0.1", port):
            waiting = asyncio.create_task(client.get("/admin/keys"))
            await asyncio.wait_for(begun.wait(), 60)
            asyncio.get_running_loop().call_later(0.3, go_on.set)
        assert (await waiting).text == "hot"


async def test_several_processes_may_have_it_and_a_stranger_may_not(house: House) -> None:
    port = free_port()
    async with (
        second_door(house.doors, "127.0.0.1", port),
        second_door(House().doors, "127.0.0.1", port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        assert (await client.get("/status")).status_code == 200
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        with pytest.raises(StartFailed, match=f"ADMIN_PORT {taken} at ADMIN_HOST 127.0.0.1.*Address already in use"):
            async with second_door(house.doors, "127.0.0.1", taken):
                pass


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
async def test_a_host_that_is_not_this_machine_is_told(house: House, host: str) -> None:
    with pytest.raises(StartFailed, match=f"ADMIN_HOST {re.escape(host)} cannot be listened on: .+"):
        async with second_door(house.doors, host, free_port()):
            pass


async def test_without_a_second_door_nothing_changes() -> None:
    async with second_door(Front(hot_app, ids=Ids()), "127.0.0.1", 0):
        pass


async def hot_app(scope: Scope, receive: Receive, send: Send) -> None:
    await hot(scope, receive, send, "")
