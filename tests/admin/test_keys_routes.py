"""Keys and organisations under /admin: what is taken, what is refused, what is shown and told to the audit chain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from poe_gateway.limits.terms import Budget, Rates
from tests.admin.support import Desk

NO_LIMITS = dict.fromkeys(Rates.__struct_fields__)
LEGACY = "agw_12.text-of-a-key-that-callers-have"


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def made(desk: Desk, **fields: Any) -> dict[str, Any]:
    key: dict[str, Any] = await desk.call("POST", "/keys", 201, json={"name": "app", **fields})
    return key


async def test_a_key_has_all_its_terms_and_every_process_works_by_them(desk: Desk) -> None:
    org = await desk.call("POST", "/orgs", 201, json={"name": "acme", "limits": {"parallel": 9}})
    end = (desk.house.clock.now() + timedelta(days=30)).isoformat()
    key = await made(
        desk,
        org="acme",
        expires_at=end,
        models=["GPT-4o*", "claude-*"],
        addresses=["192.0.2.7", "2001:db8::/32"],
        limits={"requests_minute": 30, "tokens_day": 0},
        budgets=[
            {"unit": "USD", "period": "month", "amount": "20.50"},
            {"period": "day", "amount": "5USD"},
            {"unit": "points", "period": "total", "amount": 3000},
        ],
        note=" of a friend ",
    )
    assert key["org"] == org["id"] and key["expires_at"].startswith(end[:19])
    assert key["models"] == ["claude-*", "gpt-4o*"] and key["addresses"] == ["192.0.2.7/32", "2001:db8::/32"]
    assert key["limits"] == {**NO_LIMITS, "requests_minute": 30, "tokens_day": 0}
    assert key["budgets"] == [
        {"unit": "USD", "period": "day", "amount": "5"},
        {"unit": "USD", "period": "month", "amount": "20.5"},
        {"unit": "points", "period": "total", "amount": "3000"},
    ]
    assert key["note"] == "of a friend"
    known = desk.house.keyring.known(key["key"])
    assert known is not None and [scope.kind for scope in known.scopes] == ["key", "org"]
    assert known.scopes[0].rates == Rates(requests_minute=30, tokens_day=0)
    assert Budget(unit="USD", period="day", amount=500_000_000) in known.scopes[0].budgets
    shown = await desk.call("GET", f"/keys/{key['id']}")
    assert shown == {name: value for name, value in key.items() if name != "key"}
    assert [each["id"] for each in (await desk.call("GET", "/keys?org=acme"))["data"]] == [key["id"]]
    assert (await desk.call("GET", "/keys?org=default"))["data"] == []
    assert (await desk.call("GET", "/keys?org=nobody", 400))["error"]["code"] == "unknown_org"
    assert (await desk.call("GET", "/orgs/acme"))["keys"] == 1


async def test_a_patch_changes_single_limits_and_all_budgets(desk: Desk) -> None:
    key = await made(desk, limits={"requests_minute": 30, "parallel": 2}, budgets=[{"period": "day", "amount": "5USD"}])
    path = f"/keys/{key['id']}"
    after = await desk.call("PATCH", path, json={"limits": {"requests_minute": None, "tokens_minute": 100}})
    assert after["limits"] == {**NO_LIMITS, "parallel": 2, "tokens_minute": 100} and after["budgets"] == key["budgets"]
    after = await desk.call("PATCH", path, json={"budgets": [{"period": "total", "amount": "1EUR"}]})
    assert after["budgets"] == [{"unit": "EUR", "period": "total", "amount": "1"}] and after["limits"]["parallel"] == 2
    after = await desk.call("PATCH", path, json={"limits": None, "budgets": None, "models": None, "org": None})
    assert (after["limits"], after["budgets"], after["org"]) == (NO_LIMITS, [], "default")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"org": "nobody"}, 400, "org"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 400, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, 422, "expires_at"),
        ({"addresses": ["10.0.0.1/8"]}, 422, "addresses.0"),
        ({"addresses": ["example.com"]}, 422, "addresses.0"),
        ({"models": [""]}, 422, "models.0"),
        ({"limits": {"rpm": 5}}, 422, "limits.rpm"),
        ({"limits": {"requests_minute": "5"}}, 422, "limits.requests_minute"),
        ({"limits": {"requests_minute": -2}}, 422, "limits.requests_minute"),
        ({"limits": {"parallel": 2.5}}, 422, "limits.parallel"),
        ({"budgets": [{"period": "day", "amount": "5USD"}, {"period": "day", "amount": "6USD"}]}, 422, "budgets"),
        ({"budgets": [{"period": "day", "amount": "5"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "0USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "-5", "unit": "USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "5USD", "unit": "EUR"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "5", "unit": "usd"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "0.000000001USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "1.000000001USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "1.5points"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "99999999999999USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "NaN", "unit": "USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "year", "amount": "5USD"}]}, 422, "budgets.0.period"),
        ({"budgets": [{"period": "day", "amount": "1e999999", "unit": "USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "1_000", "unit": "USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": "\u0663", "unit": "USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": 10**30, "unit": "USD"}]}, 422, "budgets.0"),
        ({"budgets": [{"period": "day", "amount": True, "unit": "USD"}]}, 422, "budgets.0.amount"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, 422, "expires_at"),
        ({"name": "two\r\nlines"}, 422, "name"),
        ({"name": "\x00"}, 422, "name"),
        ({"name": "\u202eback"}, 422, "name"),
        ({"name": {"$ne": None}}, 422, "name"),
        ({"org": {"$ne": None}}, 422, "org"),
        ({"key": "short"}, 422, "key"),
        ({"key": "with a space in the middle"}, 422, "key"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_made(
    desk: Desk, body: dict[str, Any], status: int, param: str
) -> None:
    error = (await desk.call("POST", "/keys", status, json={"name": "app", **body}))["error"]
    assert error["param"] == param, error
    assert "Value error" not in error["message"]
    assert not desk.house.keyring.keys() and not desk.house.noted


async def test_an_amount_is_never_a_float(desk: Desk) -> None:
    body = {"name": "app", "budgets": [{"unit": "USD", "period": "day", "amount": 0.1}]}
    error = (await desk.call("POST", "/keys", 422, json=body))["error"]
    assert error["param"].startswith("budgets.0.amount")


async def test_rotation_shows_the_new_text_once_and_the_old_one_works_on(desk: Desk) -> None:
    key = await made(desk)
    rotated = await desk.call("POST", f"/keys/{key['id']}/rotate", json={"overlap_seconds": 60})
    assert rotated["id"] == key["id"] and rotated["key"] not in ("", key["key"]) and rotated["previous_until"]
    known = desk.house.keyring.known
    assert known(key["key"]) is known(rotated["key"]) is not None
    desk.house.clock.pass_(seconds=60)
    assert known(key["key"]) is None and known(rotated["key"]) is not None
    at_once = await desk.call("POST", f"/keys/{key['id']}/rotate")
    assert known(rotated["key"]) is None and known(at_once["key"]) is not None and not at_once["previous_until"]
    await desk.call("POST", f"/keys/{key['id']}/rotate", 422, json={"overlap_seconds": -1})
    await desk.call("POST", "/keys/key_nobody/rotate", 404)
    await desk.call("POST", f"/keys/{key['id']}/revoke")
    assert (await desk.call("POST", f"/keys/{key['id']}/rotate", 409))["error"]["code"] == "key_revoked"
    await desk.house.keyring.start(["svc-bootstrap-key-1"])
    bootstrap = desk.house.keyring.keys()[-1].id
    assert (await desk.call("POST", f"/keys/{bootstrap}/rotate", 409))["error"]["code"] == "key_of_settings"


async def test_a_key_is_switched_off_and_on_again(desk: Desk) -> None:
    key = await made(desk)
    assert not (await desk.call("POST", f"/keys/{key['id']}/disable"))["enabled"]
    assert desk.house.keyring.known(key["key"]) is None
    assert (await desk.call("POST", f"/keys/{key['id']}/enable"))["enabled"]
    assert desk.house.keyring.known(key["key"]) is not None
    await desk.call("POST", f"/keys/{key['id']}/revoke")
    assert (await desk.call("POST", f"/keys/{key['id']}/enable", 409))["error"]["code"] == "key_revoked"
    for verb in ("enable", "disable", "revoke"):
        await desk.call("POST", f"/keys/key_nobody/{verb}", 404)
    await desk.call("GET", "/keys/key_nobody", 404)


async def test_a_key_that_callers_have_already_is_taken_over(desk: Desk) -> None:
    key = await made(desk, key=LEGACY)
    assert key["key"] == LEGACY and desk.house.keyring.known(LEGACY) is not None
    answer = await desk.client.post("/admin/keys", json={"name": "twin", "key": LEGACY})
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "key_exists" and LEGACY not in answer.text
    mistaken = await desk.client.post("/admin/keys", json={"name": "twin", "key": LEGACY, "weight": 0})
    assert mistaken.status_code == 422 and LEGACY not in mistaken.text


async def test_organisations_from_making_to_switching_off(desk: Desk) -> None:
    [default] = (await desk.call("GET", "/orgs"))["data"]
    assert (default["id"], default["name"], default["enabled"], default["keys"]) == ("default", "default", True, 0)
    org = await desk.call(
        "POST", "/orgs", 201, json={"name": " acme ", "budgets": [{"period": "day", "amount": "5USD"}], "note": "x"}
    )
    assert org["name"] == "acme" and org["id"].startswith("org_") and org["limits"] == NO_LIMITS
    for taken in ("acme", "default"):
        assert (await desk.call("POST", "/orgs", 409, json={"name": taken}))["error"]["code"] == "org_exists"
    for wrong in ("", "org_like_an_id", None):
        assert (await desk.call("POST", "/orgs", 422, json={"name": wrong}))["error"]["param"] == "name"
    after = await desk.call("PATCH", "/orgs/acme", json={"name": "acme inc", "limits": {"parallel": 3}, "note": None})
    assert (after["name"], after["limits"]["parallel"], after["note"]) == ("acme inc", 3, "")
    assert after["budgets"] == org["budgets"] and await desk.call("GET", f"/orgs/{org['id']}") == after
    key = await made(desk, org="acme inc")
    assert not (await desk.call("POST", f"/orgs/{org['id']}/disable"))["enabled"]
    with pytest.raises(Exception, match="switched off"):
        desk.house.keyring.known(key["key"])
    assert (await desk.call("POST", f"/orgs/{org['id']}/enable"))["enabled"]
    assert desk.house.keyring.known(key["key"]) is not None
    assert (await desk.call("PATCH", "/orgs/default", json={"keep_text": True}))["keep_text"]
    assert (await desk.call("PATCH", "/orgs/default", 409, json={"name": "x"}))["error"]["code"] == "org_exists"
    assert (await desk.call("GET", "/orgs/acme", 404))["error"]["code"] == "org_not_found"
    await desk.call("PATCH", "/orgs/nobody", 404, json={"note": "x"})


async def test_every_change_is_told_to_the_audit_chain_without_texts_and_hashes(desk: Desk) -> None:
    org = await desk.call("POST", "/orgs", 201, json={"name": "acme"})
    key = await made(desk, limits={"requests_minute": 5})
    path = f"/keys/{key['id']}"
    await desk.call("PATCH", path, json={"limits": {"requests_minute": 7}, "org": "acme"})
    await desk.call("PATCH", path, json={"limits": {"requests_minute": 7}})
    rotated = await desk.call("POST", f"{path}/rotate", json={"overlap_seconds": 60})
    for verb in ("disable", "disable", "enable", "revoke", "revoke"):
        await desk.call("POST", f"{path}/{verb}")
    for verb in ("disable", "enable"):
        await desk.call("POST", f"/orgs/acme/{verb}")
    await desk.call("PATCH", "/orgs/acme", json={"note": "x"})
    noted = desk.house.noted
    assert [(each.action, each.target) for each in noted] == [
        ("org.create", f"org:{org['id']}"),
        *(
            (f"key.{verb}", f"key:{key['id']}")
            for verb in ("create", "update", "rotate", "disable", "enable", "revoke")
        ),
        *((f"org.{verb}", f"org:{org['id']}") for verb in ("disable", "enable", "update")),
    ]
    created, updated, rotation = noted[1], noted[2], noted[3]
    assert created.before is None and created.after is not None and created.after["name"] == "app"
    assert updated.before is not None and updated.after is not None
    assert updated.before["org"] == "default" and updated.after["org"] == org["id"]
    assert (updated.before["limits"]["requests_minute"], updated.after["limits"]["requests_minute"]) == (5, 7)
    assert set(updated.after) == {"org", "limits"}
    assert rotation.after is not None and set(rotation.after) == {"last_rotated_at", "previous_until"}
    record = desk.house.keyring.key(key["id"])
    assert record is not None
    told = repr(noted)
    for secret in (key["key"], rotated["key"], record.hash, record.previous_hash):
        assert secret and secret not in told


async def test_no_answer_holds_a_hash(desk: Desk) -> None:
    key = await made(desk)
    await desk.call("POST", f"/keys/{key['id']}/rotate", json={"overlap_seconds": 60})
    record = desk.house.keyring.key(key["id"])
    assert record is not None and record.previous_hash
    for path in ("/keys", f"/keys/{key['id']}", "/orgs"):
        answer = await desk.client.get(f"/admin{path}")
        assert record.hash not in answer.text and record.previous_hash not in answer.text


async def test_a_key_lists_and_finds_only_the_models_it_may_use(desk: Desk) -> None:
    await desk.house.add("one", points=40)
    every, some = await made(desk), await made(desk, models=["GPT-4O-*"])

    async def listed(key: dict[str, Any]) -> list[str]:
        async with desk.client_with({"Authorization": f"Bearer {key['key']}"}) as client:
            return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]

    whole = await listed(every)
    assert await listed(some) == [name for name in whole if name.lower().startswith("gpt-4o-")] != whole
    forbidden = next(name for name in whole if not name.lower().startswith("gpt-4o-"))
    async with desk.client_with({"X-API-Key": some["key"]}) as client:
        for name in await listed(some):
            assert (await client.get(f"/v1/models/{name}")).status_code == 200
        answer = await client.get(f"/v1/models/{forbidden}")
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "model_not_allowed"
