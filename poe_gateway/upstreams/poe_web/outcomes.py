"""What an answer of the site means for the attempt, pure: status codes and typed fields -> Outcome.

Words are looked for only in the site's own error texts about keys, never in anything a user or bot wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

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
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web.protocol import ProtocolData, Signs

_TITLE = re.compile(r"<title[^>]*>\s*([^<]*?)\s*</title", re.IGNORECASE)
_HEAD = 65536
"""A challenge page is small and says so at its top."""


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer; ``headers`` is a case-insensitive mapping."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StaleKeys(msgspec.Struct, frozen=True):
    """The site refused form key, tag or token: a sure refusal. Worth one repeat with fresh keys.

    ``final`` is what it means when the fresh ones are refused as well.
    """

    final: Failure


class Refusal(UpstreamFailure):
    """A well-formed answer that says no, for a reason that the adapter does not know."""


def is_challenge(answer: Answer, signs: Signs) -> bool:
    """A bot challenge: by its header, else by title or element of the page it comes with."""
    header, value = signs.challenge_header
    if answer.headers.get(header, "").strip().lower() == value:
        return True
    if "html" not in answer.headers.get("Content-Type", "").lower() or answer.status < 300:
        return False
    html = answer.body[:_HEAD].decode("utf-8", "replace")
    title = _TITLE.search(html)
    same_title = title is not None and title.group(1).strip() == signs.challenge_title
    element = signs.challenge_element in html
    return (same_title or element) if answer.status in (403, 503) else (same_title and element)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds from a Retry-After header (seconds or HTTP date), at most a day."""
    raw = headers.get("Retry-After", "").strip()
    if not raw:
        return None
    try:
        seconds = float(raw)
    except ValueError:
        try:
            at = parsedate_to_datetime(raw)
        except ValueError:
            return None
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return min(max(seconds, 0.0), 86400.0) if seconds == seconds else None


def status_failure(answer: Answer, signs: Signs, now: datetime) -> Failure | StaleKeys | None:
    """What a status code says, challenge first; None for a plain 200."""
    status = answer.status
    if is_challenge(answer, signs):
        return Challenged(f"bot challenge (status {status})")
    if status == 200:
        return None
    if status == 401:
        return Unauthorized("the site answers 401")
    if status == 400:
        return StaleKeys(Unauthorized("the site refuses fresh keys (status 400)"))
    if status == 403:
        return StaleKeys(Unauthorized("the site answers 403"))
    if 300 <= status < 400:
        target = urlsplit(answer.headers.get("Location", "")).path
        if target.startswith("/login"):
            return Unauthorized("the site asks to log in")
        return AdapterDrift(f"unexpected redirect (status {status})")
    if status == 413:
        return Rejected(public="The message is too large for this model.", status=413, code="context_length_exceeded")
    if status == 429:
        return RateLimited(retry_after=retry_after(answer.headers, now), detail="the site answers 429")
    if status == 408:
        return Transient("the site answers 408", timeout=True)
    if status >= 500:
        return Transient(f"the site answers {status}", timeout=status in (504, 524))
    return AdapterDrift(f"unexpected status {status}")


def message_fate(answer: Answer, failure: Failure, signs: Signs) -> Fate:
    """What this answer to a send says about the message, given what it was taken for.

    4xx and a proper envelope with errors are refusals. Most 5xx, and a 200 that cannot be read, leave it open.
    """
    if answer.status >= 500 and not isinstance(failure, Challenged):
        return Fate.NOT_SENT if answer.status in signs.refused_status else Fate.UNKNOWN
    unreadable = answer.status == 200 and not answer.body.lstrip().startswith(b"{")
    if isinstance(failure, Transient) or (isinstance(failure, AdapterDrift) and unreadable):
        return Fate.UNKNOWN
    return Fate.NOT_SENT


def envelope(answer: Answer, signs: Signs, now: datetime) -> dict[str, Any] | Failure | StaleKeys:
    """The ``data`` of a GraphQL answer, or why there is none."""
    failure = status_failure(answer, signs, now)
    if isinstance(failure, StaleKeys):
        return failure if answer.status != 403 or _smells_stale(answer, signs) else failure.final
    if failure is not None:
        return failure
    if not answer.body.strip():
        return Transient("empty answer")
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        if "html" in answer.headers.get("Content-Type", "").lower():
            return AdapterDrift("a web page instead of data")
        return Transient("truncated answer")
    if not isinstance(document, dict):
        return AdapterDrift("the answer is no object")
    data, messages = document.get("data"), error_messages(document)
    if isinstance(data, dict) and document.get("success") is not False:
        return data
    if signs.suspended in messages:
        return Unauthorized("the account looks suspended")
    if any(sign in message.lower() for message in messages for sign in signs.stale_keys):
        return StaleKeys(Unauthorized("the site refuses fresh keys"))
    return AdapterDrift("the site answers: " + (messages[0][:120] if messages else "no data"))


def error_messages(document: Mapping[str, Any]) -> list[str]:
    """The texts of an envelope's errors."""
    errors = document.get("errors")
    found = [error.get("message") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    found += [document.get("message"), document.get("error")]
    return [text.strip() for text in found if isinstance(text, str)]


def _smells_stale(answer: Answer, signs: Signs) -> bool:
    """A 403 that is about keys; any other one is about the session, or the revision."""
    text = answer.body[:4096].decode("utf-8", "replace").lower()
    return any(sign in text for sign in (*signs.stale_keys, *signs.refusal_words))


def send_failure(
    status: str, message: str, protocol: ProtocolData, *, model: str, next_grant_at: datetime | None
) -> Failure | None:
    """What the status of the send mutation says; None = accepted. All of these are sure refusals."""
    match protocol.statuses.get(status):
        case "accepted":
            return None
        case "depleted":
            return Depleted(until=next_grant_at, detail=status)
        case "too_long":
            return too_long()
        case "no_access":
            return Rejected(
                public="No access to this model on the upstream.", status=403, code="no_access", model=model
            )
        case "attachment":
            return Rejected(public="The upstream refused the attachment.", status=400, code=status)
        case "rate_limited":
            return RateLimited(detail=status)
        case _:
            return AdapterDrift(f"unknown status {status[:60]!r}" + (" with a message" if message else ""))


def state_failure(state: str, protocol: ProtocolData, next_grant_at: datetime | None) -> Failure | None:
    """What the state of an answer says; None = it goes on or is done."""
    match protocol.states.get(state):
        case "going_on" | "done":
            return None
        case "cancelled":
            return Transient("the answer was cancelled on the site")
        case "too_long":
            return too_long()
        case "depleted":
            return Depleted(until=next_grant_at, detail=state)
        case _:
            # A state nobody has seen, without the error prefix, is taken for progress.
            return Transient(f"the bot failed: {state[:60]}") if state.startswith("error") else None


def too_long() -> Rejected:
    """The caller's text does not fit the model."""
    return Rejected(public="The message is too long for this model.", status=413, code="context_length_exceeded")
