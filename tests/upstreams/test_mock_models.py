"""What the mock models obey: tools, forms, ends, tokens, thinking; and what they make besides words."""

import base64
import json
import math
import struct
import zlib

import pytest

from poe_gateway.chat.events import (
    Embedded,
    Finished,
    ImageMade,
    Measured,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
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
from poe_gateway.chat.tool_calls import merged
from poe_gateway.pool.outcome import Rejected
from poe_gateway.upstreams.base import AccountRef, CredentialError, UpstreamFailure
from poe_gateway.upstreams.mock import MockUpstream

WEATHER = Tool(
    name="weather",
    parameters={
        "type": "object",
        "properties": {
            "place": {"type": "string"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1},
            "notes": {"type": "string"},
        },
        "required": ["place", "unit", "days"],
    },
)
CLOCK = Tool(name="clock")
ASKED = Message("user", (TextPart("Paris for 3 days"),))


def turns(*messages: Message, **fields) -> ChatRequest:
    return ChatRequest(model="m", messages=messages, **fields)


def asking(text: str, **fields) -> ChatRequest:
    return turns(Message("user", (TextPart(text),)), **fields)


async def talk(request, model="mock-1", **credentials):
    ref = AccountRef(id="a", name="a", offer="mock", credentials=credentials)
    return [event async for event in MockUpstream().chat(ref, model, request, None)]


def text_of(events) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events) -> tuple[ToolCall, ...]:
    return merged([call for event in events if isinstance(event, ToolCallDelta) for call in event.calls])


async def refusal_of(request) -> Rejected:
    with pytest.raises(UpstreamFailure) as caught:
        await talk(request)
    assert isinstance(caught.value.outcome, Rejected)
    return caught.value.outcome


# Tools.

CHOICES = {
    "first": (None, "weather"),
    "auto": (ToolChoice(), "weather"),
    "required": (ToolChoice(mode="required"), "weather"),
    "named": (ToolChoice(mode="required", name="clock"), "clock"),
}


@pytest.mark.parametrize("name", CHOICES)
async def test_an_offered_tool_is_called(name):
    choice, called = CHOICES[name]
    events = await talk(turns(ASKED, tools=(WEATHER, CLOCK), tool_choice=choice))
    arguments = {"weather": {"place": "Paris for 3 days", "unit": "celsius", "days": 3}, "clock": {}}[called]
    assert [(call.id, call.name, json.loads(call.arguments)) for call in calls_of(events)] == [
        ("call_mock_1", called, arguments)
    ]
    assert text_of(events) == ""
    assert events[-1] == Finished("tool_calls")


async def test_a_forbidden_tool_is_not_called():
    events = await talk(turns(ASKED, tools=(WEATHER,), tool_choice=ToolChoice(mode="none")))
    assert (text_of(events), events[-1]) == ("[mock] ok: Paris for 3 days", Finished("stop"))


async def test_the_tools_result_is_answered_with_and_a_next_question_calls_again():
    called = Message("assistant", (), tool_calls=(ToolCall("call_mock_1", "weather", "{}"),))
    told = Message("tool", (TextPart("sunny " * 40),), tool_call_id="call_mock_1")
    events = await talk(turns(ASKED, called, told, tools=(WEATHER,)))
    assert text_of(events) == "[mock] ok: " + ("sunny " * 40)[:120]
    assert events[-1] == Finished("stop")
    both = turns(
        ASKED, called, Message("tool", (TextPart("rain"),)), Message("tool", (TextPart("wind"),)), tools=(WEATHER,)
    )
    assert text_of(await talk(both)) == "[mock] ok: rain, wind"
    again = await talk(turns(ASKED, called, told, Message("assistant", (TextPart("ok"),)), ASKED, tools=(WEATHER,)))
    assert [call.id for call in calls_of(again)] == ["call_mock_2"]


async def test_a_tool_that_cannot_be_filled_in_is_refused():
    endless = Tool(name="f", parameters={"properties": {"a": {"$ref": "#"}}, "required": ["a"]})
    assert "schema" in (await refusal_of(turns(ASKED, tools=(endless,)))).public


async def test_tokens_of_a_call_are_counted():
    measured = next(e for e in await talk(turns(ASKED, tools=(CLOCK,))) if isinstance(e, Measured))
    assert measured.completion_tokens == math.ceil(len("clock{}") / 4)


# Forms.


