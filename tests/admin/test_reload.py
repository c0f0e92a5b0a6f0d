"""Another routing table takes the place of the one in force, or does not; and what the operator is told of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI

import poe_gateway.routes
from poe_gateway.api.admin import reload as reload_routes
from poe_gateway.api.application import create_app
from poe_gateway.outbound.addresses import read_address
from poe_gateway.outbound.allowed import NOTHING
from poe_gateway.outbound.guard import Guard
from poe_gateway.routes import Routes, RoutesRefused
from poe_gateway.routing.health import BackendHealth
from poe_gateway.routing.parse import RoutesError
from poe_gateway.routing.table import EMPTY
from poe_gateway.settings.last_good import LastGood
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry
from tests.accounts.backends import BackendsHouse
from tests.accounts.support import ADMIN_KEY
from tests.admin.support import Desk
from tests.upstreams.provider import Provider

KEY = "sk-canary-of-a-backend-1"


class Ground:
    """A process with a routing file. ``notices`` are what its operator reads."""

    def __init__(self, session: aiohttp.ClientSession, home: Path, boot: str | None = None) -> None:
        self.path = home / "gateway.toml"
        self.guard = Guard()
        self.house = BackendsHouse(session, guard=self.guard)
        self.house.variables |= {"LLM_KEY": KEY, "WEB_KEY": "text-of-the-web-client"}
        self.notices: list[Notice] = []
        self.telemetry = Telemetry(lambda event: self.notices.append(event) if isinstance(event, Notice) else None)
        self.kept = LastGood(home / "kept.json", boot) if boot is not None else None
        self.routes = self.make()
        self.health = BackendHealth()

    def make(self, path: Path | None = None) -> Routes:
        return Routes(
            path=path or self.path,
            references=self.house.references,
            managed=self.house.managed,
            keyring=self.house.keyring,
            guard=self.guard,
            telemetry=self.telemetry,
            clock=self.house.clock,
            kept=self.kept,
        )

    def write(self, text: str, name: str = "gateway.toml") -> None:
        file = self.path.parent / name
        file.parent.mkdir(exist_ok=True)
        draft = file.with_suffix(".new")
        draft.write_text(text)
        draft.replace(file)

    def told(self, level: str) -> list[str]:
        return [each.message for each in self.notices if each.level == level]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def ground(session: aiohttp.ClientSession, tmp_path: Path) -> Ground:
    return Ground(session, tmp_path)


def first(provider: Provider) -> str:
    return f"""
        [backends.llm]
        provider = "openai_api"
        base_url = "{provider.url}"
        api_key_env = "LLM_KEY"
        [[tiers]]
        name = "local:fast"
        backend = "llm"
        model = "m-1"
        [aliases]
        "hint:fast" = "local:fast"
        [profiles.web]
        mode = "dispatch"
        [[clients]]
        name = "web"
        key_env = "WEB_KEY"
        profile = "web"
    """


BROKEN = """
    [[tiers]]
    name = "a:b"
    backend = "nowhere"
    model = "m"
    [aliases]
    x = "neither"
