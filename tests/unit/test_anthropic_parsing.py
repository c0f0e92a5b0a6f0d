"""Bodies of Anthropic's Messages API -> canonical requests."""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.chat.anthropic import AnthropicMessages, parse
from poe_gateway.chat.anthropic.turns import NATIVE, native
from poe_gateway.chat.dialect import Dialect
from poe_gateway.chat.openai_chat import parse as parse_openai
from poe_gateway.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    OutputFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from poe_gateway.errors import InvalidRequest

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ASKED = [{"role": "user", "content": "Hello"}]
HELLO = (Message("user", (TextPart("Hello"),)),)
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
MARK = {"type": "ephemeral"}
PIXEL = base64.b64encode(b"\x89PNG").decode()


def read(**fields: Any) -> ChatRequest:
    """What is read of a body, but for the dialect's own words, which are the same for all."""
    body = {"model": "claude", "max_tokens": 10, "messages": ASKED, **fields}
    request = parse(json.dumps({key: value for key, value in body.items() if value is not ...}).encode())
    return replace(request, spelled={})


def turns(*content: Any, role: str = "user") -> tuple[Message, ...]:
    return read(messages=[{"role": role, "content": list(content)}]).messages


def test_it_is_a_dialect():
    dialect: Dialect = AnthropicMessages()
    assert (dialect.route, dialect.shape, dialect.prefix) == ("/v1/messages", "anthropic", "msg")
    assert dialect.stream_type.startswith(b"text/event-stream")
    assert dialect.parse(b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}').model == "m"


def test_the_least_that_can_be_asked():
    assert read() == ChatRequest(model="claude", messages=HELLO, parameters={"max_tokens": 10})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stream": True}, {"stream": True, "include_usage": True}),
        ({"metadata": {"user_id": "u-1"}}, {"session_id": "u-1"}),
        ({"metadata": {"user_id": None}}, {}),
        ({"tools": []}, {}),
        (
            {"tools": [{**TOOL, "description": "looks", "strict": True, "cache_control": MARK, "type": "custom"}]},
            {"tools": (Tool(name="look", description="looks", parameters=TOOL["input_schema"], strict=True),)},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {"output": OutputFormat(kind="json_schema", schema={"type": "object"}, strict=True)},
        ),
    ],
    ids=["stream", "user", "no-user", "no-tools", "tool", "form"],
)
def test_fields_of_the_request(fields, expected):
    plain = {"model": "claude", "messages": HELLO, "parameters": {"max_tokens": 10}}
    assert read(**fields) == ChatRequest(**{**plain, **expected})


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({"temperature": 0.5, "top_p": 1, "top_k": 4}, {"temperature": 0.5, "top_p": 1, "top_k": 4}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
        ),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"inference_geo": "eu", "speed": "fast"}, {"inference_geo": "eu", "speed": "fast"}),
        ({"temperature": None, "system": None, "stop_sequences": None, "thinking": None, "container": None}, {}),
    ],
    ids=["numbers", "stops", "no-stops", "adaptive", "budget", "effort", "standard", "auto", "native", "nulls"],
)
def test_sampling_options_get_their_usual_names(fields, parameters):
    assert read(**fields).parameters == {"max_tokens": 10, **parameters}


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(mode="auto"), None),
        ({"type": "any"}, ToolChoice(mode="required"), None),
        ({"type": "tool", "name": "look"}, ToolChoice(mode="required", name="look"), None),
        ({"type": "none"}, ToolChoice(mode="none"), None),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(mode="auto"), False),
        ({"type": "any", "disable_parallel_tool_use": False}, ToolChoice(mode="required"), None),
    ],
    ids=["auto", "any", "tool", "none", "one-at-once", "many-at-once"],
)
def test_the_choice_of_tools(choice, expected, parallel):
    request = read(tools=[TOOL], tool_choice=choice)
    assert (request.tool_choice, request.parallel_tool_calls) == (expected, parallel)


