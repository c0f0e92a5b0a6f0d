"""Status, headers and typed fields -> outcome: one row per rule."""

import json
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.openai_api.endpoint import read_endpoint
from poe_gateway.upstreams.openai_api.refusals import refusal, retry_after, told_in_band
from poe_gateway.upstreams.refusals import MAX_PUBLIC, Refused

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEY = "canary-key-8812345"


DOOR = read_endpoint({"base_url": "https://h.example", "api_key": KEY})


def refused(status, error=None, headers=None, body=None, model="m", door=DOOR):
    raw = body if body is not None else json.dumps({"error": error or {}}).encode()
    return refusal(Refused(status=status, headers=headers or {}, body=raw, model=model, now=NOW), door)


@pytest.mark.parametrize(
    ("status", "error", "kind", "fate"),
    [
        (401, {"code": "invalid_api_key"}, Unauthorized, Fate.NOT_SENT),
        (400, {"code": "invalid_api_key"}, Unauthorized, Fate.NOT_SENT),
        (402, {"message": "points"}, Depleted, Fate.NOT_SENT),
        (429, {"code": "insufficient_quota"}, Depleted, Fate.NOT_SENT),
        (429, {"type": "insufficient_quota"}, Depleted, Fate.NOT_SENT),
        (429, {"message": "insufficient_quota in words only"}, RateLimited, Fate.NOT_SENT),
        (400, {"code": "billing_hard_limit_reached"}, Depleted, Fate.NOT_SENT),
        (400, {"code": "Arrearage", "type": "Arrearage"}, Depleted, Fate.NOT_SENT),
        (429, {"code": "PostpaidBillOverdue"}, Depleted, Fate.NOT_SENT),
        (403, {"code": "insufficient_user_quota"}, Depleted, Fate.NOT_SENT),
        (500, {}, Transient, Fate.NOT_SENT),
        (503, {}, Transient, Fate.NOT_SENT),
        (529, {}, Transient, Fate.NOT_SENT),
        (409, {}, Transient, Fate.NOT_SENT),
        (425, {}, Transient, Fate.NOT_SENT),
        (408, {}, Transient, Fate.UNKNOWN),
        (504, {}, Transient, Fate.UNKNOWN),
        (400, {}, Rejected, Fate.NOT_SENT),
        (451, {}, Rejected, Fate.NOT_SENT),
    ],
)
def test_by_status(status, error, kind, fate):
    outcome, was = refused(status, error)
    assert (type(outcome), was) == (kind, fate)
    if isinstance(outcome, Transient):
        assert outcome.timeout == (fate is Fate.UNKNOWN)


def test_rejections_show_the_providers_words_and_a_sane_status():
    error = {"message": "Too many\ntokens", "code": "context_length_exceeded"}
    assert refused(400, error)[0] == Rejected("Too many tokens", 400, "context_length_exceeded")
    assert refused(422, {"message": "x", "code": 3})[0] == Rejected("x", 422, None)
    assert refused(413, {"message": "x"})[0] == Rejected("x", 413, "request_too_large")
    assert refused(418, {"message": "x"})[0] == Rejected("x", 400, None)
    assert refused(404, {"message": "no such"})[0] == Rejected("no such", 404, "model_not_found", "m")
    assert refused(403, {"message": "no access"})[0] == Rejected("no access", 403, None, "m")
    assert refused(400, body=b'{"error": "only a sentence"}')[0] == Rejected("only a sentence")
    assert refused(400, body=b'[{"error": {"message": "in a list"}}]')[0] == Rejected("in a list")
    assert refused(400, {"message": "x", "code": "no code, words"})[0] == Rejected("x")
    unknown = {"message": "Model 'm' does not exist", "type": "invalid_request_error", "code": "model_not_found"}
    assert refused(400, unknown)[0] == Rejected("Model 'm' does not exist", 404, "model_not_found", "m")


QWEN = read_endpoint({"preset": "qwen", "api_key": KEY})


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, RateLimited(model="m")),
        ({"code": "Throttling.RateQuota"}, RateLimited(model="m")),
        ({"code": "PrepaidBillOverdue"}, Depleted()),
    ],
    ids=["tokens", "requests", "money"],
)
def test_where_each_model_has_its_own_rate_a_quota_is_no_end_of_the_money(error, outcome):
    """DashScope says ``insufficient_quota`` of the tokens of a minute."""
    assert replace(refused(429, error, door=QWEN)[0], detail="") == outcome


@pytest.mark.parametrize(
    ("preset", "model"), [("openai", "m"), ("openrouter", "m"), ("qwen", "m"), ("poe", None), ("vllm", None)]
)
def test_whether_a_rate_is_the_models_or_the_accounts(preset, model):
    own = {"base_url": "http://gpu:8000"} if preset == "vllm" else {}
    door = read_endpoint({"preset": preset, "api_key": KEY} | own)
    found = refused(429, {"code": "rate_limit_exceeded"}, {"retry-after": "3"}, door=door)[0]
    assert replace(found, detail="") == RateLimited(3, model)


