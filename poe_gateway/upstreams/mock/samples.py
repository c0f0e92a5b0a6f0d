"""A JSON value that a JSON schema allows, the same every time: what the mock models fill in. Pure.

It follows what schemas of tools and of structured output are made of: types, enums, constants, required properties,
items, local references, alternatives, lengths, bounds and formats. Patterns and conditions (``not``, ``if``) are not
followed. A schema that asks for too much (endless, or large beyond ``_BUDGET``) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poe_gateway.upstreams.mock.numbers import number_for

_BUDGET = 10_000
"""Values and characters that one sample may consist of."""
_DEEPEST = 40
_FORMATS = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "mock@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_FILLER = "."
_COMPOSED = frozenset({"$ref", "allOf", "anyOf", "oneOf"})


class Unsampled(ValueError):
    """No value was found for the schema; the text may be shown to the caller."""


def sample(schema: Any, text: str) -> Any:
    """A value for ``schema``; its strings and numbers are taken from ``text`` where they fit. Raises Unsampled."""
    return _Sampler(schema, text).value(schema, 0)


class _Sampler:
    """One sample. ``root`` resolves references."""

    def __init__(self, root: Any, text: str) -> None:
        self._root = root
        self._text = text
        self._left = _BUDGET

    def value(self, schema: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise Unsampled("The schema is nested too deeply for the mock models.")
        self._spend(1)
        if not isinstance(schema, dict):
            return self._string({})  # true: anything goes
        schema = self._plain(schema, depth)
        if "const" in schema:
            return schema["const"]
        if isinstance(choices := schema.get("enum"), list) and choices:
            return choices[0]
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return self._number(schema, whole=True)
            case "number":
                return self._number(schema, whole=False)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema)

    def _plain(self, schema: Any, depth: int) -> dict[str, Any]:
        """The schema with its references followed and its alternatives chosen."""
        if depth > _DEEPEST:
            raise Unsampled("A reference of the schema leads to itself.")
        self._spend(1)
        if not isinstance(schema, dict):
            return {}
        parts: list[Any] = _listed(schema.get("allOf"))
        if isinstance(reference := schema.get("$ref"), str):
            parts = [self._resolved(reference), *parts]
        for name in ("anyOf", "oneOf"):
            if options := _listed(schema.get(name)):
                parts = [*parts, next((each for each in options if not _is_null(each)), options[0])]
        if not parts:
            return schema
        rest = {key: value for key, value in schema.items() if key not in _COMPOSED}
        return _merged([*(self._plain(part, depth + 1) for part in parts), rest])

    def _resolved(self, reference: str) -> Any:
        found = self._root
        if reference != "#" and not reference.startswith("#/"):
            raise Unsampled("The mock models follow references within the schema only.")
        for step in reference.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise Unsampled("A reference of the schema leads nowhere.")
            found = found[name]
        return found

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        known: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
        names = [name for name in _listed(schema.get("required")) if isinstance(name, str)]
        return {name: self.value(known.get(name, {}), depth + 1) for name in dict.fromkeys(names)}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        first = _listed(schema.get("prefixItems"))
        most = _length(schema.get("maxItems"), _BUDGET)
        count = min(max(_length(schema.get("minItems"), 1), len(first)), most)
        self._spend(count)
        items = schema.get("items", {})
        made = [self.value(first[nth] if nth < len(first) else items, depth + 1) for nth in range(count)]
        if schema.get("uniqueItems") is True and len(made) > 1:
            return [made[0]] if _length(schema.get("minItems"), 1) < 2 else _told_apart(made)
        return made

    def _string(self, schema: dict[str, Any]) -> str:
        text = self._text
        if isinstance(form := schema.get("format"), str) and form in _FORMATS:
            text = _FORMATS[form]
        least, most = _length(schema.get("minLength"), 0), _length(schema.get("maxLength"), _BUDGET)
        self._spend(least)
        return text[:most].ljust(least, _FILLER)

    def _number(self, schema: dict[str, Any], *, whole: bool) -> int | float:
        number = number_for(schema, self._text, whole=whole)
        if number is None:
            raise Unsampled("The mock models found no number for the bounds of the schema.")
        return number

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise Unsampled("The schema asks for more than the mock models answer.")


def _kind(schema: dict[str, Any]) -> str:
    told = schema.get("type")
    if isinstance(told, list):
        told = next((each for each in told if each != "null"), "null")
    if isinstance(told, str):
        return told
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if {"minimum", "maximum", "multipleOf"} & schema.keys() else "string"


def _merged(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """All of them at once: properties and required names add up, of other words the last counts."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        properties = {**_group(merged.get("properties")), **_group(schema.get("properties"))}
        required = [*_listed(merged.get("required")), *_listed(schema.get("required"))]
        merged |= schema
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = required
    return merged


def _told_apart(values: list[Any]) -> list[Any]:
    """Strings and numbers that differ; others stay as they are."""
    return [
        f"{value}{nth}" if isinstance(value, str) and nth else value + nth if type(value) is int else value
        for nth, value in enumerate(values)
    ]


def _is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "null"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _group(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _length(value: Any, usual: int) -> int:
    return value if type(value) is int and value >= 0 else usual
