"""The operator's routes, through the real application and memory rooms."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from poe_gateway.api.asgi import route_of
from poe_gateway.pool.account import Cause, Health, State
from tests.accounts.support import ADMIN_KEY
from tests.admin.support import CANARY, Desk

SEED = {
    "email": "User@Example.com",
    "poe_p_b": f"{CANARY}-pb",
    "poe_cf_clearance": f"{CANARY}-clearance",
    "p_lat": f"{CANARY}-lat",
    "poe_cf_bm": f"{CANARY}-bm",
    "user_agent": "Mozilla/5.0 (X11)",
}
SEED_FIELDS = {
    *("id", "email", "status", "message_point_balance", "subscription_active", "health_score", "last_refresh_at"),
    *("last_success_at", "last_error", "error_count", "cooldown_until", "updated_at", "created_at"),
}


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def refusal(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return error


async def test_only_the_admin_key_opens(desk: Desk) -> None:
    _, service = await desk.house.keyring.create("app")
    for headers, status in [
        ({}, 401),
        ({"Authorization": f"Bearer {service}"}, 401),
        ({"Authorization": f"Basic {ADMIN_KEY}"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {ADMIN_KEY}x"}, 401),
        ({"X-API-Key": service, "Authorization": f"Bearer {ADMIN_KEY}"}, 401),
        ({"Authorization": f"bEARER {ADMIN_KEY}"}, 200),
        ({"X-API-Key": ADMIN_KEY}, 200),
    ]:
        async with desk.client_with(headers) as client:
            answer = await client.get("/admin/accounts")
        assert answer.status_code == status, headers
        if status == 401:
            assert (await refusal(answer))["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert ADMIN_KEY not in answer.text


async def test_every_route_is_behind_the_key(desk: Desk) -> None:
    paths = {path: routes for path, routes in desk.app.openapi()["paths"].items() if path.startswith("/admin")}
    assert len(paths) >= 14
    async with desk.client_with({}) as client:
        for path, routes in paths.items():
            for method, route in routes.items():
                answer = await client.request(method, path.replace("{account_id}", "x").replace("{key_id}", "x"))
                assert answer.status_code == 401, (method, path)
                assert route["security"], path


async def test_upsert_as_in_the_seed(desk: Desk) -> None:
    first = await desk.call("POST", "/accounts/upsert", json=SEED)
    assert set(first) >= {*SEED_FIELDS, "provider", "intent", "health", "balance", "inflight"}
    assert first["email"] == "user@example.com" and first["provider"] == "poe_web" and first["created"]
    assert first["status"] == "active" and first["health"]["cause"] == "new"
    again = await desk.call("POST", "/accounts/upsert", json={"email": "user@example.COM ", "poe_p_b": CANARY})
    assert again["id"] == first["id"] and not again["created"]
    listed = await desk.call("GET", "/accounts?page=1&page_size=20")
    assert listed["total"] == 1 and listed["data"][0]["id"] == first["id"]
    stored = desk.house.hub.accounts[first["id"]]
    sealed = desk.house.book.sealed[stored.id, stored.credential_rev]
    assert desk.house.vault.open(sealed) == {"poe_p_b": CANARY} and CANARY.encode() not in sealed


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"email": "a@b"}, 422, "poe_p_b"),
        ({"poe_p_b": CANARY}, 422, "email"),
        ({"email": "nobody", "poe_p_b": CANARY}, 422, "email"),
        ({"email": "a b@c", "poe_p_b": CANARY}, 422, "email"),
        ({"email": "a@b", "poe_p_b": {"deep": CANARY}}, 422, "poe_p_b"),
        ({"email": "a@b", "poe_p_b": CANARY, "poe_clearance": CANARY}, 422, "poe_clearance"),
        ({"email": "a@b", "poe_p_b": "  "}, 400, "poe_p_b"),
        ({"email": "a@b", "poe_p_b": f"{CANARY}\r\nx: y"}, 400, "poe_p_b"),
        ({"provider": "nobody", "name": "a", "credentials": {"key": CANARY}}, 400, "provider"),
        ({"provider": "mock", "name": "", "credentials": {}}, 400, "name"),
        ({"provider": "mock", "name": "a", "credentials": {"key": CANARY}}, 400, "key"),
        ({"provider": "mock", "name": "a", "credentials": {}, "max_inflight": 0}, 422, "max_inflight"),
        ({"provider": "mock", "name": "a"}, 422, "credentials"),
        ([CANARY], 422, None),
    ],
)
async def test_bad_forms_are_told_by_field(desk: Desk, body: Any, status: int, param: str | None) -> None:
    answer = await desk.call("POST", "/accounts/upsert", status, json=body)
    if param is not None:
        assert answer["error"]["param"] == param
    assert not desk.house.hub.accounts


async def test_broken_json_is_400_in_json(desk: Desk) -> None:
    await desk.call(
        "POST", "/accounts/upsert", 400, content=b"{" + CANARY.encode(), headers={"content-type": "application/json"}
    )


async def test_the_general_form_serves_every_provider(desk: Desk) -> None:
    body = {"provider": "mock", "name": "Robot", "credentials": {"points": 10}, "max_inflight": 4}
    account = await desk.call("POST", "/accounts/upsert", json=body)
    assert account["provider"] == "mock" and account["name"] == "Robot" and account["max_inflight"] == 4
    del body["max_inflight"]
    assert (await desk.call("POST", "/accounts/upsert", json=body))["max_inflight"] == 4
    body["max_inflight"] = None
    assert (await desk.call("POST", "/accounts/upsert", json=body))["max_inflight"] is None


async def test_pages_and_filters(desk: Desk) -> None:
    for n in range(25):
        account = await desk.house.add(f"a{n:02}@example.com", points=n)
        desk.house.edit(account.id, lambda a, n=n: replace(a, balance=replace(a.balance, points=100 * n)))
        desk.house.clock.pass_(seconds=1)
    second = await desk.call("GET", "/accounts?page=2&page_size=20")
    assert second["total"] == 25 and len(second["data"]) == 5 and second["page_size"] == 20
    rich = await desk.call("GET", "/accounts?min_balance=2300&max_balance=2400")
    assert [account["name"][:3] for account in rich["data"]] == ["a23", "a24"]
    assert (await desk.call("GET", "/accounts?q=A07"))["total"] == 1
    assert (await desk.call("GET", "/accounts?provider=poe_web"))["total"] == 0
    assert (await desk.call("GET", "/accounts?status=invalid&status=paused"))["total"] == 0
    for bad in ("page_size=201", "page_size=0", "page=0", "status=asleep", "min_balance=x"):
        error = (await desk.call("GET", f"/accounts?{bad}", 422))["error"]
        assert error["param"].startswith(bad.split("=")[0])


async def test_verbs_on_one_account(desk: Desk) -> None:
    account = await desk.house.add("one", points=300)
    path = f"/accounts/{account.id}"
    assert (await desk.call("POST", f"{path}/pause"))["intent"] == "paused"
    assert (await desk.call("GET", "/accounts?status=paused"))["total"] == 1
    assert (await desk.call("POST", f"{path}/resume"))["intent"] == "enabled"
    challenged = Health(state=State.INVALID, cause=Cause.CHALLENGED)
    desk.house.edit(account.id, lambda a: replace(a, health=challenged))
    assert (await desk.call("GET", path))["status"] == "invalid"
    refused = await desk.call("POST", f"{path}/test", 409)
    assert refused["error"]["code"] == "account_challenged"
    await desk.call("POST", "/accounts/refresh-points", 409, json={"id": account.id})
    assert desk.house.calls(account.id, "probe") == desk.house.calls(account.id, "balance") == 0
    forced = await desk.call("POST", f"{path}/test", json={"force": True})
    assert forced["ok"] and forced["account"]["status"] == "invalid"
    assert (await desk.call("POST", f"{path}/clear-cooldown"))["status"] == "active"
    tested = await desk.call("POST", f"{path}/test")
    assert tested["ok"] and tested["account"]["message_point_balance"] == 300
    assert await desk.call("DELETE", path) == {"id": account.id, "deleted": True}
    for method, tail in [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/test")]:
        error = (await desk.call(method, path + tail, 404))["error"]
        assert error["code"] == "account_not_found"


async def test_refresh_points(desk: Desk) -> None:
    account = await desk.call("POST", "/accounts/upsert", json=SEED)
    for body in ({"email": "USER@example.com"}, {"id": account["id"]}):
        refreshed = await desk.call("POST", "/accounts/refresh-points", json=body)
        assert refreshed["message_point_balance"] == 1234 and not refreshed["balance"]["estimated"]
        assert refreshed["health_score"] == 100
    await desk.call("POST", "/accounts/refresh-points", 400, json={})
    await desk.call("POST", "/accounts/refresh-points", 404, json={"email": "no@body"})
    bad = await desk.house.add("bad", faults=[{"kind": "transient", "on": "balance"}])
    error = await desk.call("POST", "/accounts/refresh-points", 502, json={"id": bad.id})
    assert error["error"]["type"] == "provider_error"


async def test_refresh_all(desk: Desk) -> None:
    good = await desk.house.add("good", points=40)
    bad = await desk.house.add("bad", faults=[{"kind": "transient", "on": "balance"}])
    answer = await desk.call("POST", "/accounts/refresh-all", json={"statuses": ["active"], "concurrency": 50})
    assert answer == {"total": 2, "refreshed": 1, "skipped": 0, "failed": 1, "failures": {bad.id: "upstream_transient"}}
    assert (await desk.call("GET", f"/accounts/{good.id}"))["message_point_balance"] == 40
    await desk.call("POST", "/accounts/refresh-all", 422, json={"concurrency": 51})
    assert (await desk.call("POST", "/accounts/refresh-all"))["total"] == 2


async def test_summary_providers_and_models(desk: Desk) -> None:
    await desk.house.add("one", points=40)
    summary = await desk.call("GET", "/accounts/summary")
    assert summary["total"] == summary["ready"] == 1 and summary["inflight"] == 0
    providers = (await desk.call("GET", "/providers"))["data"]
    assert [provider["provider"] for provider in providers] == ["mock", "poe_web"]
    required = [field["name"] for field in providers[1]["credentials"] if field["required"]]
    assert required == ["poe_p_b"] and providers[0]["capabilities"]["balance"]
    assert (await desk.call("POST", "/models/reload"))["models"] == {"mock": 4}


async def test_keys_are_shown_once(desk: Desk) -> None:
    answer = await desk.client.post("/admin/keys", json={"name": " app "})
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    key = answer.json()
    assert key["name"] == "app" and desk.house.keyring.known(key["key"]) is not None
    listed = await desk.client.get("/admin/keys")
    assert key["key"] not in listed.text and listed.json()["data"][0]["enabled"]
    revoked = await desk.call("POST", f"/keys/{key['id']}/revoke")
    assert not revoked["enabled"] and revoked["revoked_at"]
    assert desk.house.keyring.known(key["key"]) is None
    await desk.call("POST", "/keys/key_nobody/revoke", 404)
    await desk.call("POST", "/keys", 422, json={"name": "  "})


async def test_a_database_that_is_away_is_503(desk: Desk) -> None:
    desk.house.hub.away = True
    error = (await desk.call("GET", "/accounts", 503))["error"]
    assert error["code"] == "database_unavailable"
    assert (await desk.call("POST", "/accounts/upsert", 503, json=SEED))["error"]["type"] == "overloaded_error"


async def test_routes_are_labelled_by_their_whole_template(desk: Desk) -> None:
    seen: list[str] = []

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        await desk.app(scope, receive, send)
        seen.append(route_of(scope))

    transport = httpx.ASGITransport(app=looking)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for path in ("/admin/accounts", "/admin/accounts/x/test", "/admin/keys", "/admin/models/reload"):
            await client.request("GET" if "s/" not in path else "POST", path, headers={"X-API-Key": ADMIN_KEY})
    assert seen == ["/admin/accounts", "/admin/accounts/{account_id}/test", "/admin/keys", "/admin/models/reload"]


async def test_every_route_is_documented(desk: Desk) -> None:
    paths = desk.app.openapi()["paths"]
    for path, routes in paths.items():
        if path.startswith("/admin"):
            for route in routes.values():
                assert route["description"] and "401" in route["responses"]
                [success] = [answer for code, answer in route["responses"].items() if code.startswith("2")]
                assert success["content"]["application/json"]["schema"], path