def test_a_quota_within_an_answer_is_the_same():
    told = {"code": "insufficient_quota"}
    assert isinstance(told_in_band(told, QWEN, model="m", answered=False)[0], RateLimited)
    assert isinstance(told_in_band(told, DOOR, model="m", answered=False)[0], Depleted)


OPENROUTER = read_endpoint({"preset": "openrouter", "api_key": KEY})
MIDNIGHT = int(NOW.timestamp()) + 43_200


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ({"provider_name": "Venice", "headers": {"Retry-After": "17"}}, 17),
        ({"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{MIDNIGHT}000"}}, 43_200),
        ({"headers": {"X-RateLimit-Reset": 5}}, None),
        ({"headers": "soon"}, None),
        ("soon", None),
    ],
    ids=["behind", "of-the-day", "no-text", "no-headers", "no-metadata"],
)
def test_openrouters_limits_hold_for_the_model_and_tell_their_end_in_the_body(metadata, seconds):
    """They are those of free models, and of the provider behind it that serves the model."""
    found = refused(429, {"code": 429, "message": "Rate limit exceeded", "metadata": metadata}, door=OPENROUTER)[0]
    assert replace(found, detail="") == RateLimited(seconds, model="m")


def test_what_is_not_json_comes_from_something_else():
    page = b"<html>Just a moment</html>"
    assert isinstance(refused(403, headers={"cf-mitigated": "challenge"}, body=page)[0], Challenged)
    assert isinstance(refused(503, headers={"cf-mitigated": "challenge"}, body=page)[0], Challenged)
    assert isinstance(refused(403, body=page)[0], Transient)
    assert isinstance(refused(404, body=page)[0], AdapterDrift)
    assert isinstance(refused(404, body=b'{"detail": "Not Found"}')[0], AdapterDrift)
    assert isinstance(refused(404, {"message": "no such address"}, model=None)[0], AdapterDrift)
    assert isinstance(refused(302, body=b"")[0], AdapterDrift)
    assert refused(413, body=page)[0].status == 413
    assert isinstance(refused(502, body=page)[0], Transient)
    assert isinstance(refused(400, body=b"\xff\xfe")[0], AdapterDrift)


def test_key_material_never_leaves():
    for status in (400, 401, 403, 404, 422, 429, 500):
        error = {"message": f"bad key {KEY}, Bearer abcdefgh12345", "code": KEY, "type": f"t {KEY}"}
        outcome, _ = refused(status, error)
        assert KEY not in repr(outcome)
        assert "abcdefgh12345" not in repr(outcome)


def test_long_words_are_cut():
    assert len(refused(400, {"message": "x" * 10_000})[0].public) == MAX_PUBLIC


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "soon", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-requests": "42"}, 42),
        ({"x-ratelimit-reset-requests": "8s", "x-ratelimit-reset-tokens": "6m0s"}, 8),
        (
            {
                "x-ratelimit-remaining-requests": "99",
                "x-ratelimit-reset-requests": "8s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            360,
        ),
        ({"x-ratelimit-reset": str(MIDNIGHT)}, 43_200),
        ({"x-ratelimit-reset": f"{MIDNIGHT}000"}, 43_200),
        ({"x-ratelimit-reset": "30"}, 30),
        ({"x-ratelimit-reset": "then"}, None),
        ({"retry-after": "999999999"}, 86_400),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"x-ratelimit-reset-requests": "s"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers, seconds):
    assert retry_after(headers, NOW) == seconds
    assert refused(429, headers=headers)[0].retry_after == seconds


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429}, RateLimited),
        ({"code": "rate_limit_exceeded"}, RateLimited),
        ({"code": "429"}, RateLimited),
        ({"type": "rate_limit_error"}, RateLimited),
        ({"code": 402}, Depleted),
        ({"type": "insufficient_credits"}, Depleted),
        ({"code": "billing_hard_limit_reached"}, Depleted),
        ({"type": "insufficient_quota"}, Depleted),
        ({"code": 401}, Unauthorized),
        ({"type": "authentication_error"}, Unauthorized),
        ({"code": 400, "message": "no"}, Rejected),
        ({"type": "invalid_request_error", "code": None, "message": "no"}, Rejected),
        ({"type": "BadRequestError", "code": 400, "message": "no"}, Rejected),
        ({"type": "server_error"}, Transient),
        ({"code": 1302}, Transient),
        ({"code": 502}, Transient),
        ("just words", Transient),
        (None, Transient),
    ],
)
def test_errors_inside_a_stream(error, kind):
    outcome, fate = told_in_band(error, DOOR, model="m", answered=False)
    assert isinstance(outcome, kind)
    assert fate is (Fate.ACCEPTED if kind is Transient else Fate.NOT_SENT)
    assert told_in_band(error, DOOR, model="m", answered=True)[1] is Fate.ACCEPTED
