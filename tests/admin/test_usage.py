"""Reports, rows and the cost of accounts through the real application, over a real MongoDB."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from poe_gateway.api.admin import account_cost, accounts, ledger_rows, usage
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, connect
from poe_gateway.storage.reports import MongoReports
from tests.accounts.support import ADMIN_KEY, START
from tests.storage.ledger_rows import CENT, correction, ledger_row
from tests.storage.making import account, insert
from tests.support.books import BooksHouse, application

HOUR = timedelta(hours=1)


class Books:
    """A gateway on memory rooms whose ledger is in MongoDB."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.house = BooksHouse(db, "Europe/Berlin")
        self.app = application(
            self.house, [usage.router(), ledger_rows.router(), account_cost.router(), accounts.router()]
        )
        self.client = self.client_with(f"Bearer {ADMIN_KEY}")

    def client_with(self, authorization: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app, raise_app_exceptions=False),
            base_url="http://gateway",
            headers={"Authorization": authorization},
        )

    async def get(self, path: str, status: int = 200, **params: Any) -> Any:
        answer = await self.client.get("/admin" + path, params=params)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def put(self, *rows: dict[str, Any]) -> None:
        await self.db.ledger.insert_many(rows)


@pytest.fixture
async def books(mongo_uri: str, db_name: str) -> AsyncIterator[Books]:
    async with connect(mongo_uri) as client:
        await schema.create(client[db_name])
        yield Books(client[db_name])