async def test_structured_output_follows_its_schema():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["city", "n"],
    }
    output = OutputFormat(kind="json_schema", schema=schema)
    assert json.loads(text_of(await talk(turns(ASKED, output=output)))) == {"city": "Paris for 3 days", "n": 3}
    echo = await talk(turns(ASKED, output=output), model="mock-echo")
    assert json.loads(text_of(echo))["n"] == 3


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
async def test_json_without_a_schema_is_an_object(kind):
    events = await talk(turns(ASKED, output=OutputFormat(kind=kind)))
    assert json.loads(text_of(events)) == {"answer": "[mock] ok: Paris for 3 days"}


# Ends.

ENDS = {
    "stop": ({"stop": " c"}, "[mock] ok: a b", Finished("stop", " c")),
    "first-of-several": ({"stop": ["d", "b"]}, "[mock] ok: a ", Finished("stop", "b")),
    "at-once": ({"stop": "[mock]"}, "", Finished("stop", "[mock]")),
    "never": ({"stop": ["x"]}, "[mock] ok: a b c d", Finished("stop")),
    "tokens": ({"max_tokens": 2}, "[mock] o", Finished("length")),
    "newer-name": ({"max_completion_tokens": 2, "max_tokens": 9}, "[mock] o", Finished("length")),
    "enough-tokens": ({"max_tokens": 5}, "[mock] ok: a b c d", Finished("stop")),
    "stop-before-tokens": ({"stop": "ok", "max_tokens": 3}, "[mock] ", Finished("stop", "ok")),
    "tokens-before-stop": ({"stop": "d", "max_tokens": 1}, "[moc", Finished("length")),
    "nothing": ({"stop": None, "max_tokens": None}, "[mock] ok: a b c d", Finished("stop")),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_answer_ends_where_it_is_told_to(name):
    parameters, text, finished = ENDS[name]
    events = await talk(asking("a b c d", parameters=parameters))
    assert (text_of(events), events[-1]) == (text, finished)
    assert next(e for e in events if isinstance(e, Measured)).completion_tokens == math.ceil(len(text) / 4)


@pytest.mark.parametrize(
    "parameters",
    [
        {"stop": [1]},
        {"stop": ""},
        {"stop": {}},
        {"max_tokens": 0},
        {"max_tokens": "5"},
        {"max_tokens": True},
        {"max_completion_tokens": 1.5},
        {"logprobs": 1},
        {"logprobs": True, "top_logprobs": 21},
        {"top_logprobs": 2},
    ],
    ids=str,
)
async def test_an_option_of_the_wrong_kind_is_refused_by_name(parameters):
    refused = await refusal_of(asking("hi", parameters=parameters))
    assert refused.status == 400 and list(parameters)[-1] in refused.public


async def test_tokens_are_told_where_asked_for():
    events = await talk(asking("hi", parameters={"logprobs": True, "top_logprobs": 2}))
    told = [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]
    assert "".join(token["token"] for token in told) == text_of(events)
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in told)
    assert bytes(told[0]["bytes"]).decode() == told[0]["token"] == told[0]["top_logprobs"][0]["token"]
    assert all(event.logprobs is None for event in await talk(asking("hi")) if isinstance(event, TextDelta))


