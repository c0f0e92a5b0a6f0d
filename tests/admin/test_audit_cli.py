"""``poe-gateway audit`` against a gateway on a real socket, over a real MongoDB."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from pymongo import MongoClient

from poe_gateway.cli.audit import audit
from poe_gateway.cli.ground import Admin
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.rows import Change
from poe_gateway.metering.traffic import TrafficShape
from poe_gateway.storage import schema
from poe_gateway.storage.audit import MongoAudit
from poe_gateway.storage.client import connect
from poe_gateway.storage.traffic import MongoTraffic
from tests.accounts.support import ADMIN_KEY, HandClock
from tests.admin.test_audit import AuditedHouse, audited_desk
from tests.support.serving import serving

SETTINGS = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY}
PEPPER = b"pepper"
SAID = "said in confidence"


class Served:
    """A gateway whose auditor's rooms read ``db``."""

    def __init__(self, uri: str, db: str) -> None:
        self.uri, self.db = uri, db
        desk, self.house = audited_desk()
        self.house.audit = MongoAudit(connect(uri)[db], PEPPER, self.house.clock)
        self.house.traffic = MongoTraffic(connect(uri)[db], 30, self.house.vault)
        self.app = desk.app


async def fill(uri: str, name: str, house: AuditedHouse) -> None:
    """Three changes and two requests, as another process would have written them."""
    noted: list[Change] = []
    changes = Changes(noted.append, HandClock())
    for number in range(3):
        changes.record("key.change", f"key:key_{number}", before={"rpm": 1}, after={"rpm": 2}, actor="admin:alice")
    async with connect(uri) as client:
        db = client[name]
        await schema.create(db, names=(schema.AUDIT, schema.TRAFFIC, schema.META), indexes=(), capped={})
        await MongoAudit(db, PEPPER, house.clock).put("spool_a", list(enumerate(noted, 1)))
        store = MongoTraffic(db, 30, house.vault)
        shape = TrafficShape(PEPPER)
        for number in (1, 2):
            told = shape.record(
                request_id=f"req_{number}",
                at=house.clock.now(),
                org="default",
                key_id="key_1",
                route="/v1/chat/completions",
                model="m",
                status=200,
                turns=[("user", SAID, 0)],
                answer="ok",
                seal=store.seal if number == 2 else None,
            )
            await store.put("spool_a", [(number + 10, told)])


@pytest.fixture
def served(mongo_uri: str, db_name: str) -> Served:
    served = Served(mongo_uri, db_name)
    asyncio.run(fill(mongo_uri, db_name, served.house))
    return served


@pytest.fixture
def run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "POE_", "MONGODB_", "SERVICE_", "FERNET", "ADMIN_")):
            monkeypatch.delenv(name)

    with serving(served.app) as url:

        def invoke(*args: str, code: int = 0) -> Result:
            result = CliRunner().invoke(audit, [*args, "--url", url], env=dict(SETTINGS))
            assert result.exit_code == code, result.output
            return result

        yield invoke


def test_changes_are_listed_and_shown(run: Callable[..., Result]) -> None:
    lines = run("list", "--actor", "admin:alice", "--limit", "2").stdout.splitlines()
    assert lines[0].split()[:3] == ["N", "AT", "ACTOR"] and [line.split()[0] for line in lines[1:]] == ["3", "2"]
    assert '{"rpm": 2}' in lines[1]
    assert "--before 2" in run("list", "--limit", "2").stderr
    shown = run("show", "2").stdout
    assert "key:key_1" in shown and "admin:alice" in shown
    assert json.loads(run("show", "2", "--json").stdout)["after"] == {"rpm": 2}
    assert "no entry of this number" in run("show", "9", code=1).output


def test_a_broken_chain_ends_with_code_1_and_says_where(run: Callable[..., Result], served: Served) -> None:
    good = run("verify").stdout
    assert "3 entries are as they were written." in good
    noted = good.split()[-1]
    assert noted.startswith("3:") and len(noted) == 66
    run("verify", "--expect", noted)
    assert "changed" in run("verify", "--expect", f"3:{'0' * 64}", code=1).output
    assert "as verify printed it" in run("verify", "--expect", "3:xyz", code=2).output
    with MongoClient[dict[str, Any]](served.uri) as client:
        client[served.db][schema.AUDIT].update_one({"_id": 2}, {"$set": {"after.rpm": 3}})
        broken = run("verify", code=1).output
        assert "1 entries are as they were written." in broken
        assert "Entry 2: changed. It is not as it was written." in broken
        assert json.loads(run("verify", "--json", code=1).stdout.partition("\nError")[0])["bad"] == 2
        client[served.db][schema.AUDIT].delete_one({"_id": 2})
        assert "Entry 2: missing." in run("verify", code=1).output


def test_requests_are_listed_and_opened(run: Callable[..., Result], served: Served) -> None:
    listed = run("traffic").stdout
    assert SAID not in listed and [line.split()[1] for line in listed.splitlines()[1:]] == ["req_2", "req_1"]
    assert [line.endswith("kept") for line in listed.splitlines()[1:]] == [True, False]
    assert "--after " in run("traffic", "--limit", "1").stderr
    assert SAID not in run("traffic", "req_2").stdout and served.house.noted == []
    assert SAID in run("traffic", "req_2", "--text").stdout
    [change] = served.house.noted
    assert change.action == "traffic.read" and change.actor == f"admin:{getpass.getuser()}"
    assert "needs a REQUEST_ID" in run("traffic", "--text", code=2).output


@pytest.mark.parametrize(("name", "shown"), [("alice", "alice"), ("älice\n", "?lice?"), (None, None)])
def test_the_command_line_says_who_is_at_the_keyboard(
    monkeypatch: pytest.MonkeyPatch, name: str | None, shown: str | None
) -> None:
    def getuser() -> str:
        if name is None:
            raise KeyError("no such user")
        return name

    monkeypatch.setattr(getpass, "getuser", getuser)
    for variable, value in SETTINGS.items():
        monkeypatch.setenv(variable, value)
    assert Admin("http://127.0.0.1:1")._client.headers.get("X-Actor") == shown
