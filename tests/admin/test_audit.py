"""Every change of an operator leaves a record; the auditor's routes over real stores."""

from __future__ import annotations

import dis
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from poe_gateway.api.admin import audit as audit_routes
from poe_gateway.api.admin import router
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.rows import Change
from poe_gateway.metering.traffic import TrafficShape
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage import schema
from poe_gateway.storage.audit import MongoAudit
from poe_gateway.storage.client import connect
from poe_gateway.storage.traffic import MongoTraffic
from tests.accounts.support import START
from tests.admin.support import CANARY, Desk
from tests.admin.watched import WatchedHouse

CHANGES_NOTHING: dict[str, str] = {"POST /admin/prices/test": "a question; nothing is stored"}
"""Routes with another method than GET that need no record, by ``METHOD path``, and why."""


class AuditedHouse(WatchedHouse):
    """Keeps what was noted in ``noted``; with stores, the auditor's rooms too."""

    audit: MongoAudit
    traffic: MongoTraffic

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.noted: list[Change] = []
        self.broker._changed = lambda old, new: None
        self.changes = Changes(self.noted.append, self.clock)  # type: ignore[assignment]


def all_routes(router: Any) -> Iterator[APIRoute]:
    """The routes of a router and of those that it includes."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from all_routes(included)


def audited_desk() -> tuple[Desk, AuditedHouse]:
    desk = Desk()
    house = AuditedHouse(upstreams={"poe_web": desk.poe})
    desk.house = house
    desk.app.state.gateway = house
    if not any(route.path == "/admin/audit" for route in all_routes(desk.app)):
        desk.app.include_router(audit_routes.router())
    return desk, house


@pytest.fixture
def rooms() -> tuple[Desk, AuditedHouse]:
    return audited_desk()


# No change without a record.


def changing_routes() -> Iterator[tuple[str, APIRoute]]:
    for route in all_routes(router()):
        for method in sorted((route.methods or set()) - {"GET", "HEAD", "OPTIONS"}):
            yield f"{method} {route.path}", route


def tells(function: Callable[..., Any], seen: set[str]) -> bool:
    """Whether the function calls ``audited``, itself or through functions of its own module."""
    code, module = function.__code__, inspect.getmodule(function)
    called = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    if "audited" in called:
        return True
    for name in called - seen:
        other = getattr(module, name, None)
        if inspect.isfunction(other) and other.__module__ == function.__module__:
            seen.add(name)
            if tells(other, seen):
                return True
    return False


def test_every_route_that_changes_something_tells_the_chain() -> None:
    routes = dict(changing_routes())
    assert len(routes) >= 14 and set(CHANGES_NOTHING) <= set(routes)
    silent = [name for name, route in routes.items() if not tells(route.endpoint, set())]
    assert sorted(silent) == sorted(CHANGES_NOTHING)


async def test_the_life_of_an_account_is_recorded(rooms: tuple[Desk, AuditedHouse]) -> None:
    desk, house = rooms
    desk.client.headers.encoding = "latin-1"
    desk.client.headers["X-Actor"] = "aliçe\x07"
    body = {"email": "A@example.com", "poe_p_b": CANARY, "formkey": f"{CANARY}-f", "priority": 3}
    account = await desk.call("POST", "/accounts/upsert", json=body)
    place = f"/accounts/{account['id']}"
    await desk.call("POST", "/accounts/upsert", json={**body, "priority": 4})
    await desk.call("PATCH", place, json={"labels": ["eu"], "weight": 2})
    await desk.call("POST", f"{place}/pause")
    await desk.call("POST", f"{place}/resume")
    await desk.call("POST", f"{place}/resume")
    await desk.call("POST", f"{place}/clear-cooldown")
    await desk.call("POST", f"{place}/test")
    await desk.call("POST", "/accounts/refresh-points", json={"id": account["id"]})
    await desk.call("POST", f"{place}/flush-affinity")
    await desk.call("DELETE", place)
    told = [(each.action, each.before, each.after) for each in house.noted]
    assert told[0][0] == "account.upsert" and told[0][1] is None
    assert told[0][2] is not None and told[0][2]["handed_in"] == ["formkey", "poe_p_b"]
    assert told[0][2]["name"] == "a@example.com" and told[0][2]["priority"] == 3
    assert told[1:9] == [
        ("account.upsert", {"priority": 3}, {"priority": 4, "handed_in": ["formkey", "poe_p_b"]}),
        ("account.change", {"weight": 1, "labels": []}, {"weight": 2, "labels": ["eu"]}),
        ("account.pause", {"intent": "enabled"}, {"intent": "paused"}),
        ("account.resume", {"intent": "paused"}, {"intent": "enabled"}),
        ("account.resume", {}, {}),
        ("account.clear_cooldown", {"cause": "new"}, {"cause": "operator"}),
        ("account.test", None, {"force": False, "ok": True}),
        ("account.refresh", None, {"points": 1234}),
    ]
    assert [each[0] for each in told[9:]] == ["sessions.flush", "account.delete"]
    assert told[-1][1] is not None and told[-1][1]["labels"] == ["eu"] and told[-1][2] is None
    assert {each.target for each in house.noted} == {f"account:{account['id']}"}
    assert {(each.actor, each.address, each.at) for each in house.noted} == {("admin:aliçe", "127.0.0.1", START)}
    assert CANARY not in repr(house.noted)


async def test_changes_of_many_and_of_all(rooms: tuple[Desk, AuditedHouse]) -> None:
    desk, house = rooms
    one, two = await house.add("one"), await house.add("two")
    await desk.call("POST", "/accounts/patch", json={"filter": {}, "set": {"weight": 2}, "dry_run": True})
    assert house.noted == []
    await desk.call("POST", "/accounts/patch", json={"filter": {"provider": "mock"}, "set": {"weight": 2}})
    [change] = house.noted
    assert (change.actor, change.action, change.target, change.before) == (
        "admin",
        "account.change_many",
        "accounts",
        None,
    )
    assert change.after is not None and change.after["set"] == {"weight": 2} and change.after["changed"] == 2
    assert sorted(change.after["ids"]) == sorted((one.id, two.id)) and change.after["filter"]["provider"] == "mock"
    await desk.call("POST", "/accounts/refresh-all")
    await desk.call("POST", "/models/reload")
    await desk.call("POST", "/sessions/flush", json={"all": True})
    assert [each.action for each in house.noted[1:]] == ["account.refresh_all", "models.reload", "sessions.flush"]
    assert [each.target for each in house.noted[1:]] == ["accounts", "models", "sessions"]


async def test_what_may_be_half_done_is_recorded_and_what_was_refused_is_not(
    rooms: tuple[Desk, AuditedHouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, house = rooms
    await desk.call("POST", "/accounts/acct_nobody/pause", status=404)
    await desk.call("DELETE", "/accounts/acct_nobody", status=404)
    await desk.call("POST", "/accounts/upsert", status=400, json={"email": "a@b", "poe_p_b": " "})
    assert house.noted == []

    async def fails(*args: Any, **kwargs: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(house.desk, "set_terms_of", fails)
    await desk.call("POST", "/accounts/patch", status=503, json={"filter": {}, "set": {"weight": 2}})
    [change] = house.noted
    assert change.after is not None and change.after["finished"] is False
    await desk.call("POST", "/accounts/patch", status=503, json={"filter": {}, "set": {"weight": 2}, "dry_run": True})
    assert len(house.noted) == 1


# The auditor's routes.


@pytest.fixture
async def stored(
    rooms: tuple[Desk, AuditedHouse], mongo_uri: str, db_name: str
) -> AsyncIterator[tuple[Desk, AuditedHouse]]:
    """With real stores, into which ``ship`` brings what was noted."""
    desk, house = rooms
    async with connect(mongo_uri) as client:
        db = client[db_name]
        await schema.create(
            db,
            names=(schema.AUDIT, schema.TRAFFIC, schema.META),
            indexes=tuple(each for each in schema.INDEXES if each.collection in (schema.AUDIT, schema.TRAFFIC)),
            capped={},
        )
        house.audit = MongoAudit(db, b"pepper", house.clock)
        house.traffic = MongoTraffic(db, 30, house.vault)
        yield desk, house


async def ship(house: AuditedHouse) -> None:
    await house.audit.put("spool_a", list(enumerate(house.noted, 1)))


async def test_changes_are_listed_shown_and_verified(stored: tuple[Desk, AuditedHouse]) -> None:
    desk, house = stored
    for number in range(5):
        account = await desk.call("POST", "/accounts/upsert", json={"email": f"a{number}@b", "poe_p_b": CANARY})
        house.clock.pass_(minutes=1)
    await desk.call("POST", f"/accounts/{account['id']}/pause")
    await ship(house)
    listed = await desk.call("GET", "/audit?limit=2")
    assert [each["n"] for each in listed["data"]] == [6, 5] and listed["next_before"] == 5
    older = await desk.call("GET", "/audit?limit=10&before=5")
    assert [each["n"] for each in older["data"]] == [4, 3, 2, 1] and older["next_before"] is None
    for query, numbers in [
        (f"target=account:{account['id']}", [6, 5]),
        ("action=account.pause", [6]),
        ("actor=admin", [6, 5, 4, 3, 2, 1]),
        ("actor=settings", []),
        ("from=2026-05-20T12:03:00Z", [6, 5, 4]),
        ("to=2026-05-20T12:01:00", [1]),
    ]:
        assert [each["n"] for each in (await desk.call("GET", f"/audit?{query}"))["data"]] == numbers, query
    assert await desk.call("GET", "/audit/6") == listed["data"][0]
    assert (await desk.call("GET", "/audit/7", status=404))["error"]["code"] == "audit_entry_not_found"
    report = await desk.call("GET", "/audit/verify")
    assert report["ok"] and report["checked"] == 6 and report["hash"] == listed["data"][0]["hash"]
    noted = await desk.call("GET", f"/audit/verify?n=6&hash={report['hash']}")
    assert noted["ok"]
    other = await desk.call("GET", f"/audit/verify?n=6&hash={'0' * 64}")
    assert (other["bad"], other["wrong"]) == (6, "changed")
    await desk.call("GET", "/audit/verify?n=6", status=400)
    await desk.call("GET", "/audit/verify?n=6&hash=x", status=422)
    assert house.noted[6:] == []  # looking is no change


async def test_requests_are_listed_and_text_is_opened_only_on_the_record(stored: tuple[Desk, AuditedHouse]) -> None:
    desk, house = stored
    shape = TrafficShape(b"pepper")
    said = "said in confidence"

    def record(number: int, **more: Any) -> tuple[int, Any]:
        told = shape.record(
            request_id=f"req_{number}",
            at=house.clock.now(),
            org="default",
            key_id="key_1",
            route="/v1/x",
            model="m",
            status=200,
            turns=[("system", "be brief", 0), ("user", said, 2)],
            answer="ok",
            finish="stop",
            **more,
        )
        house.clock.pass_(seconds=1)
        return number, told

    await house.traffic.put("spool_a", [record(1), record(2), record(3, seal=house.traffic.seal)])
    listed = await desk.call("GET", "/traffic?limit=2")
    assert [each["request_id"] for each in listed["data"]] == ["req_3", "req_2"]
    rest = await desk.call("GET", "/traffic", params={"limit": 2, "after": listed["next_after"]})
    assert [each["request_id"] for each in rest["data"]] == ["req_1"] and rest["next_after"] is None
    assert [each["kept"] for each in listed["data"]] == [True, False]
    [shown] = rest["data"]
    assert [(each["role"], each["length"], each["images"]) for each in shown["messages"]] == [
        ("system", 8, 0),
        ("user", len(said), 2),
    ]
    assert shown["answer"] == {"length": 2, "finish": "stop", "digest": shape.digest("ok")}
    for query in ("key=key_2", "org=other", "request=req_9", "to=2026-05-20T12:00:00Z"):
        assert (await desk.call("GET", f"/traffic?{query}"))["data"] == []
    await desk.call("GET", "/traffic?after=x", status=400)
    await desk.call("GET", "/traffic/req_9", status=404)
    shut = await desk.call("GET", "/traffic/req_3")
    assert shut["data"][0]["text"] is None and said not in str(shut) and house.noted == []
    opened = await desk.call("GET", "/traffic/req_3?text=true")
    assert opened["data"][0]["text"]["messages"][1] == {"role": "user", "text": said, "images": 2}
    [change] = house.noted
    assert (change.action, change.target, change.after) == ("traffic.read", "request:req_3", {"orgs": ["default"]})
    assert (await desk.call("GET", "/traffic/req_1?text=true"))["data"][0]["text"] is None
    assert len(house.noted) == 2


async def test_no_text_is_shown_when_the_reading_cannot_be_recorded(stored: tuple[Desk, AuditedHouse]) -> None:
    desk, house = stored
    told = TrafficShape(b"pepper").record(
        request_id="req_1",
        at=START,
        org="default",
        key_id="key_1",
        route="/v1/x",
        model="m",
        status=200,
        turns=[("user", CANARY, 0)],
        seal=house.traffic.seal,
    )
    await house.traffic.put("spool_a", [(1, told)])

    def full(change: Change) -> None:
        raise StoreUnavailable("the disk is full")

    house.changes = Changes(full, house.clock)  # type: ignore[assignment]
    await desk.call("GET", "/traffic/req_1?text=true", status=503)
