"""What makes two requests the same: the key that the caller gave, and the canonical form of the body. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

LONGEST = 255
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_ESCAPED = re.compile(r"\\(.)")


class BadKey(ValueError):
    """An ``Idempotency-Key`` that is none; the message is fit for the caller."""


def parse_key(value: str) -> str:
    """The key of a header's value: a quoted string (RFC 9651, the IETF's draft) or bare text.

    ``"abc"`` and ``abc`` are the same key. Raises BadKey.
    """
    value = value.strip(" \t")
    quoted = _QUOTED.fullmatch(value)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted is not None else value
    if not 1 <= len(key) <= LONGEST or (quoted is None and _BARE.fullmatch(key) is None):
        raise BadKey(f"'Idempotency-Key' must be 1 to {LONGEST} printable characters, bare or in double quotes.")
    return key


def decoded(raw: bytes) -> dict[str, Any] | None:
    """The JSON object of a body; None when it is not one, which is for the route to refuse."""
    try:
        body = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def canonical(body: dict[str, Any], raw: bytes) -> bytes:
    """The same bytes for the same object, whatever the order of its fields and the white space between them.

    What cannot be written back (half a surrogate pair, deep nesting) is its own canonical form.
    """
    try:
        return msgspec.json.encode(body, order="deterministic")
    except (ValueError, RecursionError):
        return raw
