"""Price rules under /admin: what is taken, what is refused, what is shown and told to the audit chain."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.admin.support import Desk

RULE = {"model": "GPT-4o*", "provider": "mock", "input": "2.50", "output": 10, "markup_percent": "20"}


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def made(desk: Desk, **fields: Any) -> dict[str, Any]:
    rule: dict[str, Any] = await desk.call("POST", "/prices", 201, json=fields)
    return rule


async def test_a_rule_is_made_shown_and_in_force(desk: Desk) -> None:
    rule = await made(desk, **RULE, note=" by contract ")
    now = desk.house.clock.now()
    assert {name: rule[name] for name in ("version", "model", "provider", "org", "currency", "note", "retired_at")} == {
        "version": 1,
        "model": "gpt-4o*",
        "provider": "mock",
        "org": None,
        "currency": "USD",
        "note": "by contract",
        "retired_at": None,
    }
    assert [rule[name] for name in ("input", "output", "cached", "request", "point", "markup_percent")] == [
        *("2.5", "10", None, None, None, "20"),
    ]
    assert (await desk.call("GET", "/prices"))["data"] == [rule]
    assert (await desk.call("GET", f"/prices/{rule['id']}"))["data"] == [rule]
    known = desk.house.pricelist.rule(None, "mock", "gpt-4o-mini", now)
    assert known is not None and known.name == f"{rule['id']}@1"


async def test_another_price_is_another_version_and_the_chain_is_told(desk: Desk) -> None:
    first = await made(desk, **RULE)
    desk.house.clock.pass_(hours=1)
    second = await made(desk, **{**RULE, "input": "3"})
    assert (second["id"], second["version"]) == (first["id"], 2)
    versions = (await desk.call("GET", f"/prices/{first['id']}"))["data"]
    assert [each["version"] for each in versions] == [2, 1] and versions[1]["retired_at"] is not None
    assert (await desk.call("GET", "/prices"))["data"] == [second]
    desk.house.clock.pass_(hours=1)
    ended = await desk.call("DELETE", f"/prices/{first['id']}")
    assert ended["retired_at"] is not None
    assert await desk.call("DELETE", f"/prices/{first['id']}") == ended
    assert (await desk.call("GET", "/prices"))["data"] == []
    told = desk.house.noted
    assert [(each.action, each.target) for each in told] == [
        (action, f"price:{first['id']}") for action in ("price.create", "price.update", "price.retire")
    ]
    assert told[0].before is None and told[0].after == first
    assert told[1].before is not None and told[1].before["input"] == "2.5"
    assert told[1].after is not None and told[1].after["input"] == "3"
    assert told[2].after is not None and told[2].after["retired_at"] == ended["retired_at"]


async def test_no_number_passes_through_a_float(desk: Desk) -> None:
    body = '{"input": 0.1000000000001, "output": 123456789.123456789012, "request": 1e-12, "markup_pct": 3}'
    headers = {"content-type": "application/json"}
    refused = await desk.call("POST", "/prices", 422, content=body, headers=headers)
    assert refused["error"]["param"] == "input"
    rule = await desk.call("POST", "/prices", 201, content=body.replace("0001,", "001,"), headers=headers)
    assert [rule[name] for name in ("input", "output", "request", "markup_percent")] == [
        *("0.100000000001", "123456789.123456789012", "0.000000000001", "3"),
    ]
    known = desk.house.pricelist.versions(rule["id"])[0]
    assert known.output == Decimal("123456789.123456789012")


async def test_the_words_of_the_seed_are_taken(desk: Desk) -> None:
    rule = await made(desk, input_per_1k="0.0025", output_per_1k=0.01, cached_per_1k="0.001", markup_pct=12.5)
    assert [rule[name] for name in ("input", "output", "cached", "markup_percent")] == ["2.5", "10", "1", "12.5"]


async def test_a_rule_of_an_organisation_names_it_by_id_or_name(desk: Desk) -> None:
    org = await desk.house.keyring.create_org("acme")
    rule = await made(desk, org="acme", request="0.01")
    assert rule["org"] == org.id
    assert (await made(desk, org=org.id, request="0.02"))["id"] == rule["id"]
    everyone = await made(desk, request="0.03")
    assert [each["org"] for each in (await desk.call("GET", "/prices"))["data"]] == [org.id, None]
    assert [each["version"] for each in (await desk.call("GET", "/prices?org=acme"))["data"]] == [2]
    assert everyone["id"] != rule["id"]
    for path, body in (("/prices", {"org": "nobody", "request": "1"}), ("/prices/test", {"org": "nobody"})):
        answer = await desk.call(
            "POST", path, 400, json={**({"provider": "mock", "model": "m"} if body else {}), **body}
        )
        assert answer["error"]["code"] == "unknown_org"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"model": "gpt-4o"}, 400, "input"),
        ({"input": "1", "input_per_1k": "1"}, 400, "input_per_1k"),
        ({"markup_percent": "1", "markup_pct": "1"}, 400, "markup_pct"),
        ({"input": "1", "provider": "nobody"}, 400, "provider"),
        ({"input": "-1"}, 422, "input"),
        ({"input": "1e300"}, 422, "input"),
        ({"input": "NaN"}, 422, "input"),
        ({"input": "Infinity"}, 422, "input"),
        ({"input": "cheap"}, 422, "input"),
        ({"input": "1_0"}, 422, "input"),
        ({"input": "\u0663"}, 422, "input"),
        ({"input": "0." + "1" * 29}, 422, "input"),
        ({"input": "1." + "0" * 5_000}, 422, "input"),
        ({"input": True}, 422, "input"),
        ({"input": []}, 422, "input"),
        ({"markup_percent": "-101"}, 422, "markup_percent"),
        ({"input": "1", "currency": "dollars"}, 422, "currency"),
        ({"input": "1", "valid_from": "2026-06-01T00:00:00"}, 422, "valid_from"),
        ({"input": "1", "model": ""}, 422, "model"),
        ({"input": "1", "price": "1"}, 422, "price"),
    ],
)
async def test_what_is_no_rule_is_refused(desk: Desk, body: dict[str, Any], status: int, param: str) -> None:
    answer = await desk.call("POST", "/prices", status, json=body)
    assert answer["error"]["param"] == param
    assert "Value error" not in answer["error"]["message"] and "Decimal(" not in answer["error"]["message"]
    assert (await desk.call("GET", "/prices"))["data"] == [] and desk.house.noted == []


@pytest.mark.parametrize(
    ("body", "status"),
    [("", 400), ("{", 400), ('{"input": NaN}', 400), ("[" * 100_000, 400), (b"\xff", 400), ("[]", 422), ("1", 422)],
    ids=["nothing", "open", "NaN", "deep", "not UTF-8", "list", "number"],
)
async def test_what_is_no_json_object_is_refused(desk: Desk, body: str | bytes, status: int) -> None:
    await desk.call("POST", "/prices", status, content=body)


async def test_a_version_to_come_is_listed_and_does_not_hold_yet(desk: Desk) -> None:
    now = desk.house.clock.now()
    await made(desk, request="1")
    await made(desk, request="2", valid_from=(now + timedelta(days=1)).isoformat())
    assert [each["request"] for each in (await desk.call("GET", "/prices"))["data"]] == ["1", "2"]
    question = {"provider": "mock", "model": "m"}
    assert (await desk.call("POST", "/prices/test", json=question))["cost"]["billed"] == "1"
    later = {**question, "at": (now + timedelta(days=2)).isoformat()}
    assert (await desk.call("POST", "/prices/test", json=later))["cost"]["billed"] == "2"


async def test_the_question_what_something_would_cost(desk: Desk) -> None:
    question = {"provider": "mock", "model": "gpt-4o", "prompt_tokens": 1_000, "completion_tokens": 500}
    nothing = await desk.call("POST", "/prices/test", json=question)
    assert nothing == {"cost": None, "why": "No rule matches.", "candidates": []}
    default = await made(desk, input="1", output="1")
    own = await made(desk, **RULE)
    told_before = list(desk.house.noted)
    answer = await desk.call("POST", "/prices/test", json=question)
    name = f"{own['id']}@1"
    assert answer["cost"] == {"raw": "0.0075", "billed": "0.009", "currency": "USD", "source": "rule", "rule": name}
    assert [each["rule"] for each in answer["candidates"]] == [own, default]
    assert answer["candidates"][0]["why"] == "made for provider mock, models like gpt-4o*"
    assert "most specific of 2" in answer["why"] and "Markup: 20 %" in answer["why"]
    answer = await desk.call("POST", "/prices/test", json={**question, "raw_cost": "0.1", "raw_currency": "eur"})
    assert answer["cost"] == {"raw": "0.1", "billed": "0.12", "currency": "EUR", "source": "upstream", "rule": name}
    assert answer["why"].startswith("The upstream's own figure counts.")
    assert desk.house.noted == told_before


async def test_a_rule_without_a_price_for_the_usage_says_so(desk: Desk) -> None:
    rule = await made(desk, point="0.00003")
    question = {"provider": "mock", "model": "m", "prompt_tokens": 10}
    answer = await desk.call("POST", "/prices/test", json=question)
    assert answer["cost"] is None and answer["why"] == f"{rule['id']}@1 wins, but has no price for this usage."
    assert (await desk.call("POST", "/prices/test", json={**question, "points": 100}))["cost"]["billed"] == "0.003"


async def test_what_is_not_there(desk: Desk) -> None:
    for method in ("GET", "DELETE"):
        assert (await desk.call(method, "/prices/price_x", 404))["error"]["code"] == "price_not_found"


async def test_strangers_see_and_change_nothing(desk: Desk) -> None:
    stranger = desk.client_with({"Authorization": "Bearer sk-someone-else-entirely"})
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/test"), ("GET", "/price_x"), ("DELETE", "/price_x")):
        assert (await stranger.request(method, f"/admin/prices{path}", json={"request": "1"})).status_code == 401
    assert desk.house.pricelist.rules() == []


async def test_the_forms_are_documented(desk: Desk) -> None:
    paths = desk.app.openapi()["paths"]
    for path in ("/admin/prices", "/admin/prices/test"):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert "$ref" not in str(schema) and {"org", "model", "provider"} <= schema["properties"].keys()
