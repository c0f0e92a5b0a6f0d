"""Canonical answers -> messages and streams of Anthropic's Messages API."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poe_gateway.chat import estimate
from poe_gateway.chat.anthropic import AnthropicMessages
from poe_gateway.chat.anthropic.arguments import INVALID, checked
from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.events import (
    Finished,
    ImageMade,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.request import ChatRequest, Message, TextPart, ToolCall
from poe_gateway.chat.tool_calls import merged
from poe_gateway.chat.usage import Usage
from poe_gateway.dispatch.answer import Answer
from poe_gateway.errors import Overloaded, UpstreamTimeout

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DIALECT = AnthropicMessages()
HEAD = Head(
    id="msg_1",
    created=5,
    model="claude-x",
    request=ChatRequest(model="m", messages=(Message("user", (TextPart("x" * 8),)),)),
)
USAGE = Usage(prompt_tokens=10, completion_tokens=4)


def reply(**fields: Any) -> Reply:
    return Reply(**{"head": HEAD, "finish": "stop", "usage": USAGE, **fields})


def whole(**fields: Any) -> dict[str, Any]:
    return json.loads(DIALECT.whole(reply(**fields)))


def piece(index: int, arguments: str = "", **first: str) -> ToolCallDelta:
    """A fragment of a call; ``id`` and ``name`` come in its first."""
    function = {"arguments": arguments} | ({"name": first["name"]} if "name" in first else {})
    ids = {"id": first["id"], "type": "function"} if "id" in first else {}
    return ToolCallDelta(({"index": index, **ids, "function": function},))


def stream(*events: Any, finished: Finished | None = None, **fields: Any) -> list[dict[str, Any]]:
    """The events of a whole stream, their names checked against their data."""
    answer = Answer()
    writer = DIALECT.writer(HEAD)
    out = writer.begin()
    for event in events:
        answer.observe(event)
        out += writer.event(event)
    finished = finished or Finished()
    told = reply(
        finish=finished.reason,
        text=answer.text,
        refusal=answer.refusal,
        reasoning=answer.reasoning,
        signature=answer.signature,
        tool_calls=answer.calls,
        images=tuple(answer.images),
        stop_sequence=finished.stop_sequence,
        **fields,
    )
    return sse(out + writer.end(finished, told))


def sse(raw: bytes) -> list[dict[str, Any]]:
    events = []
    for block in raw.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def blocks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content that a reader puts together, and a check of the order on the way."""
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    content: list[dict[str, Any]] = []
    open_block, partial = False, ""
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert not open_block
                assert event["index"] == len(content)
                open_block, partial = True, ""
                content.append(dict(event["content_block"]))
            case "content_block_stop":
                assert open_block
                assert event["index"] == len(content) - 1
                open_block = False
                if partial:
                    content[-1]["input"] = json.loads(partial)
            case "content_block_delta":
                assert open_block
                assert event["index"] == len(content) - 1
                delta = event["delta"]
                kind = delta["type"]
                assert (
                    kind.removesuffix("_delta")
                    in {
                        "text": ("text",),
                        "thinking": ("thinking", "signature"),
                        "tool_use": ("input_json",),
                    }[content[-1]["type"]]
                )
                if kind == "input_json_delta":
                    partial += delta["partial_json"]
                else:
                    name = kind.removesuffix("_delta")
                    content[-1][name] += delta[name]
            case other:
                raise AssertionError(other)
    assert not open_block
    return content


def test_a_plain_message():
    assert whole(text="Hello") == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 4,
        },
    }