async def test_a_report_names_what_it_is_over_and_shows_amounts_as_text(books: Books) -> None:
    key, _ = await books.house.keyring.create("app")
    row = ledger_row(1, at=START - HOUR, key_id=key.id)
    await books.put(
        row,
        correction(row, points=3, billed_cost=CENT // 4),
        ledger_row(2, at=START - HOUR, key_id="key_gone", unit="EUR"),
        ledger_row(3, at=START - timedelta(days=40)),
    )
    answer = await books.get("/usage", by="day,key")
    assert (answer["by"], answer["zone"], answer["truncated"]) == (["day", "key"], "Europe/Berlin", False)
    assert answer["from"] == "2026-04-20T22:00:00Z"
    by_key = {line["group"]["key"]: line for line in answer["data"]}
    assert set(by_key) == {key.id, "key_gone"}
    assert by_key[key.id]["names"] == {"key": "app"} and by_key["key_gone"]["names"] == {}
    assert by_key[key.id]["group"]["day"] == "2026-05-20"
    assert by_key[key.id]["cost"] == {"USD": {"raw": "0.02", "billed": "0.0325", "corrected": "0.0025"}}
    assert by_key["key_gone"]["cost"] == {"EUR": {"raw": "0.02", "billed": "0.03", "corrected": "0"}}
    assert answer["total"]["attempts"] == 2 and answer["total"]["points"] == 17
    assert set(answer["total"]["cost"]) == {"EUR", "USD"}
    ever = await books.get("/usage", by="month", **{"from": "2026-01-01"})
    assert [(line["group"]["month"], line["attempts"]) for line in ever["data"]] == [("2026-04", 1), ("2026-05", 2)]
    assert (await books.get("/usage", by="model", key=key.id))["total"]["attempts"] == 1
    assert (await books.get("/usage", by="day", **{"from": "2030-01-01", "to": "2030-01-02"}))["data"] == []


async def test_organisations_and_accounts_are_named(books: Books) -> None:
    org = await books.house.keyring.create_org("team")
    made = await books.house.add("one", points=5)
    await books.put(ledger_row(1, at=START - HOUR, org=org.id, account_id=made.id))
    [line] = (await books.get("/usage", by="org,account"))["data"]
    assert line["group"] == {"org": org.id, "account": made.id} and line["names"] == {"org": "team", "account": "one"}
    [row] = (await books.get("/ledger"))["data"]
    assert row["names"] == line["names"]


async def test_keys_and_organisations_are_asked_for_by_id_or_name(books: Books) -> None:
    org = await books.house.keyring.create_org("team")
    key, _ = await books.house.keyring.create("app")
    twins = [(await books.house.keyring.create("twin"))[0].id for _ in range(2)]
    await books.put(ledger_row(1, at=START - HOUR, org=org.id, key_id=key.id), ledger_row(2, at=START - HOUR))
    for asked in ({"org": org.id}, {"org": "team"}, {"key": key.id}, {"key": "app"}):
        assert (await books.get("/usage", **asked))["total"]["attempts"] == 1
        assert len((await books.get("/ledger", **asked))["data"]) == 1
    for asked, code in (({"org": "taem"}, "unknown_org"), ({"key": "ap"}, "unknown_key"), ({"key": "twin"}, None)):
        for path in ("/usage", "/ledger"):
            error = (await books.get(path, 400, **asked))["error"]
            assert error["code"] == (code or "ambiguous_key")
    assert all(each in error["message"] for each in twins)


async def test_a_long_report_is_cut_but_its_total_is_whole(books: Books) -> None:
    await books.put(*[ledger_row(number, at=START - HOUR, model=f"m{number:02}") for number in range(20)])
    answer = await books.get("/usage", by="model", limit=3)
    assert answer["truncated"] and [line["group"]["model"] for line in answer["data"]] == ["m00", "m01", "m02"]
    assert answer["total"]["attempts"] == 20
    assert not (await books.get("/usage", by="model", limit=20))["truncated"]


@pytest.mark.parametrize(
    ("params", "status", "param"),
    [
        ({"by": "day,day"}, 400, "by"),
        ({"by": "day,key,model,org"}, 400, "by"),
        ({"by": "colour"}, 400, "by"),
        ({"by": ""}, 400, "by"),
        ({"from": "soon"}, 400, "from"),
        ({"from": "2026-05-02", "to": "2026-05-01"}, 400, "to"),
        ({"zone": "Nowhere"}, 400, "zone"),
        ({"limit": "0"}, 422, "limit"),
        ({"format": "xml"}, 422, "format"),
    ],
)
async def test_questions_that_make_no_sense(books: Books, params: dict[str, str], status: int, param: str) -> None:
    for form in ("json", "csv"):
        error = (await books.get("/usage", status, **{"format": form, **params}))["error"]
        assert error["param"] == param


async def test_csv_of_many_lines_reads_back_exactly(books: Books) -> None:
    key, _ = await books.house.keyring.create('=HYPERLINK("x"), "y"')
    rows = [
        ledger_row(number, at=START - HOUR, model=f"m{number:04}", key_id=key.id, billed_cost=number)
        for number in range(1_200)
    ]
    await books.put(*rows, ledger_row(9_999, at=START - HOUR, model="m0000", key_id=key.id, unit=None))
    answer = await books.client.get("/admin/usage", params={"by": "model,key", "format": "csv", "limit": "5"})
    assert answer.headers["content-type"].startswith("text/csv") and "usage-by-model-key" in str(answer.headers)
    assert answer.headers["cache-control"] == "no-store"
    lines = list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))
    assert len(lines) == 1_201 and {line["key_name"] for line in lines} == {'\'=HYPERLINK("x"), "y"'}
    assert (lines[0]["currency"], lines[0]["billed_cost"], lines[0]["attempts"]) == ("", "", "1")
    assert lines[12]["model"] == "m0011" and lines[12]["billed_cost"] == "0.00000011"
    empty = await books.client.get("/admin/usage", params={"by": "day", "format": "csv", "from": "2030-01-01",
                                                           "to": "2030-01-02"})  # fmt: skip
    assert empty.text.count("\r\n") == 1 and empty.text.startswith("day,requests,")


async def test_rows_by_page_and_alone(books: Books) -> None:
    first = ledger_row(
        1, at=START - HOUR, request_id="req/1", charges=[{"b": "budget|key|key_1|USD|day|2026-05-20", "n": 3 * CENT}]
    )
    await books.put(first, correction(first, billed_cost=-CENT), ledger_row(2, at=START, status="failed", unit=None))
    page = await books.get("/ledger", limit=1)
    [newest] = page["data"]
    assert (newest["id"], newest["billed_cost"], newest["key"]) == ("spool_a-2", None, "key_1")
    rest = (await books.get("/ledger", limit=5, before=page["before"]))["data"]
    assert [row["id"] for row in rest] == ["spool_a-1~", "spool_a-1"]
    assert (rest[0]["corrects"], rest[0]["billed_cost"], rest[0]["attempt"]) == ("spool_a-1", "-0.01", 1)
    assert rest[1]["charges"][0]["amount"] == "0.03" and rest[1]["charges"][0]["unit"] == "USD"
    of_request = (await books.get("/ledger", request="req/1"))["data"]
    assert [row["id"] for row in of_request] == ["spool_a-1~", "spool_a-1"]
    assert [row["id"] for row in (await books.get("/ledger/spool_a-1"))["data"]] == ["spool_a-1", "spool_a-1~"]
    assert (await books.get("/ledger/nothing", 404))["error"]["code"] == "ledger_row_not_found"
    assert (await books.get("/ledger", 400, before="x"))["error"]["param"] == "before"


