"""Schemas of callers: what can be used, what is wrong with a value, and that neither takes long nor reaches out."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.emulation import schemas
from poe_gateway.chat.emulation.validation import SchemaError, faults


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def doubling(levels: int) -> dict[str, Any]:
    """Every level refers to the next one twice."""
    twice = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/l0", "$defs": {**twice, f"l{levels}": {"type": "integer"}}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown type": ({"type": "text"}, "'type' must be"),
    "no type": ({"type": []}, "'type' must be"),
    "type that is a number": ({"type": 3}, "'type' must be"),
    "properties that are a list": ({"properties": []}, "'properties' must be an object of schemas"),
    "a property that is no schema": ({"properties": {"a": 3}}, "must be a schema"),
    "required that is true": ({"required": True}, "'required' must be a list of names"),
    "enum that is a text": ({"enum": "a"}, "'enum' must be a list"),
    "a count below zero": ({"minLength": -1}, "'minLength' must be a whole number"),
    "a count that is a bool": ({"maxItems": True}, "'maxItems' must be a whole number"),
    "an old exclusive minimum": ({"exclusiveMinimum": True}, "'exclusiveMinimum' must be a number"),
    "a multiple of nothing": ({"multipleOf": 0}, "'multipleOf' must be a number above 0"),
    "an empty choice": ({"anyOf": []}, "'anyOf' must be a list"),
    "old tuples": ({"items": [{}]}, "'prefixItems'"),
    "bad deep inside": ({"items": {"not": {"if": {"type": "x"}}}}, "'type' must be"),
    "a remote reference": ({"$ref": "https://example.test/schema.json"}, "leads out of it"),
    "a file": ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "leads out of it"),
    "a relative reference": ({"$ref": "other.json#/x"}, "leads out of it"),
    "a reference to nothing": ({"$ref": "#/$defs/a"}, "leads nowhere"),
    "a reference past a list": ({"$ref": "#/allOf/7", "allOf": [{}]}, "leads nowhere"),
    "a reference to no schema": ({"$ref": "#/enum/0", "enum": [3]}, "must be a schema"),
    "an anchor that is not there": ({"$ref": "#a"}, "leads nowhere"),
    "another base": ({"properties": {"a": {"$id": "https://example.test/"}}}, "'$id'"),
    "dynamic references": ({"$dynamicRef": "#a"}, "'$dynamicRef' is not supported"),
    "an invalid pattern": ({"pattern": "("}, "the pattern '('"),
    "a pattern that looks ahead": ({"pattern": "^(?!a)"}, "the pattern"),
    "a pattern of names": ({"patternProperties": {"(?<=a)b": {}}}, "the pattern"),
    "half a surrogate pair": ({"pattern": "\ud800"}, "the pattern"),
    "too deep": (nested(49), "nested too deeply"),
    "data that is too deep": ({"default": deep(101)}, "nested too deeply"),
}


@pytest.mark.parametrize(("schema", "why"), REFUSED.values(), ids=REFUSED)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schemas.check(schema)
    assert why in str(caught.value)


VALUES: dict[str, tuple[dict[str, Any], Any, str]] = {
    "nothing asked": ({}, [1], ""),
    "type": ({"type": "integer"}, "x", "$: 'x' is not of type 'integer'"),
    "a whole number may be written with a point": ({"type": "integer"}, 3.0, ""),
    "nothing but": ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1, "b": 2}, "'b' is not allowed"),
    "others by schema": ({"additionalProperties": {"type": "null"}}, {"b": 2}, "$.b: 2 is not of type 'null'"),
    "names by pattern": ({"patternProperties": {"^n_": {"type": "null"}}}, {"n_a": 1, "m": 1}, "$.n_a: 1"),
    "names by pattern are known": ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, {"n_a": 1}, ""),
    "pattern": ({"pattern": "^[A-Z]+$"}, "paris", "does not match"),
    "pattern found anywhere": ({"pattern": "[A-Z]"}, "in Paris", ""),
    "pattern and another type": ({"pattern": "a"}, 3, ""),
    "pattern and half a surrogate pair": ({"pattern": "a"}, "\ud800", "does not match"),
    "definitions": ({"$ref": "#/definitions/a", "definitions": {"a": {"const": 1}}}, 2, "1 was expected"),
    "odd names in references": ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"const": 1}}}, 2, "1 was expected"),
    "anchors": ({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "const": 1}}}, 2, "1 was expected"),
    "an own name": ({"$id": "https://example.test/s", "$ref": "#/$defs/a", "$defs": {"a": False}}, 2, "does not allow"),
    "a tree": (
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["n"]},
        {"n": 1, "next": {"n": 2, "next": {}}},
        "$.next.next: 'n' is a required property",
    ),
    "an older draft": ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}, 1, "not of type"),
    "a property named like a keyword": ({"properties": {"$ref": {"type": "string"}}}, {"$ref": 1}, "not of type"),
    "data that looks like a reference": ({"const": {"$ref": "https://example.test"}}, {"$ref": "x"}, "was expected"),
    "different items": ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}, {"a": True}], ""),
    "equal numbers": ({"uniqueItems": True}, [1, 1.0], "not all different"),
    "equal objects": ({"uniqueItems": True}, [{"a": [1], "b": 2}, {"b": 2, "a": [1]}], "not all different"),
    "a number beyond all": ({"multipleOf": 0.1}, 10**400, "too large"),
}


@pytest.mark.parametrize(("schema", "value", "wrong"), VALUES.values(), ids=VALUES)
def test_values_are_checked(schema: dict[str, Any], value: Any, wrong: str) -> None:
    schemas.check(schema)
    found = faults(schema, value)
    assert bool(found) == bool(wrong) and wrong in " ".join(found)


def test_a_few_short_sentences_are_told() -> None:
    found = faults({"items": {"type": "null"}}, ["x" * 10_000] * 100)
    assert len(found) == 3 and all(len(each) < 400 for each in found)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, 1),
        ({"anyOf": [{"$ref": "#"}]}, 1),
        (doubling(40), 1),
        ({"items": {"enum": list(range(5000))}}, [4999] * 5000),
        ({"items": {"properties": {str(n): {} for n in range(5000)}}}, [{}] * 5000),
        ({"patternProperties": {str(n): {} for n in range(100)}}, {str(n): 1 for n in range(900)}),
        ({"allOf": [{"pattern": "^(a|b)*$"}] * 900}, "ab" * 50_000),
        ({"allOf": [{"uniqueItems": True}] * 3000}, list(range(30_000))),
        ({"anyOf": [{"anyOf": [{"type": "string"}] * 50}] * 50}, {"x": ["y" * 1000] * 1000}),
    ],
    ids=["itself", "itself in a choice", "doubling", "choices", "properties", "patterns", "text", "items", "faults"],
)
def test_work_without_end_is_given_up(schema: dict[str, Any], value: Any) -> None:
    schemas.check(schema)
    began = time.process_time()
    with pytest.raises(SchemaError, match="too long"):
        faults(schema, value)
    assert time.process_time() - began < 2.0


def test_a_long_answer_of_an_ordinary_form_is_not_too_much() -> None:
    row = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    assert faults({"type": "array", "items": row}, [{"a": "text " * 40, "b": 1}] * 2000) == []


def test_a_request_has_so_many_patterns_at_most() -> None:
    """Each is compiled before the request goes anywhere."""
    seen: set[str] = set()
    for number in range(2):
        schemas.check({"allOf": [{"pattern": f"a{number}{each}"} for each in range(64)] * 2}, seen)
    with pytest.raises(SchemaError, match="more than 128"):
        schemas.check({"pattern": "one more"}, seen)
    with pytest.raises(SchemaError, match="too large"):
        schemas.check({"pattern": "a" * 5000})


def test_many_items_are_compared_in_no_time() -> None:
    assert faults({"uniqueItems": True}, [{"a": number} for number in range(30_000)]) == []


def test_patterns_take_time_in_proportion_only() -> None:
    schema = {"pattern": "^(a+)+$", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
    schemas.check(schema)
    assert faults(schema, "a" * 5000 + "!")
    assert faults(schema, {"a" * 5000 + "!": 1})


def test_patterns_nobody_checks_in_proportion_are_refused() -> None:
    with pytest.raises(SchemaError, match="do not go together"):
        schemas.check({"patternProperties": {"^(a+)+$": {}}, "allOf": [{"unevaluatedProperties": False}]})


_KEYS = st.sampled_from(
    [*schemas._FORMS, *schemas._ONE, *schemas._ONE_MORE, *schemas._LISTS, *schemas._MAPS, "const", "format", "a", "b"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(schema=st.dictionaries(_KEYS, _JSON, max_size=4), value=_JSON)
def test_whatever_a_caller_sends_is_refused_or_checked(schema: dict[str, Any], value: Any) -> None:
    try:
        schemas.check(schema)
        assert isinstance(faults(schema, value), list)
    except SchemaError:
        pass