def test_instructions_come_as_text_or_blocks_and_in_the_course_of_turns():
    assert read(system="be brief").messages[0] == Message("system", (TextPart("be brief"),))
    one = {"type": "text", "text": "be brief"}
    assert read(system=[one]).messages == (Message("system", (TextPart("be brief"),)), *HELLO)
    marked = {**one, "cache_control": MARK}
    first = read(system=[one, marked]).messages[0]
    assert first.text == "be brief\n\nbe brief"
    assert native(first) == [one, marked]
    later = read(messages=[*ASKED, {"role": "system", "content": "now in French"}]).messages[-1]
    assert later == Message("system", (TextPart("now in French"),))


def test_text_and_images():
    data = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    there = {"type": "image", "source": {"type": "url", "url": "https://h.example/a.png"}}
    assert turns({"type": "text", "text": "look"}, data, there) == (
        Message(
            "user",
            (TextPart("look"), ImagePart(f"data:image/png;base64,{PIXEL}"), ImagePart("https://h.example/a.png")),
        ),
    )


@pytest.mark.parametrize(
    ("source", "more", "text"),
    [
        ({"type": "text", "media_type": "text/plain", "data": "body"}, {}, "body"),
        ({"type": "text", "data": "body"}, {"title": "T", "context": "C"}, "T\n\nC\n\nbody"),
        ({"type": "content", "content": "body"}, {}, "body"),
        ({"type": "content", "content": [{"type": "text", "text": "bo"}, {"type": "text", "text": "dy"}]}, {}, "body"),
    ],
    ids=["text", "titled", "content", "blocks"],
)
def test_documents_of_plain_text_are_text(source, more, text):
    block = {"type": "document", "source": source, **more}
    (turn,) = turns(block)
    assert turn.text == text
    assert native(turn) == [block]


def test_documents_stand_apart_from_the_words_around_them():
    paper = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "paper"}}
    first, last = {"type": "text", "text": "read"}, {"type": "text", "text": "and tell"}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [paper, paper]}
    found, asked = turns(result, first, paper, paper, last)
    assert found.text == "paper\n\npaper"
    assert asked.text == "read\n\npaper\n\npaper\n\nand tell"
    assert native(asked) == [first, paper, paper, last]


def test_calls_and_results_of_tools():
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}}
    (said,) = turns({"type": "text", "text": "Let me see"}, call, role="assistant")
    assert said == Message("assistant", (TextPart("Let me see"),), tool_calls=(ToolCall("t1", "look", '{"at":"it"}'),))
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "a cat"}
    blocks = {
        **result,
        "tool_use_id": "t2",
        "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}],
    }
    bare = {"type": "tool_result", "tool_use_id": "t3"}
    assert turns({"type": "text", "text": "so?"}, result, blocks, bare) == (
        Message("tool", (TextPart("a cat"),), tool_call_id="t1"),
        Message("tool", (TextPart("a "), TextPart("dog")), tool_call_id="t2"),
        Message("tool", (), tool_call_id="t3"),
        Message("user", (TextPart("so?"),)),
    ), "results come first: they answer the turn before"


def test_a_failed_tool_is_told_to_every_upstream():
    failed = {"type": "tool_result", "tool_use_id": "t1", "content": "no such file", "is_error": True}
    silent = {"type": "tool_result", "tool_use_id": "t2", "is_error": True}
    first, second = turns(failed, silent)
    assert (first.text, second.text) == ("Error: no such file", "Error")
    assert (native(first), native(second)) == ([failed], [silent])


@pytest.mark.parametrize(
    ("role", "blocks"),
    [
        ("assistant", [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "a"}]),
        ("assistant", [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "a"}]),
        (
            "assistant",
            [{"type": "tool_use", "id": "t", "name": "n", "input": {}}, {"type": "text", "text": "after it"}],
        ),
        ("user", [{"type": "text", "text": "a", "cache_control": MARK}]),
    ],
    ids=["thinking", "redacted", "order", "mark"],
)
def test_what_only_the_native_api_understands_stays_beside_the_turn(role, blocks):
    (turn,) = turns(*blocks, role=role)
    assert native(turn) == blocks
    assert turn.text in ("a", "after it"), "thoughts are not said"


