"""``poe-gateway pool`` against a gateway that runs on a real socket."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from msgspec.structs import replace

from poe_gateway.cli import main
from poe_gateway.cli.pool import pool
from poe_gateway.clock import SystemClock
from poe_gateway.explain.history import OperatorActed
from poe_gateway.pool.account import Scope
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.guard import Incident
from poe_gateway.pool.policy import Strategy
from tests.accounts.support import ADMIN_KEY, START
from tests.admin.test_explain import bound
from tests.admin.watched import WatchedHouse, watched
from tests.support.explain import NOON, decision
from tests.support.serving import serving

SETTINGS = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY}
Run = Callable[..., Result]


@pytest.fixture
def gateway() -> Iterator[tuple[WatchedHouse, str]]:
    desk, house = watched()
    with serving(desk.app, log_level="critical") as url:
        yield house, url


@pytest.fixture
def house(gateway: tuple[WatchedHouse, str]) -> WatchedHouse:
    return gateway[0]


@pytest.fixture
def run(gateway: tuple[WatchedHouse, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as the operator would, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "POE_", "MONGODB_", "SERVICE_", "FERNET", "ADMIN_")):
            monkeypatch.delenv(name)

    def invoke(*args: str, code: int = 0, command: click.Command = pool) -> Result:
        env = {**SETTINGS, "GATEWAY_PORT": gateway[1].rsplit(":", 1)[1]}
        result = CliRunner().invoke(command, args, env=env)
        assert result.exit_code == code, result.output
        assert ADMIN_KEY not in result.output and "Traceback" not in result.output
        return result

    return invoke


async def test_show(house: WatchedHouse, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await house.add("one")
    house.hold(one)
    await house.grants.join("gw_1", 60.0)
    incident = Incident(
        offer="mock",
        scope=Scope.EGRESS,
        code="upstream_down",
        opened_at=house.clock.monotonic() - 12.0,
        accounts=3,
        bodies=2,
        kinds={},
    )
    monkeypatch.setattr(house.broker.guard, "incidents", lambda: [incident])
    house.broker.policy = replace(house.broker.policy, model_strategies=(("dear-*", Strategy.SPEND_FIRST),))
    lines = run("show").stdout.splitlines()
    assert lines[0].split()[:2] == ["OFFER", "TOTAL"] and lines[1].split() == ["mock", "1", "1", "1", "2", "0", "-"]
    assert lines[4].split()[:2] == ["gw_1", "live"]
    assert "in flight here      0 of 2 slots; pool 200" in lines
    assert "of single models    dear-* spend_first" in lines
    assert lines[-1] == "incident: upstream_down at mock for 12.0 s, 3 accounts failed"
    assert json.loads(run("show", "--json").stdout)["offers"][0]["total"] == 1
    assert "does not exist" in run("show", "--model", "nothing", code=1).output
    house.hub.away = True
    assert "the database is away" in run("show").stdout


async def test_would_choose_and_forecast(house: WatchedHouse, run: Run) -> None:
    one = await house.add("one", points=300)
    house.hold(one)
    key, _ = await house.keyring.create("app")
    dry = run("would-choose", "--model", "mock-1", "--tokens", "9", "--key", "app").stdout.splitlines()
    assert any(line.startswith(f"It would go to {one.id}") for line in dry)
    assert [line.split() for line in dry[-2:]] == [[key.id, "app"], [one.id, "one"]]
    assert json.loads(run("would-choose", "--model", "mock-1", "--key", key.id, "--json").stdout)["key_id"] == key.id
    assert json.loads(run("would-choose", "--model", "mock-1", "--json").stdout)["choice"]["how"] == "chosen"
    assert "no such key" in run("would-choose", "--model", "mock-1", "--key", "key_x", code=1).output
    lines = run("forecast", "--hours", "3").stdout.splitlines()
    assert lines[0].startswith("OFFER  ACCOUNTS") and lines[1].startswith("mock   1")
    assert json.loads(run("forecast", "--hours", "3", "--json").stdout)["hours"] == 3


def test_explain(house: WatchedHouse, run: Run) -> None:
    house.decisions.note(decision(1))
    house.decisions.note(decision(2, request_id="req_1", model="m\x1b[31m"))
    text = run("explain", "req_1").stdout
    assert "key_app asked for gpt-4o" in text and "Attempt 1 on acct_1 answered in 1.2 s, for 35 points." in text
    assert "asked for m?[31m with" in text and "\x1b" not in text
    assert "no record" in run("explain", "req_nobody", code=1).output
    house.decision_store.away = True
    assert "Only what the answering process remembers" in run("explain", "req_1").stderr


async def test_history(house: WatchedHouse, run: Run) -> None:
    one = await house.add("one")
    for number in range(3):
        house.history.note(OperatorActed(account_id=one.id, at=NOON + timedelta(seconds=number), verb="pause"))
    answer = run("history", "one", "--limit", "2")
    assert [line.split()[1] for line in answer.stdout.splitlines()] == ["KIND", "operator", "operator"]
    assert "Older entries with --before 2026-05-20T12:00:01Z." in answer.stderr
    older = run("history", one.id, "--before", "2026-05-20T12:00:01Z").stdout.splitlines()
    assert len(older) == 2 and older[1].startswith("2026-05-20T12:00:00Z")
    assert "no account called" in run("history", "nobody", code=1).output


def test_decisions(house: WatchedHouse, run: Run) -> None:
    now = SystemClock().now()
    house.decisions.note(decision(1, at=now - timedelta(hours=3)))
    house.decisions.note(decision(2, at=now - timedelta(minutes=3), outcome="RateLimited"))
    rows = run("decisions", "list", "--since", "1h").stdout.splitlines()
    assert len(rows) == 2 and rows[1].split()[1:6] == ["req_2", "key_app", "gpt-4o", "502", "upstream_error"]
    assert len(json.loads(run("decisions", "list", "--outcome", "RateLimited", "--json").stdout)["data"]) == 1
    assert "since" in run("decisions", "list", "--since", "yesterday", code=1).output
    assert "too long ago" in run("decisions", "list", "--since", "999999999d", code=2).output


def test_export(house: WatchedHouse, run: Run, tmp_path: Path) -> None:
    made = [decision(number, at=START - timedelta(seconds=1000 - number)) for number in range(450)]
    for each in made:
        house.decisions.note(each)
    text = run("decisions", "export", "--since", "2026-05-20T00:00:00Z").stdout
    assert [msgspec.json.decode(line, type=Decision) for line in text.splitlines()] == made
    run("decisions", "export", "--until", made[5].at.isoformat(), "-o", "some.jsonl")
    assert len((tmp_path / "some.jsonl").read_text().splitlines()) == 5
    read = house.decision_store.page

    async def once(*args: Any) -> Any:
        house.decision_store.away = len(args) > 3
        return await read(*args)

    house.decision_store.page = once  # type: ignore[method-assign]
    assert "broke off" in run("decisions", "export", code=1).output
    house.decision_store.page = read  # type: ignore[method-assign]
    house.decision_store.away = True
    assert "database is not reachable" in run("decisions", "export", code=1).output
    assert "cannot be reached" in run("decisions", "export", "--url", "http://127.0.0.1:1", code=1).output


async def test_flushing_sessions(house: WatchedHouse, run: Run) -> None:
    one = await house.add("one")
    for name, owner in (("s1", one.id), ("s2", one.id), ("s3", "acct_gone")):
        await house.session_store.put(bound(name, owner))
    flush = ("accounts", "flush-affinity")
    assert run(*flush, "one", command=main).stdout == "Sessions that choose anew: 2.\n"
    assert set(house.session_store.table) == {"s3"}
    assert json.loads(run(*flush, "--all", "--json", command=main).stdout) == {"dropped": 1}
    for wrong in ((), ("one", "--all")):
        assert "either ACCOUNT or --all" in run(*flush, *wrong, code=2, command=main).output
