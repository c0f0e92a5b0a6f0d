"""A routing file that is edited while two workers serve by it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import Start
from tests.e2e.provider import MODEL, ProviderSite, asked
from tests.support.gateway import GatewayServer, eventually

KEY = "sk-canary-routing-file-1"


@pytest.fixture
def site() -> Iterator[ProviderSite]:
    site = ProviderSite()
    yield site
    site.end()


def routes(site: ProviderSite, tier: str) -> str:
    """Two backends at the same provider; ``hint:it`` leads to ``tier``."""
    backend = f'provider = "openai_api"\nbase_url = "{site.url}"\napi_key_env = "LLM_API_KEY"\n'
    return f"""
[backends.one]
{backend}
[backends.two]
{backend}title = "two"
[[tiers]]
name = "one:fast"
backend = "one"
model = "{MODEL}"
[[tiers]]
name = "two:best"
backend = "two"
model = "{MODEL}"
[aliases]
"hint:it" = "{tier}"
"""


def replaced(file: Path, text: str) -> None:
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


@pytest.fixture
def file(tmp_path: Path, site: ProviderSite) -> Path:
    file = tmp_path / "routes" / "gateway.toml"
    file.parent.mkdir()
    file.write_text(routes(site, "one:fast"))
    return file


def tier_of(server: GatewayServer) -> str:
    """As a fresh connection, and so any of the workers, says."""
    with server.client() as client:
        answer = client.chat.completions.with_raw_response.create(**asked("hi", "hint:it"))
    return answer.headers["x-gateway-tier"]


def started(server: GatewayServer, times: int) -> None:
    """Wait until so many workers have started since the beginning."""
    eventually(lambda: server.output().count("Application startup complete") >= times)
    assert server.output().count("Application startup complete") == times


def test_an_edit_is_in_force_within_seconds_and_no_request_fails(
    gateway: Start, site: ProviderSite, file: Path
) -> None:
    server = gateway(workers=2, GATEWAY_ROUTES_FILE=str(file), LLM_API_KEY=KEY, OUTBOUND_ALLOW=None)
    site.seconds = 0.02
    tiers: list[tuple[float, str]] = []
    callers: list[asyncio.Task[None]] = []
    stop = asyncio.Event()

    async def caller(number: int) -> None:
        # A connection for every request, so that both workers get their part.
        http = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), timeout=30)
        async with server.async_client(http_client=http) as client:
            count = 0
            while not stop.is_set():
                count += 1
                text = f"{number}.{count}"
                answer = await client.chat.completions.with_raw_response.create(**asked(text, "hint:it"))
                assert answer.parse().choices[0].message.content == f"echo: {text}"
                tiers.append((time.monotonic(), answer.headers["x-gateway-tier"]))

    async def answers(count: int) -> None:
        wanted = len(tiers) + count
        while len(tiers) < wanted and not any(each.done() for each in callers):
            await asyncio.sleep(0.05)

    async def scenario() -> float:
        callers.extend(asyncio.create_task(caller(number)) for number in range(4))
        await answers(20)
        edited = time.monotonic()
        await asyncio.to_thread(replaced, file, routes(site, "two:best"))
        await asyncio.sleep(5)
        await answers(20)
        stop.set()
        await asyncio.gather(*callers)
        return edited

    edited = asyncio.run(scenario())
    assert {tier for at, tier in tiers if at < edited} == {"one:fast"}
    assert {tier for at, tier in tiers if at > edited + 5} == {"two:best"}
    assert {account["name"] for account in server.accounts()} == {"backend:one", "backend:two"}
    assert KEY not in server.output()
    with server.admin() as admin:
        changes = admin.get("/admin/audit", params={"limit": 100}).raise_for_status().json()["data"]
    upserts = [change for change in changes if change["action"] == "account.upsert"]
    assert len(upserts) == 2, "two workers started together and made each account once"


def test_a_broken_edit_changes_nothing_and_is_told(gateway: Start, site: ProviderSite, file: Path) -> None:
    server = gateway(
        workers=2,
        GATEWAY_ROUTES_FILE=str(file),
        LLM_API_KEY=KEY,
        OUTBOUND_ALLOW=None,
        UVICORN_TIMEOUT_WORKER_HEALTHCHECK="60",  # the supervisor gives up a new worker that takes longer
    )
    with server.admin() as admin:
        before = admin.get("/admin/routes").json()
        replaced(file, routes(site, "nowhere:at-all"))
        refused = admin.post("/admin/reload")
        assert refused.status_code == 422 and "nowhere:at-all" in refused.json()["error"]["message"]
        assert tier_of(server) == "one:fast"
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        started(server, 3)
        assert {tier_of(server) for _ in range(10)} == {"one:fast"}, "the worker in its place serves as well"
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGHUP)  # to uvicorn's supervisor it means: all workers anew
        started(server, 5)
        assert {tier_of(server) for _ in range(10)} == {"one:fast"}
        replaced(file, routes(site, "two:best"))
        assert admin.post("/admin/reload").json()["digest"] != before["digest"]
    eventually(lambda: {tier_of(server) for _ in range(10)} == {"two:best"})


def test_a_signal_reloads(gateway: Start, site: ProviderSite, file: Path) -> None:
    server = gateway(GATEWAY_ROUTES_FILE=str(file), LLM_API_KEY=KEY, OUTBOUND_ALLOW=None)
    replaced(file, routes(site, "two:best"))
    os.kill(server.worker_pids()[0], signal.SIGHUP)
    eventually(lambda: tier_of(server) == "two:best")


def test_a_broken_file_stops_a_start(gateway: Start, site: ProviderSite, file: Path) -> None:
    file.write_text(routes(site, "nowhere:at-all"))
    with pytest.raises(RuntimeError, match="nowhere:at-all"):
        gateway(GATEWAY_ROUTES_FILE=str(file), LLM_API_KEY=KEY)


def test_a_missing_key_is_named_and_the_rest_serves(gateway: Start, site: ProviderSite, file: Path) -> None:
    server = gateway(GATEWAY_ROUTES_FILE=str(file), OUTBOUND_ALLOW=None)
    with server.admin() as admin:
        assert admin.get("/admin/routes").json()["missing"] == ["LLM_API_KEY"]
    with server.client() as client, pytest.raises(openai.APIStatusError):
        client.chat.completions.create(**asked("hi", "hint:it"))
    assert server.accounts() == []
