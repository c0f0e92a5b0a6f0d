"""Which answers lead on to the next tier."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.routing.judging import poor

REFUSALS = [
    "I can't help with that.",
    "I’m sorry, but I can’t assist with this request.",
    "**Sorry**, I cannot help you there.",
    "Hello! I am not able to look into your files.",
    "I don't know the answer to this question.",
    "As an AI language model, I do not have feelings.",
    "Unfortunately, I cannot open web pages from here.",
    "К сожалению, я не могу помочь с этим вопросом.",
    "Как языковая модель, я не имею собственного мнения.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Das kann ich leider nicht beantworten, wirklich.",
    "Désolé, je ne peux pas répondre à cette question.",
    "Lo siento, no puedo ayudarte con esa petición.",
    "抱歉，我无法回答这个问题，因为它超出了我的能力范围。",
]
ANSWERS = [
    "The capital of Norway is Oslo, on the Oslofjord.",
    "As an AI researcher, she wrote about the history of chess.",
    "Die Lösung ist einfach: zuerst den Schalter drücken, dann warten.",
    "Here is the letter you asked for:\n\nI'm sorry, but I can't attend the wedding.",
    "You can say it in this way: I do not know what the future brings. That is all there is to it, really.",
    "def fail():\n    raise ValueError('I cannot help')",
    "К счастью, это можно сделать в два шага.",
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    assert judged(REFUSALS[number]) == "refusal"


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_answers(number: int) -> None:
    assert judged(ANSWERS[number]) is None


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ("", {}, "empty"),
        (" \n\t ", {}, "empty"),
        ("", {"minimum": 0}, "empty"),
        ("42", {}, "short"),
        ("42", {"minimum": 0}, None),
        ("x" * 19, {}, "short"),
        ("x" * 20, {}, None),
        ("", {"called_tools": True}, None),
        ("I can't help.", {"called_tools": True}, None),
        ("A long and friendly answer.", {"refused": True}, "refusal"),
        ("A long and friendly answer.", {"finish": "content_filter"}, "refusal"),
        ("A long and friendly answer.", {"finish": "length"}, None),
    ],
)
def test_other_reasons(text: str, more: dict[str, Any], expected: str | None) -> None:
    assert judged(text, **more) == expected


@given(text=st.text())
def test_any_text_is_judged(text: str) -> None:
    assert judged(text) in (None, "empty", "short", "refusal")


def judged(text: str, **more: Any) -> str | None:
    return poor(text, **{"refused": False, "called_tools": False, "finish": "stop", "minimum": 20, **more})
