"""``poe-gateway prices`` against a gateway that runs on a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from poe_gateway.cli import main
from tests.accounts.support import ADMIN_KEY
from tests.admin.support import Desk
from tests.support.serving import serving


class Shell:
    """Commands as the operator types them, in an empty folder."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._settings = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY}

    def __call__(self, *args: str, code: int = 0, stdin: str | None = None) -> Result:
        command = ["prices", *args, "--url", self._url]
        result = CliRunner().invoke(main, command, env=self._settings, input=stdin)
        assert result.exit_code == code, result.output
        assert ADMIN_KEY not in result.output and "Traceback" not in result.output
        return result

    def told(self, *args: str, stdin: str | None = None) -> Any:
        return json.loads(self(*args, "--json", stdin=stdin).stdout)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A gateway without prices, and commands for it."""
    with serving(Desk().app) as url:
        monkeypatch.chdir(tmp_path)
        yield Shell(url)


def test_a_rule_is_set_listed_tested_and_retired(run: Shell) -> None:
    assert "gpt-4o*" in run("set", "--model", "gpt-4o*", "--input", "2.5", "--output", "10", "--markup", "20").stdout
    run("set", "--model", "gpt-4o*", "--input-per-1k", "0.003")
    (rule,) = run.told("list")["data"]
    assert (rule["version"], rule["input"], rule["output"], rule["markup_percent"]) == (2, "3", None, "0")
    assert [each["version"] for each in run.told("list", "--id", rule["id"])["data"]] == [2, 1]
    assert rule["id"] in run("list").stdout
    question = ("test", "--provider", "mock", "--model", "gpt-4o-mini", "--prompt-tokens", "1000")
    assert run(*question).stdout.startswith("0.003 USD (raw: 0.003)\n")
    assert run.told(*question, "--raw-cost", "0.5")["cost"]["source"] == "upstream"
    assert rule["id"] in run("retire", rule["id"]).stdout
    assert run.told("list")["data"] == []
    assert run(*question).stdout == "Nobody knows.\nNo rule matches.\n"


def test_a_rule_needs_something_to_say(run: Shell) -> None:
    assert "Give a price or a markup" in run("set", "--model", "gpt-4o", code=2).output
    assert "There is no such price rule." in run("retire", "price_x", code=1).output


def test_the_second_seed_changes_nothing(run: Shell) -> None:
    first = run.told("seed", "--org", "acme")
    assert len(first["made"]) >= 5 and first["unchanged"] == 0
    assert all("Example" in each["note"] for each in first["made"])
    assert [each["model"] for each in first["made"]].count(None) == 1
    before = run.told("list")
    second = run.told("seed", "--org", "acme")
    assert second == {"made": [], "unchanged": len(first["made"])}
    assert run.told("list") == before


def test_a_seed_leaves_the_operators_own_prices(run: Shell) -> None:
    run("seed", "--org", "acme")
    own = run.told("set", "--org", "acme", "--model", "gpt-4o", "--input", "99")
    assert own["version"] == 2
    assert run.told("seed", "--org", "acme")["made"] == []
    assert own in run.told("list", "--org", "acme")["data"]


def test_each_organisation_has_its_seed(run: Shell) -> None:
    acme, umbrella = (run.told("seed", "--org", each)["made"] for each in ("acme", "umbrella"))
    assert len({each["org"] for each in acme + umbrella}) == 2
    assert run.told("list", "--org", "umbrella")["data"] == [
        each for each in run.told("list")["data"] if each["org"] == umbrella[0]["org"]
    ]


def test_what_is_exported_can_be_imported(run: Shell) -> None:
    run("set", "--model", "gpt-4o*", "--input", "2.5", "--cached", "0.123456789012", "--note", "by contract")
    run("set", "--provider", "mock", "--request", "0.01", "--currency", "EUR", "--from", "2030-01-01T00:00:00Z")
    exported = run("export").stdout
    rules = run.told("list")["data"]
    assert run.told("import", "-", stdin=exported) == {"made": [], "unchanged": 2}
    for each in rules:
        run("retire", each["id"])
    assert len(run.told("import", "-", stdin=exported)["made"]) == 2
    assert run("export").stdout == exported
    retired = {each["id"]: each for each in rules}
    for each in run.told("list")["data"]:
        assert each["version"] == 2 and each["input"] == retired[each["id"]]["input"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prices": 1}', '{"prices": [1]}'])
def test_what_is_no_export_is_not_imported(run: Shell, text: str) -> None:
    assert "no exported prices" in run("import", "-", stdin=text, code=1).output
