"""The operator's routes, through the real application and memory rooms."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from poe_gateway.api.admin.views import reset_clock_view
from poe_gateway.api.asgi import route_of
from poe_gateway.pool.account import Balance, Cause, Health, ResetClock, State
from poe_gateway.pool.policy import DailyReset
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


async def test_bodies_that_cannot_be_read_are_told_in_plain_words(desk: Desk) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 5000):
        headers = {"content-type": "application/json"}
        error = await refusal(await desk.client.patch("/admin/accounts/acct_1", content=body, headers=headers))
        assert (error["code"], error["message"]) == ("invalid_json", "The body is not valid JSON.")
    answer = await desk.client.patch("/admin/accounts/acct_1", json={"labels": "eu"})
    assert (await refusal(answer))["message"] == "labels: Input should be a valid list."
    answer = await desk.client.patch("/admin/accounts/acct_1", json={"labels": [f"l{each}" for each in range(17)]})
    assert (await refusal(answer))["message"].startswith("labels: List should have at most 16 items")


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
        ({"provider": "mock", "name": "a", "credentials": {}, "priority": 1001}, 422, "priority"),
        ({"email": "a@b", "poe_p_b": CANARY, "labels": ["a b"]}, 422, "labels.0"),
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


TERMS = {"priority": 5, "weight": 3, "labels": ["Paid", "eu", "EU"], "keep_percent": 20, "max_inflight": 4}
SHOWN = {"priority": 5, "weight": 3, "labels": ["eu", "paid"], "keep_percent": 20, "max_inflight": 4}
DEFAULTS = {"priority": 0, "weight": 1, "labels": [], "keep_percent": 0, "max_inflight": None}


def terms_of(account: dict[str, Any]) -> dict[str, Any]:
    return {name: account[name] for name in DEFAULTS}


@pytest.mark.parametrize("form", [SEED, {"provider": "mock", "name": "Robot", "credentials": {}}])
async def test_both_forms_take_terms_and_keep_those_that_they_do_not_name(desk: Desk, form: dict[str, Any]) -> None:
    assert terms_of(await desk.call("POST", "/accounts/upsert", json=form)) == DEFAULTS
    assert terms_of(await desk.call("POST", "/accounts/upsert", json={**form, **TERMS})) == SHOWN
    assert terms_of(await desk.call("POST", "/accounts/upsert", json=form)) == SHOWN
    part = await desk.call("POST", "/accounts/upsert", json={**form, "weight": None, "labels": []})
    assert terms_of(part) == {**SHOWN, "weight": 1, "labels": []}
    [sealed] = [desk.house.vault.open(sealed) for sealed in desk.house.book.sealed.values()][-1:]
    assert not sealed.keys() & DEFAULTS.keys(), "terms are no credentials"


async def test_a_patch_changes_what_it_names_and_nothing_else(desk: Desk) -> None:
    before = await desk.call("POST", "/accounts/upsert", json=SEED)
    path = f"/accounts/{before['id']}"
    sealed = dict(desk.house.book.sealed)
    desk.house.clock.pass_(seconds=5)
    after = await desk.call("PATCH", path, json=TERMS)
    expected = {**before, **SHOWN, "updated_at": after["updated_at"]}
    del expected["created"]
    assert after == expected and after["updated_at"] > before["updated_at"]
    assert await desk.call("PATCH", path, json=TERMS) == after == await desk.call("GET", path)
    assert await desk.call("PATCH", path, json={}) == after
    assert terms_of(await desk.call("PATCH", path, json={"priority": -1000})) == {**SHOWN, "priority": -1000}
    assert terms_of(await desk.call("PATCH", path, json=dict.fromkeys(DEFAULTS))) == DEFAULTS
    assert desk.house.book.sealed == sealed and desk.house.resized == 2
    for body, param in (
        ({"priority": 1001}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"weight": 0}, "weight"),
        ({"weight": True}, "weight"),
        ({"keep_percent": 101}, "keep_percent"),
        ({"max_inflight": 0}, "max_inflight"),
        ({"labels": "eu"}, "labels"),
        ({"labels": [f"l{n}" for n in range(17)]}, "labels"),
        ({"labels": ["-x"]}, "labels.0"),
        ({"poe_p_b": CANARY}, "poe_p_b"),
        ({"intent": "paused"}, "intent"),
    ):
        assert (await desk.call("PATCH", path, 422, json=body))["error"]["param"] == param
    assert terms_of(await desk.call("GET", path)) == DEFAULTS
    assert (await desk.call("PATCH", "/accounts/acct_nobody", 404, json=TERMS))["error"]["code"] == "account_not_found"


async def test_many_accounts_are_patched_by_filter(desk: Desk) -> None:
    ids = [(await desk.house.add(f"a{n}")).id for n in range(5)]
    for account_id in ids[:3]:
        await desk.call("PATCH", f"/accounts/{account_id}", json={"labels": ["eu"]})
    body = {"filter": {"labels": ["EU"], "status": ["active"]}, "set": {"keep_percent": 30}}
    rehearsed = await desk.call("POST", "/accounts/patch", json={**body, "dry_run": True})
    assert (rehearsed["dry_run"], rehearsed["matched"], rehearsed["changed"]) == (True, 3, 3)
    assert sorted(rehearsed["ids"]) == sorted(ids[:3])
    assert {desk.house.now(account_id).keep_percent for account_id in ids} == {0}
    done = await desk.call("POST", "/accounts/patch", json=body)
    assert done == {**rehearsed, "dry_run": False}
    assert [desk.house.now(account_id).keep_percent for account_id in ids] == [30, 30, 30, 0, 0]
    again = await desk.call("POST", "/accounts/patch", json=body)
    assert (again["matched"], again["changed"], again["ids"]) == (3, 0, [])
    everybody = await desk.call("POST", "/accounts/patch", json={"filter": {}, "set": {"labels": None}})
    assert (everybody["matched"], everybody["changed"]) == (5, 3)
    for bad in (
        {"set": {"weight": 2}},
        {"filter": {}},
        {"filter": {"label": ["eu"]}, "set": {"weight": 2}},
        {"filter": {"status": ["asleep"]}, "set": {"weight": 2}},
        {"filter": {}, "set": {"weight": 0}},
        {"filter": {}, "set": {"intent": "paused"}},
        {"filter": {}, "set": {"weight": 2}, "dry_run": "no"},
    ):
        await desk.call("POST", "/accounts/patch", 422, json=bad)


async def test_the_view_tells_strikes_trial_and_points_on_the_books(desk: Desk) -> None:
    account = await desk.house.add("one")
    desk.house.edit(
        account.id,
        lambda a: replace(
            a,
            strikes=2,
            health=Health(state=State.ACTIVE, cause=Cause.RENEWED, trial=True),
            balance=Balance(points=100, booked=40, drift=7),
            reset_clock=ResetClock(low=45, high=600, seen=3, last_jump_at=desk.house.clock.now()),
        ),
    )
    shown = await desk.call("GET", f"/accounts/{account.id}")
    assert shown["strikes"] == 2 and shown["health"]["trial"]
    assert (shown["balance"]["booked"], shown["balance"]["drift"]) == (40, 7)
    clock = shown["reset_clock"]
    assert clock["words"] == "renewed between 00:00 and 00:10 (America/Los_Angeles); seen 3 times, last on 2026-05-20"
    assert (clock["low_seconds"], clock["high_seconds"], clock["seen"]) == (45, 600, 3)
    other = await desk.house.add("two")
    assert (await desk.call("GET", f"/accounts/{other.id}"))["reset_clock"] is None


@pytest.mark.parametrize(
    ("low", "high", "hour", "words"),
    [
        (0, 1, 0, "between 00:00 and 00:01"),
        (59.5, 60, 5, "between 05:00 and 05:01"),
        (3600, 7201, 23, "between 00:00 and 01:01"),
        (86_000, 86_400, 0, "between 23:53 and 00:00"),
    ],
)
async def test_the_window_of_a_reset_clock_in_words(desk: Desk, low: float, high: float, hour: int, words: str) -> None:
    clock = ResetClock(low=low, high=high, last_jump_at=desk.house.clock.now())
    view = reset_clock_view(clock, DailyReset(zone="UTC", hour=hour))
    assert view.words == f"renewed {words} (UTC); seen once, last on 2026-05-20"


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
    labelled = [account["id"] for account in rich["data"]]
    for account_id in labelled:
        await desk.call("PATCH", f"/accounts/{account_id}", json={"labels": ["eu", "paid"]})
    await desk.call("PATCH", f"/accounts/{labelled[0]}", json={"labels": ["eu"], "priority": 5})
    for filters, found in (
        ("label=EU", labelled),
        ("label=eu&label=paid", labelled[1:]),
        ("label=nothing", []),
        ("priority=5", labelled[:1]),
        ("priority=5&label=paid", []),
    ):
        answer = await desk.call("GET", f"/accounts?{filters}")
        assert [account["id"] for account in answer["data"]] == found and answer["total"] == len(found)
    assert (await desk.call("GET", "/accounts?priority=0"))["total"] == 24
    for bad in (
        "page_size=201",
        "page_size=0",
        "page=0",
        "status=asleep",
        "label=a%20b",
        "priority=1001",
        "min_balance=x",
    ):
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


KEY_TERMS = {"priority": 5, "weight": 3, "providers": ["mock"], "labels": ["EU", "paid"], "without": ["trial"]}
KEY_SHOWN = {**KEY_TERMS, "labels": ["eu", "paid"]}
KEY_DEFAULTS = {"priority": 0, "weight": 1, "providers": [], "labels": [], "without": []}


def key_terms_of(key: dict[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in KEY_DEFAULTS}


async def test_keys_have_terms_and_a_patch_changes_what_it_names(desk: Desk) -> None:
    plain = (await desk.client.post("/admin/keys", json={"name": "plain"})).json()
    assert key_terms_of(plain) == KEY_DEFAULTS
    made = (await desk.client.post("/admin/keys", json={"name": "dear", **KEY_TERMS})).json()
    assert key_terms_of(made) == KEY_SHOWN
    known = desk.house.keyring.known(made["key"])
    assert known is not None and (known.priority, known.labels, known.without) == (5, ("eu", "paid"), ("trial",))
    path = f"/keys/{made['id']}"
    after = await desk.call("PATCH", path, json={"name": " renamed ", "weight": 9, "labels": None})
    assert (after["name"], key_terms_of(after)) == ("renamed", {**KEY_SHOWN, "weight": 9, "labels": []})
    assert "key" not in after and await desk.call("PATCH", path, json={}) == after
    known = desk.house.keyring.known(made["key"])
    assert known is not None and (known.name, known.weight, known.labels) == ("renamed", 9, ())
    listed = {key["id"]: key for key in (await desk.call("GET", "/keys"))["data"]}
    assert listed[made["id"]] == after and key_terms_of(listed[plain["id"]]) == KEY_DEFAULTS
    assert key_terms_of(await desk.call("PATCH", path, json=dict.fromkeys(KEY_DEFAULTS))) == KEY_DEFAULTS
    for body, param in (
        ({"priority": 101}, "priority"),
        ({"weight": 0}, "weight"),
        ({"name": None}, "name"),
        ({"name": " "}, "name"),
        ({"without": ["a b"]}, "without.0"),
        ({"enabled": True}, "enabled"),
    ):
        assert (await desk.call("PATCH", path, 422, json=body))["error"]["param"] == param
    for method, where in (("PATCH", path), ("POST", "/keys")):
        error = (await desk.call(method, where, 400, json={"name": "x", "providers": ["nobody"]}))["error"]
        assert error["code"] == "unknown_provider" and "mock" in error["message"]
        error = (await desk.call(method, where, 400, json={"name": "x", "labels": ["eu"], "without": ["EU"]}))["error"]
        assert (error["code"], error["param"]) == ("contradictory_labels", "without") and "eu" in error["message"]
    await desk.call("PATCH", path, json={"labels": ["eu"]})
    await desk.call("PATCH", path, 400, json={"without": ["eu"]})
    await desk.call("PATCH", path, json={"labels": ["us"], "without": ["eu"]})
    await desk.call("PATCH", path, 400, json={"labels": ["eu"]})
    await desk.call("PATCH", path, json={"labels": ["eu"], "without": None})
    assert (await desk.call("PATCH", "/keys/key_nobody", 404, json={"weight": 2}))["error"]["code"] == "key_not_found"


async def test_bootstrap_keys_can_be_changed(desk: Desk) -> None:
    await desk.house.keyring.start(["svc-bootstrap-key-1"])
    [key] = (await desk.call("GET", "/keys"))["data"]
    assert key["bootstrap"] and key_terms_of(key) == KEY_DEFAULTS
    changed = await desk.call("PATCH", f"/keys/{key['id']}", json={"priority": -100})
    assert changed["bootstrap"] and changed["priority"] == -100


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
                assert success["content"] and all(each["schema"] for each in success["content"].values()), path
