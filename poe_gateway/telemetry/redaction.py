"""Keeps secrets out of what is logged: by the field's name, by the value's looks, and by heart.

The third net is a process-wide set filled with the few secrets that the process itself holds (``register_secret``).
Everything masked reads ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

MASK = "***"

_MAX_DEPTH = 6
_MAX_KNOWN = 256
_SHORTEST_KNOWN = 6  # anything shorter would mask ordinary words
_SHORTEST_SHAPED = 10  # no pattern below matches less

_SECRET_NAME = re.compile(
    r"(^|_)(p_b|p_lat|cf_bm|cf_clearance|authorization|cookies?|set_cookie|api_?keys?|admin_key|service_key"
    r"|form_?key|fernet(_keys?)?|passw(or)?d|passphrase|secrets?|credentials?|tokens?|private_key|signature)$"
)
_COUNTED = re.compile(r"(prompt|completion|total|max|input|output|cached|reasoning)_tokens$")

_SHAPES = re.compile(
    # A scheme with its token; words of prose ("bearer authentication") are shorter and hold no digit.
    r"(?P<bearer>\bbearer\s+)(?:(?=[^\s]{0,80}\d)[\w\-.~+/=:]{6,}|[\w\-.~+/=:]{16,})"
    r"|(?P<named>(?:\b|_)(?:p-b|p_b|p-lat|p_lat|cf_clearance|__cf_bm|cf_bm|formkey|api[_-]?key|authorization)"
    r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?:basic\s+|bearer\s+)?)[^\s;,\"'&}]+"
    r"|(?P<address>\b[a-z][a-z0-9+.\-]{0,30}://[^\s/:@]{0,200}:)[^\s/@]+(?=@)"
    r"|\bgAAAA[\w\-]{20,}={0,2}"
    r"|\b(?:sk|pk|rk|pgw|pg|gw|agw|whsec)[-_][\w\-.+/]{12,}=*",
    re.IGNORECASE,
)

_PLAIN = frozenset({int, float, bool, type(None)})

_known: dict[str, None] = {}


def register_secret(value: str) -> None:
    """From now on ``value`` is masked wherever it turns up.

    For the process's own few secrets (configured keys); every logged text is searched for each of them. Values under
    6 characters are ignored; beyond 256 the oldest is forgotten.
    """
    if len(value) < _SHORTEST_KNOWN:
        return
    _known.pop(value, None)
    _known[value] = None
    while len(_known) > _MAX_KNOWN:
        del _known[next(iter(_known))]


def forget_secrets() -> None:
    """Empties the set; for tests."""
    _known.clear()


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """True when a field of this name (any case, ``-`` or ``_``) holds a secret by convention."""
    plain = name.lower().replace("-", "_")
    return bool(_SECRET_NAME.search(plain)) and not _COUNTED.search(plain)


def redact_text(text: str) -> str:
    """``text`` with everything masked that is known to be, or looks like, a secret."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, MASK)
    if len(text) < _SHORTEST_SHAPED:
        return text
    return _SHAPES.sub(_mask, text)


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` with secrets masked; mappings and sequences down to six levels, the rest cut."""
    kind = type(value)
    if kind is str:
        return redact_text(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, str):
        return redact_text(str(value))
    if isinstance(value, bytes | bytearray):
        return redact_text(value.decode("utf-8", "replace"))
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(name): redact_field(str(name), item, depth + 1) for name, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [redact(item, depth + 1) for item in value]
    return value


def redact_field(name: str, value: Any, depth: int = 0) -> Any:
    """``value`` redacted as the field ``name``: wholly, if the name says secret (numbers and flags stay)."""
    if type(value) in _PLAIN:
        return value
    return MASK if is_secret_name(name) else redact(value, depth)


def _mask(match: re.Match[str]) -> str:
    return (match["bearer"] or match["named"] or match["address"] or "") + MASK
