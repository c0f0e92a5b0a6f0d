"""Which keys are keys, and which bodies are the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.idempotency.terms import BadKey, canonical, decoded, parse_key

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "value, key",
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        (' "abc" ', "abc"),
        ("a", "a"),
        ("a b", "a b"),
        ('a"b', 'a"b'),
        (r'"a\"b\\"', 'a"b\\'),
        ('" "', " "),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_quoted_and_bare_keys(value: str, key: str) -> None:
    assert parse_key(value) == key


@pytest.mark.parametrize(
    "value", ["", " ", '"', '""', '"a', r'"a\"', r'"a\b"', '"a"b', "a\nb", "\x7f", "é", "x" * 256, f'"{"x" * 256}"']
)
def test_what_is_no_key(value: str) -> None:
    with pytest.raises(BadKey, match="Idempotency-Key"):
        parse_key(value)


@given(PRINTABLE)
def test_every_printable_text_can_be_sent_in_quotes(key: str) -> None:
    assert parse_key('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"') == key


@given(st.dictionaries(st.text(), JSON, max_size=5), st.randoms())
def test_the_order_of_fields_and_white_space_do_not_matter(body: dict[str, object], rng: object) -> None:
    names = list(body)
    rng.shuffle(names)  # type: ignore[attr-defined]
    other = msgspec.json.format(msgspec.json.encode({name: body[name] for name in names}), indent=3)
    first, second = decoded(msgspec.json.encode(body)), decoded(other)
    assert first is not None and second is not None
    assert canonical(first, b"1") == canonical(second, b"2")


@pytest.mark.parametrize(
    "one, other",
    [
        (b'{"a": 1}', b'{"a": 2}'),
        (b'{"a": 1}', b'{"a": "1"}'),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}'),
        (b'{"a": null}', b"{}"),
        (b'{"a": true}', b'{"a": 1}'),
    ],
)
def test_other_values_are_another_request(one: bytes, other: bytes) -> None:
    first, second = decoded(one), decoded(other)
    assert first is not None and second is not None
    assert canonical(first, one) != canonical(second, other)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"a"', b"\xff", b"[" * 100_000])
def test_what_is_no_object_has_no_form(raw: bytes) -> None:
    assert decoded(raw) is None


def test_what_cannot_be_written_back_is_its_own_form() -> None:
    assert canonical({"a": "\ud800"}, b"raw") == b"raw"