def test_every_kind_of_block():
    calls = (ToolCall("c1", "look", '{"at": 1}'), ToolCall("", "go", ""), ToolCall("c3", "go", "{bad"))
    image = ImageMade(url="https://h.example/a.png")
    content = whole(reasoning="hm", signature="s", text="so", refusal=" no", images=(image,), tool_calls=calls)[
        "content"
    ]
    assert content == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "so no\n\n![image](https://h.example/a.png)"},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "toolu_msg_1_1", "name": "go", "input": {}},
        {"type": "tool_use", "id": "c3", "name": "go", "input": {INVALID: "{bad"}},
    ]
    assert whole()["content"] == []
    picture = ImageMade(base64="AA", media_type="image/webp")
    assert whole(images=(picture,))["content"] == [{"type": "text", "text": "![image](data:image/webp;base64,AA)"}]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"finish": "stop"}, "end_turn"),
        ({"finish": "stop", "stop_sequence": "END"}, "stop_sequence"),
        ({"finish": "length"}, "max_tokens"),
        ({"finish": "tool_calls"}, "tool_use"),
        ({"finish": "content_filter"}, "refusal"),
        ({"finish": "stop", "refusal": "no"}, "refusal"),
        ({"finish": "stop", "tool_calls": (ToolCall("c", "f", "{}"),)}, "tool_use"),
        ({"finish": "length", "tool_calls": (ToolCall("c", "f", "{}"),)}, "max_tokens"),
    ],
    ids=["stop", "sequence", "length", "tools", "filter", "refusal", "forced-tool", "cut-tool"],
)
def test_why_it_ended(fields, reason):
    told = whole(**fields)
    assert (told["stop_reason"], told["stop_sequence"]) == (reason, fields.get("stop_sequence"))


def test_usage_in_anthropics_reckoning():
    usage = Usage(
        prompt_tokens=100,
        completion_tokens=20,
        cached_tokens=30,
        reasoning_tokens=5,
        counted="estimate",
        points=7,
        raw_cost="0.1",
        billed_cost="0.12",
        currency="USD",
    )
    assert whole(usage=usage)["usage"] == {
        "input_tokens": 70,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 30,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 5},
        "gateway": {
            "estimated": True,
            "counted_by": "estimate",
            "points": 7,
            "raw_cost": 0.1,
            "billed_cost": 0.12,
            "currency": "USD",
        },
    }
    assert whole(usage=Usage(prompt_tokens=1, completion_tokens=1, cached_tokens=9))["usage"]["input_tokens"] == 0


def test_the_order_of_a_stream():
    events = stream(TextDelta("Hel"), TextDelta(""), TextDelta("lo"), finished=Finished("stop", "END"))
    assert events == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude-x",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": estimate.prompt_tokens(HEAD.request),
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 0,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 4,
            },
        },
        {"type": "message_stop"},
    ]


def test_arguments_are_told_while_they_come():
    events = stream(
        piece(0, id="c1", name="write"),
        piece(0, '{"text": "a long '),
        piece(0, 'story"'),
        piece(0, "}"),
        finished=Finished("tool_calls"),
    )
    assert [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"] == [
        '{"text": "a long ',
        'story"',
        "}",
    ]
    assert blocks(events) == [{"type": "tool_use", "id": "c1", "name": "write", "input": {"text": "a long story"}}]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("events", "content"),
    [
        ((), []),
        (
            (ReasoningDelta("h"), ReasoningDelta("m"), ReasoningDelta("", "s"), TextDelta("a")),
            [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "a"}],
        ),
        (
            (ReasoningDelta("a", "s1"), ReasoningDelta("b"), ReasoningDelta("", "s2")),
            [
                {"type": "thinking", "thinking": "a", "signature": "s1"},
                {"type": "thinking", "thinking": "b", "signature": "s2"},
            ],
        ),
        (
            (ReasoningDelta("", "s"), TextDelta("a")),
            [{"type": "thinking", "thinking": "", "signature": "s"}, {"type": "text", "text": "a"}],
        ),
        ((TextDelta("a"), TextReplaced("b"), RefusalDelta("c")), [{"type": "text", "text": "a\n\nbc"}]),
        (
            (ImageMade(url="https://h.example/a"), ImageMade(url="https://h.example/b")),
            [{"type": "text", "text": "![image](https://h.example/a)\n\n![image](https://h.example/b)"}],
        ),
        (
            (TextDelta("a"), piece(0, "{}", id="c", name="f"), TextDelta("b")),
            [
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                {"type": "text", "text": "b"},
            ],
        ),
        (
            # Calls that are written at the same time are told one after the other; what comes between waits.
            (
                piece(0, '{"a"', id="c", name="f"),
                piece(1, '{"b":', id="d", name="g"),
                TextDelta("late"),
                piece(0, ": 1}"),
                piece(1, "2}"),
            ),
            [
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "d", "name": "g", "input": {"b": 2}},
                {"type": "text", "text": "late"},
            ],
        ),
        (
            (piece(0, "", id="c", name="f"), piece(1, "oops", id="d", name="g")),
            [
                {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                {"type": "tool_use", "id": "d", "name": "g", "input": {INVALID: "oops"}},
            ],
        ),
        (
            (piece(0, '{"a": "b', id="c", name="f"),),
            [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b", INVALID: '{"a": "b'}}],
        ),
        (
            (piece(0, "{}"), piece(0, name="late", id="c")),
            [{"type": "tool_use", "id": "c", "name": "late", "input": {}}],
        ),
        (
            (piece(3, "{}", name="f"),),
            [{"type": "tool_use", "id": "toolu_msg_1_3", "name": "f", "input": {}}],
        ),
    ],
    ids=[
        "nothing",
        "thinking",
        "two-thoughts",
        "hidden-thought",
        "replaced",
        "pictures",
        "call-between",
        "interleaved",
        "bare-and-bad",
        "cut",
        "late-name",
        "no-id",
    ],
)
def test_what_readers_put_together(events, content):
    assert blocks(stream(*events)) == content


