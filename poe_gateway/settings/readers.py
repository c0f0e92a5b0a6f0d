"""How the text of one variable becomes a value: plain values. Keys and other secrets are read in ``secret_readers``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo


class Bad(ValueError):
    """A value does not fit; the text completes the sentence ``NAME …`` and never holds the value itself."""


Reader = Callable[[str], Any]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def whole(low: int, high: int) -> Reader:
    """A whole number within bounds."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise Bad(f"must be a whole number from {low} to {high}") from None
        if not low <= value <= high:
            raise Bad(f"must be from {low} to {high}")
        return value

    return read


def number(low: float, high: float, unit: str) -> Reader:
    """A number within bounds; ``unit`` is for the message."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # refuses NaN as well
            raise Bad(f"must be a number of {unit} from {low:g} to {high:g}")
        return value

    return read


def switch(text: str) -> bool:
    """True or false, in the usual spellings."""
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise Bad("must be true or false")


def choice(*words: str) -> Reader:
    """One of the words, in any case."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise Bad("must be " + ", ".join(words[:-1]) + " or " + words[-1])
        return text.lower()

    return read


_STRATEGIES = ("balanced", "spend_first", "fill_first", "round_robin", "weighted", "single")


def strategy(text: str) -> str:
    """A word of the pool's ``Strategy``; hyphens are as good as underscores."""
    word: str = choice(*_STRATEGIES)(text.replace("-", "_"))
    return word


def model_strategies(text: str) -> tuple[tuple[str, str], ...]:
    """A comma list of ``pattern=strategy``, in order. A pattern is a model's name with ``*``, ``?`` and ``[…]``."""
    found: dict[str, str] = {}
    for entry in filter(None, (each.strip() for each in text.split(","))):
        pattern, sign, word = (part.strip() for part in entry.rpartition("="))
        if not sign or not re.fullmatch(r"[\x21-\x7e]{1,200}", pattern):
            raise Bad("must be a comma list of pattern=strategy, such as gpt-4o*=single,*=balanced")
        if pattern.lower() in found:
            raise Bad("names a pattern twice: only the first would ever be used")
        try:
            found[pattern.lower()] = strategy(word)
        except Bad as bad:
            raise Bad(f"has a strategy that does not exist: each {bad}") from None
    return tuple(found.items())


def matching(pattern: str, wish: str) -> Reader:
    """Text of a form; ``wish`` is what is told otherwise."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise Bad(wish)
        return text

    return read


def names(text: str) -> tuple[str, ...]:
    """A comma list, each once."""
    return tuple(dict.fromkeys(filter(None, (each.strip() for each in text.split(",")))))


def header_text(text: str) -> str:
    """What may stand in an HTTP header."""
    if not text.isascii() or not text.isprintable() or len(text) > 512:
        raise Bad("must be at most 512 printable ASCII characters")
    return text


def zone(text: str) -> str:
    """An IANA time zone."""
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # an unknown zone is a KeyError, a path or a folder one of the others
        raise Bad("must be a time zone of the IANA database, such as America/Los_Angeles or Europe/Berlin") from None
    return text


def base_url(*schemes: str) -> Reader:
    """An address without anything behind its path; a slash at the end is dropped."""
    wish = f"must be an address like {schemes[0]}://host or {schemes[0]}://host:port, without user, query or fragment"

    def read(text: str) -> str:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise Bad(wish) from None
        bare = not (parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme not in schemes or not parts.hostname or port == 0 or not bare or re.search(r"\s", text):
            raise Bad(wish)
        return text.rstrip("/")

    return read


def push_url(text: str) -> str:
    """The same for a websocket; ``http`` becomes ``ws``."""
    address: str = base_url("wss", "ws", "https", "http")(text)
    return re.sub(r"^http", "ws", address)
