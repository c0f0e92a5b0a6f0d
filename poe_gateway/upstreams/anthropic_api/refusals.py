"""What a refusal of Anthropic's API means: status, headers and typed error fields -> outcome. Pure.

No words are searched: causes are told by ``error.type`` and ``error.details.error_code``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from poe_gateway.pool.outcome import Depleted, Failure, NetworkFault, RateLimited, Transient, Unauthorized
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.door import Door
from poe_gateway.upstreams.refusals import (
    Refused,
    Told,
    bounded,
    by_status,
    fate_in_band,
    labelled,
    labelled_in_band,
    text,
    told_wait,
    word,
)

_SPENT = frozenset({"contract_spend_limit_reached", "enforced_spend_limit_reached"})
"""Codes of a 429 that waiting does not cure."""
_CLOSED = frozenset({"organization_on_hold"})
_OUR_PLACE = frozenset({"sandbox_egress_restricted"})
_RESETS = ("requests", "tokens", "input-tokens", "output-tokens")


def read_error(value: Any, secret: str) -> Told | None:
    """The error in ``{"type": "error", "error": {…}}``, without ``secret``; None when it is none."""
    error = value.get("error") if isinstance(value, Mapping) else None
    if not isinstance(error, Mapping):
        return None
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, Mapping) else None
    return Told(text(error.get("message"), secret), word(error.get("type"), secret), word(code, secret))


def refusal(refused: Refused, door: Door) -> tuple[Failure, Fate]:
    """The outcome of a response that is not 200, and the message's fate."""
    if (challenged := refused.challenged) is not None:
        return challenged, Fate.NOT_SENT
    try:
        error = read_error(msgspec.json.decode(refused.body), door.key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None  # a proxy's page, for instance
    label, wait = labelled(refused.status, error), _wait(refused.headers, refused.now)
    return _outcome(refused.status, error, label=label, model=refused.model, wait=wait), refused.fate


def told_in_band(value: Any, door: Door, *, model: str, answered: bool) -> tuple[Failure, Fate]:
    """The outcome of an error event of a 200 stream. ``answered``: pieces of the answer had come before."""
    error = read_error(value, door.key) or Told()
    outcome = _outcome(error.as_status, error, label=labelled_in_band(error), model=model, wait=None)
    return outcome, fate_in_band(outcome, answered=answered)


def _outcome(status: int, error: Told | None, *, label: str, model: str | None, wait: float | None) -> Failure:
    """What is special to this API; else the status has the word."""
    told = error or Told()
    if told.code in _OUR_PLACE:
        return NetworkFault(detail=label)
    if told.code in _CLOSED or (status == 403 and told.type == "permission_error"):
        return Unauthorized(detail=label)
    if told.code in _SPENT:
        return Depleted(detail=label)
    if status == 429:  # each model has limits of its own
        return RateLimited(retry_after=wait, model=model, detail=label)
    if status == 403:  # the place that we call from, not the key
        return Transient(detail=label)
    return by_status(status, error, label=label, model=model, wait=wait)


def _wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait as the provider tells them, up to a day; None when it does not."""
    wait = told_wait(headers, now)
    if wait is None:
        spent = [name for name in _RESETS if headers.get(f"anthropic-ratelimit-{name}-remaining") == "0"]
        waits = [_until(headers.get(f"anthropic-ratelimit-{name}-reset"), now) for name in spent]
        wait = max((each for each in waits if each is not None), default=None)
    return bounded(wait)


def _until(told: str | None, now: datetime) -> float | None:
    """Seconds until a time in RFC 3339."""
    try:
        return (datetime.fromisoformat(told) - now).total_seconds() if told else None
    except (ValueError, TypeError):
        return None
