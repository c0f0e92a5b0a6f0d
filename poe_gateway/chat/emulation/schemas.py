"""JSON schemas of callers: whether values can be checked by them at all. Pure.

A caller's schema must not be able to fetch anything, nor to keep the process busy: references stay inside the schema,
patterns are run in linear time, and the work of one check is bounded (``validation``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from poe_gateway.chat.emulation.reading import is_deep
from poe_gateway.chat.emulation.validation import Schema, SchemaError, is_pattern

_DEEPEST = 48
_MOST = 20_000
"""Subschemas of one schema."""
_MOST_PATTERNS = 128
"""Different ones; each is compiled."""
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def check(schema: Schema, patterns: set[str] | None = None) -> None:
    """Whether values can be checked by this schema. Raises SchemaError.

    ``patterns``: those of other schemas of the request; this one's are added.
    """
    if is_deep(schema):
        raise SchemaError("it is nested too deeply")
    _Walk(schema, set() if patterns is None else patterns).run()


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_type(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _are_texts(names) and bool(names) and set(names) <= _TYPES


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, "a type of JSON, or several"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "required": (_are_texts, "a list of names"),
    "dependentRequired": (
        lambda value: isinstance(value, dict) and all(map(_are_texts, value.values())),
        "lists of names",
    ),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    **dict.fromkeys(
        (
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "minContains",
            "maxContains",
        ),
        (_is_count, "a whole number from 0 on"),
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
    **dict.fromkeys(("$ref", "$id", "$anchor", "pattern"), (lambda value: isinstance(value, str), "a string")),
}
_ONE = ("items", "additionalProperties", "additionalItems", "propertyNames", "contains", "not", "if", "then", "else")
_ONE_MORE = ("unevaluatedItems", "unevaluatedProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_UNKNOWN = ("$dynamicRef", "$recursiveRef", "dependencies")


class _Walk:
    """Looks at every subschema once."""

    def __init__(self, schema: Schema, patterns: set[str]) -> None:
        self._root = schema
        self._known_patterns = patterns
        self._seen: set[int] = set()
        self._pending: list[tuple[Any, int]] = [(schema, 0)]
        self._patterns: list[str] = []
        self._anchors: set[str] = set()
        self._names: list[str] = []
        """References by anchor."""
        self._by_pattern = self._unevaluated = False

    def run(self) -> None:
        while self._pending:
            schema, depth = self._pending.pop()
            if isinstance(schema, bool) or id(schema) in self._seen:
                continue
            if not isinstance(schema, dict):
                raise SchemaError("a part of it that must be a schema is none")
            if depth > _DEEPEST or len(self._seen) >= _MOST:
                raise SchemaError("it is too large or nested too deeply")
            self._seen.add(id(schema))
            self._look_at(schema)
            self._pending.extend([(each, depth + 1) for each in _within(schema)])
        if unknown := sorted(set(self._names) - self._anchors):
            raise SchemaError(f"the reference '#{unknown[0][:100]}' leads nowhere")
        if self._by_pattern and self._unevaluated:
            raise SchemaError("'patternProperties' and 'unevaluatedProperties' do not go together here")
        for pattern in self._patterns:
            if pattern in self._known_patterns:
                continue
            self._known_patterns.add(pattern)
            if len(self._known_patterns) > _MOST_PATTERNS:
                raise SchemaError(f"there are more than {_MOST_PATTERNS} different patterns")
            if not is_pattern(pattern):
                raise SchemaError(f"the pattern '{pattern[:100]}' is invalid, too large, or looks ahead or back")

    def _look_at(self, schema: Schema) -> None:
        for name, value in schema.items():
            form = _FORMS.get(name)
            if form is not None and not form[0](value):
                raise SchemaError(f"'{name}' must be {form[1]}")
            if name in _UNKNOWN:
                raise SchemaError(f"'{name}' is not supported")
        if "pattern" in schema:
            self._patterns.append(schema["pattern"])
        if isinstance(by_pattern := schema.get("patternProperties"), dict):
            self._by_pattern = True
            self._patterns.extend(by_pattern)
        self._unevaluated |= "unevaluatedProperties" in schema
        if "$anchor" in schema:
            self._anchors.add(schema["$anchor"])
        if "$id" in schema and schema is not self._root:
            raise SchemaError("'$id' is supported at its top only")
        if "$ref" in schema:
            self._follow(schema["$ref"])

    def _follow(self, ref: str) -> None:
        if not ref.startswith("#"):
            raise SchemaError(f"the reference '{ref[:100]}' leads out of it")
        pointer = unquote(ref[1:])
        if pointer and not pointer.startswith("/"):
            self._names.append(pointer)
            return
        target: Any = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(target):
                target = target[int(name[:9])]
            else:
                raise SchemaError(f"the reference '{ref[:100]}' leads nowhere")
        self._pending.append((target, 0))


def _within(schema: Schema) -> Iterator[Any]:
    """The subschemas directly inside of a schema. Raises SchemaError."""
    for name in (*_ONE, *_ONE_MORE):
        if name in schema:
            value = schema[name]
            if name == "items" and isinstance(value, list):
                raise SchemaError("'items' must be one schema: use 'prefixItems' for several")
            yield value
    for name in _LISTS:
        if name in schema:
            if not isinstance(schema[name], list) or not schema[name]:
                raise SchemaError(f"'{name}' must be a list of schemas")
            yield from schema[name]
    for name in _MAPS:
        if name in schema:
            if not isinstance(schema[name], dict):
                raise SchemaError(f"'{name}' must be an object of schemas")
            yield from schema[name].values()
