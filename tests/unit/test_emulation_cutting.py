"""Stop sequences, limits of tokens, and figures of two calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poe_gateway.chat.emulation.cutting import Limit, Stops
from poe_gateway.chat.emulation.tally import Tally
from poe_gateway.chat.events import Measured, ReasoningDelta, TextDelta, TextReplaced
from tests.unit.emulating import CUTS, pieces, shown


def stopped(text_pieces: list[str], stops: tuple[str, ...]) -> tuple[str, str | None]:
    cutter = Stops(stops)
    events = [event for piece in text_pieces for event in cutter.take([TextDelta(piece)])]
    return shown([*events, *cutter.rest()]), cutter.hit


@pytest.mark.parametrize(
    ("text", "stops", "expected", "hit"),
    [
        ("one STOP two", ("STOP",), "one ", "STOP"),
        ("one STO", ("STOP",), "one STO", None),
        ("STOP", ("STOP",), "", "STOP"),
        ("one two", ("two", "one"), "", "one"),
        ("abcd", ("bcd", "c"), "ab", "c"),
        ("abcd", ("bc", "c"), "a", "bc"),
        ("aab", ("ab",), "a", "ab"),
        ("ÄÖ\n\nU", ("\n\n",), "ÄÖ", "\n\n"),
        ("one", (), "one", None),
    ],
    ids=["in the middle", "not whole", "at once", "the first", "complete first", "longer", "again", "lines", "none"],
)
def test_an_answer_ends_before_its_first_stop(
    text: str, stops: tuple[str, ...], expected: str, hit: str | None
) -> None:
    assert stopped([text], stops) == (expected, hit)
    assert stopped(list(text), stops) == (expected, hit)


_STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)


@given(text=st.text(alphabet="abc ", max_size=60), stops=_STOPS, cuts=CUTS)
@example(text="abcd", stops=["bcd", "c"], cuts=[2])
def test_no_stop_is_passed_however_the_answer_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    seen, hit = stopped(pieces(text, cuts), tuple(stops))
    assert (seen, hit) == stopped([text], tuple(stops))
    assert text.startswith(seen) and not any(stop in seen for stop in stops)
    assert (hit is None) == (seen == text) == (not any(stop in text for stop in stops))


def test_what_cannot_begin_a_stop_is_not_held_back() -> None:
    cutter = Stops(("STOP", "\n\n"))
    assert shown(cutter.take([TextDelta("one ST")])) == "one "
    assert shown(cutter.take([TextDelta("ART\n")])) == "START"
    assert shown(cutter.rest()) == "\n" and cutter.rest() == []


def test_a_replaced_text_is_cut_anew_and_nothing_follows_a_stop() -> None:
    cutter = Stops(("STOP",))
    cutter.take([TextDelta("ST")])
    assert cutter.take([TextReplaced("OP is fine")]) == [TextReplaced("OP is fine")]
    after = cutter.take([TextReplaced("one STOP two"), ReasoningDelta("hm"), TextDelta("three")])
    assert (after, cutter.hit) == ([TextReplaced("one ")], "STOP")


def limited(text_pieces: list[str], most: int, count: Any = None) -> tuple[str, bool]:
    cutter = Limit(most, count)
    said = ""
    for piece in text_pieces:
        event = cutter.take(TextDelta(piece))
        assert isinstance(event, TextDelta)
        said += event.text
        if cutter.full:
            break
    return said, cutter.full


def words(text: str) -> int:
    """A tokenizer: every letter of an upper-case word is one token, other words are one."""
    return sum(len(word) if word.isupper() else 1 for word in text.split())


@pytest.mark.parametrize(
    ("text", "most", "count", "expected", "full"),
    [
        ("12345678", 2, None, "12345678", False),
        ("123456789", 2, None, "12345678", True),
        ("one two three", 3, words, "one two three", False),
        ("one two three", 2, words, "one two ", True),
        ("one ABC two", 3, words, "one AB", True),
    ],
    ids=["whole by estimate", "cut by estimate", "whole", "cut", "cut in a word"],
)
def test_an_answer_ends_at_its_limit(text: str, most: int, count: Any, expected: str, full: bool) -> None:
    assert limited([text], most, count) == (expected, full)


@given(text=st.text(max_size=80), most=st.integers(1, 12), cuts=CUTS, counted=st.booleans())
def test_a_limit_is_the_same_however_the_answer_is_cut(text: str, most: int, cuts: list[int], counted: bool) -> None:
    count = len if counted else None
    seen, full = limited(pieces(text, cuts), most, count)
    room = most if counted else 4 * most
    assert (seen, full) == (text[:room], len(text) > room)


def test_tokens_are_not_counted_for_every_piece() -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text) // 4

    cutter = Limit(1000, count)
    for _ in range(3900):
        cutter.take(TextDelta("x"))
    assert not cutter.full and len(counted) < 30


def test_a_replaced_text_is_counted_anew() -> None:
    cutter = Limit(2)
    assert cutter.take(TextDelta("12345")) == TextDelta("12345")
    assert cutter.take(TextReplaced("abcde")) == TextReplaced("abcde") and not cutter.full
    assert cutter.take(TextReplaced("abcdefghij")) == TextReplaced("abcdefgh") and cutter.full
    other = Limit(None)
    assert other.take(TextDelta("x" * 1000)) == TextDelta("x" * 1000) and not other.full


def test_figures_of_two_calls_are_added_up() -> None:
    tally = Tally()
    assert tally.take(Measured(points=20)) == Measured(points=20)
    assert tally.take(Measured(prompt_tokens=5, cost="0.10")).points == 20
    tally.next_call()
    assert tally.take(Measured(points=7, prompt_tokens=6, completion_tokens=3)) == Measured(
        points=27, prompt_tokens=11, completion_tokens=3, cost="0.10"
    )
    assert tally.take(Measured(cost="0.05", upstream_id="b")) == Measured(
        points=27, prompt_tokens=11, completion_tokens=3, cost="0.15", upstream_id="b"
    )


@pytest.mark.parametrize(
    ("first", "second", "cost"),
    [
        (Measured(cost="0.1", currency="EUR"), Measured(cost="0.2", currency="USD"), ("0.2", "USD")),
        (Measured(cost="dear"), Measured(cost="0.2"), ("0.2", "USD")),
        (Measured(cost="0.1", currency="EUR"), Measured(points=1), ("0.1", "EUR")),
        (Measured(cost="1e999999"), Measured(cost="0.2"), ("0.2", "USD")),
        (Measured(cost="NaN"), Measured(cost="0.2"), ("0.2", "USD")),
        (Measured(cost="1e-7"), Measured(cost="0"), ("0.0000001", "USD")),
    ],
    ids=["two currencies", "no number", "told once", "beyond all", "not a number", "small"],
)
def test_costs_that_cannot_be_added_up_are_not(first: Measured, second: Measured, cost: tuple[str, str]) -> None:
    tally = Tally()
    tally.take(first)
    tally.next_call()
    total = tally.take(second)
    assert (total.cost, total.currency) == cost
    tally.next_call()
    assert tally.take(Measured(points=-3)).points in (None, 1)
