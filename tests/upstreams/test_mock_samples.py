"""JSON that the mock models fill in: valid by the schema whatever it is made of, and never without bounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from poe_gateway.upstreams.mock.samples import Unsampled, sample

TEXT = "Book 2 seats for Ada at 19.5 euro"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "string", "maxLength": 4}, "Book"),
        ({"type": "string", "minLength": 35}, TEXT + ".."),
        ({"type": "string", "format": "date"}, "2025-01-01"),
        ({"type": "string", "enum": ["b", "a"]}, "b"),
        ({"const": {"x": 1}}, {"x": 1}),
        ({"type": "integer"}, 2),
        ({"type": "number", "minimum": 10}, 19.5),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 100, "multipleOf": 7}, 105),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 2),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 2),
        ({"type": "array", "items": {"type": "integer"}}, [2]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [2, 3, 4]),
        ({"type": "array", "maxItems": 0}, []),
        ({"prefixItems": [{"type": "integer"}, {"type": "boolean"}]}, [2, True]),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 2}),
        ({"properties": {"a": {}}}, {}),
        (
            {
                "allOf": [{"$ref": "#/$defs/one"}, {"properties": {"b": {"const": 1}}, "required": ["b"]}],
                "$defs": {"one": {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}},
            },
            {"a": None, "b": 1},
        ),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {"a": {"required": ["a"]}, "b": {"required": ["b"], "properties": {"b": {"const": 1}}}},
            },
            {"a": TEXT, "b": 1},
        ),
        ({}, TEXT),
        (True, TEXT),
    ],
    ids=str,
)
def test_what_is_filled_in(schema: Any, value: Any) -> None:
    assert sample(schema, TEXT) == value
    Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://schemas.example/a.json"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 100, "items": {"type": "array", "minItems": 100, "items": {"type": "null"}}},
        {"type": "integer", "minimum": 2.1, "maximum": 2.9},
    ],
    ids=str,
)
def test_what_has_no_end_or_no_value_is_refused(schema: Any) -> None:
    with pytest.raises(Unsampled):
        sample(schema, TEXT)


def bounded(low: int, room: int, names: tuple[str, str], rest: dict[str, Any]) -> dict[str, Any]:
    return {names[0]: low, names[1]: low + room, **rest}


SIZES = st.integers(0, 3)
LEAVES = st.one_of(
    st.builds(
        bounded,
        st.integers(0, 30),
        st.integers(0, 20),
        st.just(("minLength", "maxLength")),
        st.just({"type": "string"}),
    ),
    st.builds(
        bounded,
        st.integers(-50, 50),
        st.integers(6, 20),
        st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")]),
        st.builds(
            lambda kind, step: {"type": kind, "multipleOf": step},
            st.sampled_from(["integer", "number"]),
            st.integers(1, 5),
        ),
    ),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "number"}, {"enum": ["x", 1]}, {"const": None}, {}]
    ),
    st.sampled_from([{"$ref": "#/$defs/word"}, {"$ref": "#/$defs/pair"}]),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda items, low, room: {"type": "array", "items": items, "minItems": low, "maxItems": low + room},
            inner,
            SIZES,
            SIZES,
        ),
        st.builds(
            lambda first: {"type": "array", "prefixItems": first, "items": {"type": "null"}},
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(
            lambda properties, left_out: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name != left_out],
                "additionalProperties": False,
            },
            st.dictionaries(st.text(max_size=3), inner, max_size=3),
            st.text(max_size=1),
        ),
        st.builds(
            lambda name, options: {name: [{"type": "null"}, *options]}, st.just("anyOf"), st.lists(inner, max_size=2)
        ),
    ),
    max_leaves=8,
)
DEFINED = {"word": {"type": "string", "minLength": 2}, "pair": {"type": "array", "items": {"$ref": "#/$defs/word"}}}


@given(SCHEMAS, st.text(max_size=40))
def test_every_sample_is_valid_and_always_the_same(schema: dict[str, Any], text: str) -> None:
    whole = {**schema, "$defs": DEFINED}
    value = sample(whole, text)
    Draft202012Validator(whole).validate(value)
    assert sample(whole, text) == value


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "type",
                        "properties",
                        "required",
                        "items",
                        "prefixItems",
                        "minItems",
                        "maxItems",
                        "uniqueItems",
                        "enum",
                    ),
                    *(
                        "minimum",
                        "maximum",
                        "multipleOf",
                        "anyOf",
                        "oneOf",
                        "allOf",
                        "$ref",
                        "minLength",
                        "maxLength",
                        "format",
                    ),
                ]
            ),
            inner | st.sampled_from(["object", "array", "integer", "number", "string", "#", "#/items"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(ODD)
def test_any_schema_gives_a_value_or_is_refused(schema: Any) -> None:
    try:
        sample(schema, TEXT)
    except Unsampled:
        return
