"""Reading typed fields out of a document, with every problem collected and named by its key path. Pure.

A problem never repeats a text that could be a secret: of values only numbers and names of the table are shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_NAMES = re.compile(
    r"(?i)(.*[_-])?(api[_-]?keys?|keys?|tokens?|secrets?|passwords?|passwd|credentials?|authorization|bearer|cookies?"
    r"|poe_p_b|p_b|p_lat|poe_cf_clearance|poe_cf_bm|formkey)"
)
_SECRET_TEXTS = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16,}|(pgw|agw)_[A-Za-z0-9]+\.[A-Za-z0-9_-]{8,}|Bearer\s+[A-Za-z0-9._~+/-]{16,}"
    r"|ghp_[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{20,})"
)
_HARMLESS = re.compile(r"(?i)(max|min|num|n)_?.*tokens?|stop_tokens?|logit.*|prompt_cache_key")
"""Names of sampling parameters that look like those of secrets."""
LITERAL = "a secret must not stand in this file: name its variable with api_key_env or its file with api_key_file"


class Problem(NamedTuple):
    """What is wrong, and where, as ``tiers[2].backend``."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class Problems:
    """What is wrong with a document, in the order of finding, each once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: str, text: str) -> None:
        """``path``: where, as ``tiers[2].backend``."""
        problem = Problem(path, text)
        if problem not in self.found:
            self.found.append(problem)


class Section:
    """One table of the document while it is read. Every accessor yields None for what is absent or wrong."""

    def __init__(self, problems: Problems, path: str, value: Any) -> None:
        self.problems = problems
        self.path = path
        self._fields: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._fields = value
        else:
            self.problem("", f"must be a table, not {_kind(value)}")

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def __iter__(self) -> Any:
        return iter(self._fields)

    def problem(self, key: str, text: str) -> None:
        """A problem of one field, or with "" of the table itself."""
        self.problems.add(join(self.path, key) if key else self.path, text)

    def raw(self, key: str) -> Any:
        """As it stands there."""
        return self._fields.get(key)

    def get(self, key: str, kind: Any) -> Any:
        """The value, of type ``kind`` (with bounds by ``msgspec.Meta``), or None."""
        if key not in self._fields:
            return None
        value = self._fields[key]
        try:
            return msgspec.convert(value, type=kind)
        except (msgspec.ValidationError, OverflowError) as error:
            self.problem(key, _expected(str(error)))
            return None

    def text(self, key: str, longest: int = 200) -> str | None:
        """One line, without blanks around it; an empty one counts as absent."""
        value = self.get(key, str)
        if value is None:
            return None
        value = value.strip()
        if len(value) > longest:
            self.problem(key, f"is longer than {longest} characters")
            return None
        if not value.isprintable():
            self.problem(key, "must be one line of printable characters")
            return None
        return value or None

    def prose(self, key: str) -> str | None:
        """A text of any length and any lines; an empty one counts as absent."""
        value = self.get(key, str)
        return value if value and value.strip() else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of names, each once."""
        values = self.get(key, list[str]) or []
        return tuple(dict.fromkeys([value.strip() for value in values if value.strip()]))

    def known(self, allowed: Collection[str]) -> None:
        """Tell keys that nobody knows; those that look like a secret with the reason why they may not be there."""
        for key in self._fields:
            if key in allowed:
                continue
            if secret_name(key):
                self.problem(key, LITERAL)
            else:
                self.problem(key, f"unknown key{near(key, allowed)}")


def join(path: str, key: str) -> str:
    """A key path, with quotes where TOML has them."""
    shown = key if _BARE.fullmatch(key) and not secret_text(key) else f'"{plain(key)}"'
    return f"{path}.{shown}" if path else shown


def plain(text: str) -> str:
    """A name out of the file, fit to be shown: short, printable, and never a key that stands in the wrong place."""
    return "…" if secret_text(text) else "".join(c if c.isprintable() else "?" for c in text[:100])


def near(word: str, known: Collection[str]) -> str:
    """``; did you mean …?`` where something like it is known."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def secret_name(key: str) -> bool:
    """Whether a field of this name would hold a secret."""
    return _SECRET_NAMES.fullmatch(key) is not None and _HARMLESS.fullmatch(key) is None


def secret_text(text: str) -> bool:
    """Whether a text holds something with the form of a key."""
    return _SECRET_TEXTS.search(text) is not None


def _expected(message: str) -> str:
    """The validator's words as the rest of our sentence, without the place that it names."""
    told, _, place = message.partition(" - at ")
    inner = place.strip("`").removeprefix("$")
    return told[:1].lower() + told[1:] + (f" (at {inner})" if inner else "")


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")
