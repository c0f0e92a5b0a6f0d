"""Bodies of Ollama's clients: what is understood, and what is refused and how."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.ollama import OllamaChat, OllamaEmbed, OllamaEmbeddings, OllamaGenerate
from poe_gateway.chat.request import ChatRequest, Message, OutputFormat, TextPart
from poe_gateway.errors import InvalidRequest

CHAT, GENERATE, EMBED, OLD_EMBED = OllamaChat(), OllamaGenerate(), OllamaEmbed(), OllamaEmbeddings()
PICTURES = {
    "png": b"\x89PNG\r\n\x1a\n..",
    "jpeg": b"\xff\xd8\xff..",
    "gif": b"GIF89a..",
    "webp": b"RIFF....WEBPVP8 ",
}
HELLO = [{"role": "user", "content": "hello"}]
CALL = {"function": {"name": "look", "arguments": {"at": "it"}}}


def base64(content: bytes) -> str:
    return b64encode(content).decode()


def chat(**fields: Any) -> ChatRequest:
    return CHAT.parse(orjson.dumps({"model": "m", "messages": HELLO, **fields}))


def generate(**fields: Any) -> ChatRequest:
    return GENERATE.parse(orjson.dumps({"model": "m", "prompt": "hello", **fields}))


@pytest.mark.parametrize(
    ("asked", "model"),
    [("m", "m"), ("m:latest", "m"), ("m:7b", "m:7b"), (" openai:gpt-4o ", "openai:gpt-4o"), (":latest", ":latest")],
)
def test_names_of_models(asked: str, model: str) -> None:
    assert chat(model=asked).model == generate(model=asked).model == model
    assert EMBED.parse(orjson.dumps({"model": asked, "input": "a"})).model == model


def test_answers_are_streamed_unless_said_otherwise() -> None:
    assert chat().stream and generate().stream and chat(stream=None).stream
    assert not chat(stream=False).stream and not generate(stream=False).stream


def test_a_conversation() -> None:
    request = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?", "images": [base64(PICTURES["png"])]},
            {"role": "assistant", "content": "A cat.", "thinking": "Hm."},
        ]
    )
    assert [message.role for message in request.messages] == ["system", "user", "assistant"]
    assert [message.text for message in request.messages] == ["Be brief.", "What is it?", "A cat."]
    assert request.messages[1].images[0].url == f"data:image/png;base64,{base64(PICTURES['png'])}"
    assert request.messages[2] == Message("assistant", (TextPart("A cat."),))


@pytest.mark.parametrize("kind", PICTURES)
def test_the_kind_of_a_picture_is_told_by_its_bytes(kind: str) -> None:
    images = generate(images=[base64(PICTURES[kind])]).messages[0].images
    assert [image.url for image in images] == [f"data:image/{kind};base64,{base64(PICTURES[kind])}"]


def test_a_picture_alone_is_a_message() -> None:
    picture = base64(PICTURES["png"])
    assert len(chat(messages=[{"role": "user", "images": [picture]}]).messages[0].parts) == 1
    assert generate(prompt="", images=["data:image/png;base64,AAAA"]).messages[0].images


@pytest.mark.parametrize(
    ("answers", "ids"),
    [
        ([{"tool_name": "look"}, {"tool_name": "ask"}], ["call_1_0", "call_1_1"]),
        ([{"tool_name": "ask"}, {"tool_name": "look"}], ["call_1_1", "call_1_0"]),
        ([{}, {}], ["call_1_0", "call_1_1"]),
        ([{"tool_name": "other"}, {"tool_name": "ask"}], ["call_1_0", "call_1_1"]),
        ([{"tool_call_id": "call_1_1"}, {}], ["call_1_1", "call_1_0"]),
        ([{"tool_call_id": "mine"}, {"name": "ask"}], ["mine", "call_1_1"]),
        ([{}, {}, {}], ["call_1_0", "call_1_1", None]),
    ],
    ids=range(7),
)
def test_results_find_the_calls_that_they_answer(answers: list[dict[str, str]], ids: list[str | None]) -> None:
    calls = [CALL, {"function": {"name": "ask", "arguments": None}}]
    turns = [*HELLO, {"role": "assistant", "content": "", "tool_calls": calls}]
    request = chat(messages=[*turns, *({"role": "tool", "content": "42", **answer} for answer in answers)])
    assert [message.tool_call_id for message in request.messages[2:]] == ids
    called = request.messages[1]
    assert called.parts == () and [call.id for call in called.tool_calls] == ["call_1_0", "call_1_1"]
    assert called.tool_calls[1].arguments == "{}"


def test_arguments_are_kept_whatever_they_hold() -> None:
    turn = b'{"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"f","arguments":%s}}]}'
    arguments = b'{"n":123456789012345678901234567890,"deep":[[{"\xc3\xb6":null}]]}'
    (call,) = CHAT.parse(b'{"model":"m","messages":[' + turn % arguments + b"]}").messages[0].tool_calls
    assert call.id == "c1" and call.arguments.encode() == arguments


def test_tools_are_those_of_openai() -> None:
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    (tool,) = chat(tools=[{"type": "function", "function": {"name": "look", "parameters": schema}}]).tools
    assert tool.name == "look" and tool.parameters == schema


@pytest.mark.parametrize(
    ("given", "output"),
    [
        (None, None),
        ("", None),
        ("json", OutputFormat(kind="json_object")),
        ({"type": "object"}, OutputFormat(kind="json_schema", schema={"type": "object"})),
    ],
    ids=["unsaid", "empty", "json", "schema"],
)
def test_form_of_the_answer(given: Any, output: OutputFormat | None) -> None:
    assert chat(format=given).output == generate(format=given).output == output


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({}, {}),
        ({"options": None, "think": None, "keep_alive": "5m", "logprobs": None}, {}),
        ({"options": {"num_ctx": 8192, "num_gpu": 1, "use_mmap": True, "num_keep": 4}}, {}),
        ({"options": {"temperature": 0, "top_p": 0.5, "top_k": 40}}, {"temperature": 0, "top_p": 0.5, "top_k": 40}),
        ({"options": {"num_predict": 5, "seed": 7, "stop": "END"}}, {"max_tokens": 5, "seed": 7, "stop": ["END"]}),
        ({"options": {"num_predict": -1, "seed": -1, "stop": [], "top_k": 0, "min_p": 0.0}}, {}),
        ({"options": {"num_predict": -2, "mirostat": 0, "tfs_z": 1, "typical_p": 1.0, "repeat_penalty": 1}}, {}),
        ({"options": {"repeat_penalty": 1.1, "mirostat": 2}}, {"repetition_penalty": 1.1, "mirostat": 2}),
        ({"options": {"unheard_of": [1]}}, {"unheard_of": [1]}),
        ({"think": True}, {"reasoning_effort": "medium"}),
        ({"think": False}, {"reasoning_effort": "none"}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"logprobs": False, "top_logprobs": 3}, {}),
        ({"truncate": True, "shift": True}, {}),
        ({"truncate": False, "width": 512}, {"truncate": False, "width": 512}),
    ],
    ids=range(16),
)
def test_parameters(fields: dict[str, Any], parameters: dict[str, Any]) -> None:
    assert chat(**fields).parameters == generate(**fields).parameters == parameters


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"format": "xml"}, "format"),
        ({"format": [1]}, "format"),
        ({"options": []}, "options"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"temperature": True}}, "options.temperature"),
        ({"options": {"top_k": 2**63}}, "options.top_k"),
        ({"options": {"num_predict": 1.5}}, "options.num_predict"),
        ({"options": {"num_predict": -3}}, "options.num_predict"),
        ({"options": {"seed": "x"}}, "options.seed"),
        ({"options": {"stop": {"a": 1}}}, "options.stop"),
        ({"options": {"stop": ["a", 1]}}, "options.stop"),
        ({"think": "hard"}, "think"),
        ({"think": 1}, "think"),
        ({"think": {}}, "think"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ],
    ids=range(19),
)
def test_refusals_name_the_field(fields: dict[str, Any], param: str) -> None:
    for ask in (chat, generate):
        with pytest.raises(InvalidRequest) as caught:
            ask(**fields)
        assert caught.value.param == param and caught.value.status == 400


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ({}, "messages"),
        (["hello"], "messages[0]"),
        ([{"content": "hello"}], "messages[0].role"),
        ([{"role": ["user"], "content": "hello"}], "messages[0].role"),
        ([{"role": "function", "content": "hello"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "messages[0].content"),
        ([{"role": "user", "content": "x", "images": "abc"}], "messages[0].images"),
        ([{"role": "user", "content": "x", "images": ["%%%"]}], "messages[0].images[0]"),
        ([{"role": "user", "content": "x", "images": ["ö"]}], "messages[0].images[0]"),
        ([{"role": "user", "content": "x", "images": ["AAAA"]}], "messages[0].images[0]"),
        ([{"role": "user", "content": "x", "images": [3]}], "messages[0].images[0]"),
        ([*HELLO, {"role": "assistant", "tool_calls": {}}], "messages[1].tool_calls"),
        ([*HELLO, {"role": "assistant", "tool_calls": [{}]}], "messages[1].tool_calls[0]"),
        ([*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}], "messages[1].tool_calls[0]"),
        (
            [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
            "messages[1].tool_calls[0]",
        ),
        ([{"role": "tool", "content": "x", "tool_name": 1}], "messages[0].tool_name"),
        ([{"role": "tool", "content": "x", "tool_call_id": 1}], "messages[0].tool_call_id"),
    ],
    ids=range(19),
)
def test_refusals_of_messages_name_the_place(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(messages=messages)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["x"]}, "prompt"),
        ({"system": 1}, "system"),
        ({"images": ["AAAA"]}, "images[0]"),
        ({"raw": True}, "raw"),
        ({"suffix": "}"}, "suffix"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
    ],
    ids=range(7),
)
def test_what_a_conversation_cannot_do_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        generate(**fields)
    assert caught.value.param == param


def test_a_system_text_comes_before_the_prompt() -> None:
    request = generate(system="Be brief.", raw=False, context=[], suffix="", template="")
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "hello"),
    ]


def test_texts_to_embed() -> None:
    raw = {"model": "e", "input": ["a", "b"], "truncate": True, "keep_alive": 0, "dimensions": 8}
    request = EMBED.parse(orjson.dumps({**raw, "options": {"num_ctx": 1, "temperature": 0}}))
    assert request.operation == "embed" and request.inputs == ("a", "b") and not request.stream
    assert request.parameters == {"dimensions": 8, "temperature": 0}
    assert OLD_EMBED.parse(b'{"model":"e","prompt":"a"}').inputs == ("a",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "e"}, "input"),
        ({"model": "e", "input": [[1]]}, "input[0]"),
        ({"model": "e", "input": "a", "truncate": 1}, "truncate"),
        ({"model": "e", "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": "e", "input": "a", "options": 1}, "options"),
    ],
    ids=range(6),
)
def test_refusals_of_embeddings_name_the_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        EMBED.parse(orjson.dumps(body))
    assert caught.value.param == param


def test_the_old_form_takes_one_text() -> None:
    with pytest.raises(InvalidRequest) as caught:
        OLD_EMBED.parse(b'{"model":"e","prompt":["a"]}')
    assert caught.value.param == "prompt"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["messages", "prompt", "input", "tools", "options", "format", "think", "stream", "images", "system"]
INNER = ["role", "content", "images", "tool_calls", "tool_name", "function", "name", "arguments", "stop", "seed"]
BODIES = st.dictionaries(
    st.sampled_from(FIELDS),
    JSON | st.lists(st.dictionaries(st.sampled_from(INNER), JSON | st.sampled_from(["user", "assistant", "tool"]))),
)


@given(BODIES)
def test_any_body_is_understood_or_refused(body: dict[str, Any]) -> None:
    for dialect in (CHAT, GENERATE, EMBED, OLD_EMBED):
        try:
            request = dialect.parse(orjson.dumps({"model": "m", **body}))
        except InvalidRequest as error:
            assert error.param is not None and error.status == 400
        else:
            assert bool(request.messages) is (request.operation != "load")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"model":"\\ud800"}'], ids=range(6))
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    for dialect in (CHAT, GENERATE, EMBED, OLD_EMBED):
        with pytest.raises(InvalidRequest):
            dialect.parse(raw)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e300"])
def test_numbers_beyond_all_floats_are_refused(number: str) -> None:
    raw = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "options": {"top_k": %b}}' % number.encode()
    with pytest.raises(InvalidRequest) as caught:
        CHAT.parse(raw)
    assert caught.value.param == "options.top_k"


@pytest.mark.parametrize(
    "fields, done",
    [
        ({}, "load"),
        ({"keep_alive": "5m"}, "load"),
        ({"keep_alive": -1}, "load"),
        ({"keep_alive": False}, "load"),
        ({"keep_alive": 0}, "unload"),
        ({"keep_alive": "0"}, "unload"),
        ({"keep_alive": "0s"}, "unload"),
    ],
    ids=str,
)
def test_who_says_nothing_wants_the_model_loaded_or_let_go(fields: dict[str, Any], done: str) -> None:
    for request in (chat(messages=[], **fields), generate(prompt="", **fields), generate(prompt=None, **fields)):
        assert (request.operation, request.messages, request.echo) == ("load", (), {"done_reason": done})
    assert chat(**fields).operation == "chat"
