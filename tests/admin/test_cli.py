"""The command line against a gateway that runs on a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from poe_gateway.cli import main
from poe_gateway.cli.ground import local_url
from tests.accounts.support import ADMIN_KEY
from tests.admin.support import CANARY, Desk
from tests.support.serving import serving

SETTINGS = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY}
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """One gateway for all commands."""
    desk = Desk()
    with serving(desk.app) as url:
        desk.url = url
        yield desk


@pytest.fixture
def run(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as the operator would, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "POE_", "MONGODB_", "SERVICE_", "FERNET", "ADMIN_")):
            monkeypatch.delenv(name)
    port = desk.url.rsplit(":", 1)[1]

    def invoke(*args: str, code: int = 0, stdin: str | None = None, **env: str | None) -> Result:
        given = {**SETTINGS, "GATEWAY_PORT": port, **env}
        result = CliRunner().invoke(main, args, input=stdin, env=given)
        assert result.exit_code == code, result.output
        assert CANARY not in result.output and ADMIN_KEY not in result.output
        if code:
            assert "Traceback" not in result.output
        return result

    return invoke


def test_accounts_from_adding_to_deleting(run: Run, tmp_path: Path) -> None:
    added = run("accounts", "add", "--email", "cli@example.com", stdin=f"{CANARY}\n")
    assert "cli@example.com is stored as acct_" in added.stdout
    again = run("accounts", "add", "--email", "CLI@example.com", "-c", f"poe_p_b={CANARY}", "--json")
    account = json.loads(again.stdout)
    assert not account["created"]
    listed = run("accounts", "list", "--provider", "poe_web").stdout.splitlines()
    assert listed[0].split()[:3] == ["ID", "PROVIDER", "NAME"]
    assert listed[1].split()[0] == account["id"] and "active" in listed[1]
    assert "enabled" in run("accounts", "show", account["id"]).stdout
    assert "paused" in run("accounts", "pause", "cli@example.com").stdout
    assert json.loads(run("accounts", "list", "--status", "paused", "--json").stdout)["total"] == 1
    assert "enabled" in run("accounts", "resume", "cli@example.com").stdout
    assert "1234" in run("accounts", "refresh", account["id"]).stdout
    tested = run("accounts", "test", "Cli@Example.com").stdout
    assert "ok" in tested and "The account answers." in tested
    assert "active" in run("accounts", "clear-cooldown", account["id"]).stdout
    assert "Aborted" in run("accounts", "delete", account["id"], stdin="n\n", code=1).output
    assert "deleted" in run("accounts", "delete", account["id"], "--yes").stdout
    assert "no account called" in run("accounts", "show", "cli@example.com", code=1).output
    assert "no such account" in run("accounts", "show", account["id"], code=1).output


def test_terms_of_an_account(run: Run) -> None:
    run("accounts", "add", "--provider", "mock", "--name", "Terms", "-c", "points=7")
    given = ("--priority", "5", "--weight", "2", "--label", "EU", "--label", "paid", "--keep-percent", "30")
    shown = run("accounts", "set", "terms", *given, "--max-inflight", "4").stdout
    assert "eu paid" in shown
    account = json.loads(run("accounts", "show", "terms", "--json").stdout)
    assert (account["priority"], account["weight"], account["labels"]) == (5, 2, ["eu", "paid"])
    assert (account["keep_percent"], account["max_inflight"]) == (30, 4)
    [row] = [line for line in run("accounts", "list", "--q", "Terms").stdout.splitlines() if "Terms" in line]
    assert "5  " in row and "eu paid" in row
    found = ("accounts", "list", "--label", "paid", "--label", "eu", "--priority", "5", "--json")
    assert [each["id"] for each in json.loads(run(*found).stdout)["data"]] == [account["id"]]
    assert json.loads(run("accounts", "list", "--label", "nothing", "--json").stdout)["total"] == 0
    again = json.loads(run("accounts", "set", account["id"], "--priority", "-5", "--json").stdout)
    assert again["priority"] == -5 and again["labels"] == ["eu", "paid"] and again["max_inflight"] == 4
    bare = json.loads(run("accounts", "set", "terms", "--no-labels", "--no-max-inflight", "--json").stdout)
    assert bare["labels"] == [] and bare["max_inflight"] is None and bare["weight"] == 2
    assert "Nothing to change" in run("accounts", "set", "terms", code=2).output
    assert "exclude each other" in run("accounts", "set", "terms", "--label", "x", "--no-labels", code=2).output
    assert "labels" in run("accounts", "set", "terms", "--label", "a b", code=1).output
    assert "1001" in run("accounts", "set", "terms", "--priority", "1001", code=2).output
    assert "no account called" in run("accounts", "set", "nobody", "--weight", "2", code=1).output


def test_accounts_from_files_and_typed_fields(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cookie").write_text(f"{CANARY}\n")
    run("accounts", "add", "--email", "file@example.com", "-c", "poe_p_b=@cookie")
    bodies = [
        {"email": "one@example.com", "poe_p_b": CANARY},
        {"provider": "mock", "name": "two", "credentials": {"points": 5}},
    ]
    answer = run("accounts", "add", "--file", "-", stdin=json.dumps(bodies))
    assert answer.stdout.count(" is stored as ") == 2
    typed = run("accounts", "add", "--provider", "mock", "--name", "three", "-c", "points=70", "--max-inflight", "4")
    assert "mock three is stored" in typed.stdout
    tested = json.loads(run("accounts", "test", "three", "--json").stdout)
    assert tested["account"]["message_point_balance"] == 70 and tested["account"]["max_inflight"] == 4


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("add",), 2, "--email"),
        (("add", "--provider", "nobody", "--name", "x"), 1, "no provider nobody"),
        (("add", "--provider", "mock", "--name", "x", "-c", f"points={CANARY}"), 1, "must be of type int"),
        (("add", "--provider", "mock", "--name", "x", "-c", f"nothing={CANARY}"), 1, "unknown credential field"),
        (("add", "--email", "x@y", "-c", "poe_p_b=@missing"), 1, "cannot be read"),
        (("add", "--file", "-"), 1, "not valid JSON"),
        (("list", "--page-size", "201"), 2, "201"),
    ],
)
def test_mistakes_are_told(run: Run, args: tuple[str, ...], code: int, message: str) -> None:
    assert message in run("accounts", *args, code=code, stdin=f"{{{CANARY}").output


def test_a_failed_test_ends_with_1(run: Run) -> None:
    plan = json.dumps([{"kind": "transient", "on": "probe", "times": None}])
    run("accounts", "add", "--provider", "mock", "--name", "broken", "-c", f"faults={plan}")
    answer = run("accounts", "test", "broken", code=1)
    assert "failed at the round trip" in answer.stdout and "Transient" in answer.stdout


def test_keys(run: Run, desk: Desk) -> None:
    made = run("keys", "create", "app")
    assert made.stdout.startswith("pgw_") and len(made.stdout.splitlines()) == 1
    assert desk.house.keyring.known(made.stdout.strip()) is not None
    listed = run("keys", "list").stdout
    assert "app" in listed and made.stdout.strip() not in listed
    assert "is revoked" in run("keys", "revoke", "app").stdout
    assert desk.house.keyring.known(made.stdout.strip()) is None
    assert "revoked for good" in run("keys", "revoke", "app", code=1).output


def test_terms_of_a_key(run: Run, desk: Desk) -> None:
    text = run("keys", "create", "dear", "--priority", "5", "--weight", "3", "--label", "EU").stdout.strip()
    known = desk.house.keyring.known(text)
    assert known is not None and (known.priority, known.weight, known.labels) == (5, 3, ("eu",))
    changed = json.loads(
        run("keys", "set", "dear", "--without", "trial", "--provider", "mock", "--name", "dearer", "--json").stdout
    )
    assert (changed["name"], changed["providers"], changed["labels"]) == ("dearer", ["mock"], ["eu"])
    [row] = [line for line in run("keys", "list").stdout.splitlines() if "dearer" in line]
    assert "provider=mock label=eu without=trial" in row
    assert "  all  " in run("keys", "set", "dearer", "--all-accounts").stdout
    known = desk.house.keyring.known(text)
    assert known is not None and (known.name, known.weight, known.labels, known.without) == ("dearer", 3, (), ())
    only = json.loads(run("keys", "set", "dearer", "--all-accounts", "--label", "us", "--json").stdout)
    assert only["labels"] == ["us"] and only["providers"] == []
    assert "Nothing to change" in run("keys", "set", "dearer", code=2).output
    assert "Unknown provider" in run("keys", "set", "dearer", "--provider", "nobody", code=1).output
    assert "no such key" in run("keys", "set", "nobody", "--weight", "2", code=1).output


def test_healthcheck(run: Run, desk: Desk) -> None:
    assert run("healthcheck").stdout == "ok\n"
    assert run("healthcheck", "--url", desk.url, FERNET_KEY=None).stdout == "ok\n"
    run("healthcheck", "--url", "http://127.0.0.1:1", code=1)
    run("healthcheck", "--url", "nonsense", code=1)


def test_a_gateway_that_is_not_there_is_told(run: Run) -> None:
    answer = run("accounts", "list", "--url", "http://127.0.0.1:1", code=1)
    assert "cannot be reached" in answer.output and "poe-gateway serve" in answer.output
    wrong = run("keys", "list", ADMIN_API_KEY="adm-another-key-of-the-operator-1234", code=1)
    assert "ADMIN_API_KEY" in wrong.output


@pytest.mark.parametrize("args", [("serve",), ("accounts", "list"), ("keys", "list"), ("healthcheck",)])
def test_unusable_settings_are_one_message_and_exit_code_2(run: Run, args: tuple[str, ...]) -> None:
    answer = run(*args, FERNET_KEY=f"{CANARY}-not-a-key", code=2)
    assert "FERNET_KEY" in answer.stderr and not answer.stdout


def test_vault_new_key(run: Run) -> None:
    key = run("vault", "new-key", FERNET_KEY=None, ADMIN_API_KEY=None).stdout.strip()
    assert Fernet(key)


def test_serve_hands_its_options_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def handed(app: str, **options: Any) -> None:
        called.update(options, app=app, demo=os.environ.get("GATEWAY_DEMO_POOL"), seen=os.environ.get("GATEWAY_PORT"))

    monkeypatch.setattr(uvicorn, "run", handed)
    monkeypatch.setattr("poe_gateway.telemetry.logs.configure", lambda *_: None)
    for name in ("GATEWAY_HOST", "GATEWAY_WORKERS", "GATEWAY_DEMO_POOL"):
        monkeypatch.setenv(name, "")  # put back afterwards
    run("serve", "--host", "0.0.0.0", "--port", "8123", "--workers", "3", "--demo", GATEWAY_PORT="9")
    assert called["app"] == "poe_gateway.app:app" and called["loop"] == "uvloop" and called["http"] == "httptools"
    assert (called["host"], called["port"], called["workers"]) == ("0.0.0.0", 8123, 3)
    assert (called["demo"], called["seen"]) == ("true", "8123")


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("gw.example", "http://gw.example:1")],
)
def test_where_a_gateway_answers(host: str, url: str) -> None:
    assert local_url(host, 1) == url


def test_as_a_module(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-m", "poe_gateway", "serve"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert answer.returncode == 2 and "FERNET_KEY" in answer.stderr and "Traceback" not in answer.stderr
