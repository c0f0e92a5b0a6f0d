"""``poe-gateway usage`` and the purchase terms of ``accounts set``, against a gateway on a real socket."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from pymongo import MongoClient

from poe_gateway.api.admin import account_cost, accounts, ledger_rows, usage
from poe_gateway.cli.accounts import accounts as accounts_command
from poe_gateway.cli.usage import usage as usage_command
from poe_gateway.storage.client import connect
from tests.accounts.support import ADMIN_KEY, START
from tests.storage.ledger_rows import CENT, correction, ledger_row
from tests.support.books import BooksHouse, application
from tests.support.serving import serving

Run = Callable[..., Result]
HOUR = timedelta(hours=1)


@pytest.fixture
def house(mongo_uri: str, db_name: str) -> BooksHouse:
    """Memory rooms whose ledger is in MongoDB. (The driver belongs to the loop in which it is used first.)"""
    return BooksHouse(connect(mongo_uri)[db_name])


@pytest.fixture
def port(house: BooksHouse) -> Iterator[int]:
    app = application(house, [usage.router(), ledger_rows.router(), account_cost.router(), accounts.router()])
    with serving(app) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def run(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "POE_", "MONGODB_", "SERVICE_", "FERNET", "ADMIN_")):
            monkeypatch.delenv(name)
    env = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY, "GATEWAY_PORT": str(port)}

    def invoke(*args: str, code: int = 0) -> Result:
        command = {"usage": usage_command, "accounts": accounts_command}[args[0]]
        result = CliRunner().invoke(command, args[1:], env=env)
        assert result.exit_code == code, result.output
        assert ADMIN_KEY not in result.output
        return result

    return invoke


@pytest.fixture
def stored(mongo_uri: str, db_name: str) -> None:
    row = ledger_row(1, at=START - HOUR, charges=[{"b": "budget|key|key_1|USD|day|2026-05-20", "n": CENT}])
    other = ledger_row(2, at=START - timedelta(days=20), key_id="key_2", unit="EUR")
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        client[db_name].ledger.insert_many([row, other, correction(row, billed_cost=CENT)])


def test_reports(run: Run, stored: None, tmp_path: Path) -> None:
    lines = run("usage", "report", "--by", "day,key").stdout.splitlines()
    assert lines[0].split()[:3] == ["DAY", "KEY", "REQUESTS"]
    assert lines[1].split()[:2] == ["2026-04-30", "key_2"] and lines[1].endswith("0.03 EUR")
    assert lines[2].endswith("0.04 USD") and lines[3].startswith("TOTAL")
    assert len(run("usage", "report", "--from", "2026-05-19").stdout.splitlines()) == 3
    answer = json.loads(run("usage", "report", "--by", "model", "--key", "key_1", "--json").stdout)
    assert answer["total"]["cost"]["USD"]["billed"] == "0.04"
    table = run("usage", "report", "--by", "key", "--csv").stdout
    assert [line["key"] for line in csv.DictReader(io.StringIO(table))] == ["key_1", "key_2"]
    run("usage", "report", "--by", "key", "--csv", "-o", "out.csv")
    assert (tmp_path / "out.csv").read_bytes().count(b"\r\n") == 3
    cut = run("usage", "report", "--by", "key", "--limit", "1")
    assert "There are more lines" in cut.stderr
    for form in ((), ("--csv",)):
        assert "each once" in run("usage", "report", "--by", "colour", *form, code=1).output


def test_rows(run: Run, stored: None) -> None:
    lines = run("usage", "rows").stdout.splitlines()
    assert len(lines) == 4 and "0.03 EUR" in lines[3]
    first = run("usage", "rows", "--limit", "1", "--key", "key_1")
    before = first.stderr.split("--before ")[1].rstrip(".\n")
    assert len(run("usage", "rows", "--key", "key_1", "--before", before).stdout.splitlines()) == 1
    shown = run("usage", "row", "req_1").stdout
    assert "0.01 USD (budget|key|key_1|USD|day|2026-05-20)" in shown and "spool_a-1~" in shown
    assert len(json.loads(run("usage", "row", "spool_a-2", "--json").stdout)["data"]) == 1
    assert "no such row" in run("usage", "row", "nothing", code=1).output


def test_what_accounts_cost(run: Run, mongo_uri: str, db_name: str) -> None:
    bought = {"vendor": "shop", "batch": "b", "purchase_price": 5 * 100 * CENT, "currency": "EUR"}
    account = {"_id": "acct_1", "name": "one", "provider": "mock", "created_at": START - timedelta(days=3), **bought}
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        client[db_name].accounts.insert_one(account)
        client[db_name].ledger.insert_one(ledger_row(1, at=START - HOUR, points=10_000))
    for by, name in (("account", "one"), ("batch", "b"), ("vendor", "shop")):
        [_, line] = run("usage", "accounts", "--by", by).stdout.splitlines()
        assert line.startswith(f"{name} ") and "0.50000000 EUR" in line and "1d:1/1 3d:1/1" in line
    assert json.loads(run("usage", "accounts", "--json").stdout)["data"][0]["points"] == 10_000


def test_terms_of_a_purchase(run: Run, tmp_path: Path) -> None:
    body = {"provider": "mock", "name": "Bought", "credentials": {"points": 1}}
    (tmp_path / "one.json").write_text(json.dumps(body))
    run("accounts", "add", "--file", "one.json", "--batch", "b", "--vendor", "Shop")
    given = ("--purchase-price", "2.50", "--currency", "EUR", "--purchased-at", "2026-05-01")
    shown = run("accounts", "set", "Bought", *given, "--expires-at", "2027-05-01T00:00:00+02:00").stdout
    assert "2.5" in shown and "Shop" in shown
    account = json.loads(run("accounts", "show", "Bought", "--json").stdout)
    assert (account["purchased_at"], account["expires_at"]) == ("2026-05-01T00:00:00Z", "2027-04-30T22:00:00Z")
    assert (account["purchase_price"], account["currency"], account["batch"]) == ("2.5", "EUR", "b")
    bare = run("accounts", "set", "Bought", "--batch", "", "--purchase-price", "", "--expires-at", "", "--json")
    account = json.loads(bare.stdout)
    assert (account["batch"], account["purchase_price"], account["expires_at"]) == (None, None, None)
    assert account["vendor"] == "Shop"
    assert "purchase_price" in run("accounts", "set", "Bought", "--purchase-price", "-1", code=1).output
    assert "purchased_at" in run("accounts", "set", "Bought", "--purchased-at", "soon", code=1).output
