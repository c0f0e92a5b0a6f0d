"""Arguments of a tool call for readers that take nothing but one whole JSON object. Pure.

OpenAI's dialects carry arguments as text that a model wrote and that may be anything. Anthropic's carry an object, and
its SDKs parse a stream of it while it comes and fail on what is not JSON. So a piece is given out only as far as it
can still be completed; what turns out to be no object ends as an object that holds the model's whole text under
``INVALID_JSON``, the field that Anthropic's documents name for it. What was given out before stays: nothing that was
sent can be taken back.
"""

from __future__ import annotations

import re
from typing import Literal

import orjson

INVALID = "INVALID_JSON"

_DEEPEST = 100
"""Levels of nesting; the SDKs' own parsers give up at about 200."""
_LONGEST = 4096
"""Characters of a key, a number or blanks that are waited for; the cost of looking again stays bounded."""
_BLANK = re.compile(r"[ \t\n\r]*+")
_ESCAPED = (
    r"\\[\"\\/bfnrt]"
    r"|\\u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair stays together
)
_INSIDE = re.compile(rf'(?:[^"\\\x00-\x1f\ud800-\udfff]++|{_ESCAPED})*+')
_KEY = re.compile(rf'"{_INSIDE.pattern}"')
_SCALAR = re.compile(r"(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|null)(?=[ \t\n\r,\]}])")

_State = Literal["start", "first key", "key", "colon", "first value", "value", "string", "next", "end", "wrong"]
_SAFE = frozenset({"first key", "first value", "string", "next"})
"""Where a text can be completed with closing signs alone."""


class Arguments:
    """Checks one object as it comes: ``feed`` every piece of it, then ``close``; what they return is JSON."""

    __slots__ = ("_at", "_held", "_open", "_safe", "_said", "_state")

    def __init__(self) -> None:
        self._said: list[str] = []
        self._held = ""
        """Not given out yet."""
        self._at = 0
        """How far ``_held`` was read."""
        self._state: _State = "start"
        self._open: list[str] = []
        """Closing signs that are still to come, outermost first."""
        self._safe: _State = "start"
        """The state at the end of what was given out."""

    @property
    def complete(self) -> bool:
        """The object is whole; only its last brace is held back."""
        return self._state == "end"

    def feed(self, text: str) -> str:
        """What of the text so far can be given out now."""
        self._said.append(text)
        if self._state == "wrong":
            return ""
        self._held += text
        safe = 0
        while (end := self._step()) is not None:
            self._at = end
            if self._state in _SAFE:
                safe, self._safe = end, self._state
        given, self._held = self._held[:safe], self._held[safe:]
        self._at -= safe
        if len(self._held) > _LONGEST:
            self._state = "wrong"
        return given

    def close(self) -> str:
        """The rest, so that everything given out is one JSON object. Blank arguments are an empty one."""
        if self._state == "end":
            return self._held
        said = "".join(self._said)
        if not said.strip():
            return "{}"
        wrong = f'"{INVALID}":{_quoted(said)}}}'
        if self._safe == "start":
            return "{" + wrong
        inner = "".join(reversed(self._open[1:]))
        empty = self._safe == "first key" and len(self._open) == 1
        return ('"' if self._safe == "string" else "") + inner + ("" if empty else ",") + wrong

    def _step(self) -> int | None:
        """Reads one token, sets the state after it and tells where it ends; None when more text is needed."""
        text, state = self._held, self._state
        if state == "wrong":
            return None
        if state == "string":
            return self._inside(text)
        start = _end(_BLANK, text, self._at)
        sign = text[start : start + 1]
        if not sign:
            return None
        if state in ("start", "value", "first value") and (state != "start" or sign == "{"):
            return self._value(text, start, sign)
        if state in ("key", "first key") and sign == '"':
            if (key := _KEY.match(text, start)) is None:
                return None
            self._state = "colon"
            return key.end()
        if state == "colon" and sign == ":":
            self._state = "value"
        elif state == "first key" and sign == "}":
            self._shut()
        elif state == "next" and sign == ",":
            self._state = "key" if self._open[-1] == "}" else "value"
        elif state == "next" and sign == self._open[-1]:
            self._shut()
        else:
            self._state = "wrong"
        return start + 1

    def _value(self, text: str, start: int, sign: str) -> int | None:
        if sign == '"':
            self._state = "string"
        elif sign in "{[":
            if len(self._open) == _DEEPEST:
                self._state = "wrong"
                return start
            self._open.append("}" if sign == "{" else "]")
            self._state = "first key" if sign == "{" else "first value"
        elif sign == "]" and self._state == "first value":
            self._shut()
        elif (scalar := _SCALAR.match(text, start)) is not None:
            self._state = "next"
            return scalar.end()
        else:
            return None  # perhaps the half of a number or a word; if not, nothing of it is given out
        return start + 1

    def _inside(self, text: str) -> int | None:
        """As much of a string as is whole."""
        end = _end(_INSIDE, text, self._at)
        if text[end : end + 1] == '"':
            self._state = "next"
            return end + 1
        return end if end > self._at else None

    def _shut(self) -> None:
        """A closing sign; the outermost stays open, for something wrong may follow it."""
        if len(self._open) == 1:
            self._state = "end"
        else:
            self._open.pop()
            self._state = "next"


def checked(text: str) -> str:
    """Whole arguments as the text of one JSON object; nothing of them stands beside ``INVALID_JSON``."""
    arguments = Arguments()
    given = arguments.feed(text)
    if arguments.complete or not text.strip():
        return given + arguments.close()
    return f'{{"{INVALID}":{_quoted(text)}}}'


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return start if match is None else match.end()


def _quoted(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()
