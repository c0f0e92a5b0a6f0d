"""The guard between a session and the network: names, rebinding, addresses in URLs, and what the operator allows."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from poe_gateway.outbound.allowed import read_allowed
from poe_gateway.outbound.destinations import AddressRefused
from poe_gateway.outbound.guard import Guard
from poe_gateway.outbound.resolver import guarded_connector
from poe_gateway.upstreams.http import new_session


class Names(AbstractResolver):
    """A name service of the test's own: name -> answers, one after another and then the last again."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self._answers:
            raise OSError("no such name")
        answers = self._answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=each,
                port=port,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for each in found
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server on loopback that says hello."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def call(guard: Guard, url: str, names: Names | None = None, **options: Any) -> str:
    connector = guarded_connector(guard, inner=names or Names(), **options)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return await response.text()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"])
async def test_an_address_in_the_url_is_judged_when_the_socket_is_made(port: int, host: str) -> None:
    refused: list[str] = []
    with pytest.raises(aiohttp.ClientConnectorError):
        await call(Guard(refused=refused.append), f"http://{host}:{port}/")
    assert refused == [f"{host.strip('[]')}:{port}"] or refused == [f"::ffff:7f00:1:{port}"]


async def test_a_name_is_judged_by_all_of_its_answers(port: int) -> None:
    names = Names(bad_test=[["127.0.0.1"]], mixed_test=[["8.8.8.8", "127.0.0.1"]], none_test=[[]])
    for name in ("bad.test", "mixed.test", "none.test"):
        with pytest.raises(aiohttp.ClientConnectorError):
            await call(Guard(), f"http://{name}:{port}/", names)
    assert names.asked == ["bad.test", "mixed.test", "none.test"]


@pytest.mark.parametrize("answers", [[], ["8.8.8.8", "10.0.0.1"], ["::1"], ["fe80::1%1"], ["no address"]], ids=str)
def test_one_answer_is_enough_to_refuse_a_name(answers: list[str]) -> None:
    guard = Guard()
    guard.judge_answers("good.test", 80, ["8.8.8.8", "2606:4700::1111"])
    with pytest.raises(AddressRefused):
        guard.judge_answers("bad.test", 80, answers)


async def test_local_names_are_not_even_asked_for(port: int) -> None:
    names = Names(localhost=[["8.8.8.8"]], a_internal=[["8.8.8.8"]])
    for name in ("localhost", "a.internal"):
        with pytest.raises(aiohttp.ClientConnectorError):
            await call(Guard(), f"http://{name}:{port}/", names)
    assert names.asked == []


async def test_a_name_that_changes_its_mind_is_judged_each_time(port: int) -> None:
    """Rebinding: public when it was looked at, private when it is connected to."""
    names = Names(evil_test=[["8.8.8.8"], ["127.0.0.1"]])
    guard = Guard()
    guard.judge_answers("evil.test", port, [each["host"] for each in await names.resolve("evil.test")])
    with pytest.raises(aiohttp.ClientConnectorError):
        await call(guard, f"http://evil.test:{port}/", names)


async def test_a_name_in_the_connectors_own_memory_does_not_pass_either(port: int) -> None:
    """What the connector remembers of a name outlives an allowance, and the socket is judged all the same."""
    names = Names(llm_test=[["127.0.0.1"]])
    guard = Guard(read_allowed([f"llm.test:{port}"]))
    connector = guarded_connector(guard, inner=names, force_close=True, ttl_dns_cache=60)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"http://llm.test:{port}/") as response:
            assert await response.text() == "hello"
        guard.allow(read_allowed(["other.test"]))
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://llm.test:{port}/")
        assert names.asked == ["llm.test"]


@pytest.mark.parametrize("entry", ["llm.test", "llm.test:{port}", "127.0.0.1", "127.0.0.0/8", "127.0.0.1:{port}"])
async def test_what_is_allowed_is_reached(port: int, entry: str) -> None:
    guard = Guard(read_allowed([entry.format(port=port)]))
    assert await call(guard, f"http://llm.test:{port}/", Names(llm_test=[["127.0.0.1"]])) == "hello"


async def test_an_allowed_name_opens_no_other_door(port: int) -> None:
    guard = Guard(read_allowed([f"llm.test:{port}"]))
    names = Names(llm_test=[["127.0.0.1"]], evil_test=[["127.0.0.1"]])
    await call(guard, f"http://llm.test:{port}/", names)
    with pytest.raises(AddressRefused):
        guard.judge(f"http://127.0.0.1:{port}/")
    with pytest.raises(aiohttp.ClientConnectorError):
        await call(guard, f"http://evil.test:{port}/", names)
    with pytest.raises(aiohttp.ClientConnectorError):
        await call(guard, f"http://llm.test:{port + 1}/", names)


async def test_the_upstreams_session_is_guarded(port: int) -> None:
    guard = Guard()
    async with new_session(guard=guard) as session:
        for url in (f"http://127.0.0.1:{port}/", f"http://localhost:{port}/"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.ws_connect(f"ws://127.0.0.1:{port}/")
        guard.allow(read_allowed(["127.0.0.1"]))
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    "url", ["http://localhost:1/", "http://10.0.0.1/v1", "http://ip6-localhost/", "http://0x7f.1/"]
)
async def test_an_address_that_is_to_be_stored_is_judged_with_what_it_resolves_to(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(AddressRefused):
        await Guard().check(url)


async def test_a_name_that_does_not_resolve_now_may_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    await Guard().check("https://not-yet.example/v1")