async def test_what_accounts_cost(books: Books) -> None:
    terms: dict[str, Any] = {"batch": "b", "purchase_price": 3 * 100 * CENT, "currency": "EUR"}
    bought = START - timedelta(days=10)
    await insert(books.db, [account(1, purchased_at=bought, **terms), account(2, purchased_at=bought, **terms)])
    await books.put(ledger_row(1, at=START - HOUR, account_id="acct_00001", points=2_000))
    answer = await books.get("/accounts/cost", by="batch")
    [line] = answer["data"]
    assert line["prices"] == {"EUR": {"accounts": 2, "paid": "6", "points": 2_000, "per_1000_points": "3.00000000"}}
    assert (line["group"], line["accounts"], line["days"]) == ("b", 2, "20.00")
    assert line["survival"][-1] == {"days": 7, "of": 2, "alive": 2, "share": "1.0000"}
    assert answer["from"] is None
    one = await books.get("/accounts/cost", limit=1, **{"from": "2026-05-20", "to": "2026-05-20"})
    assert one["truncated"] and one["data"][0]["name"] == "User1@example.org" and one["data"][0]["points"] == 2_000
    assert (await books.get("/accounts/cost", to="2026-05-19"))["data"][0]["points"] == 0


async def test_the_terms_of_a_purchase(books: Books) -> None:
    made = await books.house.add("one", points=5)
    client = books.client
    body = {"vendor": " Shop ", "batch": "=b", "purchase_price": "2.50", "currency": "eur",
            "purchased_at": "2026-05-01T00:00:00Z", "expires_at": "2027-05-01T00:00:00+02:00"}  # fmt: skip
    shown = (await client.patch(f"/admin/accounts/{made.id}", json=body)).json()
    assert (shown["vendor"], shown["batch"], shown["purchase_price"]) == ("Shop", "=b", "2.5")
    assert (shown["currency"], shown["expires_at"]) == ("EUR", "2027-04-30T22:00:00Z")
    assert shown["priority"] == made.priority
    kept = {"provider": "mock", "name": "one", "credentials": {"points": 5}, "vendor": "other"}
    again = (await client.post("/admin/accounts/upsert", json=kept)).json()
    assert (again["vendor"], again["batch"], again["purchase_price"]) == ("other", "=b", "2.5")
    bulk = await client.post("/admin/accounts/patch", json={"filter": {}, "set": {"batch": "c", "expires_at": None}})
    assert bulk.json()["changed"] == 1
    gone = (await client.patch(f"/admin/accounts/{made.id}", json={"purchase_price": None})).json()
    assert (gone["purchase_price"], gone["currency"], gone["batch"], gone["expires_at"]) == (None, None, "c", None)
    for wrong in [
        *({"purchase_price": each} for each in (2.5, "-1", "1e3", "2,50", "1.123456789", "99999999999", "")),
        *({"currency": each} for each in ("EURO", "points", "€")),
        *({"vendor": each} for each in ("", "a\nb", "x" * 101)),
        *({"purchased_at": each} for each in ("2026-05-01T00:00:00", "soon")),
    ]:
        assert (await client.patch(f"/admin/accounts/{made.id}", json=wrong)).status_code == 422, wrong


async def test_strangers_and_an_absent_database(books: Books) -> None:
    _, text = await books.house.keyring.create("app")
    for path in ("/usage", "/ledger", "/ledger/x", "/accounts/cost"):
        async with books.client_with(f"Bearer {text}") as client:
            assert (await client.get("/admin" + path)).status_code == 401

    class Away(MongoReports):
        async def groups(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            raise StoreUnavailable
            yield

    books.house.reports = Away(books.db)
    for form in ("json", "csv"):
        error = (await books.get("/usage", 503, format=form))["error"]
        assert error["code"] == "database_unavailable"


def test_the_routes_are_documented(books: Books) -> None:
    paths = books.app.openapi()["paths"]
    assert {each["name"] for each in paths["/admin/usage"]["get"]["parameters"]} >= {"from", "to", "by", "format"}
    assert "text/csv" in paths["/admin/usage"]["get"]["responses"]["200"]["content"]
