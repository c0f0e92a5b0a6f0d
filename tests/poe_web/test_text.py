"""Pieces of text from whole texts, and one query from many turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.events import TextDelta, TextReplaced
from poe_gateway.chat.request import ImagePart, Message, TextPart, ToolCall
from poe_gateway.upstreams.poe_web.delta import GrowingText
from poe_gateway.upstreams.poe_web.transcript import fold

TEXTS = st.lists(st.text(alphabet="ab\U0001f600", max_size=6), max_size=12)


@given(TEXTS)
def test_pieces_make_up_every_text_in_turn(wholes: list[str]) -> None:
    growing, said = GrowingText(), ""
    for whole in wholes:
        match growing.advance(whole):
            case TextDelta(text):
                assert text, "nothing is said twice or for nothing"
                said += text
            case TextReplaced(text):
                said = text
        assert said == whole == growing.text


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_growth_is_never_a_replacement(whole: str, cuts: list[int]) -> None:
    growing = GrowingText()
    pieces = [growing.advance(whole[:cut]) for cut in [*sorted(cuts), len(whole)]]
    assert not any(isinstance(piece, TextReplaced) for piece in pieces)
    assert "".join(piece.text for piece in pieces if piece) == whole


@given(st.text(max_size=10), st.text(max_size=10))
def test_other_text_replaces(first: str, second: str) -> None:
    growing = GrowingText()
    growing.advance(first)
    event = growing.advance(second)
    if second == first:
        assert event is None
    elif second.startswith(first):
        assert event == TextDelta(second[len(first) :])
    else:
        assert event == TextReplaced(second)


# ---------------------------------------------------------------- transcripts


def say(role: Any, text: str, **more: Any) -> Message:
    return Message(role, (TextPart(text),), **more)


CALLS = (ToolCall("c1", "f", "{}"),)


@pytest.mark.parametrize(
    ("turns", "query"),
    [
        ([say("user", "hi")], "hi"),
        ([say("system", "Be brief."), say("user", "hi")], "Be brief.\n\nhi"),
        (
            [say("user", "a"), say("system", "s"), say("assistant", "b"), say("user", "c")],
            "s\n\nUser: a\n\nAssistant: b\n\nUser: c",
        ),
        ([say("user", "a"), say("user", "b")], "User: a\n\nUser: b"),
        ([say("user", "a", name="Ann"), say("user", "b")], "User (Ann): a\n\nUser: b"),
        (
            [say("user", "a"), say("assistant", "", tool_calls=CALLS), say("tool", "42")],
            'User: a\n\nAssistant: [{"name":"f","arguments":"{}"}]\n\nTool: 42',
        ),
        ([say("assistant", "b")], "Assistant: b"),
        ([say("user", "a"), say("assistant", "")], "User: a"),
        ([say("system", "only")], "only"),
        ([], ""),
        ([Message("user", (ImagePart("data:x"),))], ""),
    ],
)
def test_turns_as_one_query(turns: list[Message], query: str) -> None:
    assert fold(turns) == query


@given(st.text(min_size=1).filter(lambda text: text == text.strip("\n")))
def test_a_single_turn_is_sent_as_it_is(text: str) -> None:
    assert fold([say("user", text)]) == text
