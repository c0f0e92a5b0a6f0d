"""What a provider's refusal means: status, headers and typed error fields -> outcome. Pure; no words are searched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from poe_gateway.chat.request import Operation
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    Failure,
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
_QUOTA = frozenset({"insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached"})
_DEAD_KEY = frozenset({"invalid_api_key", "account_deactivated", "authentication_error"})
_LATE = frozenset({408, 504, 524})
"""A time-out somewhere behind the provider's door: the message may have been taken."""
_RETRY = frozenset({409, 425})
_NO_ROUTE = frozenset({404, 405, 501})
_OFFERED: Mapping[Operation, str] = {"chat": "chats", "embed": "embeddings", "image": "pictures"}
_CODE = re.compile(r"^[A-Za-z][A-Za-z0-9_.\-]{0,63}$")
_DURATION = re.compile(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?$")


class ErrorBody(msgspec.Struct, frozen=True):
    """The provider's error object, as far as it is one; missing and mistyped fields are empty."""

    message: str = ""
    type: str = ""
    code: str = ""
    status: int | None = None
    """A number in the place of the code: some providers repeat the HTTP status there."""


def read_error(error: Any, secret: str) -> ErrorBody:
    """The value of a body's ``error`` key (or the body itself): an object, or just a sentence; without ``secret``."""
    if isinstance(error, str):
        return ErrorBody(message=_text(error, secret))
    if not isinstance(error, Mapping):
        return ErrorBody()
    code = error.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    return ErrorBody(
        message=_text(error.get("message"), secret),
        type=_text(error.get("type"), secret),
        code=_text(code, secret),
        status=number,
    )


def parse_body(body: bytes, secret: str) -> ErrorBody | None:
    """The error told by a response body; None when the body is not JSON (a proxy's page, for instance)."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(value, list) and value:  # Google wraps it once more
        value = value[0]
    if isinstance(value, Mapping):
        return read_error(value.get("error", value), secret)
    return read_error(value, secret)


def refusal(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str | None,
    secret: str,
    now: datetime,
    operation: Operation = "chat",
) -> tuple[Failure, Fate]:
    """The outcome of a response that is not 200, and the message's fate.

    ``headers`` are looked up in any case if the mapping does so. ``secret`` (the key) is masked in what is quoted.
    A refusal is the provider's own word that it gives no answer; only its time-outs leave the fate open.
    """
    if headers.get("cf-mitigated") == "challenge":
        return Challenged(detail=f"challenge instead of an answer (HTTP {status})"), Fate.NOT_SENT
    error = parse_body(body, secret)
    if operation != "chat" and status in _NO_ROUTE and error in (None, ErrorBody()):
        public = f"The provider of this model offers no {_OFFERED[operation]} by this API."
        return Rejected(public=public, code="unsupported_operation"), Fate.NOT_SENT
    outcome = _of(operation, _by_status(status, headers, error, model, now))
    return outcome, Fate.UNKNOWN if status in _LATE else Fate.NOT_SENT


def told_in_band(
    error: Any, *, model: str, secret: str, answered: bool, operation: Operation = "chat"
) -> tuple[Failure, Fate]:
    """The outcome of an error object inside a 200 stream. ``answered``: pieces of the answer had come before."""
    told = read_error(error, secret)
    outcome: Failure
    if told.code in _QUOTA or told.type in _QUOTA or told.status == 402:
        outcome = Depleted(detail=_label(told))
    elif told.code in _DEAD_KEY or told.status == 401:
        outcome = Unauthorized(detail=_label(told))
    elif told.status == 429 or "rate_limit_exceeded" in (told.code, told.type):
        outcome = RateLimited(detail=_label(told))
    elif told.status in (400, 403, 404, 413, 422):
        outcome = _rejected(told.status, told, model)
    else:
        outcome = Transient(detail=f"error within the stream: {_label(told)}", timeout=told.status in _LATE)
    refused = not answered and not isinstance(outcome, Transient)
    return _of(operation, outcome), Fate.NOT_SENT if refused else Fate.ACCEPTED


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait as the provider tells them, up to a day; None when it does not."""
    millis = _number(headers.get("retry-after-ms"))
    wait = millis / 1000 if millis is not None else None
    if wait is None and (text := headers.get("retry-after")):
        wait = _number(text)
        if wait is None:
            wait = _until(text, now)
    if wait is None and (text := headers.get("x-ratelimit-reset-requests")):
        wait = _duration(text)
    return None if wait is None else min(max(wait, 0.0), _MAX_WAIT)


def public_message(error: ErrorBody) -> str:
    """The provider's own words, bounded and on one line."""
    text = " ".join(error.message.split())
    if len(text) > MAX_PUBLIC:
        text = text[: MAX_PUBLIC - 1] + "…"
    return text or "The upstream refused the request."


def _of(operation: Operation, outcome: Failure) -> Failure:
    """Refused embeddings or pictures say nothing of the model: its chats may well be had."""
    if operation != "chat" and isinstance(outcome, Rejected):
        return msgspec.structs.replace(outcome, model=None)
    return outcome


def _by_status(
    status: int, headers: Mapping[str, str], error: ErrorBody | None, model: str | None, now: datetime
) -> Failure:
    label = f"HTTP {status}" + (f" {_label(error)}" if error else "")
    if status == 401 or (status < 500 and error is not None and error.code in _DEAD_KEY):
        return Unauthorized(detail=label)
    if status == 402 or (status == 429 and error is not None and {error.code, error.type} & _QUOTA):
        return Depleted(detail=label)
    if status == 429:
        return RateLimited(retry_after=retry_after(headers, now), detail=label)
    if status in _LATE:
        return Transient(detail=label, timeout=True)
    if status >= 500 or status in _RETRY:
        return Transient(detail=label)
    nowhere = status == 404 and (model is None or error == ErrorBody())
    if 400 <= status < 500 and error is not None and not nowhere:
        return _rejected(status, error, model)
    if status == 413:  # servers refuse long bodies before any JSON is written
        return Rejected(public="The request is too large for the upstream.", status=413, code="request_too_large")
    if status == 403:
        return Transient(detail=f"{label} without a JSON body")
    return AdapterDrift(detail=f"{label}: is the address that of an OpenAI-compatible API?")


def _rejected(status: int, error: ErrorBody, model: str | None) -> Rejected:
    code = error.code if _CODE.match(error.code) else None
    if status == 404:
        return Rejected(public=public_message(error), status=404, code="model_not_found", model=model)
    if status == 403:
        return Rejected(public=public_message(error), status=403, code=code, model=model)
    shown = status if status in (413, 422) else 400
    return Rejected(public=public_message(error), status=shown, code=code)


def _label(error: ErrorBody) -> str:
    """Type and code only; the message may quote anything."""
    parts = (error.type, error.code or (str(error.status) if error.status is not None else ""))
    return "/".join(part for part in parts if part and (_CODE.match(part) or part.isdigit())) or "(untyped)"


def _text(value: Any, secret: str) -> str:
    if not isinstance(value, str):
        return ""
    return redact_text(value.replace(secret, MASK) if secret else value)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None


def _until(text: str, now: datetime) -> float | None:
    try:
        return (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError):
        return None


def _duration(text: str) -> float | None:
    """``30``, ``1s``, ``6m0s``, ``1h2m``, ``20ms`` in seconds."""
    if (plain := _number(text)) is not None:
        return plain
    match = _DURATION.match(text.strip())
    if not match or not any(match.groups()):
        return None
    hours, minutes, seconds, millis = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000
