"""The name of a body: equal for the same question, different for another, whatever the content."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.chat import openai_chat
from poe_gateway.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from poe_gateway.dispatch.fingerprint import fingerprint


def said(*parts: str | Part, **extra: Any) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts), extra)


def request(*messages: Message, **parameters: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=messages, parameters=parameters)


HELLO = request(said("hello"))
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}]


@pytest.mark.parametrize(
    "what, one, other",
    [
        ("who asks", HELLO, replace(HELLO, session_id="s", session_explicit=True, metadata={"session_id": "s"})),
        ("how it is sent", HELLO, replace(HELLO, stream=True, include_usage=True, timeout=3.0)),
        ("the name the caller used", HELLO, replace(HELLO, model="alias")),
        ("another seed", request(said("a"), seed=1), request(said("a"), seed=2)),
        ("another temperature", HELLO, request(said("hello"), temperature=0.3, top_p=0.9)),
        ("order of fields", request(said("a"), x=1, y=2), request(said("a"), y=2, x=1)),
    ],
)
def test_same(what: str, one: ChatRequest, other: ChatRequest) -> None:
    assert fingerprint(one, "gpt") == fingerprint(other, "gpt"), what


DIFFERENT = [
    HELLO,
    request(said("Hello")),
    request(said("hello ")),
    request(Message("assistant", (TextPart("hello"),))),
    request(said("hello"), said("hello")),
    request(said("hel", "lo")),
    request(said("hello", name="bob")),
    request(said("hello", tool_calls=[])),
    request(said("hello"), tools=TOOLS),
    request(said("hello"), max_tokens=5),
    request(said(TextPart("hello", {"type": "ephemeral"}))),
    request(said(ImagePart("hello"))),
    request(said(ImagePart("hello", "low"))),
    request(said("hello", ImagePart("a"))),
    request(said(ImagePart("a"), "hello")),
    request(said("hello5 hello")),
    request(said("hellot5 hello")),
    request(said(ImagePart("abc", "a"), "abc")),
    request(said(ImagePart("abc", "a abct3 "))),
    request(said("\ud800")),
    request(said("\udfff")),
    request(said("\ud800", name="\ud800")),
    request(said("n", seed=10**30)),
    replace(HELLO, tools=(Tool(name="f"),)),
    replace(HELLO, tools=(Tool(name="f", parameters={"type": "object"}),)),
    replace(HELLO, tools=(Tool(name="f"),), tool_choice=ToolChoice(mode="required")),
    replace(HELLO, output=OutputFormat(kind="json_object")),
    replace(HELLO, output=OutputFormat(kind="json_schema", schema={"type": "object"})),
    replace(HELLO, operation="embed", inputs=("hello",)),
    replace(HELLO, operation="embed", inputs=((1, 2),)),
    replace(HELLO, operation="image"),
    request(Message("assistant", (), tool_calls=(ToolCall("c", "f", "{}"),))),
    request(Message("assistant", (), tool_calls=(ToolCall("c", "f", "{ }"),))),
    request(Message("tool", (TextPart("hello"),), tool_call_id="c")),
    request(Message("user", (TextPart("hello"),), name="Ann")),
]


def test_different_questions_have_different_names() -> None:
    names = [fingerprint(each, "gpt") for each in DIFFERENT]
    assert len(set(names)) == len(names)
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)
    assert fingerprint(HELLO, "gpt") != fingerprint(HELLO, "claude")


def test_a_name_outlives_the_process() -> None:
    """Decision records of several processes and days are compared by it."""
    assert fingerprint(HELLO, "gpt") == "25a72d9e6d933430573d20f56f594b8c"


def test_what_the_parser_lets_through_has_a_name() -> None:
    nested: Any = []
    for _ in range(899):
        nested = [nested]
    raw = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]})
    body = raw[:-1] + b',"deep":' + b"[" * 900 + b"]" * 900 + b"}"
    assert fingerprint(openai_chat.parse(body), "m") == fingerprint(request(said("x"), deep=nested), "m")


def test_nesting_beyond_the_encoder_still_has_a_name() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    deep = fingerprint(request(said("x"), deep=nested), "m")
    assert deep != fingerprint(request(said("x"), other=nested), "m")
    assert deep != fingerprint(request(said("y"), deep=nested), "m")


texts = st.text(st.characters(codec=None), max_size=12)
parts = st.one_of(st.builds(TextPart, texts), st.builds(ImagePart, texts, texts))
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(parts, max_size=3).map(tuple),
    st.dictionaries(texts, st.one_of(texts, st.integers(), st.none()), max_size=2),
)
conversations = st.lists(messages, min_size=1, max_size=3)


@given(conversations, conversations)
def test_names_differ_exactly_when_the_conversations_do(one: list[Message], other: list[Message]) -> None:
    same = fingerprint(request(*one), "m") == fingerprint(request(*other), "m")
    assert same == (one == other)
    assert fingerprint(request(*one), "m") == fingerprint(request(*one), "m")
