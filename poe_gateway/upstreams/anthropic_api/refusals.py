"""What a refusal of Anthropic's API means: status, headers and typed error fields -> outcome. Pure.

No words are searched: causes are told by ``error.type`` and ``error.details.error_code``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    Failure,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.telemetry.redaction import MASK, redact_text
from poe_gateway.upstreams.base import Fate

MAX_PUBLIC = 500
"""Characters of the provider's message that a caller may see."""

_MAX_WAIT = 86_400.0
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What a status would say, for errors that come without one: inside a stream."""
_SPENT = frozenset({"contract_spend_limit_reached", "enforced_spend_limit_reached"})
"""Codes of a 429 that waiting does not cure."""
_CLOSED = frozenset({"organization_on_hold"})
_OUR_PLACE = frozenset({"sandbox_egress_restricted"})
_LATE = frozenset({408, 504, 524})
"""A time-out somewhere behind the provider's door: the message may have been taken."""
_RETRY = frozenset({409, 425})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_RESETS = ("requests", "tokens", "input-tokens", "output-tokens")


class ErrorBody(msgspec.Struct, frozen=True):
    """The provider's error object, as far as it is one; missing and mistyped fields are empty."""

    message: str = ""
    type: str = ""
    code: str = ""


def read_error(value: Any, secret: str) -> ErrorBody | None:
    """The error in ``{"type": "error", "error": {…}}``, without ``secret``; None when it is none."""
    error = value.get("error") if isinstance(value, Mapping) else None
    if not isinstance(error, Mapping):
        return None
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, Mapping) else None
    return ErrorBody(_text(error.get("message"), secret), _word(error.get("type"), secret), _word(code, secret))


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str | None, secret: str, now: datetime
) -> tuple[Failure, Fate]:
    """The outcome of a response that is not 200, and the message's fate.

    ``headers`` are looked up in any case if the mapping does so. ``secret`` (the key) is masked in what is quoted.
    A refusal is the provider's own word that it gives no answer; only its time-outs leave the fate open.
    """
    if headers.get("cf-mitigated") == "challenge":
        return Challenged(detail=f"challenge instead of an answer (HTTP {status})"), Fate.NOT_SENT
    try:
        error = read_error(msgspec.json.decode(body), secret)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None  # a proxy's page, for instance
    outcome = _outcome(status, error, model, _wait(headers, now))
    return outcome, Fate.UNKNOWN if status in _LATE else Fate.NOT_SENT


def told_in_band(value: Any, *, model: str, secret: str, answered: bool) -> tuple[Failure, Fate]:
    """The outcome of an error event of a 200 stream. ``answered``: pieces of the answer had come before."""
    error = read_error(value, secret) or ErrorBody()
    outcome = _outcome(_STATUS_OF.get(error.type, 500), error, model, None)
    refused = not answered and not isinstance(outcome, Transient)
    return outcome, Fate.NOT_SENT if refused else Fate.ACCEPTED


def public_message(error: ErrorBody) -> str:
    """The provider's own words, bounded and on one line."""
    text = " ".join(error.message.split())
    if len(text) > MAX_PUBLIC:
        text = text[: MAX_PUBLIC - 1] + "…"
    return text or "The upstream refused the request."


def _outcome(status: int, error: ErrorBody | None, model: str | None, wait: float | None) -> Failure:
    label = f"HTTP {status}" + (f" {'/'.join(filter(None, (error.type, error.code)))}" if error else "")
    code = error.code if error is not None else ""
    if code in _OUR_PLACE:
        return NetworkFault(detail=label)
    if status == 401 or code in _CLOSED or (status == 403 and error is not None and error.type == "permission_error"):
        return Unauthorized(detail=label)
    if status == 402 or code in _SPENT:
        return Depleted(detail=label)
    if status == 429:
        return RateLimited(retry_after=wait, detail=label)
    if status in _LATE:
        return Transient(detail=label, timeout=True)
    if status >= 500 or status in _RETRY:
        return Transient(detail=label)
    if status == 403:  # the place that we call from, not the key
        return Transient(detail=label)
    if status == 413:  # long bodies are refused by a door before the API
        public = "The request is too large for the upstream." if error is None else public_message(error)
        return Rejected(public=public, status=413, code="request_too_large")
    if 400 <= status < 500 and error is not None and not (status == 404 and model is None):
        if status == 404:
            return Rejected(public=public_message(error), status=404, code="model_not_found", model=model)
        return Rejected(public=public_message(error), status=422 if status == 422 else 400, code=error.code or None)
    return AdapterDrift(detail=f"{label}: is the address that of Anthropic's API, or of one like it?")


def _wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait as the provider tells them, up to a day; None when it does not."""
    wait = _seconds(headers.get("retry-after"), now)
    if wait is None:
        spent = [name for name in _RESETS if headers.get(f"anthropic-ratelimit-{name}-remaining") == "0"]
        waits = [_until(headers.get(f"anthropic-ratelimit-{name}-reset"), now) for name in spent]
        wait = max((each for each in waits if each is not None), default=None)
    return None if wait is None else min(max(wait, 0.0), _MAX_WAIT)


def _seconds(text: str | None, now: datetime) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            return (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError):
            return None
    return seconds if 0 <= seconds < float("inf") else None


def _until(text: str | None, now: datetime) -> float | None:
    """Seconds until a time in RFC 3339."""
    try:
        return (datetime.fromisoformat(text) - now).total_seconds() if text else None
    except (ValueError, TypeError):
        return None


def _word(value: Any, secret: str) -> str:
    text = _text(value, secret)
    return text if _WORD.fullmatch(text) else ""


def _text(value: Any, secret: str) -> str:
    if not isinstance(value, str):
        return ""
    return redact_text(value.replace(secret, MASK) if secret else value)
