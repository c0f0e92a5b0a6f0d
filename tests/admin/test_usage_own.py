"""``/v1/key`` and ``/v1/usage``: through OpenAI's own client, over a real MongoDB."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import openai
import pytest

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import KeyTerms, ServiceKey
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.auth.orgs import OrgTerms
from poe_gateway.clock import Ids
from poe_gateway.limits.bucket import Move, tick_of
from poe_gateway.limits.terms import Budget, Rates, Scope
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.store import Charge
from poe_gateway.money import amount_of
from poe_gateway.storage import schema
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.client import Database, connect
from tests.accounts.support import ADMIN_KEY, START
from tests.storage.ledger_rows import CENT, correction, ledger_row
from tests.support.books import BooksHouse, application

HOUR = timedelta(hours=1)


class Door:
    """A gateway whose ledger and buckets are in MongoDB, and clients of it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.house = BooksHouse(
            db, buckets=MongoBuckets(db, Ids(1)), windows=Windows(ZoneInfo("Europe/Berlin")), unpriced="allow"
        )
        self.app = application(self.house, [])

    async def key(self, name: str, **terms: Any) -> tuple[ServiceKey, openai.AsyncOpenAI]:
        """A new key and a client that uses it."""
        key, text = await self.house.keyring.create(name, KeyTerms(**terms))
        return key, self.client(text)

    def client(self, text: str) -> openai.AsyncOpenAI:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return openai.AsyncOpenAI(
            api_key=text,
            base_url="http://gateway/v1",
            http_client=httpx.AsyncClient(transport=transport),
            max_retries=0,
        )


@pytest.fixture
async def door(mongo_uri: str, db_name: str) -> AsyncIterator[Door]:
    async with connect(mongo_uri) as client:
        await schema.create(client[db_name])
        yield Door(client[db_name])


async def get(client: openai.AsyncOpenAI, path: str, **params: Any) -> Any:
    return (await client.get(path, cast_to=httpx.Response, options={"params": params})).json()


async def test_a_key_sees_its_own_rows_and_no_others_whatever_it_asks(door: Door) -> None:
    rng = random.Random(4)
    clients = [await door.key(f"k{number}") for number in range(4)]
    rows: list[dict[str, Any]] = []
    for number in range(200):
        owner = rng.choice(clients)[0]
        row = ledger_row(
            number,
            key_id=owner.id,
            at=START - rng.randint(1, 500) * HOUR,
            model=rng.choice(["a", "b"]),
            billed_cost=rng.randint(0, CENT),
            points=rng.randint(0, 9),
        )
        rows.append(row)
        if rng.random() < 0.2:
            rows.append(correction(row, billed_cost=-1, points=1))
    await door.db.ledger.insert_many(rows)
    for key, client in clients:
        ours = [row for row in rows if row["key_id"] == key.id]
        others = {"key": clients[0][0].id, "key_id": clients[0][0].id, "org": "default", "account": "acct_1"}
        for by in ("day", "model"):
            answer = await get(client, "/usage", by=by, **others)
            assert answer["total"]["attempts"] == sum("corrects" not in row for row in ours)
            assert answer["total"]["points"] == sum(row["points"] for row in ours)
            billed = sum(row["billed_cost"] for row in ours)
            assert amount_of(answer["total"]["cost"]["USD"]["billed"], "USD") == billed
            assert sum(line["attempts"] for line in answer["data"]) == answer["total"]["attempts"]
            assert all(line["names"] == {} and set(line["group"]) == {by} for line in answer["data"])


async def test_a_time_can_be_asked_for(door: Door) -> None:
    key, client = await door.key("k")
    day = timedelta(days=1)
    await door.db.ledger.insert_many(
        [ledger_row(number, key_id=key.id, at=START - number * day) for number in range(5)]
    )
    answer = await get(client, "/usage", **{"from": "2026-05-17", "to": "2026-05-18"})
    assert [line["group"]["day"] for line in answer["data"]] == ["2026-05-17", "2026-05-18"]
    for wrong in ({"from": "x"}, {"from": "2020-01-01"}, {"from": "2026-05-18", "to": "2026-05-17"}):
        with pytest.raises(openai.BadRequestError) as told:
            await get(client, "/usage", **wrong)
        assert told.value.param in ("from", "to")
    with pytest.raises(openai.UnprocessableEntityError):
        await get(client, "/usage", by="key")