def test_an_answer_that_breaks_off_is_told_in_band():
    writer = DIALECT.writer(HEAD)
    (event,) = sse(writer.broken(UpstreamTimeout("too slow")))
    assert event == {
        "type": "error",
        "error": {
            "type": "timeout_error",
            "message": "too slow",
            "code": "upstream_timeout",
            "details": {"error_code": "upstream_timeout"},
        },
        "request_id": None,
    }
    writer = DIALECT.writer(HEAD)
    out = writer.begin() + writer.event(TextDelta("a")) + writer.broken(Overloaded())
    assert sse(out)[-1]["error"]["type"] == "overloaded_error"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FRAGMENT = st.builds(
    lambda index, arguments: piece(index, arguments, id=f"c{index}", name=f"f{index}"),
    st.integers(0, 2),
    st.sampled_from(['{"a": ', '"b', '"', "1", "}", "{}", "x", "", '{"a": [1, {"b": "c"}]}']),
)
EVENTS = st.lists(
    st.builds(TextDelta, TEXT)
    | st.builds(TextReplaced, TEXT)
    | st.builds(RefusalDelta, TEXT)
    | st.builds(ReasoningDelta, TEXT, st.none() | st.just("sig"))
    | st.builds(lambda url: ImageMade(url=url), st.just("https://h.example/a"))
    | FRAGMENT,
    max_size=12,
)


@PATIENT
@given(EVENTS, st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
def test_any_answer_is_a_well_formed_stream(events, reason):
    content = blocks(stream(*events, finished=Finished(reason)))
    told = {block["id"]: block["input"] for block in content if block["type"] == "tool_use"}
    calls = merged([call for event in events if isinstance(event, ToolCallDelta) for call in event.calls])
    assert sorted(told) == sorted(call.id for call in calls), "every call is told, once"
    for call in calls:
        expected = json.loads(checked(call.arguments))
        assert told[call.id] == expected or INVALID in told[call.id] or INVALID in expected


@pytest.fixture(scope="module")
def accumulate():
    """What the SDK puts a stream together with."""
    return pytest.importorskip("anthropic.lib.streaming._messages").accumulate_event


@PATIENT
@given(events=EVENTS)
def test_the_sdk_reads_any_stream(accumulate, events):
    snapshot, buffers = None, {}
    for event in stream(*events):
        snapshot = accumulate(event=event, current_snapshot=snapshot, json_bufs=buffers)
    expected = blocks(stream(*events))
    assert [block.to_dict(exclude_unset=True) for block in snapshot.content] == expected
    assert snapshot.usage.input_tokens == 10


def test_the_sdk_reads_a_whole_message():
    types = pytest.importorskip("anthropic.types")
    call = ToolCall("c", "look", '{"at": 1}')
    told = types.Message.model_validate_json(
        DIALECT.whole(reply(text="a", reasoning="b", signature="s", tool_calls=(call,), finish="tool_calls")),
        strict=True,
    )
    assert [block.type for block in told.content] == ["thinking", "text", "tool_use"]
