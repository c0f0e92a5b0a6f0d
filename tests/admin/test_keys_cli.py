"""``poe-gateway keys`` and ``orgs`` against a gateway that runs on a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from poe_gateway.cli import main
from poe_gateway.clock import SystemClock
from poe_gateway.limits.terms import Budget, Rates
from tests.accounts.support import ADMIN_KEY
from tests.admin.support import Desk
from tests.support.serving import serving


@pytest.fixture(scope="module")
def served() -> Iterator[Desk]:
    """One gateway for all commands."""
    desk = Desk()
    with serving(desk.app) as url:
        desk.url = url
        yield desk


class Shell:
    """Commands as the operator types them, in an empty folder."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._settings = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY}

    def __call__(self, *args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [*args, "--url", self.desk.url], env=self._settings)
        assert result.exit_code == code, result.output
        assert ADMIN_KEY not in result.output and "Traceback" not in result.output
        return result

    def told(self, *args: str) -> Any:
        return json.loads(self(*args, "--json").stdout)


@pytest.fixture
def run(served: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(served)


def test_a_key_with_limits_and_budgets_from_options(run: Shell) -> None:
    run("orgs", "create", "options")
    text = run(
        *("keys", "create", "--org", "options", "--name", "app"),
        *("--rpm", "30", "--tpd", "100000", "--parallel", "4"),
        *("--budget-day", "5USD", "--budget-day", "100points", "--budget-month", "20.5USD"),
        *("--model", "gpt-4o*", "--address", "127.0.0.0/8", "--expires", "30d", "--priority", "5", "--label", "eu"),
    ).stdout.strip()
    known = run.desk.house.keyring.known(text)
    assert known is not None and known.models == ("gpt-4o*",) and known.addresses == ("127.0.0.0/8",)
    assert (known.priority, known.labels) == (5, ("eu",))
    scope = known.scopes[0]
    assert scope.rates == Rates(requests_minute=30, tokens_day=100_000, parallel=4)
    assert scope.budgets == (
        Budget(unit="USD", period="day", amount=500_000_000),
        Budget(unit="USD", period="month", amount=2_050_000_000),
        Budget(unit="points", period="day", amount=100),
    )
    assert known.expires_at is not None
    assert abs(known.expires_at - SystemClock().now() - timedelta(days=30)) < timedelta(minutes=5)
    shown = run("keys", "show", "app").stdout
    assert "rpm=30 tpd=100000 parallel=4" in shown and "day=5USD month=20.5USD day=100points" in shown
    listed = run("keys", "list", "--org", "options").stdout
    assert text not in shown and text not in listed
    assert "rpm=30 tpd=100000 parallel=4  day=5USD month=20.5USD day=100points" in listed
    assert [key["name"] for key in run.told("keys", "list", "--org", "options")["data"]] == ["app"]


def test_set_changes_what_is_given_and_nothing_else(run: Shell) -> None:
    run(*("keys", "create", "changing", "--rpm", "30", "--parallel", "4"), *("--budget-day", "5USD"))
    after = run.told("keys", "set", "changing", "--rpm", "9", "--budget-day", "7USD", "--budget-total", "1EUR")
    assert (after["limits"]["requests_minute"], after["limits"]["parallel"]) == (9, 4)
    assert after["budgets"] == [
        {"unit": "EUR", "period": "total", "amount": "1"},
        {"unit": "USD", "period": "day", "amount": "7"},
    ]
    after = run.told("keys", "set", "changing", "--no-limits", "--tpm", "10", "--no-budgets")
    assert {name: value for name, value in after["limits"].items() if value is not None} == {"tokens_minute": 10}
    assert after["budgets"] == []
    after = run.told("keys", "set", "changing", "--model", "a*", "--address", "::1", "--expires", "2099-01-31")
    assert (after["models"], after["addresses"], after["expires_at"][:10]) == (["a*"], ["::1/128"], "2099-01-31")
    after = run.told("keys", "set", "changing", "--all-models", "--all-addresses", "--no-expiry", "--note", "x")
    assert (after["models"], after["addresses"], after["expires_at"], after["note"]) == ([], [], None, "x")
    assert "Nothing to change" in run("keys", "set", "changing", code=2).output


def test_rotation_and_switching_off(run: Shell) -> None:
    known = run.desk.house.keyring.known
    old = run("keys", "create", "turning").stdout.strip()
    rotated = run("keys", "rotate", "turning", "--overlap", "1h")
    assert "works on until" in rotated.stderr
    new = rotated.stdout.strip()
    assert new.startswith("pgw_") and new != old and known(old) is known(new) is not None
    last = run("keys", "rotate", "turning").stdout.strip()
    assert known(new) is None and known(last) is not None
    assert "is switched off" in run("keys", "disable", "turning").stdout and known(last) is None
    assert "works again" in run("keys", "enable", "turning").stdout and known(last) is not None
    assert "is revoked" in run("keys", "revoke", "turning").stdout and known(last) is None
    assert "revoked for good" in run("keys", "enable", "turning", code=1).output


def test_a_development_key_is_made_once(run: Shell) -> None:
    first = run("keys", "seed-dev", "--org", "seeded")
    assert run.desk.house.keyring.known(first.stdout.strip()) is not None
    again = run("keys", "seed-dev", "--org", "seeded")
    assert again.stdout == "" and "there already" in again.stderr and "--rotate" in again.stderr
    assert run.desk.house.keyring.known(first.stdout.strip()) is not None
    assert [key["name"] for key in run.told("keys", "list", "--org", "seeded")["data"]] == ["dev"]
    assert [org["name"] for org in run.told("orgs", "list")["data"]].count("seeded") == 1
    rotated = run("keys", "seed-dev", "--org", "seeded", "--rotate").stdout.strip()
    assert run.desk.house.keyring.known(rotated) is not None
    assert run.desk.house.keyring.known(first.stdout.strip()) is None


def test_organisations(run: Shell) -> None:
    made = run("orgs", "create", "acme", "--rpm", "100", "--budget-month", "50USD", "--keep-text").stdout
    assert "rpm=100" in made and "month=50USD" in made
    after = run.told("orgs", "set", "acme", "--parallel", "3", "--no-keep-text", "--name", "acme inc")
    assert (after["limits"]["requests_minute"], after["limits"]["parallel"]) == (100, 3)
    assert after["budgets"] and not after["keep_text"]
    assert run.told("orgs", "set", "acme inc", "--no-budgets")["budgets"] == []
    assert not run.told("orgs", "disable", "acme inc")["enabled"]
    assert run.told("orgs", "enable", "acme inc")["enabled"]
    assert "acme inc" in run("orgs", "list").stdout
    assert "no such organisation" in run("orgs", "disable", "nobody", code=1).output
    assert "Nothing to change" in run("orgs", "set", "acme inc", code=2).output


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("keys", "create"), 2, "name of the key"),
        (("keys", "create", "a", "--name", "b"), 2, "name of the key"),
        (("keys", "create", "a", "--budget-day", "5"), 2, "5USD"),
        (("keys", "create", "a", "--rpm", "many"), 2, "many"),
        (("keys", "create", "a", "--expires", "soon"), 2, "30d"),
        (("keys", "create", "a", "--expires", "2020-01-01"), 1, "expired already"),
        (("keys", "create", "a", "--address", "10.0.0.1/8"), 1, "10.0.0.0/8"),
        (("keys", "create", "a", "--org", "nobody"), 1, "no such organisation"),
        (("keys", "create", "a", "--budget-day", "5USD", "--budget-day", "6USD"), 1, "two budgets"),
        (("keys", "rotate", "nobody"), 1, "no such key"),
        (("keys", "rotate", "a", "--overlap", "long"), 2, "12h"),
    ],
)
def test_mistakes_are_told(run: Shell, args: tuple[str, ...], code: int, message: str) -> None:
    assert message in run(*args, code=code).output