async def test_limits_and_budgets_of_a_key(door: Door) -> None:
    key, client = await door.key(
        "app",
        rates=Rates(requests_minute=60, tokens_day=1_000, parallel=4),
        budgets=(
            Budget(unit="USD", period="day", amount=5 * 100 * CENT),
            Budget(unit="points", period="total", amount=3_000),
        ),
        models=("gpt-*",),
        expires_at=START + timedelta(days=9),
    )
    now = door.house.clock.now()
    [principal] = [each for each in [door.house.keyring.known(client.api_key)] if each is not None]
    asks = door.house.windows.asks(principal.scopes, now, tokens=0, amount=lambda unit, cap: 0)
    move, charge = door.house.buckets.move, door.house.buckets.charge
    for bucket, cap in ((ask.bucket, ask.cap) for ask in asks):
        if bucket.kind == "rate":
            await move(bucket, Move(process="spool_a", number=1, least=10, most=10), cap, now)
            spent = {tick_of(bucket, now): 5}
            await move(bucket, Move(process="spool_a", number=2, back=3, spent=spent), cap, now)
        elif bucket.kind == "budget":
            await move(bucket, Move(process="spool_a", number=1, least=300, most=300), cap, now)
            await charge("spool_a", {bucket.id: [Charge(seq=1, amount=100, from_lien=True)]})
    told = await get(client, "/key")
    assert (told["id"], told["name"], told["org"], told["models"]) == (key.id, "app", "default", ["gpt-*"])
    assert told["expires_at"] == "2026-05-29T12:00:00Z" and "count as free" in told["unpriced"]
    limits = {(each["what"], each["per"]): each for each in told["limits"]}
    assert set(limits) == {("requests", "minute"), ("tokens", "day"), ("parallel", None)}
    minute = limits["requests", "minute"]
    assert (minute["scope"], minute["limit"], minute["used"], minute["reserved"]) == ("key", 60, 5, 2)
    assert minute["remaining"] == 53 and 0 < minute["reset_seconds"] <= 60
    assert limits["parallel", None]["remaining"] == 4 and limits["parallel", None]["reset_seconds"] is None
    budgets = {each["unit"]: each for each in told["budgets"]}
    assert budgets["USD"] == {
        "scope": "key",
        "unit": "USD",
        "period": "day",
        "amount": "5",
        "spent": "0.000001",
        "reserved": "0.000002",
        "remaining": "4.999997",
        "resets_at": "2026-05-20T22:00:00Z",
    }
    points = budgets["points"]
    assert (points["spent"], points["reserved"], points["remaining"], points["resets_at"]) == (
        "100",
        "200",
        "2700",
        None,
    )


async def test_limits_of_the_organisation_are_told_and_those_of_the_gateway_are_not(door: Door) -> None:
    everywhere = Scope(kind="global", id="", rates=Rates(requests_minute=1_000))
    door.house.keyring = KeyRing(
        store=MemoryKeys(),
        pepper=b"pepper",
        admin_key=ADMIN_KEY,
        clock=door.house.clock,
        ids=Ids(2),
        everywhere=everywhere,
    )
    org = await door.house.keyring.create_org(
        "team", OrgTerms(rates=Rates(tokens_hour=9), budgets=(Budget(unit="EUR", period="month", amount=CENT),))
    )
    _, client = await door.key("member", org=org.id)
    told = await get(client, "/key")
    assert told["org"] == org.id
    assert [(each["scope"], each["what"], each["limit"]) for each in told["limits"]] == [("org", "tokens", 9)]
    [budget] = told["budgets"]
    assert (budget["scope"], budget["period"], budget["remaining"]) == ("org", "month", "0.01")
    assert budget["resets_at"] == "2026-05-31T22:00:00Z"


async def test_a_key_without_limits(door: Door) -> None:
    _, client = await door.key("free")
    told = await get(client, "/key")
    assert (told["limits"], told["budgets"], told["models"], told["expires_at"]) == ([], [], [], None)


async def test_strangers_are_told_so(door: Door) -> None:
    for path in ("/key", "/usage"):
        with pytest.raises(openai.AuthenticationError) as told:
            await get(door.client("pgw_nobody.secret"), path)
        assert told.value.code == "invalid_api_key"


def test_the_routes_are_documented(door: Door) -> None:
    paths = door.app.openapi()["paths"]
    assert {each["name"] for each in paths["/v1/usage"]["get"]["parameters"]} == {"from", "to", "by"}
    assert paths["/v1/key"]["get"]["responses"]["401"]
    for path in ("/v1/key", "/v1/usage"):
        assert paths[path]["get"]["security"] == paths["/v1/chat/completions"]["post"]["security"]
    asking = paths["/v1/chat/completions"]["post"]
    assert {"403", "409", "422", "429"} <= asking["responses"].keys()
    assert "Idempotency-Key" in {each["name"] for each in asking["parameters"]}
    for status in ("200", "429"):
        assert "x-ratelimit-remaining-requests" in asking["responses"][status]["headers"]
