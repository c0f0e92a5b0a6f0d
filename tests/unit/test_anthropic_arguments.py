"""Arguments of tool calls for readers that take nothing but one JSON object."""

import json
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poe_gateway.chat.anthropic.arguments import INVALID, Arguments, checked

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Text with characters beyond the basic plane, quotes, backslashes and control signs; no half of a pair.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=5)
NEARLY = st.text(st.sampled_from('{}[]",:\\u0aeftrn1-.dD89 \n'), max_size=40)


def streamed(text: str, cuts: list[int]) -> str:
    arguments = Arguments()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    given = "".join(arguments.feed(text[start:end]) for start, end in pairwise(places))
    return given + arguments.close()


@PATIENT
@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]), st.lists(st.integers(0, 10**6), max_size=8))
def test_an_object_passes_unchanged_however_it_is_cut(value, plain, indent, cuts):
    text = json.dumps(value, ensure_ascii=plain, indent=indent)
    if "\\ud" not in text.lower():  # keys of the strategy may hold halves of pairs
        assert streamed(text, cuts) == checked(text) == text


@PATIENT
@given(OBJECTS, st.integers(0, 10**6), NEARLY, st.lists(st.integers(0, 10**6), max_size=8))
def test_whatever_comes_an_object_goes_out(value, cut, odd, cuts):
    whole = json.dumps(value)
    for text in (odd, whole[: cut % len(whole)] + odd):
        for told in (streamed(text, cuts), checked(text)):
            assert isinstance(json.loads(told), dict)
        try:
            good = isinstance(json.loads(text), dict)
        except ValueError:
            good = False
        halves = INVALID in json.loads(checked(text)) and good  # JSON with half a pair, which most parsers refuse
        assert json.loads(checked(text)).get(INVALID, text) == text
        assert good or not text.strip() or INVALID in json.loads(checked(text))
        assert not halves or "\\ud" in text.lower()


@pytest.mark.parametrize(
    ("text", "given", "rest"),
    [
        ('{"path": "a', '{"path": "a', f'","{INVALID}":"{{\\"path\\": \\"a"}}'),
        ('{"a": 12', "{", f'"{INVALID}":"{{\\"a\\": 12"}}'),
        ('{"a": 12,', '{"a": 12', f',"{INVALID}":"{{\\"a\\": 12,"}}'),
        ('{"a": "\\u00', '{"a": "', f'","{INVALID}":"{{\\"a\\": \\"\\\\u00"}}'),
        ('{"a": [{', '{"a": [{', f'}}],"{INVALID}":"{{\\"a\\": [{{"}}'),
        ("{}", "{", "}"),
        ("", "", "{}"),
        ("  \n", "", "{}"),
        ("[1]", "", f'{{"{INVALID}":"[1]"}}'),
        ("null", "", f'{{"{INVALID}":"null"}}'),
        ('{} {"a":1}', "{", f'"{INVALID}":"{{}} {{\\"a\\":1}}"}}'),
        ('{"a":1]', '{"a":1', f',"{INVALID}":"{{\\"a\\":1]"}}'),
        ('{"a":01}', "{", f'"{INVALID}":"{{\\"a\\":01}}"}}'),
    ],
)
def test_what_can_be_told_at_once_and_what_at_the_end(text, given, rest):
    arguments = Arguments()
    assert arguments.feed(text) == given
    assert arguments.close() == rest


def test_a_whole_text_that_is_none_shows_nothing_of_itself_beside():
    assert json.loads(checked('{"path": "a", "text": "hal')) == {INVALID: '{"path": "a", "text": "hal'}


def test_bottomless_nesting_is_not_followed():
    text = '{"a":' * 500 + "1" + "}" * 500
    assert json.loads(checked(text)) == {INVALID: text}
    assert json.loads(streamed(text, [10, 700]))[INVALID] == text


def test_half_a_surrogate_pair_is_no_json():
    assert json.loads(checked('{"a":"\\ud83d"}')) == {INVALID: '{"a":"\\ud83d"}'}
    assert checked('{"a":"\ud83d"}') == f'{{"{INVALID}":"{{\\"a\\":\\"?\\"}}"}}'
    arguments = Arguments()
    assert arguments.feed('{"a":"x\\ud83d') == '{"a":"x', "the first half waits for the second"
    assert arguments.feed('\\ude00"}') == '\\ud83d\\ude00"'
    assert arguments.complete


@pytest.mark.parametrize("start", ['{"', '{"a":1', '{"a"', '{"a":"\n'], ids=["key", "number", "blanks", "control"])
def test_what_never_ends_is_not_waited_for(start):
    arguments = Arguments()
    given = arguments.feed(start)
    for _ in range(100):
        given += arguments.feed(" " * 99 if start.endswith('a"') else "1" * 99)
    assert arguments._held == "" or len(arguments._held) < 5000, "nothing is kept twice"
    assert INVALID in json.loads(given + arguments.close())
