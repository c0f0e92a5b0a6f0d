"""Bodies of ``/v1/responses``: what becomes of every field, and what is refused by name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.events import TextDelta
from poe_gateway.chat.history import answered, digest
from poe_gateway.chat.request import ImagePart, Message, OutputFormat, TextPart, Tool, ToolCall, ToolChoice
from poe_gateway.chat.responses.echo import echo_of
from poe_gateway.errors import InvalidRequest
from tests.support.responses import DIALECT, asked, head_of, reply_of

ADD = {"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": True}
MUL = {"type": "function", "name": "mul"}
PNG = "data:image/png;base64,AAAA"


def user(*parts: Any) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def says(text: str, *calls: ToolCall, **extra: Any) -> Message:
    return Message("assistant", (TextPart(text),), extra, calls)


CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
MADE = ToolCall("c1", "add", '{"a":1}')
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "2"}

INPUTS: dict[str, tuple[Any, tuple[Message, ...]]] = {
    "a string": ("Hi", (user("Hi"),)),
    "an easy message": ([{"role": "user", "content": "Hi"}], (user("Hi"),)),
    "roles": (
        [
            {"type": "message", "role": "system", "content": "S"},
            {"role": "developer", "content": "D"},
            {"role": "assistant", "content": "A"},
            {"role": "user", "content": "U"},
        ],
        (Message("system", (TextPart("S"),)), Message("system", (TextPart("D"),)), says("A"), user("U")),
    ),
    "parts": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": PNG, "detail": "low"},
                    {"type": "input_image", "image_url": "https://x.example/a.png"},
                ],
            }
        ],
        (user("see", ImagePart(PNG, "low"), ImagePart("https://x.example/a.png")),),
    ),
    "an answer said back": (
        [
            {
                "id": "msg_1",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "A", "annotations": [], "logprobs": []},
                    {"type": "refusal", "refusal": "No."},
                ],
            },
            {"role": "user", "content": "U"},
        ],
        (Message("assistant", (TextPart("A"), TextPart("No."))), user("U")),
    ),
    "a picture said back is shown to nobody": (
        [
            {"role": "user", "content": "Draw."},
            {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "QUJD", "url": "u"},
            {"role": "user", "content": "Another."},
        ],
        (user("Draw."), user("Another.")),
    ),
    "text and its calls are one turn": (
        [
            {"role": "assistant", "content": "I add."},
            CALL,
            {**CALL, "call_id": "c2"},
            RESULT,
            {**RESULT, "call_id": "c2"},
        ],
        (
            says("I add.", MADE, ToolCall("c2", "add", '{"a":1}')),
            Message("tool", (TextPart("2"),), tool_call_id="c1"),
            Message("tool", (TextPart("2"),), tool_call_id="c2"),
        ),
    ),
    "a call alone": (
        [{"role": "user", "content": "U"}, CALL, {**RESULT, "output": [{"type": "input_text", "text": "2"}]}],
        (
            user("U"),
            Message("assistant", (), {}, (MADE,)),
            Message("tool", (TextPart("2"),), tool_call_id="c1"),
        ),
    ),
    "a picture as a result": (
        [CALL, {**RESULT, "output": [{"type": "input_image", "image_url": PNG}]}],
        (Message("assistant", (), {}, (MADE,)), Message("tool", (ImagePart(PNG),), tool_call_id="c1")),
    ),
    "thinking goes back with its calls only": (
        [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"role": "assistant", "content": "A"},
            {"role": "user", "content": "U"},
            CALL,
            RESULT,
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
            {**CALL, "call_id": "c2"},
            {**RESULT, "call_id": "c2"},
        ],
        (
            says("A"),
            user("U"),
            Message("assistant", (), {}, (MADE,)),
            Message("tool", (TextPart("2"),), tool_call_id="c1"),
            Message("assistant", (), {"reasoning_content": "so"}, (ToolCall("c2", "add", '{"a":1}'),)),
            Message("tool", (TextPart("2"),), tool_call_id="c2"),
        ),
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_items_become_turns(name: str) -> None:
    given, turns = INPUTS[name]
    assert asked(input=given).messages == turns


def test_an_answer_said_back_is_the_turn_that_an_upstream_remembers() -> None:
    request = asked(input=[{"role": "assistant", "content": "I add."}, CALL, RESULT])
    assert digest(request.messages[0]) == answered("I add.", (MADE,))
    assert digest(asked(input=[CALL, RESULT]).messages[0]) == answered("", (MADE,))


def test_instructions_come_first() -> None:
    request = asked(
        instructions="Be brief.", input=[{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    )
    assert [message.text for message in request.messages] == ["Be brief.", "S", "U"]
    assert request.messages[0].role == "system"
    assert echo_of(request).instructed and not echo_of(asked()).instructed


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "nulls are nothing": (dict.fromkeys(("temperature", "tools", "store", "user", "metadata", "text", "include")), {}),
    "length": ({"max_output_tokens": 16}, {"max_tokens": 16}),
    "sampling": ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
    "effort": ({"reasoning": {"effort": "high", "summary": "auto"}}, {"reasoning_effort": "high"}),
    "verbosity": ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
    "usual verbosity": ({"text": {"verbosity": "medium"}}, {}),
    "probabilities": ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    "top probabilities": ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    "no top probabilities": ({"top_logprobs": 0}, {}),
    "tier": ({"service_tier": "flex"}, {"service_tier": "flex"}),
    "any tier": ({"service_tier": "auto"}, {}),
    "passed on": (
        {"seed": 1, "stop": ["x"], "prompt_cache_key": "k", "safety_identifier": "s", "top_k": 3},
        {"seed": 1, "stop": ["x"], "prompt_cache_key": "k", "safety_identifier": "s", "top_k": 3},
    ),
    "of no effect here": (
        {
            "store": True,
            "background": False,
            "truncation": "disabled",
            "max_tool_calls": 3,
            "stream": True,
            "stream_options": {"include_obfuscation": True},
            "include": ["reasoning.encrypted_content", "message.input_image.image_url"],
            "n": 1,
        },
        {},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_get_the_names_of_chat_completions(name: str) -> None:
    given, parameters = OPTIONS[name]
    assert asked(**given).parameters == parameters


def test_tools_and_the_form_of_the_answer() -> None:
    request = asked(
        tools=[ADD, MUL],
        tool_choice={"type": "function", "name": "mul"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    )
    add = Tool(name="add", description="Adds.", parameters={"type": "object"}, strict=True)
    assert request.tools == (add, Tool(name="mul"))
    assert request.tool_choice == ToolChoice(mode="required", name="mul")
    assert request.parallel_tool_calls is False
    assert request.output == OutputFormat(kind="json_schema", name="n", schema={"type": "object"}, strict=True)
    assert asked(text={"format": {"type": "json_object"}}).output == OutputFormat(kind="json_object")
    assert asked(text={"format": {"type": "text"}}).output is None


def test_of_allowed_tools_only_those_are_offered() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "mul"}]}
    request = asked(tools=[ADD, MUL], tool_choice=choice)
    assert [tool.name for tool in request.tools] == ["mul"]
    assert request.tool_choice == ToolChoice(mode="required")


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_without_tools_asks_for_nothing(choice: str) -> None:
    assert asked(tool_choice=choice).tool_choice is None
    assert asked(tool_choice=choice, tools=[ADD]).tool_choice == ToolChoice(mode=choice)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "session", "explicit"),
    [
        ({}, None, False),
        ({"user": "u"}, "u", False),
        ({"user": "u", "metadata": {"session_id": "s"}}, "s", True),
        ({"metadata": {"session_id": ""}}, None, False),
    ],
    ids=["none", "user", "named", "empty"],
)
def test_sessions(given: dict[str, Any], session: str | None, explicit: bool) -> None:
    request = asked(**given)
    assert (request.session_id, request.session_explicit) == (session, explicit)


def test_nothing_is_kept_unless_asked_for() -> None:
    assert not echo_of(asked()).store
    assert echo_of(asked(store=True)).store
    assert echo_of(asked(previous_response_id="resp_x")).previous == "resp_x"


def item(**fields: Any) -> dict[str, Any]:
    return {"input": [fields]}


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no model": ({"model": " "}, "model", None),
    "no input": ({"input": None}, "input", None),
    "empty input": ({"input": []}, "input", None),
    "a number as input": ({"input": 3}, "input", None),
    "an item that is none": ({"input": ["x"]}, "input[0]", None),
    "an unknown item": (item(type="computer_call"), "input[0]", "unsupported_item"),
    "a kind that is none": (item(type=["message"]), "input[0]", "unsupported_item"),
    "no role": (item(type="message", content="x"), "input[0].role", None),
    "a wrong role": (item(role="tool", content="x"), "input[0].role", None),
    "a role that is none": (item(role=["user"], content="x"), "input[0].role", None),
    "no content": (item(role="user"), "input[0].content", None),
    "no parts": (item(role="user", content=[]), "input[0].content", None),
    "a part that is none": (item(role="user", content=["x"]), "input[0].content[0]", None),
    "a text that is none": (
        item(role="user", content=[{"type": "input_text", "text": 3}]),
        "input[0].content[0].text",
        None,
    ),
    "a file": (item(role="user", content=[{"type": "input_file"}]), "input[0].content[0]", "unsupported_content"),
    "a refusal by the user": (
        item(role="user", content=[{"type": "refusal", "refusal": "x"}]),
        "input[0].content[0]",
        "unsupported_content",
    ),
    "an image kept elsewhere": (
        item(role="user", content=[{"type": "input_image", "file_id": "file_1"}]),
        "input[0].content[0].file_id",
        "unsupported_content",
    ),
    "an image of a file": (
        item(role="user", content=[{"type": "input_image", "image_url": "file:///etc/passwd"}]),
        "input[0].content[0].image_url",
        None,
    ),
    "a call without arguments": (item(type="function_call", call_id="c", name="n"), "input[0].arguments", None),
    "a call without id": (item(type="function_call", name="n", arguments="{}"), "input[0].call_id", None),
    "an output without call": (item(type="function_call_output", call_id="c9", output="x"), "input[0].call_id", None),
    "an output that is none": (item(type="function_call_output", call_id="c", output={}), "input[0].output", None),
    "wrong thinking": (item(type="reasoning", summary=["x"]), "input[0].summary", None),
    "a reference without id": (item(type="item_reference"), "input[0].id", None),
    "thinking alone": (item(type="reasoning", summary=[]), "input", None),
    "a wrong status": (item(role="user", content="x", status=[]), "input[0].status", None),
    "a wrong id": (item(role="user", content="x", id=3), "input[0].id", None),
    "instructions that are none": ({"instructions": ["x"]}, "instructions", None),
    "tools that are none": ({"tools": {}}, "tools", None),
    "a hosted tool": ({"tools": [{"type": "web_search"}]}, "tools[0]", "unsupported_tool"),
    "a tool without name": ({"tools": [{"type": "function"}]}, "tools[0].name", None),
    "a tool in chat's form": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name", None),
    "a choice that is none": ({"tools": [ADD], "tool_choice": "any"}, "tool_choice", None),
    "a choice of nothing": ({"tools": [ADD], "tool_choice": {"type": "function"}}, "tool_choice.name", None),
    "a choice of others": ({"tools": [ADD], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice", None),
    "a hosted choice": ({"tools": [ADD], "tool_choice": {"type": "web_search"}}, "tool_choice", None),
    "a choice without tools": ({"tool_choice": "required"}, "tool_choice", None),
    "unknown tools allowed": (
        {"tools": [ADD], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [MUL]}},
        "tool_choice.tools[0]",
        None,
    ),
    "allowed how": (
        {"tools": [ADD], "tool_choice": {"type": "allowed_tools", "tools": [ADD]}},
        "tool_choice.mode",
        None,
    ),
    "text that is none": ({"text": "json"}, "text", None),
    "a format that is none": ({"text": {"format": "json"}}, "text.format.type", None),
    "a schema that is none": ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", None),
    "a schema without name": ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", None),
    "wrong verbosity": ({"text": {"verbosity": "loud"}}, "text.verbosity", None),
    "wrong effort": ({"reasoning": {"effort": 3}}, "reasoning.effort", None),
    "wrong summary": ({"reasoning": {"summary": "long"}}, "reasoning.summary", None),
    "another way to think": ({"reasoning": {"mode": "pro"}}, "reasoning.mode", "unsupported_parameter"),
    "include that is none": ({"include": "x"}, "include", None),
    "results of hosted tools": ({"include": ["file_search_call.results"]}, "include[0]", "unsupported_parameter"),
    "included what": ({"include": [{}]}, "include[0]", "unsupported_parameter"),
    "a length of none": ({"max_output_tokens": 0}, "max_output_tokens", None),
    "a huge length": ({"max_output_tokens": 10**30}, "max_output_tokens", None),
    "a length by halves": ({"max_output_tokens": 1.5}, "max_output_tokens", None),
    "too hot": ({"temperature": 3}, "temperature", None),
    "true as a number": ({"temperature": True}, "temperature", None),
    "a wrong top_p": ({"top_p": "1"}, "top_p", None),
    "too many probabilities": ({"top_logprobs": 21}, "top_logprobs", None),
    "two answers": ({"n": 2}, "n", None),
    "store that is none": ({"store": "yes"}, "store", None),
    "stream that is none": ({"stream": 1}, "stream", None),
    "options without stream": ({"stream_options": {}}, "stream_options", None),
    "previous that is none": ({"previous_response_id": 3}, "previous_response_id", None),
    "previous that is long": ({"previous_response_id": "x" * 129}, "previous_response_id", None),
    "metadata that is none": ({"metadata": []}, "metadata", None),
    "too much metadata": ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata", None),
    "wrong metadata": ({"metadata": {"k": 1}}, "metadata.k", None),
    "long metadata": ({"metadata": {"k": "v" * 513}}, "metadata.k", None),
    "a long user": ({"user": "u" * 513}, "user", None),
    "cut input": ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
    "cut how": ({"truncation": "middle"}, "truncation", None),
    "in the background": ({"background": True}, "background", "unsupported_parameter"),
    "a conversation": ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
    "a template": ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
    "chat's messages": ({"messages": []}, "messages", "unsupported_parameter"),
    "chat's length": ({"max_tokens": 3}, "max_tokens", "unsupported_parameter"),
    "chat's form": ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(name: str) -> None:
    given, param, code = REFUSED[name]
    with pytest.raises(InvalidRequest) as caught:
        asked(**given)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert param.split("[")[0].split(".")[0] in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b"\xff", b'"\\ud800"', b'{"a":' * 3000 + b"1" + b"}" * 3000],
    ids=["empty", "a list", "cut", "not UTF-8", "half a pair", "deep"],
)
def test_bodies_that_are_none(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.parse(raw)


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "id", "name", "text", "format", "role", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)
KINDS = ["message", "user", "assistant", "function_call", "function_call_output", "reasoning", "item_reference"]
KINDS += ["input_text", "output_text", "refusal", "input_image", "function", "allowed_tools", "json_schema"]
WORDS = st.sampled_from([*KINDS, "https://x.example/"])
FIELDS = ["type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "id", "status"]
FIELDS += ["image_url", "detail", "tools", "mode", "schema", "parameters", "refusal", "encrypted_content"]
ALMOST = st.recursive(
    st.one_of(WORDS, JUNK),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(FIELDS), st.one_of(WORDS, inner), max_size=6)
    ),
    max_leaves=20,
)
NAMES = ["input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "stream_options", "instructions"]
NAMES += ["store", "stream", "user", "temperature", "max_output_tokens", "top_logprobs", "truncation", "background"]
NAMES += ["previous_response_id", "service_tier", "prompt", "n", "parallel_tool_calls", "safety_identifier", "other"]


@given(body=st.dictionaries(st.sampled_from(NAMES), ALMOST, max_size=5))
def test_no_body_breaks_it(body: dict[str, Any]) -> None:
    """What is taken can be told again; what is not is refused by name."""
    try:
        request = asked(**body)
    except InvalidRequest as error:
        assert error.message and (error.param or "").split("[")[0].split(".")[0] in ("", *NAMES)
        return
    assert orjson.loads(DIALECT.whole(reply_of(head_of(request), [TextDelta("A")])))["output"]
    assert request.messages or echo_of(request).refers


@pytest.mark.parametrize("depth", [300, 900])
def test_what_is_nested_deeply_is_said_again_or_refused(depth: int) -> None:
    schema: Any = {"type": "object"}
    for _ in range(depth):
        schema = {"items": schema}
    raw = b'{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":%s}]}'
    nested = b'{"items":' * depth + b"{}" + b"}" * depth
    try:
        request = DIALECT.parse(raw % nested)
    except InvalidRequest:
        return
    assert nested in orjson.dumps(echo_of(request).form)


def test_huge_numbers_are_said_again_as_they_were() -> None:
    raw = b'{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":{"maximum":%d}}]}' % 10**40
    assert b"1" + b"0" * 40 in orjson.dumps(echo_of(DIALECT.parse(raw)).form)
