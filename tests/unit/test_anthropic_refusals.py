"""Anthropic's status, headers and typed fields -> outcome: one row per rule."""

import json
from datetime import UTC, datetime

import pytest

from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.anthropic_api.endpoint import read_endpoint
from poe_gateway.upstreams.anthropic_api.refusals import refusal, told_in_band
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.refusals import MAX_PUBLIC, Refused

KEY = "sk-ant-canary-8812345"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = "2026-03-01T12:00:30Z"
DOOR = read_endpoint({"api_key": KEY})


def told(kind=None, message="no", code=None):
    error = (
        {"message": message} | ({"type": kind} if kind else {}) | ({"details": {"error_code": code}} if code else {})
    )
    return {"type": "error", "error": error}


def refused(status, value=None, *, headers=None, body=None, model="m"):
    raw = json.dumps(value).encode() if body is None else body
    return refusal(Refused(status=status, headers=headers or {}, body=raw, model=model, now=NOW), DOOR)


@pytest.mark.parametrize(
    ("status", "kind", "code", "outcome", "fate"),
    [
        (400, "invalid_request_error", None, Rejected, Fate.NOT_SENT),
        (400, "invalid_request_error", "organization_on_hold", Unauthorized, Fate.NOT_SENT),
        (401, "authentication_error", None, Unauthorized, Fate.NOT_SENT),
        (402, "billing_error", None, Depleted, Fate.NOT_SENT),
        (403, "permission_error", None, Unauthorized, Fate.NOT_SENT),
        (403, "forbidden", None, Transient, Fate.NOT_SENT),
        (403, "permission_error", "sandbox_egress_restricted", NetworkFault, Fate.NOT_SENT),
        (404, "not_found_error", None, Rejected, Fate.NOT_SENT),
        (408, "timeout_error", None, Transient, Fate.UNKNOWN),
        (409, "conflict_error", None, Transient, Fate.NOT_SENT),
        (413, "request_too_large", None, Rejected, Fate.NOT_SENT),
        (422, "invalid_request_error", None, Rejected, Fate.NOT_SENT),
        (429, "rate_limit_error", None, RateLimited, Fate.NOT_SENT),
        (429, "rate_limit_error", "ramp_limit_exceeded", RateLimited, Fate.NOT_SENT),
        (429, "rate_limit_error", "enforced_spend_limit_reached", Depleted, Fate.NOT_SENT),
        (429, "rate_limit_error", "contract_spend_limit_reached", Depleted, Fate.NOT_SENT),
        (500, "api_error", None, Transient, Fate.NOT_SENT),
        (504, "timeout_error", None, Transient, Fate.UNKNOWN),
        (524, None, None, Transient, Fate.UNKNOWN),
        (529, "overloaded_error", None, Transient, Fate.NOT_SENT),
    ],
)
def test_what_a_refusal_means(status, kind, code, outcome, fate):
    found, was = refused(status, told(kind, code=code))
    assert (type(found), was) == (outcome, fate)
    if isinstance(found, Transient):
        assert found.timeout == (fate is Fate.UNKNOWN)


def test_rejections_show_the_providers_words_and_a_sane_status():
    assert refused(400, told("invalid_request_error", "Too many\ntokens"))[0] == Rejected("Too many tokens", 400)
    assert refused(400, told("x", code="tool_name_conflict"))[0] == Rejected("no", 400, "tool_name_conflict")
    assert refused(400, told("x", code="no code, words"))[0] == Rejected("no", 400)
    assert refused(418, told())[0] == Rejected("no", 400)
    assert refused(422, told())[0] == Rejected("no", 422)
    assert refused(413, told(message="big"))[0] == Rejected("big", 413, "request_too_large")
    assert refused(404, told(message="model: m"))[0] == Rejected("model: m", 404, "model_not_found", "m")
    assert refused(400, told(message=4))[0] == Rejected("The upstream refused the request.", 400)


def test_what_is_not_the_apis_own_word_comes_from_something_else():
    page = b"<html>Just a moment</html>"
    assert isinstance(refused(403, headers={"cf-mitigated": "challenge"}, body=page)[0], Challenged)
    assert isinstance(refused(503, headers={"cf-mitigated": "challenge"}, body=page)[0], Challenged)
    assert isinstance(refused(403, body=page)[0], Transient)
    assert isinstance(refused(404, body=page)[0], AdapterDrift)
    assert isinstance(refused(404, {"detail": "Not Found"})[0], AdapterDrift)
    assert isinstance(refused(404, told("not_found_error"), model=None)[0], AdapterDrift)
    assert isinstance(refused(302, body=b"")[0], AdapterDrift)
    assert isinstance(refused(400, body=b"\xff\xfe")[0], AdapterDrift)
    assert isinstance(refused(400, body=b"[" * 60_000)[0], AdapterDrift)
    assert isinstance(refused(502, body=page)[0], Transient)
    assert refused(413, body=page)[0].status == 413


def test_key_material_never_leaves():
    for status in (400, 401, 403, 404, 413, 422, 429, 500):
        words = told(f"t_{KEY}", f"bad key {KEY}, Bearer abcdefgh12345", KEY)
        for outcome, _ in (refused(status, words), told_in_band(words, DOOR, model="m", answered=False)):
            assert KEY not in repr(outcome)
            assert "abcdefgh12345" not in repr(outcome)


def test_long_words_are_cut():
    assert len(refused(400, told(message="x" * 10_000))[0].public) == MAX_PUBLIC


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "999999999"}, 86_400),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"anthropic-ratelimit-requests-reset": LATER}, None),
        ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": LATER}, 30),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "later"}, None),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-03-01"}, None),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": LATER,
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2026-03-01T12:01:00Z",
            },
            60,
        ),
        ({}, None),
    ],
    ids=[
        "seconds",
        "fraction",
        "date",
        "past",
        "day",
        "negative",
        "nan",
        "words",
        "left",
        "reset",
        "odd-reset",
        "naive",
        "two",
        "none",
    ],
)
def test_how_long_to_wait(headers, seconds):
    assert refused(429, told("rate_limit_error"), headers=headers)[0].retry_after == seconds


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("invalid_request_error", Rejected),
        ("authentication_error", Unauthorized),
        ("billing_error", Depleted),
        ("permission_error", Unauthorized),
        ("not_found_error", Rejected),
        ("request_too_large", Rejected),
        ("rate_limit_error", RateLimited),
        ("api_error", Transient),
        ("timeout_error", Transient),
        ("overloaded_error", Transient),
        ("some_news", Transient),
        (None, Transient),
    ],
)
def test_errors_inside_a_stream(kind, outcome):
    found, fate = told_in_band(told(kind), DOOR, model="m", answered=False)
    assert isinstance(found, outcome)
    assert fate is (Fate.ACCEPTED if outcome is Transient else Fate.NOT_SENT)
    assert told_in_band(told(kind), DOOR, model="m", answered=True)[1] is Fate.ACCEPTED


def test_each_model_has_limits_of_its_own():
    assert refused(429, told("rate_limit_error"))[0].model == "m"
    assert refused(429, told("rate_limit_error"), model=None)[0].model is None


def test_an_error_event_without_an_error():
    assert isinstance(told_in_band({"type": "error"}, DOOR, model="m", answered=False)[0], Transient)