"""


@asynccontextmanager
async def watching(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(poe_gateway.routes, "_EVERY", 0.02)
    task = asyncio.create_task(ground.routes.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_everything_is_there_when_the_first_table_is_in_force(ground: Ground, provider: Provider) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    table = ground.routes.table
    assert table.aliases == {"hint:fast": "local:fast"} and ground.routes.missing() == ()
    assert list(ground.house.accounts()) == ["backend:llm"] and ground.house.catalog.knows("m-1")
    caller = ground.house.keyring.known("text-of-the-web-client")
    assert caller is not None and table.clients[0].key == caller.key_id
    port = int(provider.url.rpartition(":")[2])
    loopback = read_address("127.0.0.1")
    assert loopback is not None
    assert ground.guard.admits(loopback, port) and not ground.guard.admits(loopback, port + 1)


async def test_without_a_file_the_table_is_the_empty_one(ground: Ground) -> None:
    routes = Routes(
        path=None,
        references=ground.house.references,
        managed=ground.house.managed,
        keyring=ground.house.keyring,
        guard=ground.guard,
        telemetry=ground.telemetry,
        clock=ground.house.clock,
    )
    await routes.start()
    assert routes.table is EMPTY and (await routes.reload()).changed is False
    assert ground.guard.allowed == NOTHING


async def test_a_broken_file_stops_a_start_with_all_its_problems(ground: Ground) -> None:
    ground.write(BROKEN)
    with pytest.raises(RoutesError) as error:
        await ground.routes.start()
    assert len(error.value.problems) == 2
    assert ground.notices == [], "whoever starts it tells it once; there is no table before that could stay"


async def test_a_broken_file_leaves_the_table_in_force(ground: Ground, provider: Provider) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    before = ground.routes.table
    for _ in range(3):
        ground.write(BROKEN)
        with pytest.raises(RoutesRefused) as refused:
            await ground.routes.reload()
        assert ground.routes.table is before and len(ground.routes.problems) == 2
        assert "nowhere" in refused.value.message and "neither" in refused.value.message
    assert len(ground.told("error")) == 1, "the same problems are told once"
    ground.write("[backends")
    with pytest.raises(RoutesRefused):
        await ground.routes.reload()
    assert len(ground.told("error")) == 2
    ground.write(first(provider))
    assert (await ground.routes.reload()).changed is False
    assert ground.routes.problems == ()


async def test_mistakes_that_only_the_adapter_sees_leave_the_table_in_force(ground: Ground, provider: Provider) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    ground.house.variables["LLM_KEY"] = "two words"
    with pytest.raises(RoutesRefused, match=r"backends\.llm\.api_key"):
        await ground.routes.reload()


async def test_a_missing_key_is_named_and_stops_nothing(ground: Ground, provider: Provider) -> None:
    del ground.house.variables["LLM_KEY"]
    del ground.house.variables["WEB_KEY"]
    ground.write(first(provider))
    await ground.routes.start()
    assert set(ground.routes.missing()) == {"LLM_KEY", "WEB_KEY"}
    assert ground.house.accounts() == {} and ground.routes.table.clients[0].key is None


@pytest.mark.parametrize("file", ["gateway.toml", "conf.d/10-more.toml", "profiles/new.toml", "ours/new.toml"])
async def test_a_changed_file_comes_into_force_by_itself(
    ground: Ground, provider: Provider, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    ours = file.startswith("ours/")
    if ours:
        (ground.path.parent / "ours").mkdir()
    ground.write(first(provider) + ('[gateway]\nprofile_dir = "ours"\n' if ours else ""))
    await ground.routes.start()
    before = ground.routes.table
    monkeypatch.setattr(poe_gateway.routes, "_WHOLE", 1_000_000)
    async with watching(ground, monkeypatch):
        text = {
            "gateway.toml": first(provider).replace("hint:fast", "hint:faster"),
            "conf.d/10-more.toml": '[aliases]\n"hint:more" = "local:fast"',
            "profiles/new.toml": 'mode = "escalate"',
            "ours/new.toml": 'mode = "escalate"',
        }
        ground.write(text[file], file)
        await ground.until(lambda: ground.routes.table.digest != before.digest)
        (ground.path.parent / file).unlink()
        if file == "gateway.toml":
            await ground.until(lambda: bool(ground.routes.problems))
            assert "hint:faster" in ground.routes.table.aliases
        else:
            await ground.until(lambda: ground.routes.table.digest == before.digest)


async def test_a_file_that_is_being_written_is_left_alone(
    ground: Ground, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, as some editors leave it for a moment, it would be a table without any name."""
    ground.write(first(provider))
    await ground.routes.start()
    seen = {ground.routes.table.digest}
    monkeypatch.setattr(poe_gateway.routes, "_SETTLED", 1.5)
    async with watching(ground, monkeypatch):
        text = first(provider).replace("hint:fast", "hint:faster")
        for length in range(0, len(text), len(text) // 8):
            ground.path.write_text(text[:length])
            for _ in range(10):
                await asyncio.sleep(0.01)
                seen.add(ground.routes.table.digest)
        assert len(seen) == 1 and not ground.routes.problems
        ground.path.write_text(text)
        await ground.until(lambda: "hint:faster" in ground.routes.table.aliases)


async def test_a_changed_key_comes_into_force_by_itself(
    ground: Ground, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    account = ground.house.accounts()["backend:llm"]
    async with watching(ground, monkeypatch):
        ground.house.variables["LLM_KEY"] = "sk-the-next"
        ground.house.variables["WEB_KEY"] = "text-of-the-web-client-2"
        await ground.until(lambda: ground.house.keyring.known("text-of-the-web-client-2") is not None)
        await ground.until(lambda: ground.house.accounts()["backend:llm"].credential_rev != account.credential_rev)
    renewed = ground.house.accounts()["backend:llm"]
    assert renewed.credential_rev == account.credential_rev + 1
    assert (await ground.house.keychain.ref(renewed)).credentials["api_key"] == "sk-the-next"
    assert ground.house.keyring.known("text-of-the-web-client") is None


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
async def test_the_signal_reads_at_once_what_dates_do_not_tell(
    ground: Ground, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    monkeypatch.setattr(Routes, "_look", lambda self: None)
    async with watching(ground, monkeypatch):
        ground.write(first(provider).replace("hint:fast", "hint:faster"))
        await asyncio.sleep(0)  # the watch has begun, and with it the handler is there
        os.kill(os.getpid(), signal.SIGHUP)
        await ground.until(lambda: "hint:faster" in ground.routes.table.aliases)


async def test_what_is_gone_stays_a_little_for_the_other_processes(
    ground: Ground, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    async with watching(ground, monkeypatch):
        ground.write("[aliases]\n")
        await ground.until(lambda: not ground.routes.table.backends)
        await asyncio.sleep(0.1)
        assert "backend:llm" in ground.house.accounts()
        assert ground.house.keyring.known("text-of-the-web-client") is not None
        ground.house.clock.pass_(seconds=16)
        await ground.until(lambda: ground.house.accounts() == {})
        await ground.until(lambda: ground.guard.allowed == NOTHING)
    assert ground.house.keyring.known("text-of-the-web-client") is None


async def test_a_database_that_is_away_leaves_the_table_and_the_next_look_tries_again(
    ground: Ground, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    async with watching(ground, monkeypatch):
        ground.house.hub.away = True
        ground.write(first(provider).replace("hint:fast", "hint:faster"))
        await asyncio.sleep(0.2)
        assert "hint:fast" in ground.routes.table.aliases
        ground.house.hub.away = False
        await ground.until(lambda: "hint:faster" in ground.routes.table.aliases)


async def test_a_worker_that_is_replaced_while_the_file_is_broken_serves_by_the_table_before(
    session: aiohttp.ClientSession, provider: Provider, tmp_path: Path
) -> None:
    one = Ground(session, tmp_path, boot="start-1")
    one.write(first(provider))
    await one.routes.start()
    one.write(BROKEN)
    replaced = Ground(session, tmp_path, boot="start-1")
    await replaced.routes.start()
    assert replaced.routes.table.digest == one.routes.table.digest
    assert len(replaced.routes.problems) == 2 and len(replaced.told("error")) == 1
    fresh = Ground(session, tmp_path, boot="start-2")
    with pytest.raises(RoutesError):
        await fresh.routes.start()
    kept = tmp_path / "kept.json"
    assert kept.stat().st_mode & 0o077 == 0 and KEY not in kept.read_text()


# What the operator calls.


class Served(Desk):
    """The routes of the table on a house of memory rooms."""

    def __init__(self, ground: Ground) -> None:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield

        self.app = create_app(lifespan, [reload_routes.router()])
        house: Any = ground.house
        house.routes = ground.routes
        house.backends_health = lambda: ground.health.standings(house.clock.monotonic())
        self.app.state.gateway = house
        self.client = self.client_with({"Authorization": f"Bearer {ADMIN_KEY}"})


async def test_the_operator_reloads_and_looks(ground: Ground, provider: Provider) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    served = Served(ground)
    digest = ground.routes.table.digest
    same = await served.call("POST", "/reload")
    assert same["changed"] is False and same["digest"] == digest
    ground.write(first(provider).replace("hint:fast", "hint:faster"))
    ground.health.note("llm", False, ground.house.clock.monotonic())
    changed = await served.call("POST", "/reload")
    assert changed["changed"] is True and changed["digest"] != digest and changed["missing"] == []
    seen = await served.call("GET", "/routes")
    assert seen["table"]["aliases"] == {"hint:faster": "local:fast"} and seen["files"] == [str(ground.path)]
    assert seen["health"] == {"llm": {"samples": 1, "error_rate": 1.0, "healthy": True}}
    assert seen["table"]["backends"]["llm"]["api_key_env"] == "LLM_KEY"
    assert KEY not in str(seen) and "text-of-the-web-client" not in str(seen)
    audited = [(change.action, change.after) for change in ground.house.noted if change.action == "routes.reload"]
    assert audited[-1] == ("routes.reload", {"table": changed["digest"], "changed": True})


async def test_a_refused_reload_tells_all_problems_and_changes_nothing(ground: Ground, provider: Provider) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    served = Served(ground)
    digest = ground.routes.table.digest
    ground.write(BROKEN)
    refused = await served.call("POST", "/reload", 422)
    assert refused["error"]["code"] == "routes_invalid"
    assert "nowhere" in refused["error"]["message"] and "neither" in refused["error"]["message"]
    seen = await served.call("GET", "/routes")
    assert seen["digest"] == digest and len(seen["problems"]) == 2
    assert not [change for change in ground.house.noted if change.action == "routes.reload"]


async def test_strangers_reload_nothing(ground: Ground, provider: Provider) -> None:
    ground.write(first(provider))
    await ground.routes.start()
    served = Served(ground)
    async with served.client_with({"Authorization": "Bearer text-of-the-web-client"}) as client:
        for method, path in (("POST", "/admin/reload"), ("GET", "/admin/routes")):
            assert (await client.request(method, path)).status_code == 401
