"""What chat answers hold besides text (tools, thinking, refusals, pictures), and answers that are not streamed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.events import (
    Finished,
    ImageMade,
    Measured,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from poe_gateway.chat.request import ChatRequest, Message, TextPart, ToolCall
from poe_gateway.chat.tool_calls import merged
from poe_gateway.clock import SystemClock
from poe_gateway.pool.outcome import AdapterDrift, RateLimited, Transient
from poe_gateway.upstreams.base import AccountRef, Fate, UpstreamFailure
from poe_gateway.upstreams.drift import Drift, InBandError
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from poe_gateway.upstreams.openai_api.chunks import Reader
from tests.upstreams.provider import DONE, chunk

ASKING = ChatRequest(model="m-1", messages=(Message("user", (TextPart("Hello"),)),))
TOKEN = {"token": "hi", "logprob": -0.1, "bytes": [104, 105], "top_logprobs": []}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"a\ud83d", "a\ufffd"),
        (r"\uDE00b", "\ufffdb"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
        (r"\\ud83d \ud83d\\", "\\ud83d \ufffd\\"),
    ],
    ids=["first-half", "second-half", "whole", "halves-around", "a-backslash-before"],
)
def test_halves_of_characters_become_the_sign_for_it(written, text):
    usage = '"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0.10}'
    events = Reader().take(f'{{"choices": [{{"index": 0, "delta": {{"content": "{written}"}}}}], {usage}}}')
    assert events == [TextDelta(text)]


def read(*deltas, finish=None, **choice):
    """The events of deltas, one chunk each."""
    reader = Reader()
    events = []
    for delta in deltas:
        body = {"id": "x-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]}
        events += reader.take(json.dumps(body))
    return reader, [event for event in events if not isinstance(event, Measured)]


@pytest.mark.parametrize(
    ("delta", "events"),
    [
        ({"reasoning_content": "hm"}, [ReasoningDelta("hm")]),
        ({"reasoning": "hm", "content": "a"}, [ReasoningDelta("hm"), TextDelta("a")]),
        ({"reasoning_content": "hm", "reasoning": "hm"}, [ReasoningDelta("hm")]),
        ({"reasoning_content": None, "content": ""}, []),
        ({"refusal": "no"}, [RefusalDelta("no")]),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, [TextDelta("ab")]),
        (
            {"images": [{"type": "image_url", "image_url": {"url": "data:image/webp;base64,UklGRg=="}}]},
            [ImageMade(base64="UklGRg==", media_type="image/webp")],
        ),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "https://x/y.png"}]},
            [TextDelta("a"), ImageMade(url="https://x/y.png")],
        ),
        ({"images": [{"image_url": {"url": 5}}, "x", {}], "tool_calls": "x", "content": 5}, []),
    ],
    ids=["thinking", "openrouter", "both-words", "nothing", "refusal", "parts", "picture", "picture-part", "odd"],
)
def test_what_a_delta_tells(delta, events):
    assert read(delta)[1] == events


def test_tokens_are_told_as_they_are():
    assert read({"content": "hi"}, logprobs={"content": [TOKEN]})[1] == [TextDelta("hi", (TOKEN,))]
    assert read({"content": ""}, logprobs={"content": [TOKEN]})[1] == [TextDelta("", (TOKEN,))]
    for odd in (None, {}, {"content": None}, {"content": []}, {"content": ["x"]}, "x"):
        assert read({"content": "hi"}, logprobs=odd)[1] == [TextDelta("hi")]


def test_thinking_is_counted():
    reader = Reader()
    details = {"completion_tokens_details": {"reasoning_tokens": 7}}
    reader.take(json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9, **details}}))
    assert reader.usage == Measured(3, 9, reasoning_tokens=7)


def fragment(index=None, call_id=None, name=None, arguments=None):
    told = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in told.items() if value is not None}


CALLS = {
    "openai": (
        [[fragment(0, "a", "f", "")], [fragment(0, arguments='{"x":')], [fragment(0, arguments="1}")]],
        (ToolCall("a", "f", '{"x":1}'),),
    ),
    "two": (
        [[fragment(0, "a", "f", "{}")], [fragment(1, "b", "g", "")], [fragment(1, arguments="{}")]],
        (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")),
    ),
    "all-at-once-without-index": (
        [[fragment(call_id="a", name="f", arguments="{}"), fragment(call_id="b", name="g", arguments="{}")]],
        (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")),
    ),
    "index-always-0": (
        [[fragment(0, "a", "f", "{}")], [fragment(0, "b", "f", "{}")]],
        (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")),
    ),
    "name-and-id-repeated": (
        [[fragment(0, "a", "f", "{")], [fragment(0, "a", "f", "}")]],
        (ToolCall("a", "f", "{}"),),
    ),
    "name-comes-late": ([[fragment(0, "a")], [fragment(0, name="f", arguments="{}")]], (ToolCall("a", "f", "{}"),)),
    "no-id": ([[fragment(0, name="f", arguments="{}")]], (ToolCall("call_x-1_0", "f", "{}"),)),
    "arguments-as-object": ([[fragment(0, "a", "f", {"x": 1})]], (ToolCall("a", "f", '{"x":1}'),)),
    "index-0-and-no-ids": (
        [[fragment(0, name="f", arguments='{"x":1}')], [fragment(0, name="g", arguments="{}")]],
        (ToolCall("call_x-1_0", "f", '{"x":1}'), ToolCall("call_x-1_1", "g", "{}")),
    ),
    "the-same-twice-without-ids": (
        [[fragment(0, "", "f", '{"x":1}')], [fragment(0, "", "f", '{"x":2}')]],
        (ToolCall("call_x-1_0", "f", '{"x":1}'), ToolCall("call_x-1_1", "f", '{"x":2}')),
    ),
    "name-repeated-after-the-end": (
        [[fragment(0, "a", "f", "{}")], [fragment(0, "a", "f", "")]],
        (ToolCall("a", "f", "{}"),),
    ),
    "known-by-id-alone": (
        [
            [fragment(call_id="a", name="f", arguments="{"), fragment(call_id="b", name="g", arguments='{"')],
            [fragment(call_id="b", arguments='x":1}')],
            [fragment(call_id="a", arguments="}")],
        ],
        (ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"x":1}')),
    ),
    "one-id-for-all": (
        [[fragment(0, "a", "f", "{}")], [fragment(1, "a", "g", "{}")]],
        (ToolCall("a", "f", "{}"), ToolCall("call_x-1_1", "g", "{}")),
    ),
    "one-id-for-all-and-no-index": (
        [
            [fragment(call_id="a", name="f", arguments="{}")],
            [fragment(call_id="a", name="f", arguments='{"x":')],
            [fragment(call_id="a", arguments="1}")],
        ],
        (ToolCall("a", "f", "{}"), ToolCall("call_x-1_1", "f", '{"x":1}')),
    ),
    "id-before-the-function": (
        [[{"index": 0, "id": "a", "type": "function"}], [fragment(0, name="f", arguments="{}")]],
        (ToolCall("a", "f", "{}"),),
    ),
    "indexes-from-5": (
        [[fragment(5, "a", "f", "{}")], [fragment(7, "b", "g", "{}")]],
        (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_come_out_in_one_order_however_they_are_told(name):
    fragments, calls = CALLS[name]
    reader, events = read(*({"tool_calls": each} for each in fragments), {}, finish="stop")
    told = [call for event in events if isinstance(event, ToolCallDelta) for call in event.calls]
    assert merged(told) == calls
    assert [call["index"] for call in told if "id" in call] == list(range(len(calls)))
    assert reader.reason == "tool_calls"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *("id", "choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "index"),
        *("images", "image_url", "url", "logprobs", "usage", "finish_reason", "refusal", "reasoning", "error"),
        *("cost", "prompt_tokens", "prompt_tokens_details"),
    ]
)
CHUNKS = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=20
)


@given(st.lists(CHUNKS, max_size=4))
def test_any_json_is_understood_or_told_as_drift(chunks):
    reader = Reader()
    try:
        told = [event for each in chunks for event in reader.take(json.dumps(each))]
    except (Drift, InBandError):
        return
    merged([call for event in told if isinstance(event, ToolCallDelta) for call in event.calls])
    assert reader.reason in ("stop", "length", "tool_calls", "content_filter")


@pytest.fixture
async def talk(provider):
    async with new_session() as session:
        adapter = OpenAIAPI(session=session, clock=SystemClock(), idle_timeout=1)
        ref = AccountRef(id="a", name="a", offer="o", credentials={"api_key": "k", "base_url": provider.url})

        async def ask():
            return [event async for event in adapter.chat(ref, "m-1", ASKING, None)]

        yield ask


async def test_an_answer_that_was_not_streamed(provider, talk):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "hi", "reasoning_content": "hm", "refusal": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "logprobs": {"content": [TOKEN]}, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.10}
    provider.answer = provider.plain(200, {"id": "x-1", "choices": [choice], "usage": usage})
    assert await talk() == [
        Measured(upstream_id="x-1"),
        ReasoningDelta("hm"),
        TextDelta("hi", (TOKEN,)),
        ToolCallDelta(({**call, "index": 0},)),
        Measured(3, 1, cost="0.1", upstream_id="x-1"),
        Finished("tool_calls"),
    ]


async def test_a_whole_answer_needs_no_reason_for_its_end(provider, talk):
    provider.answer = provider.plain(200, {"choices": [{"message": {"content": "hi"}}]})
    assert await talk() == [TextDelta("hi"), Finished("stop")]


@pytest.mark.parametrize(
    ("body", "kind", "fate"),
    [
        ({"choices": []}, AdapterDrift, Fate.ACCEPTED),
        ({"object": "list"}, AdapterDrift, Fate.ACCEPTED),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}, Transient, Fate.ACCEPTED),
        ({"choices": [{"message": {"content": None}, "finish_reason": "tool_calls"}]}, Transient, Fate.ACCEPTED),
        ({"error": {"code": 429}}, RateLimited, Fate.NOT_SENT),
    ],
    ids=["no-choice", "something-else", "empty", "calls-without-one", "error"],
)
async def test_json_that_is_no_answer(provider, talk, body, kind, fate):
    provider.answer = provider.plain(200, body)
    with pytest.raises(UpstreamFailure) as caught:
        await talk()
    assert (type(caught.value.outcome), caught.value.fate) == (kind, fate)


async def test_words_that_are_said_to_be_calls_are_words(provider, talk):
    provider.answer = provider.stream(chunk("hi"), chunk(finish="tool_calls"), DONE)
    assert await talk() == [TextDelta("hi"), Finished("stop")]


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
async def test_an_answer_that_the_provider_broke_off_is_not_whole(provider, talk, reason):
    provider.answer = provider.stream(chunk("hal"), chunk(finish=reason), DONE)
    with pytest.raises(UpstreamFailure) as caught:
        await talk()
    assert (type(caught.value.outcome), caught.value.fate) == (Transient, Fate.ACCEPTED)


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        ('{"message": "slow down", "code": 429}', RateLimited),
        ('{"error": {"message": "slow down", "code": 429}}', RateLimited),
        ('{"text": "gone"}', Transient),
        ("gone", Transient),
    ],
    ids=["bare", "wrapped", "untyped", "words"],
)
async def test_an_event_called_error_is_one_whatever_comes_after_it(provider, talk, data, outcome):
    provider.answer = provider.stream(chunk("hal"), f"event: error\ndata: {data}\n\n".encode(), DONE)
    with pytest.raises(UpstreamFailure) as caught:
        await talk()
    assert (type(caught.value.outcome), caught.value.fate) == (outcome, Fate.ACCEPTED)


async def test_a_refusal_or_a_picture_alone_is_an_answer(provider, talk):
    provider.answer = provider.stream(chunk(refusal="no"), chunk(finish="stop"), DONE)
    assert await talk() == [RefusalDelta("no"), Finished("stop")]
    picture = {"image_url": {"url": "https://x/y.png"}}
    provider.answer = provider.stream(chunk(images=[picture]), chunk(finish="stop"), DONE)
    assert await talk() == [ImageMade(url="https://x/y.png"), Finished("stop")]
