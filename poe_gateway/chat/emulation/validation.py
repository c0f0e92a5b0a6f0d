"""Checks values by JSON schema (draft 2020-12), with bounded work whatever the schema. Pure.

The checker is ``jsonschema``, its patterns are run by RE2. Schemas have passed ``schemas.check``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from itertools import islice
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

_MOST_STEPS = 30_000
"""Work on one value, about a fifth of a second; references may multiply without end."""
_AT_ONCE = 8
"""Entries of a list or object in a schema that are as much work as a keyword."""
_TOLD = 3
_LONGEST = 300
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 18
"""Bytes of one compiled pattern; what needs more takes some milliseconds to compile."""
_LONGEST_PATTERN = 4096
_TEXT_AT_ONCE, _SEARCHED_AT_ONCE = 4000, 100
"""Characters of a value that are as much work as a keyword: to copy and to compare, and to search by a pattern."""
_ENTRY = 64
"""Characters of text that an entry of a list or object is as much work as."""

Schema = dict[str, Any]
Errors = Iterator[ValidationError]
Keyword = Callable[[Any, Any, Any, Any], Errors | None]


class _Work:
    """What may still be done. ``sizes``: of the lists and objects in the value, by identity, in characters."""

    def __init__(self, value: Any) -> None:
        self.left = _MOST_STEPS
        self.sizes: dict[int, int] = {}
        inner = [value] if isinstance(value, list | dict) else []
        for node in inner:  # grows: the innermost come last
            inner.extend([each for each in _entries(node) if isinstance(each, list | dict)])
        for node in reversed(inner):
            self.sizes[id(node)] = sum(self.size(each) + _ENTRY for each in _entries(node))

    def size(self, value: Any) -> int:
        return len(value) if isinstance(value, str) else self.sizes.get(id(value), 0)


_work: ContextVar[_Work] = ContextVar("work")


def _entries(value: Any) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else value


class SchemaError(ValueError):
    """The schema cannot be used; the message says why, in half a sentence."""


def is_pattern(pattern: str) -> bool:
    """Whether it is a regular expression of some size, without looking ahead or back."""
    if len(pattern) > _LONGEST_PATTERN:
        return False
    try:
        re2.compile(pattern, _OPTIONS)
    except (re2.error, UnicodeEncodeError):
        return False
    return True


def faults(schema: Schema, value: Any) -> list[str]:
    """What is wrong with the value, in a few short sentences; empty when it is valid. Raises SchemaError."""
    token = _work.set(_Work(value))
    try:
        checker = _Checker(schema, registry=Registry())
        return [_told(error) for error in islice(checker.iter_errors(value), _TOLD)]
    except (RecursionError, _TooMuch):
        raise SchemaError("checking by it takes too long") from None
    except OverflowError:
        return ["a number is too large"]
    finally:
        _work.reset(token)


class _TooMuch(Exception):
    """The work is not worth it."""


def _told(error: ValidationError) -> str:
    text = f"{error.json_path}: {error.message}"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _counted(keyword: Keyword) -> Keyword:
    def check(validator: Any, wanted: Any, instance: Any, schema: Any) -> Errors | None:
        asked = len(wanted) // _AT_ONCE if isinstance(wanted, list | dict) else 0
        # Whatever fails is written out whole, and much looks at all of the value.
        _spend(1 + asked + _work.get().size(instance) // _TEXT_AT_ONCE)
        return keyword(validator, wanted, instance, schema)

    return check


def _spend(steps: int) -> None:
    work = _work.get()
    work.left -= steps
    if work.left < 0:
        raise _TooMuch


def _matches(pattern: str, text: str) -> bool:
    _spend(1 + len(text) // _SEARCHED_AT_ONCE)
    return re2.search(pattern, text.encode("utf-8", "replace").decode(), _OPTIONS) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Errors:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Errors:
    if isinstance(instance, dict):
        for pattern, subschema in patterns.items():
            for name, value in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, additional: Any, instance: Any, schema: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_matches(pattern, name) for pattern in patterns):
            continue
        if additional is False:
            yield ValidationError(f"the property {name[:100]!r} is not allowed")
        else:
            yield from validator.descend(value, additional, path=name)


def _unique_items(validator: Any, unique: Any, instance: Any, schema: Any) -> Errors:
    if unique and isinstance(instance, list) and len({_comparable(each) for each in instance}) < len(instance):
        yield ValidationError("its items are not all different")


def _comparable(value: Any) -> Hashable:
    """Equal for what is equal in JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return frozenset([(name, _comparable(each)) for name, each in value.items()])
    if isinstance(value, list):
        return tuple([_comparable(each) for each in value])
    return (bool, value) if isinstance(value, bool) else value


_OWN: dict[str, Keyword] = {
    "uniqueItems": _unique_items,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
_Checker = extend(
    Draft202012Validator,
    {name: _counted(keyword) for name, keyword in {**Draft202012Validator.VALIDATORS, **_OWN}.items()},
)