def test_plain_turns_carry_nothing_beside_them():
    (turn,) = turns({"type": "text", "text": "a", "citations": None, "cache_control": None}, role="assistant")
    assert turn.extra == {}


def test_a_mark_of_the_whole_request_is_put_on_its_last_block():
    (turn,) = read(cache_control=MARK).messages
    assert native(turn) == [{"type": "text", "text": "Hello", "cache_control": MARK}]
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {**MARK, "ttl": "1h"}}]
    (turn,) = read(cache_control=MARK, messages=[{"role": "user", "content": blocks}]).messages
    assert native(turn) == blocks, "its own mark stays"


def test_no_other_dialect_can_bring_blocks_that_nobody_checked():
    body = {"model": "m", "messages": [{"role": "user", "content": "x", NATIVE: [{"type": "web_search"}]}]}
    (turn,) = parse_openai(json.dumps(body).encode()).messages
    assert NATIVE in turn.extra
    assert native(turn) is None


def test_a_request_that_is_only_counted_needs_no_limit():
    body = json.dumps({"model": "m", "messages": ASKED, "tools": [TOOL]}).encode()
    assert parse(body, counting=True).tools[0].name == "look"
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.param == "max_tokens"


def test_tool_runners_learn_that_conversations_are_not_held_here():
    with pytest.raises(InvalidRequest) as caught:
        read(thread={"type": "create"})
    assert caught.value.code == "thread_unsupported_request"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": ...}, "model"),
    ({"model": ""}, "model"),
    ({"model": 4}, "model"),
    ({"model": "m" * 257}, "model"),
    ({"max_tokens": ...}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"messages": ...}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "x"}, "messages"),
    ({"messages": ["x"]}, "messages[0]"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"system": 4}, "system"),
    ({"system": [{"type": "image"}]}, "system[0]"),
    ({"stream": "yes"}, "stream"),
    ({"temperature": 2}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"stop_sequences": "a"}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"stop_sequences": [1]}, "stop_sequences"),
    ({"metadata": "x"}, "metadata"),
    ({"metadata": {"user_id": 4}}, "metadata.user_id"),
    ({"metadata": {"user_id": "u" * 513}}, "metadata.user_id"),
    ({"metadata": {"team": "x"}}, "metadata.team"),
    ({"thinking": True}, "thinking"),
    ({"thinking": {"type": "much"}}, "thinking.type"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
    ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ({"output_config": {"effort": ["low"]}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_config": {"task_budget": 1}}, "output_config.task_budget"),
    ({"service_tier": "first"}, "service_tier"),
    ({"service_tier": []}, "service_tier"),
    ({"cache_control": "yes"}, "cache_control"),
    ({"tools": {}}, "tools"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tools": [TOOL] * 513}, "tools"),
    ({"tools": ["look"]}, "tools[0]"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"name": "look"}]}, "tools[0].input_schema"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name"),
    ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
        "tool_choice.disable_parallel_tool_use",
    ),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
    ({"thread": {"type": "create"}}, "thread"),
    ({"surprise": 1}, "surprise"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[f"{place}-{row[1]}" for place, row in enumerate(WRONG)])
def test_bad_fields_are_refused_by_their_name(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert f"'{param.split('.')[0].split('[')[0]}" in caught.value.message


BLOCKS: list[tuple[str, dict[str, Any], str]] = [
    ("user", {"type": "text"}, ".text"),
    ("user", {"type": "text", "text": 4}, ".text"),
    ("user", {"type": "tool_use", "id": "t", "name": "n", "input": {}}, ""),
    ("user", {"type": "thinking", "thinking": "x", "signature": "s"}, ""),
    ("user", {"type": "search_result", "content": []}, ""),
    ("user", {"type": "x" * 500}, ""),
    ("user", {"type": "image"}, ".source"),
    ("user", {"type": "image", "source": {"type": "file", "file_id": "f"}}, ".source"),
    ("user", {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}, ".source.url"),
    (
        "user",
        {"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "AA"}},
        ".source.media_type",
    ),
    ("user", {"type": "image", "source": {"type": "base64", "media_type": [], "data": "AA"}}, ".source.media_type"),
    ("user", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}, ".source.data"),
    ("user", {"type": "image", "source": {"type": "base64", "media_type": "image/png"}}, ".source.data"),
    (
        "user",
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}},
        ".source",
    ),
    ("user", {"type": "document", "source": {"type": "url", "url": "https://h.example/a.pdf"}}, ".source"),
    ("user", {"type": "document", "source": {"type": "content"}}, ".source.content"),
    (
        "user",
        {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}},
        ".citations",
    ),
    ("user", {"type": "tool_result"}, ".tool_use_id"),
    ("user", {"type": "tool_result", "tool_use_id": "t", "content": 4}, ".content"),
    ("user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_use"}]}, ".content[0]"),
    ("user", {"type": "tool_result", "tool_use_id": "t", "is_error": "yes"}, ".is_error"),
    ("assistant", {"type": "image", "source": {"type": "url", "url": "https://h.example/a.png"}}, ""),
    ("assistant", {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {}}, ""),
    ("assistant", {"type": "tool_use", "name": "n", "input": {}}, ".id"),
    ("assistant", {"type": "tool_use", "id": "t", "input": {}}, ".name"),
    ("assistant", {"type": "tool_use", "id": "t", "name": "n", "input": "{}"}, ".input"),
    ("assistant", {"type": "redacted_thinking"}, ".data"),
    ("assistant", {"type": "thinking", "thinking": 4}, ".thinking"),
]


