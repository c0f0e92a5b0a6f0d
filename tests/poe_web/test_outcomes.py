"""Signs of trouble, one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict

from poe_gateway.pool import outcome as o
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.poe_web import load_protocol, outcomes
from poe_gateway.upstreams.poe_web.outcomes import Answer, StaleKeys

PROTOCOL = load_protocol()
SIGNS = PROTOCOL.signs
NOW = datetime(2026, 3, 14, tzinfo=UTC)
CHALLENGE = b"<html><head><title>Just a moment...</title></head><body id='challenge-error-text'></body></html>"


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, CIMultiDict(named), body)


HTML = "text/html; charset=UTF-8"


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        (answer(403, cf_mitigated="challenge"), True),
        (answer(200, cf_mitigated="challenge"), True),
        (answer(403, CHALLENGE, content_type=HTML), True),
        (answer(503, CHALLENGE, content_type=HTML), True),
        (answer(403, b"<title>Just a moment...</title>", content_type=HTML), True),
        (answer(403, b"<div class='challenge-error-text'>", content_type=HTML), True),
        (answer(403, b"<title>Forbidden</title>", content_type=HTML), False),
        (answer(403, b'{"text":"Just a moment..."}', content_type="application/json"), False),
        (answer(200, CHALLENGE, content_type=HTML), False),
        (answer(502, b"<title>Just a moment...</title>", content_type=HTML), False),
    ],
)
def test_what_a_challenge_looks_like(given: Answer, is_one: bool) -> None:
    assert outcomes.is_challenge(given, SIGNS) is is_one


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (answer(307, location="/login?redirect_url=%2F"), o.Unauthorized),
        (answer(302, location="https://poe.com/login"), o.Unauthorized),
        (answer(302, location="/elsewhere"), o.AdapterDrift),
        (answer(400), StaleKeys),
        (answer(400, b'{"errors":[{"message":"Invalid form key"}]}'), StaleKeys),
        (answer(401), o.Unauthorized),
        (answer(403), o.Unauthorized),
        (answer(403, b'{"errors":[{"message":"Invalid poe-formkey"}]}'), StaleKeys),
        (answer(403, b"csrf token missing"), StaleKeys),
        (answer(404), o.AdapterDrift),
        (answer(413), o.Rejected),
        (answer(429), o.RateLimited),
        (answer(500), o.Transient),
        (answer(200), o.Transient),
        (answer(200, b'{"data": {"a"'), o.Transient),
        (answer(200, b"<html>", content_type=HTML), o.AdapterDrift),
        (answer(200, b"[1]"), o.AdapterDrift),
        (
            answer(200, b'{"data":null,"errors":[{"message":"Server Error"}],"extensions":{"is_final":true}}'),
            o.AdapterDrift,
        ),
        (answer(200, b'{"success":false,"data":{"a":1}}'), o.AdapterDrift),
        (answer(200, b'{"data":null,"errors":[{"message":"Invalid form key"}]}'), StaleKeys),
        (
            answer(
                200, b'{"data":null,"errors":[{"message":"Something went wrong. Please wait a moment and try again."}]}'
            ),
            o.Unauthorized,
        ),
        (answer(200, b'{"data":null,"errors":"odd"}'), o.AdapterDrift),
        (answer(200, b'{"data":{"a":1},"errors":[{"message":"partial"}]}'), dict),
    ],
)
def test_what_an_answer_is_taken_for(given: Answer, kind: type) -> None:
    assert isinstance(outcomes.envelope(given, SIGNS, NOW), kind)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Sat, 14 Mar 2026 00:01:00 GMT", 60.0),
        ("999999999", 86400.0),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(raw: str, seconds: float | None) -> None:
    assert outcomes.retry_after(CIMultiDict({"Retry-After": raw}), NOW) == seconds


@pytest.mark.parametrize(
    ("given", "failure", "fate"),
    [
        (answer(400), o.Unauthorized(), Fate.NOT_SENT),
        (answer(429), o.RateLimited(), Fate.NOT_SENT),
        (answer(500), o.Transient(), Fate.UNKNOWN),
        (answer(503), o.Transient(), Fate.NOT_SENT),
        (answer(503), o.Challenged(), Fate.NOT_SENT),
        (answer(524), o.Transient(), Fate.UNKNOWN),
        (answer(200, b'{"data":null}'), o.AdapterDrift(), Fate.NOT_SENT),
        (answer(200, b"<html>"), o.AdapterDrift(), Fate.UNKNOWN),
        (answer(200, b""), o.Transient(), Fate.UNKNOWN),
        (answer(200, b'{"data":{'), o.Transient(), Fate.UNKNOWN),
    ],
)
def test_what_became_of_the_message(given: Answer, failure: Any, fate: Fate) -> None:
    assert outcomes.message_fate(given, failure, SIGNS) is fate


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("incomplete", None),
        ("complete", None),
        ("new_and_odd", None),
        ("cancelled", o.Transient),
        ("error_user_message_too_long", o.Rejected),
        ("error_insufficient_fund", o.Depleted),
        ("error_anything", o.Transient),
    ],
)
def test_states_of_an_answer(state: str, kind: type | None) -> None:
    failure = outcomes.state_failure(state, PROTOCOL, NOW)
    assert failure is None if kind is None else isinstance(failure, kind)


def test_no_access_concerns_one_model() -> None:
    failure = outcomes.send_failure("no_access", "text", PROTOCOL, model="M", next_grant_at=None)
    assert isinstance(failure, o.Rejected) and failure.model == "M"
