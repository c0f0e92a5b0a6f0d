"""What operators changed, on its way to the audit chain, and how the chain is read.

Values of changes never hold a secret: callers leave secrets out, and what looks like one by its name or its shape is
masked here all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from poe_gateway.clock import Clock
from poe_gateway.metering.chain import Report
from poe_gateway.metering.rows import Change
from poe_gateway.telemetry.redaction import MASK, is_secret_name, redact_text

_LONGEST = 2_000
"""Characters of one text; what is longer is cut."""
_DEEPEST = 8
_INT64 = 2**63 - 1
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = frozenset(
    {"hash", "hashes", "key", "keys", "text", "texts", "token", "tokens", "plaintext", "passphrase", "pepper", "sealed"}
    | {"bearer", "fernet", "signature", "clearance", "mac", "digest"}
)
_SECRET_PARTS = re.compile(r"secret|passw|cookie|credential|authoriz|api_?key|form_?key")
_PUBLIC = re.compile(r"(^|_)(key|account|request)_ids?$")


class Changes:
    """``note`` takes a change for good: from then on it survives this process."""

    def __init__(self, note: Callable[[Change], None], clock: Clock) -> None:
        self._note = note
        self._clock = clock

    def record(
        self,
        action: str,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        actor: str = "gateway",
        address: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """One change that has happened. Raises what ``note`` raises when it cannot be kept."""
        self._note(
            Change(
                at=self._clock.now(),
                actor=_cut(actor),
                address=address,
                action=action,
                target=_cut(target),
                before=None if before is None else plain(before),
                after=None if after is None else plain(after),
                request_id=request_id,
            )
        )


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One stored change, as the chain holds it. ``n`` counts from 1."""

    n: int
    source: str
    at: datetime
    actor: str
    address: str | None
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    prev: str
    hash: str


class ChangeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are meant; None sets no bound. From ``since`` on, and before ``until``."""

    target: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditTrail(Protocol):
    """The stored chain, for reading. All methods raise StoreUnavailable."""

    async def entries(self, where: ChangeFilter, limit: int, before: int | None = None) -> list[Entry]:
        """Newest first; ``before``: only entries with a smaller number."""

    async def entry(self, n: int) -> Entry | None:
        """One entry."""

    async def verify(self, noted: tuple[int, str] | None = None) -> Report:
        """Walk the whole chain; ``noted``: number and hash of an entry as they were noted elsewhere."""


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they can be stored and come back the same, with everything masked that looks like a secret.

    Moments and amounts become text; texts are cut at 2,000 characters, and what is nested deeper than eight levels.
    """
    flat = msgspec.to_builtins(dict(values), str_keys=True, order="deterministic", enc_hook=str)
    masked: dict[str, Any] = _plain(flat, 0)
    return masked


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _INT64 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict | list) and depth >= _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {_name(name): _field(name, each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    return _cut(redact_text(str(value)))


def _name(name: str) -> str:
    return _cut(redact_text(name)).replace("\x00", "")


def _field(name: str, value: Any, depth: int) -> Any:
    """Flags, absence and counts of tokens tell nothing; whatever else bears a secret's name is masked as a whole."""
    if value is None or isinstance(value, bool) or (isinstance(value, int | float) and "tokens" in name.lower()):
        return _plain(value, depth)
    return MASK if _secret(name) else _plain(value, depth)


@lru_cache(maxsize=1024)
def _secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    joined = "_".join(words)
    if _PUBLIC.search(joined):
        return False
    parts = _SECRET_PARTS.search(joined) or _SECRET_PARTS.search(name.lower())
    return parts is not None or is_secret_name(joined) or not _SECRET_WORDS.isdisjoint(words)


def _cut(text: str) -> str:
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= _LONGEST else whole[:_LONGEST] + "…"
