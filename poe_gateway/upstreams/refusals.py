"""What the refusals of providers that are asked by key have in common: status and typed fields -> outcome. Pure.

No words are searched. Each adapter reads its provider's own shape into a ``Told`` and judges what is special to it
before the status has the last word.
"""

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
_LATE = frozenset({408, 504, 524})
"""A time-out somewhere behind the provider's door: the message may have been taken."""
_RETRY = frozenset({409, 425})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_STATUS_OF = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "account_deactivated": 401,
    "billing_error": 402,
    "insufficient_credits": 402,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What a status would say, for errors that come without one: inside a stream."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is not 200, and what it answers.

    ``headers`` are looked up in any case if the mapping does so. ``model`` is None where no message was sent: lists,
    balances.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    model: str | None
    now: datetime
    operation: Operation = "chat"

    @property
    def challenged(self) -> Challenged | None:
        """Set when something in front of the provider asks for a browser."""
        if self.headers.get("cf-mitigated") != "challenge":
            return None
        return Challenged(detail=f"challenge instead of an answer (HTTP {self.status})")

    @property
    def fate(self) -> Fate:
        """A refusal is the provider's own word that it gives no answer; only its time-outs leave the fate open."""
        return Fate.UNKNOWN if self.status in _LATE else Fate.NOT_SENT


class Told(msgspec.Struct, frozen=True):
    """A provider's error, as far as it tells one; missing and mistyped fields are empty."""

    message: str = ""
    type: str = ""
    code: str = ""
    status: int | None = None
    """A number in the place of the code: some providers repeat the HTTP status there."""

    @property
    def empty(self) -> bool:
        """Nothing is told."""
        return not (self.message or self.words or self.status)

    @property
    def words(self) -> frozenset[str]:
        """Code and type, where there are any."""
        return frozenset({self.code, self.type}) - {""}

    @property
    def label(self) -> str:
        """Type and code only, for operators; the message may quote anything."""
        code = self.code or (str(self.status) if self.status is not None else "")
        return "/".join(filter(None, (self.type, code))) or "(untyped)"

    @property
    def public(self) -> str:
        """The provider's own words, bounded and on one line."""
        text = " ".join(self.message.split())
        if len(text) > MAX_PUBLIC:
            text = text[: MAX_PUBLIC - 1] + "…"
        return text or "The upstream refused the request."

    @property
    def as_status(self) -> int:
        """The status that an error without one amounts to; 500 where nothing typed is told."""
        if self.status is not None and 400 <= self.status < 600:
            return self.status
        return _STATUS_OF.get(self.code) or _STATUS_OF.get(self.type, 500)


def text(value: Any, secret: str) -> str:
    """A text without ``secret`` and what looks like one; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    return redact_text(value.replace(secret, MASK) if secret else value)


def word(value: Any, secret: str) -> str:
    """A code or type; empty for what cannot be one."""
    found = text(value, secret)
    return found if _WORD.fullmatch(found) else ""


def labelled(status: int, told: Told | None) -> str:
    """A refusal in an operator's words."""
    return f"HTTP {status}" + (f" {told.label}" if told is not None else "")


def by_status(status: int, told: Told | None, *, label: str, model: str | None, wait: float | None) -> Failure:
    """What a status means where nothing more special was told. ``told`` None: the body is not the provider's own."""
    if status == 401:
        return Unauthorized(detail=label)
    if status == 402:
        return Depleted(detail=label)
    if status == 429:
        return RateLimited(retry_after=wait, detail=label)
    if status in _LATE:
        return Transient(detail=label, timeout=True)
    if status >= 500 or status in _RETRY:
        return Transient(detail=label)
    if status == 413:  # long bodies are refused by a door before the API
        public = "The request is too large for the upstream." if told is None else told.public
        code = told.code if told is not None and told.code else "request_too_large"
        return Rejected(public=public, status=413, code=code)
    if status == 403 and told is None:
        return Transient(detail=f"{label} without a JSON body")
    nowhere = status == 404 and (model is None or told is None or told.empty)
    if not 400 <= status < 500 or told is None or nowhere:
        return AdapterDrift(detail=f"{label}: is the address that of the provider's API?")
    if status == 404 or told.code == "model_not_found":
        return Rejected(public=told.public, status=404, code="model_not_found", model=model)
    if status == 403:
        return Rejected(public=told.public, status=403, code=told.code or None, model=model)
    return Rejected(public=told.public, status=422 if status == 422 else 400, code=told.code or None)


def labelled_in_band(told: Told) -> str:
    """An error within a 200 answer in an operator's words."""
    return f"error within the answer: {told.label}"


def fate_in_band(outcome: Failure, *, answered: bool) -> Fate:
    """The fate of a message whose 200 answer tells an error. ``answered``: pieces of the answer had come before."""
    refused = not answered and not isinstance(outcome, Transient)
    return Fate.NOT_SENT if refused else Fate.ACCEPTED


def told_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after``; None where neither tells any."""
    if (millis := number(headers.get("retry-after-ms"))) is not None:
        return millis / 1000
    told = headers.get("retry-after")
    if not told:
        return None
    if (seconds := number(told)) is not None:
        return seconds
    try:
        return (parsedate_to_datetime(told) - now).total_seconds()
    except (ValueError, TypeError):
        return None


def bounded(wait: float | None) -> float | None:
    """A wait from now on, up to a day."""
    return None if wait is None else min(max(wait, 0.0), _MAX_WAIT)


def number(told: str | None) -> float | None:
    """A finite number from zero on."""
    try:
        value = float(told) if told else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
