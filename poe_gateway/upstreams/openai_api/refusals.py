"""What a provider's refusal means: status, headers and typed error fields -> outcome. Pure; no words are searched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from poe_gateway.chat.request import Operation
from poe_gateway.pool.outcome import Depleted, Failure, RateLimited, Rejected, Unauthorized
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.openai_api.endpoint import Endpoint
from poe_gateway.upstreams.openai_api.presets import Preset
from poe_gateway.upstreams.refusals import (
    Refused,
    Told,
    bounded,
    by_status,
    fate_in_band,
    labelled,
    labelled_in_band,
    number,
    text,
    told_wait,
    word,
)

_QUOTA = "insufficient_quota"
_SPENT = frozenset(
    {
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "insufficient_user_quota",  # new-api and its kin
        "Arrearage",  # DashScope, as are the next two
        "PrepaidBillOverdue",
        "PostpaidBillOverdue",
    }
)
"""Codes and types of an account without money, whatever the status: several are told by 400 or 403."""
_DEAD_KEY = frozenset({"invalid_api_key", "account_deactivated", "authentication_error"})
_NO_ROUTE = frozenset({404, 405, 501})
_OFFERED: Mapping[Operation, str] = {"chat": "chats", "embed": "embeddings", "image": "pictures"}
_STATUS = re.compile(r"[1-9][0-9]{2}")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_EPOCH, _EPOCH_MILLIS = 1e9, 1e11
"""From here on a number is no wait but a Unix time, in seconds or in milliseconds."""


class ErrorBody(Told, frozen=True):
    """The provider's error object, and what OpenRouter adds."""

    headers: Mapping[str, str] = {}
    """Headers told in the body, as of a provider behind this one; their names in small letters."""


def read_error(error: Any, secret: str) -> ErrorBody:
    """The value of a body's ``error`` key (or the body itself): an object, or just a sentence; without ``secret``."""
    if isinstance(error, str):
        return ErrorBody(message=text(error, secret))
    if not isinstance(error, Mapping):
        return ErrorBody()
    code = error.get("code")
    if isinstance(code, str) and _STATUS.fullmatch(code):
        code = int(code)
    return ErrorBody(
        message=text(error.get("message"), secret),
        type=word(error.get("type"), secret),
        code=word(code, secret),
        status=code if type(code) is int else None,
        headers=_headers(error.get("metadata")),
    )


def parse_body(body: bytes, secret: str) -> ErrorBody | None:
    """The error told by a response body; None when the body is not JSON (a proxy's page, for instance)."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:  # Google wraps it once more
        value = value[0]
    if isinstance(value, Mapping):
        return read_error(value.get("error", value), secret)
    return read_error(value, secret)


def refusal(refused: Refused, endpoint: Endpoint) -> tuple[Failure, Fate]:
    """The outcome of a response that is not 200, and the message's fate."""
    if (challenged := refused.challenged) is not None:
        return challenged, Fate.NOT_SENT
    error, operation = parse_body(refused.body, endpoint.key), refused.operation
    if operation != "chat" and refused.status in _NO_ROUTE and (error is None or error.empty):
        public = f"The provider of this model offers no {_OFFERED[operation]} by this API."
        return Rejected(public=public, code="unsupported_operation"), Fate.NOT_SENT
    wait = retry_after(refused.headers, refused.now)
    if wait is None and error is not None:
        wait = retry_after(error.headers, refused.now)
    label = labelled(refused.status, error)
    outcome = _outcome(refused.status, error, endpoint.known, label=label, model=refused.model, wait=wait)
    return _of(operation, outcome), refused.fate


def told_in_band(
    error: Any, endpoint: Endpoint, *, model: str, answered: bool, operation: Operation = "chat"
) -> tuple[Failure, Fate]:
    """The outcome of an error object inside a 200 stream. ``answered``: pieces of the answer had come before."""
    told = read_error(error, endpoint.key)
    label = labelled_in_band(told)
    outcome = _outcome(told.as_status, told, endpoint.known, label=label, model=model, wait=None)
    return _of(operation, outcome), fate_in_band(outcome, answered=answered)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait as the provider tells them, up to a day; None when it does not.

    Of the limits that are told with their resets, those that are used up count; else that of requests.
    """
    wait = told_wait(headers, now)
    if wait is None:
        spent = [kind for kind in ("requests", "tokens") if headers.get(f"x-ratelimit-remaining-{kind}") == "0"]
        resets = [_duration(headers.get(f"x-ratelimit-reset-{kind}")) for kind in spent or ("requests",)]
        wait = max((reset for reset in resets if reset is not None), default=None)
    if wait is None:
        wait = _until(headers.get("x-ratelimit-reset"), now)
    return bounded(wait)


def _of(operation: Operation, outcome: Failure) -> Failure:
    """Refused embeddings or pictures say nothing of the model: its chats may well be had."""
    if operation != "chat" and isinstance(outcome, Rejected):
        return msgspec.structs.replace(outcome, model=None)
    return outcome


def _outcome(
    status: int, error: ErrorBody | None, known: Preset, *, label: str, model: str | None, wait: float | None
) -> Failure:
    """What is special to these providers; else the status has the word."""
    if error is None:
        return by_status(status, error, label=label, model=model, wait=wait)
    if status < 500 and error.code in _DEAD_KEY:
        return Unauthorized(detail=label)
    if error.words & _SPENT or (status == 429 and _QUOTA in error.words and not known.quota_is_rate):
        return Depleted(detail=label)
    if status == 429 and known.rates_by_model:
        return RateLimited(retry_after=wait, model=model, detail=label)
    return by_status(status, error, label=label, model=model, wait=wait)


def _headers(metadata: Any) -> dict[str, str]:
    told = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if not isinstance(told, Mapping):
        return {}
    return {name.lower(): value for name, value in told.items() if isinstance(value, str)}


def _until(told: str | None, now: datetime) -> float | None:
    """Seconds until a Unix time, or the seconds themselves."""
    moment = number(told)
    if moment is None or moment < _EPOCH:
        return moment
    return (moment / 1000 if moment >= _EPOCH_MILLIS else moment) - now.timestamp()


def _duration(told: str | None) -> float | None:
    """``30``, ``1s``, ``6m0s``, ``1h2m``, ``20ms`` in seconds."""
    if (plain := number(told)) is not None:
        return plain
    match = _DURATION.fullmatch((told or "").strip())
    if not match or not any(match.groups()):
        return None
    hours, minutes, seconds, millis = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000
