"""The routes that explain, through the real application, broker and dispatcher, and memory stores."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import fields, replace

from poe_gateway.api.admin.explain import ChoiceView, DecisionView, TryView
from poe_gateway.auth.keys import KeyTerms, Principal
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.dispatch.sessions import SessionBinding
from poe_gateway.errors import GatewayError
from poe_gateway.explain.history import AttemptFailed, HealthChanged, OperatorActed
from poe_gateway.pool.account import Cause, Health, ModelBlock, Scope, State
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.guard import Incident
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Succeeded
from tests.accounts.support import ADMIN_KEY, START
from tests.admin.support import Desk
from tests.admin.watched import WatchedHouse, watched
from tests.support.explain import NOON, decision

Rooms = tuple[Desk, WatchedHouse]
APP = Principal(key_id="key_app", name="app")
REFUSED = {"tries": [], "status": 503, "error_code": "queue_full", "choices": [Choice(how="queue_full")]}


@pytest.fixture
def rooms() -> Rooms:
    return watched()


async def lease(house: WatchedHouse, **wish: Any) -> Lease:
    made: dict[str, Any] = {
        "offers": frozenset(house.broker.offers()),
        "model": "mock-1",
        "caller": "key_app",
        "evidence": "req_1",
        "deadline": house.clock.monotonic() + 30.0,
    }
    return await house.broker.lease(Want(**{**made, **wish}))


# Records.


async def test_a_request_explains_itself(rooms: Rooms) -> None:
    """A real walk: its record says what happened, in figures and in words."""
    desk, house = rooms
    account = await house.add("one", points=300)
    house.hold(account)
    request = ChatRequest(model="mock-1", messages=(Message("user", (TextPart("hello"),)),))
    stream = await house.dispatcher.chat(APP, request, "req_walk")
    async for _ in stream.events():
        pass
    answer = await desk.call("GET", "/explain/req_walk")
    [told] = answer["data"]
    assert answer["complete"] and told["status"] == 200 and told["key_id"] == "key_app"
    assert told["tries"][0]["account_id"] == account.id and told["tries"][0]["outcome"] == "Succeeded"
    assert f"key_app asked for {told['model']}" in told["text"]
    assert f"Chose {account.id} (balanced" in told["text"]
    assert f"Attempt 1 on {account.id} answered in" in told["text"]
    assert "hello" not in str(answer)
    assert answer["names"] == {account.id: "one"}, "the key is none of this gateway's"


async def test_a_refused_request_explains_itself(rooms: Rooms) -> None:
    desk, house = rooms
    account = await house.add("one")
    resting = Health(state=State.COOLDOWN, cause=Cause.ERRORS, until=START + timedelta(hours=1))
    house.edit(account.id, lambda a: replace(a, health=resting))
    house.hold(account)
    request = ChatRequest(model="mock-1", messages=(Message("user", (TextPart("hello"),)),))
    with pytest.raises(GatewayError):
        await house.dispatcher.chat(APP, request, "req_walk")
    [told] = (await desk.call("GET", "/explain/req_walk"))["data"]
    assert told["error_code"] == "all_cooling" and told["choices"][0]["passed_over"] == {"cooldown": 1}
    assert "Refused: all accounts are resting (all_cooling)." in told["text"]
    assert told["text"].endswith("The caller got 503 all_cooling after 0 ms.")


async def test_records_of_one_id_newest_first_and_none(rooms: Rooms) -> None:
    desk, house = rooms
    for number in (1, 2):
        house.decisions.note(decision(number, request_id="mine:1.a"))
    told = await desk.call("GET", "/explain/mine:1.a")
    assert told["request_id"] == "mine:1.a" and len(told["data"]) == 2
    assert told["data"][0]["at"] > told["data"][1]["at"]
    assert (await desk.call("GET", "/explain/nobody", 404))["error"]["code"] == "decision_not_found"


async def test_the_views_show_every_field(rooms: Rooms) -> None:
    for kind, view in ((Decision, DecisionView), (Choice, ChoiceView), (Try, TryView)):
        assert {each.name for each in fields(kind)} == set(view.model_fields), kind
    desk, house = rooms
    house.decisions.note(decision(1))
    [told] = (await desk.call("GET", "/decisions"))["data"]
    del told["at"]
    assert told == {key: value for key, value in msgspec.to_builtins(decision(1)).items() if key != "at"}


async def test_lists_and_filters(rooms: Rooms) -> None:
    desk, house = rooms
    house.decisions.note(decision(1))
    house.decisions.note(decision(2, model="claude", key_id="key_x"))
    house.decisions.note(decision(3, outcome="RateLimited"))
    house.decisions.note(decision(4, **REFUSED))
    since = (NOON + timedelta(seconds=3)).isoformat()
    for query, expected in [
        ({}, [4, 3, 2, 1]),
        ({"limit": 2}, [4, 3]),
        ({"model": "claude"}, [2]),
        ({"key": "key_x"}, [2]),
        ({"account": "acct_1"}, [3, 2, 1]),
        ({"outcome": "RateLimited"}, [3]),
        ({"code": "queue_full"}, [4]),
        ({"since": since}, [4, 3]),
        ({"since": "2026-05-20T12:00:03"}, [4, 3]),
        ({"since": "2026-05-20T15:00:03+03:00"}, [4, 3]),
    ]:
        answer = await desk.call("GET", "/decisions", params=query)
        assert [each["request_id"] for each in answer["data"]] == [f"req_{number}" for number in expected], query
        assert answer["complete"] and answer["lost"] == 0
    for bad in ("limit=0", "limit=501", "since=yesterday", "since=9999-12-31T23:59:59-12:00"):
        assert (await desk.call("GET", f"/decisions?{bad}", 422))["error"]["param"] == bad.split("=")[0]


async def test_a_database_that_is_away_leaves_what_is_remembered(rooms: Rooms) -> None:
    desk, house = rooms
    house.decisions.note(decision(1))
    house.decision_store.away = house.history_store.away = True
    assert not (await desk.call("GET", "/explain/req_1"))["complete"]
    assert not (await desk.call("GET", "/decisions"))["complete"]
    for path in ("/explain/req_2", "/decisions/export", "/accounts/acct_1/history"):
        error = (await desk.call("GET", path, 503))["error"]
        assert error["code"] == "database_unavailable", path


async def test_export(rooms: Rooms) -> None:
    desk, house = rooms
    start = START - timedelta(hours=1)
    made = [decision(number, at=start + timedelta(seconds=number)) for number in range(450)]
    for each in made:
        house.decisions.note(each)
    house.decisions.note(decision(9999, at=START + timedelta(seconds=1)))
    answer = await desk.client.get("/admin/decisions/export")
    assert answer.headers["content-type"] == "application/x-ndjson" and answer.headers["cache-control"] == "no-store"
    assert [msgspec.json.decode(line, type=Decision) for line in answer.text.splitlines()] == made, "until now"
    some = {"since": made[10].at.isoformat(), "until": made[12].at.isoformat()}
    answer = await desk.client.get("/admin/decisions/export", params=some)
    assert [msgspec.json.decode(line)["request_id"] for line in answer.text.splitlines()] == ["req_10", "req_11"]
    assert (await desk.client.get("/admin/decisions/export?until=2020-01-01")).text == ""


async def test_an_export_that_cannot_go_on_breaks_off(rooms: Rooms) -> None:
    desk, house = rooms
    for number in range(450):
        house.decisions.note(decision(number, at=START - timedelta(hours=1)))
    await house.decisions.flush()
    read = house.decision_store.page

    async def once(*args: Any) -> Any:
        house.decision_store.away = len(args) > 3
        return await read(*args)

    house.decision_store.page = once  # type: ignore[method-assign]
    transport = httpx.ASGITransport(app=desk.app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://g", headers={"X-API-Key": ADMIN_KEY}) as client:
        with pytest.raises(RuntimeError, match="already started"):
            await client.get("/admin/decisions/export")


# The history of accounts.


async def test_history(rooms: Rooms) -> None:
    desk, house = rooms
    account = await house.add("one")
    assert await desk.call("GET", f"/accounts/{account.id}/history") == {
        "account_id": account.id,
        "next_before": None,
        "data": [],
    }
    for number in range(3):
        house.history.note(OperatorActed(account_id=account.id, at=NOON + timedelta(seconds=number), verb="pause"))
    house.history.note(
        HealthChanged(
            account_id=account.id,
            at=NOON + timedelta(seconds=5),
            process="gw_1",
            old_state="active",
            old_cause="healthy",
            state="cooldown",
            cause="rate_limited",
            until=NOON + timedelta(seconds=65),
            evidence="req_1",
        )
    )
    house.history.note(AttemptFailed(account_id="other", at=NOON, outcome="Transient"))
    first = await desk.call("GET", f"/accounts/{account.id}/history?limit=2")
    newest = first["data"][0]
    assert newest["kind"] == "health" and newest["process"] == "gw_1" and len(first["data"]) == 2
    assert newest["text"] == (
        "active (healthy) became cooldown (rate_limited) until 2026-05-20 12:01:05 UTC, by req_1."
    )
    assert newest["facts"] == {
        "old_state": "active",
        "old_cause": "healthy",
        "state": "cooldown",
        "cause": "rate_limited",
        "scope": "account",
        "until": "2026-05-20T12:01:05Z",
        "model": "",
        "evidence": "req_1",
    }
    second = await desk.call("GET", f"/accounts/{account.id}/history", params={"before": first["next_before"]})
    assert [each["at"] for each in second["data"]] == ["2026-05-20T12:00:01Z", "2026-05-20T12:00:00Z"]
    assert second["next_before"] is None
    assert len((await desk.call("GET", "/accounts/other/history"))["data"]) == 1, "gone, but not forgotten"
    error = (await desk.call("GET", "/accounts/nobody/history", 404))["error"]
    assert error["code"] == "account_not_found"


# The pool as it is.


async def test_census(rooms: Rooms) -> None:
    desk, house = rooms
    one, two, three = [await house.add(name, points=300) for name in ("one", "two", "three")]
    await desk.call("POST", "/accounts/upsert", json={"email": "a@b.example", "poe_p_b": "x"})
    resting = Health(state=State.COOLDOWN, cause=Cause.ERRORS, until=START + timedelta(hours=1))
    house.edit(three.id, lambda a: replace(a, health=resting))
    house.hold(one, two)
    await house.grants.join("gw_1", 60.0)
    held = [await lease(house, offers=frozenset({"mock"})) for _ in range(3)]
    pool = await desk.call("GET", "/pool")
    mock, poe = pool["offers"]
    assert mock["offer"] == "mock" and mock["total"] == 3 and mock["in_service"] == 2
    assert mock["by_state"] == {"active": 2, "cooldown": 1} and mock["by_cause"]["errors"] == 1
    assert mock["out_of_service"] == {"cooldown": 1}
    assert (mock["open_here"], mock["held_here"], mock["used_here"]) == (1, 4, 3)
    assert poe["offer"] == "poe_web" and poe["total"] == 1 and poe["open_here"] == 0
    limits = pool["limits"]
    assert (limits["held_here"], limits["used_here"], limits["global_inflight"]) == (4, 3, 200)
    assert limits["strategy"] == "balanced"
    assert pool["processes"]["gw_1"]["state"] == "live" and pool["processes"]["gw_1"]["global"] == 0
    assert pool["queue"] == {
        "waiting": 0,
        "by_caller": {},
        "oldest_wait_seconds": None,
        "expected_wait_seconds": None,
    }
    assert pool["guard"] == {"incidents": [], "held_accounts": {}, "quarantined_bodies": 0}
    for each in held:
        house.broker.settle(each, Succeeded())


async def test_census_of_one_model(rooms: Rooms) -> None:
    desk, house = rooms
    one, _ = await house.add("one"), await house.add("two")
    await desk.call("POST", "/accounts/upsert", json={"email": "a@b.example", "poe_p_b": "x"})
    model = house.catalog.plan("mock-1", {"mock": 2}).model
    block = ModelBlock(model=model, cause=Cause.ERRORS, until=START + timedelta(hours=1))
    house.edit(one.id, lambda a: replace(a, model_blocks=(block,)))
    offers = {each["offer"]: each for each in (await desk.call("GET", "/pool", params={"model": model}))["offers"]}
    assert offers["mock"]["out_of_service"] == {"model_blocked": 1} and offers["mock"]["in_service"] == 1
    whole = {each["offer"]: each for each in (await desk.call("GET", "/pool"))["offers"]}
    assert whole["mock"]["in_service"] == 2
    await desk.call("GET", "/pool?model=nothing-of-the-kind", 404)


async def test_census_shows_who_waits(rooms: Rooms) -> None:
    desk, house = rooms
    one = await house.add("one")
    house.hold(one, slots=1)
    held = await lease(house)
    waiting = [asyncio.create_task(lease(house, caller=caller)) for caller in ("key_a", "key_a", "key_b")]
    await asyncio.sleep(0)
    house.clock.pass_(seconds=4)
    queue = (await desk.call("GET", "/pool"))["queue"]
    assert queue["waiting"] == 3 and queue["by_caller"] == {"key_a": 2, "key_b": 1}
    assert queue["oldest_wait_seconds"] == 4.0
    dry = await desk.call("GET", "/pool/would-choose?model=mock-1")
    assert dry["choice"]["how"] == "queued" and "in line as number" in dry["text"]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    house.broker.settle(held, Succeeded())


async def test_census_without_the_database(rooms: Rooms) -> None:
    desk, house = rooms
    await house.add("one")
    house.hub.away = True
    pool = await desk.call("GET", "/pool")
    assert pool["processes"] is None and pool["offers"][0]["total"] == 1


async def test_census_shows_what_the_guard_holds(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, house = rooms
    now = house.clock.monotonic()
    incident = Incident(
        offer="mock",
        scope=Scope.EGRESS,
        code="upstream_down",
        opened_at=now - 12.0,
        accounts=3,
        bodies=2,
        kinds={"timeout": 3},
    )
    monkeypatch.setattr(house.broker.guard, "incidents", lambda: [incident])
    monkeypatch.setattr(house.broker.guard, "held", lambda: {"acct_1": now + 30.0})
    monkeypatch.setattr(house.broker.guard, "quarantined", lambda: 2)
    guard = (await desk.call("GET", "/pool"))["guard"]
    assert guard["held_accounts"] == {"acct_1": 30.0} and guard["quarantined_bodies"] == 2
    [told] = guard["incidents"]
    assert told["code"] == "upstream_down" and told["scope"] == "egress" and told["open_seconds"] == 12.0


async def test_would_choose_takes_nothing(rooms: Rooms) -> None:
    desk, house = rooms
    one, two = await house.add("one", points=300), await house.add("two", points=300)
    house.edit(two.id, lambda a: replace(a, labels=("gold",)))
    house.hold(one, two)
    key, _ = await house.keyring.create("app", KeyTerms(labels=("gold",)))
    for _ in range(10):
        dry = await desk.call("GET", "/pool/would-choose", params={"model": "mock-1", "key": key.id, "tokens": 9})
        assert dry["choice"]["account_id"] == two.id and dry["key_id"] == key.id
        assert f"It would go to {two.id} (balanced" in dry["text"]
    assert house.broker.whole.used == 0 and len(house.broker.leases) == 0
    free = await desk.call("GET", "/pool/would-choose?model=mock-1")
    assert free["choice"]["account_id"] in (one.id, two.id) and free["key_id"] is None
    house.edit(two.id, lambda a: replace(a, labels=()))
    refused = await desk.call("GET", "/pool/would-choose", params={"model": "mock-1", "key": key.id})
    assert refused["choice"]["account_id"] is None and refused["choice"]["how"] == "no_accounts"
    assert "It would be refused: no account is meant for this key (no_accounts)." in refused["text"]
    assert dry["names"] == {key.id: "app", two.id: "two"} and refused["names"] == {key.id: "app"}
    await desk.call("GET", "/pool/would-choose?model=mock-1&key=key_nobody", 404)
    await desk.call("GET", "/pool/would-choose?model=nothing-of-the-kind", 404)
    assert (await desk.call("GET", "/pool/would-choose", 422))["error"]["param"] == "model"


async def test_forecast(rooms: Rooms) -> None:
    desk, house = rooms
    await house.add("one", points=300)
    outlook = await desk.call("GET", "/pool/forecast?hours=3")
    assert outlook["hours"] == 3 and datetime.fromisoformat(outlook["at"]) == START
    [offer] = outlook["offers"]
    assert offer["offer"] == "mock" and len(offer["hours"]) == 3
    await desk.call("GET", "/pool/forecast?hours=0", 422)
    house.hub.away = True
    await desk.call("GET", "/pool/forecast", 503)


# Sessions.


def bound(name: str, account_id: str) -> SessionBinding:
    return SessionBinding(
        id=name, account_id=account_id, offer="mock", model="m", state=None, chain=(), updated_at=NOON
    )


async def test_flushing_sessions(rooms: Rooms) -> None:
    desk, house = rooms
    account = await house.add("one")
    for name, owner in (("s1", account.id), ("s2", account.id), ("s3", "acct_gone")):
        await house.session_store.put(bound(name, owner))
    assert await desk.call("POST", f"/accounts/{account.id}/flush-affinity") == {"dropped": 2}
    assert set(house.session_store.table) == {"s3"}
    await desk.call("POST", "/accounts/nobody/flush-affinity", 404)
    assert await desk.call("POST", "/sessions/flush", json={"account_id": "acct_gone"}) == {"dropped": 1}
    await house.session_store.put(bound("s4", "acct_x"))
    assert await desk.call("POST", "/sessions/flush", json={"all": True}) == {"dropped": 1}
    for bad in ({}, {"all": True, "account_id": "a"}, {"all": False}):
        assert (await desk.call("POST", "/sessions/flush", 400, json=bad))["error"]["param"] == "account_id"
    await desk.call("POST", "/sessions/flush", 422, json={"everything": True})


def test_the_description_names_every_answer(rooms: Rooms) -> None:
    paths = rooms[0].app.openapi()["paths"]
    for path in (
        *("/admin/explain/{request_id}", "/admin/decisions", "/admin/accounts/{account_id}/history", "/admin/pool"),
        *("/admin/pool/would-choose", "/admin/pool/forecast"),
    ):
        assert paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"], path
        assert paths[path]["get"]["description"]
    lines = paths["/admin/decisions/export"]["get"]["responses"]["200"]["content"]
    assert set(lines) == {"application/x-ndjson"} and lines["application/x-ndjson"]["schema"]["properties"]["tries"]