@pytest.mark.parametrize(
    ("parameters", "thinks"),
    [
        ({"reasoning_effort": "low"}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, True),
        ({"reasoning_effort": "none"}, False),
        ({"thinking": {"type": "disabled"}}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_thinking_is_shown_where_it_is_asked_for(parameters, thinks):
    events = await talk(asking("hi", parameters=parameters))
    assert [e.text for e in events if isinstance(e, ReasoningDelta)] == (["[mock] thinking of: hi"] if thinks else [])
    assert text_of(events) == "[mock] ok: hi"
    assert bool(next(e for e in events if isinstance(e, Measured)).reasoning_tokens) == thinks


async def test_pictures_of_a_prompt_are_counted():
    picture = ImagePart("data:image/png;base64,AA")
    look = Message("user", (TextPart("look"), picture, picture))
    assert text_of(await talk(turns(look))) == "[mock] ok: look (2 images)"
    assert text_of(await talk(turns(Message("user", (picture,))))) == "[mock] ok:  (1 image)"
    assert text_of(await talk(turns(look, Message("assistant", ()), ASKED))) == "[mock] ok: Paris for 3 days"


# Answers written beforehand.

WRITTEN = [
    {"model": "small*", "say": "I can't help with that."},
    {"when": "label", "say": "cloud:capable"},
    {"model": "large", "when": "x", "say": "yes"},
]


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("small-1", "x", "I can't help with that."),
        ("large", "which label?", "cloud:capable"),
        ("large", "x", "yes"),
        ("large", "y", "[mock] ok: y"),
    ],
)
async def test_the_first_written_answer_that_fits_is_given(model, text, said):
    events = await talk(asking(text), model, models=["small-1", "large"], answers=WRITTEN)
    assert text_of(events) == said
    assert len([event for event in events if isinstance(event, TextDelta)]) == len(said.split())


async def test_a_written_answer_comes_before_tools_and_ends_like_any_other():
    request = turns(ASKED, tools=(WEATHER,), parameters={"max_tokens": 1})
    events = await talk(request, answers=[{"say": "plainly"}])
    assert (text_of(events), events[-1]) == ("plai", Finished("length"))


@pytest.mark.parametrize("answers", [[{}], [{"say": ""}], [{"say": "x", "then": "y"}], ["x"], "x"], ids=str)
def test_a_written_answer_that_is_none_names_the_field(answers):
    with pytest.raises(CredentialError) as caught:
        MockUpstream().describe({"answers": answers})
    assert caught.value.field == "answers"


# Vectors.


def embedding(*inputs, **parameters) -> ChatRequest:
    return ChatRequest(model="m", messages=(), operation="embed", inputs=inputs, parameters=parameters)


async def test_vectors_are_of_length_1_and_the_same_for_the_same_input():
    first, second, third, fourth, measured, finished = await talk(embedding("hello", "bye", (1, 2, 3), "hello"))
    assert [each.index for each in (first, second, third, fourth)] == [0, 1, 2, 3]
    assert first.vector == fourth.vector
    assert len({first.vector, second.vector, third.vector}) == 3
    assert all(len(each.vector) == 8 and math.isclose(math.hypot(*each.vector), 1) for each in (first, second, third))
    assert (measured, finished) == (Measured(2 + 1 + 3 + 2, 0), Finished("stop"))


async def test_vectors_are_as_long_as_asked_for():
    events = await talk(embedding("hello", dimensions=300))
    (vector,) = (event.vector for event in events if isinstance(event, Embedded))
    assert len(vector) == 300
    assert min(vector) < 0 < max(vector)


@pytest.mark.parametrize("size", [0, -1, 5000, True, "8", 1.5], ids=str)
async def test_a_size_that_is_none_is_refused(size):
    assert "dimensions" in (await refusal_of(embedding("hello", dimensions=size))).public


async def test_too_many_numbers_at_once_are_refused():
    assert "at most" in (await refusal_of(embedding(*(["a"] * 2048), dimensions=4096))).public


# Pictures.


def painting(*images, **parameters) -> ChatRequest:
    turn = Message("user", (TextPart("a cat"), *(ImagePart(url) for url in images)))
    return ChatRequest(model="m", messages=(turn,), operation="image", parameters=parameters)


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose chunks and pixels are checked."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(name + data),)
        chunks[name], at = data, at + 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + (width + 7) // 8)
    return width, height


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, (64, 64)), ("auto", (64, 64)), ("1024x1536", (1024, 1536)), ("1x1", (1, 1)), ("9x7", (9, 7))],
    ids=str,
)
async def test_pictures_are_real_and_of_the_size_asked_for(size, expected):
    picture, measured, finished = await talk(painting(size=size))
    assert size_of(base64.b64decode(picture.base64)) == expected
    assert (picture.media_type, picture.revised_prompt) == ("image/png", "[mock] a cat")
    assert (measured, finished) == (Measured(2, 0), Finished("stop"))


async def test_several_pictures_differ_and_those_of_the_prompt_are_counted():
    pictures = [e for e in await talk(painting("data:image/png;base64,AA", n=3)) if isinstance(e, ImageMade)]
    assert len({picture.base64 for picture in pictures}) == 3
    assert pictures[0].revised_prompt == "[mock] a cat (1 image)"


@pytest.mark.parametrize(
    "parameters",
    [{"size": "0x5"}, {"size": "9999x1"}, {"size": 5}, {"size": "wide"}, {"n": 0}, {"n": 11}, {"n": "2"}, {"n": True}],
    ids=str,
)
async def test_pictures_that_cannot_be_made_are_refused_by_name(parameters):
    assert next(iter(parameters)) in (await refusal_of(painting(**parameters))).public


@pytest.mark.parametrize("request_", [embedding("a"), painting()], ids=["vectors", "pictures"])
async def test_what_is_made_costs_like_an_answer_and_fails_like_one(request_):
    events = await talk(request_, points=5, price=2)
    assert next(e for e in events if isinstance(e, Measured)).points == 2
    with pytest.raises(UpstreamFailure):
        await talk(request_, faults=[{"kind": "transient"}])
