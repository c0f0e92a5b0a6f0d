"""JSON as models write it: strict where it counts, found where it hides. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

_FENCED = re.compile(r"```[\w+-]{0,20}[ \t]{0,8}\r?\n(.*?)```", re.DOTALL)
_STARTS = re.compile(r"[{\[]")
DEEPEST = 100
_TRIES = 16
"""Places in a text at which JSON is looked for; each may cost a pass over the rest."""


class NotJSON(ValueError):
    """The text is no JSON; the message says where and why."""


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Not msgspec: values that stand at the beginning of a longer text are read too, and whole numbers of any size.
_DECODER = json.JSONDecoder(parse_float=_float, parse_constant=_constant)


def beginning(text: str, at: int = 0) -> tuple[Any, int]:
    """The value that begins at ``at``, and where it ends. Raises NotJSON."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise NotJSON("it is nested too deeply") from None
    except ValueError as error:
        raise NotJSON(str(error)) from None
    if text.count("[", at, end) + text.count("{", at, end) > DEEPEST and is_deep(value):
        raise NotJSON("it is nested too deeply")
    return value, end


def is_deep(value: Any) -> bool:
    """Whether lists and objects are nested more than ``DEEPEST`` times: not everything could write that again."""
    pending = [(value, 1)]
    while pending:
        inner, depth = pending.pop()
        if isinstance(inner, dict | list):
            if depth > DEEPEST:
                return True
            pending.extend([(each, depth + 1) for each in (inner.values() if isinstance(inner, dict) else inner)])
    return False


def whole(text: str) -> Any:
    """The value that is the whole text. Raises NotJSON."""
    text = text.strip()
    value, end = beginning(text)
    if end != len(text):
        raise NotJSON(f"there is more after the value, from character {end} on")
    return value


def dumps(value: Any) -> str:
    """JSON text that every encoder takes: halves of surrogate pairs are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def found(text: str) -> Iterator[tuple[Any, str]]:
    """Values in the text, and how each is written: the whole of it, code blocks, then whatever begins like one."""
    tried = 0
    for candidate in (text, *(match.group(1) for match in _FENCED.finditer(text))):
        tried += 1
        if tried > _TRIES:
            return
        try:
            yield whole(candidate), candidate.strip()
        except NotJSON:
            continue
    at = 0
    for _ in range(_TRIES):
        start = _STARTS.search(text, at)
        if start is None:
            return
        at = start.start()
        try:
            value, end = beginning(text, at)
        except NotJSON:
            at += 1
            continue
        yield value, text[at:end]
        at = end
