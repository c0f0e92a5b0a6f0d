"""What of a request is new to the conversation that a session holds."""

from __future__ import annotations

from typing import Any

import pytest

from poe_gateway.chat import history
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, Role, TextPart, ToolCall


def turn(role: Role, text: str, **more: Any) -> Message:
    return Message(role, (TextPart(text),), **more)


def request(*messages: Message, explicit: bool = True) -> ChatRequest:
    return ChatRequest(model="m", messages=messages, session_id="s", session_explicit=explicit)


SYSTEM, FIRST, ANSWER, SECOND = (
    turn("system", "be kind"),
    turn("user", "one"),
    turn("assistant", "1"),
    turn("user", "two"),
)
HELD = (*history.digests((SYSTEM, FIRST)), history.answered("1"))


@pytest.mark.parametrize(
    "what, asked, new",
    [
        ("the history goes on", request(SYSTEM, FIRST, ANSWER, SECOND), (SECOND,)),
        ("space around a turn says nothing", request(SYSTEM, FIRST, turn("assistant", " 1\n"), SECOND), (SECOND,)),
        ("an edited answer", request(SYSTEM, FIRST, turn("assistant", "one!"), SECOND), None),
        ("an edited system text", request(turn("system", "be rude"), FIRST, ANSWER, SECOND), None),
        ("nothing new", request(SYSTEM, FIRST, ANSWER), None),
        ("a forged answer", request(SYSTEM, FIRST, ANSWER, turn("assistant", "more")), None),
        ("a single turn relies on the session", request(SECOND), (SECOND,)),
        ("with the same system text", request(SYSTEM, SECOND), (SECOND,)),
        ("with another system text", request(turn("system", "be rude"), SECOND), None),
        ("a single turn of a mere user", request(SECOND, explicit=False), None),
        ("a mere user's history goes on", request(SYSTEM, FIRST, ANSWER, SECOND, explicit=False), (SECOND,)),
    ],
)
def test_new_turns(what: str, asked: ChatRequest, new: tuple[Message, ...] | None) -> None:
    assert history.new_turns(asked, HELD) == new


def test_nothing_is_held_at_first() -> None:
    assert history.new_turns(request(FIRST), ()) is None


def test_digests_tell_turns_apart_and_take_any_number() -> None:
    calls = (ToolCall("c", "f", "{}"),)
    turns = [
        FIRST,
        turn("assistant", "one"),
        Message("user", (TextPart("one"), ImagePart("data:image/png;base64,AA"))),
        turn("assistant", "one", tool_calls=calls),
    ]
    assert len({history.digest(each) for each in turns}) == len(turns)