@pytest.mark.parametrize(
    ("role", "block", "where"), BLOCKS, ids=[f"{place}-{row[1]['type'][:20]}" for place, row in enumerate(BLOCKS)]
)
def test_bad_blocks_are_refused_by_their_place(role, block, where):
    with pytest.raises(InvalidRequest) as caught:
        turns({"type": "text", "text": "first"}, block, role=role)
    assert caught.value.param == f"messages[0].content[1]{where}"
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("role", "block", "where"),
    [
        ("assistant", {"type": "tool_use", "id": "t", "name": "n", "input": {}}, "id"),
        ("user", {"type": "tool_result", "tool_use_id": "t"}, "tool_use_id"),
    ],
    ids=["call", "result"],
)
def test_an_id_stands_for_one_call(role, block, where):
    with pytest.raises(InvalidRequest) as caught:
        turns(block, block, role=role)
    assert caught.value.param == f"messages[0].content[1].{where}"


@pytest.mark.parametrize("raw", [b"", b"[]", b"nonsense", b"\xff", b'{"model":"\\ud800"}', b"[" * 100_000])
def test_what_is_no_json_object(raw):
    with pytest.raises(InvalidRequest):
        parse(raw)


def test_bottomless_input_of_a_call_is_refused():
    raw = b'{"model":"m","max_tokens":1,"messages":[{"role":"assistant","content":['
    raw += b'{"type":"tool_use","id":"t","name":"n","input":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}]}]}"
    with pytest.raises(InvalidRequest) as caught:
        parse(raw)
    assert caught.value.param == "messages[0].content[0].input"


NAMES = ["type", "text", "role", "content", "source", "id", "name", "input", "data", "url", "tool_use_id"]
WORDS = ["text", "image", "user", "assistant", "tool_result", "tool_use", "base64", "document"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), inner | st.sampled_from(WORDS), max_size=5)
    ),
    max_leaves=20,
)
FIELDS = st.sampled_from(["model", "max_tokens", "system", "tools", "tool_choice", "thinking", "output_config"])


@PATIENT
@given(st.dictionaries(FIELDS, JSON), JSON)
def test_nothing_is_answered_by_a_crash(fields, content):
    turns_of = ({"role": "user", "content": content}, {"role": "assistant", "content": [content]})
    for messages in (content, [content], *([turn] for turn in turns_of)):
        body = {"model": "m", "max_tokens": 5, **fields, "messages": messages}
        try:
            parse(json.dumps(body).encode())
        except InvalidRequest as error:
            assert error.status == 400
