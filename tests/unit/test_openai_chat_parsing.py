"""Bodies of chat completions become canonical requests, or are refused by the name of what is wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from poe_gateway.chat.openai_chat import parse
from poe_gateway.chat.request import ImagePart, Message, TextPart, ToolCall
from poe_gateway.errors import InvalidRequest

TURN = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLED = (ToolCall("c1", "look", "{}"),)
MARK = {"type": "ephemeral"}
OLD_CALL = {"name": "look", "arguments": "{}"}


def turn(entry: dict[str, Any]) -> Message:
    """The canonical turn of one message."""
    [message] = parse(orjson.dumps({"model": "m", "messages": [entry]})).messages
    return message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"role": "assistant", "tool_calls": [CALL]}, Message("assistant", (), tool_calls=CALLED)),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, Message("assistant", (), tool_calls=CALLED)),
        (
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            Message("assistant", (TextPart(""),), tool_calls=CALLED),
        ),
        ({"role": "assistant", "content": "a", "tool_calls": None}, Message("assistant", (TextPart("a"),))),
        ({"role": "assistant", "content": None}, Message("assistant", ())),
        ({"role": "assistant", "name": "ann"}, Message("assistant", (), name="ann")),
        ({"role": "assistant", "refusal": "no"}, Message("assistant", (), {"refusal": "no"})),
        ({"role": "tool", "tool_call_id": "c1", "content": []}, Message("tool", (), tool_call_id="c1")),
        ({"role": "developer", "content": "be brief"}, Message("system", (TextPart("be brief"),))),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}}]},
            Message("user", (ImagePart("https://x/y", "low"),)),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": MARK}]},
            Message("user", (TextPart("a", MARK),)),
        ),
    ],
    ids=[
        "calls-alone",
        "calls-and-null",
        "calls-and-no-words",
        "no-calls",
        "nothing",
        "name-alone",
        "refusal-alone",
        "empty-result",
        "developer",
        "image",
        "cache-mark",
    ],
)
def test_turns(entry: dict[str, Any], message: Message) -> None:
    assert turn(entry) == message


@pytest.mark.parametrize(
    ("fields", "param", "instead"),
    [
        ({"functions": [{"name": "look"}]}, "functions", "tools"),
        ({"function_call": "auto"}, "function_call", "tool_choice"),
        ({"messages": [TURN, {"role": "function", "name": "look", "content": "4"}]}, "messages[1].role", "tool"),
        (
            {"messages": [TURN, {"role": "assistant", "content": None, "function_call": OLD_CALL}]},
            "messages[1].function_call",
            "tool_calls",
        ),
        (
            {"messages": [TURN, {"role": "assistant", "function_call": OLD_CALL}]},
            "messages[1].function_call",
            "tool_calls",
        ),
    ],
    ids=["functions", "choice", "result", "call", "call-alone"],
)
def test_the_old_form_of_tools_is_refused_and_the_new_one_named(
    fields: dict[str, Any], param: str, instead: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"use '{instead}'") as refused:
        parse(orjson.dumps({"model": "m", "messages": [TURN], **fields}))
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
