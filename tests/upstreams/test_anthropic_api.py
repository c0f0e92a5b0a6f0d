"""The adapter of Anthropic's API against a strict server on loopback."""

import json

import pytest

from poe_gateway.chat.anthropic import AnthropicMessages, parse
from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.events import (
    Finished,
    Measured,
    ReasoningDelta,
    RefusalDelta,
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
from poe_gateway.chat.usage import Usage
from poe_gateway.clock import SystemClock
from poe_gateway.dispatch.answer import Answer
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.anthropic_api import AnthropicAPI
from poe_gateway.upstreams.base import AccountRef, CredentialError, Fate, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from tests.upstreams.anthropic_site import KEY, Site, block, end, error, event, start, text

HELLO = Message("user", (TextPart("Hello"),))
ASKING = ChatRequest(model="m", messages=(HELLO,))
NAMED = Measured(upstream_id="msg_up")
FIGURES = Measured(prompt_tokens=3, completion_tokens=7, upstream_id="msg_up")


@pytest.fixture
async def site():
    server = Site()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def adapter():
    session = new_session()
    yield AnthropicAPI(session=session, clock=SystemClock(), idle_timeout=0.4, small_timeout=2)
    await session.close()


def account(base_url, **more) -> AccountRef:
    return AccountRef(id="acc_1", name="a", offer="o", credentials={"api_key": KEY, "base_url": base_url, **more})


async def talk(adapter, ref, request=ASKING, model="claude-1"):
    return [each async for each in adapter.chat(ref, model, request, None)]


async def fails(adapter, ref, request=ASKING, model="claude-1") -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await talk(adapter, ref, request, model)
    told = repr(caught.value) + repr(caught.value.outcome) + repr(caught.value.__cause__)
    assert KEY not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


async def test_a_plain_answer(adapter, site):
    assert await talk(adapter, account(site.url)) == [NAMED, TextDelta("hi"), FIGURES, Finished("stop")]
    path, headers, body = site.seen[-1]
    assert path == "/v1/messages"
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "Authorization" not in headers
    assert headers["User-Agent"].startswith("poe-gateway/")
    assert body == {
        "model": "claude-1",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "stream": True,
    }


async def test_terms_of_the_account(adapter, site):
    ref = account(f"{site.url}/v1/messages", beta="context-1m-2025-08-07, other-1", max_output=99)
    await talk(adapter, ref)
    _, headers, body = site.seen[-1]
    assert headers["anthropic-beta"] == "context-1m-2025-08-07, other-1"
    assert body["max_tokens"] == 99


async def test_a_whole_conversation_as_other_dialects_tell_it(adapter, site):
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    request = ChatRequest(
        model="public-name",
        messages=(
            Message("system", (TextPart("be "), TextPart("brief"))),
            Message("system", (TextPart("be kind"),)),
            Message("user", (TextPart("look"), ImagePart("https://h.example/y.png"), TextPart(" "))),
            Message("user", (ImagePart("data:image/JPG;base64,AA==", "low"),), name="Ann"),
            Message(
                "assistant",
                (TextPart(""),),
                tool_calls=(ToolCall("call:1", "look", '{"at": "it"}'), ToolCall("call_2", "look", "{oops")),
            ),
            Message("tool", (TextPart("a cat"), ImagePart("data:image/png;base64,BB==")), tool_call_id="call:1"),
            Message("tool", (), tool_call_id="call_2", extra={"anthropic": [{"type": "web_search"}]}),
            Message("user", (TextPart("so?"),)),
        ),
        parameters={
            "temperature": 0.1,
            "top_p": 0.9,
            "top_k": 5,
            "stop": "END",
            "max_completion_tokens": 50,
            "reasoning_effort": "high",
            "service_tier": "default",
            "safety_identifier": "who",
        },
        tools=(
            Tool(name="look", description="looks", parameters=schema, strict=True),
            Tool(name="go"),
        ),
        tool_choice=ToolChoice(mode="required", name="look"),
        parallel_tool_calls=False,
        output=OutputFormat(kind="json_schema", schema={"type": "object", "properties": {"a": schema}}),
        metadata={"session_id": "private"},
    )
    await talk(adapter, account(site.url), request)
    body = site.seen[-1][2]
    first = body["messages"][1]["content"][0]["id"]
    assert first.startswith("toolu_"), "an id that the API would refuse"
    assert body == {
        "model": "claude-1",
        "max_tokens": 50,
        "system": "be brief\n\nbe kind",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "url", "url": "https://h.example/y.png"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": first, "name": "look", "input": {"at": "it"}},
                    {"type": "tool_use", "id": "call_2", "name": "look", "input": {"INVALID_JSON": "{oops"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": first,
                        "content": [
                            {"type": "text", "text": "a cat"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "BB=="}},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "call_2"},
                    {"type": "text", "text": "so?"},
                ],
            },
        ],
        "tools": [
            {
                "name": "look",
                "description": "looks",
                "strict": True,
                "input_schema": {**schema, "additionalProperties": False},
            },
            {"name": "go", "input_schema": {"type": "object", "properties": {}}},
        ],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        "temperature": 0.1,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "output_config": {
            "effort": "high",
            "format": {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "properties": {"a": {**schema, "additionalProperties": False}},
                    "additionalProperties": False,
                },
            },
        },
        "service_tier": "standard_only",
        "metadata": {"user_id": "who"},
        "stream": True,
    }


async def test_what_came_in_anthropics_own_dialect_goes_on_as_it_came(adapter, site):
    mark = {"type": "ephemeral"}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "go", "cache_control": mark}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "no file", "is_error": True}],
        },
    ]
    asked = {
        "model": "m",
        "max_tokens": 2000,
        "system": [{"type": "text", "text": "be brief", "cache_control": mark}],
        "messages": messages,
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    await talk(adapter, account(site.url), parse(json.dumps(asked).encode()))
    assert site.seen[-1][2] == {**asked, "model": "claude-1", "stream": True}


async def test_calls_of_tools_that_are_offered_no_more_are_declared(adapter, site):
    calls = (ToolCall("c1", "look", "{}"), ToolCall("c2", "go", "{}"), ToolCall("c3", "look", "{}"))
    results = [Message("tool", (TextPart("here"),), tool_call_id=call.id) for call in calls]
    said = Message("assistant", (), tool_calls=calls)
    asked = ChatRequest(model="m", messages=(Message("user", (TextPart("go"),)), said, *results))
    await talk(adapter, account(site.url), asked)
    body = site.seen[-1][2]
    assert body["tools"] == [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "go")]
    assert body["tool_choice"] == {"type": "none"}


async def test_cache_marks_of_another_dialect_are_passed_on(adapter, site):
    mark = {"type": "ephemeral"}
    turns = (
        Message("system", (TextPart("be brief", mark),)),
        Message("user", (TextPart("go", mark), TextPart("now"))),
        Message("assistant", (), tool_calls=(ToolCall("c1", "look", "{}"),)),
        Message("tool", (TextPart("here", mark), TextPart("it is")), tool_call_id="c1"),
    )
    await talk(adapter, account(site.url), ChatRequest(model="m", messages=turns))
    body = site.seen[-1][2]
    assert body["system"] == [{"type": "text", "text": "be brief", "cache_control": mark}]
    go = {"type": "text", "text": "go", "cache_control": mark}
    user, _, told = body["messages"]
    assert user == {"role": "user", "content": [go, {"type": "text", "text": "now"}]}
    here = [{"type": "text", "text": text} for text in ("here", "it is")]
    result = {"type": "tool_result", "tool_use_id": "c1", "content": here, "cache_control": mark}
    assert told == {"role": "user", "content": [result]}, "within a result the API refuses marks"


async def test_thoughts_of_another_upstream_are_left_out(adapter, site):
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    said = [thought, {"type": "text", "text": "so"}]
    turns = [("user", "go"), ("assistant", [thought]), ("user", "on"), ("assistant", said), ("user", "on")]
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": role, "content": told} for role, told in turns]}
    await talk(adapter, account(site.url), parse(json.dumps(asked).encode()))
    go, so, on = ([{"type": "text", "text": text}] for text in ("go", "so", "on"))
    assert site.seen[-1][2]["messages"] == [
        {"role": "user", "content": go + on},
        {"role": "assistant", "content": so},
        {"role": "user", "content": on},
    ]


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"tool_choice": ToolChoice(mode="auto")}, {"tool_choice": {"type": "auto"}}),
        ({"tool_choice": ToolChoice(mode="required")}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": ToolChoice(mode="none"), "parallel_tool_calls": False}, {"tool_choice": {"type": "none"}}),
        ({"parallel_tool_calls": True}, {}),
        (
            {"parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"parameters": {"reasoning_effort": "none"}}, {"thinking": {"type": "disabled"}}),
        ({"parameters": {"stop": []}}, {}),
        ({"parameters": {"speed": "fast", "inference_geo": "eu"}}, {"speed": "fast", "inference_geo": "eu"}),
        ({"parameters": {"service_tier": "flex", "safety_identifier": 4}}, {}),
        (
            {"parameters": {"thinking": {"type": "enabled", "budget_tokens": 9000}}},
            {"thinking": {"type": "enabled", "budget_tokens": 9000}, "max_tokens": 17192},
        ),
    ],
    ids=["auto", "any", "none", "parallel", "one-at-once", "no-thinking", "no-stops", "native", "odd-tier", "budget"],
)
async def test_options(adapter, site, fields, sent):
    tools = (Tool(name="look"),)
    await talk(adapter, account(site.url), ChatRequest(model="m", messages=(HELLO,), tools=tools, **fields))
    body = site.seen[-1][2]
    plain = {"model", "messages", "stream", "tools"} | ({"max_tokens"} - set(sent))
    assert {name: value for name, value in body.items() if name not in plain} == sent


def schema_of(depth: int) -> dict:
    schema: dict = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"output": OutputFormat(kind="json_object")}, "response_format"),
        ({"parameters": {"reasoning_effort": "minimal"}}, "reasoning_effort"),
        ({"parameters": {"reasoning_effort": ["high"]}}, "reasoning_effort"),
        ({"parameters": {"stop": [1]}}, "stop"),
        ({"messages": (Message("system", (TextPart("x"),)),)}, "messages"),
        ({"messages": (Message("user", (TextPart("  "),)),)}, "messages"),
        ({"messages": (Message("user", (ImagePart("data:image/tiff;base64,AA"),)),)}, "Images"),
        ({"parameters": {"temperature": 2**70}}, "JSON"),
        ({"messages": (Message("user", (TextPart("\ud800"),)),)}, "JSON"),
        ({"output": OutputFormat(kind="json_schema", schema=schema_of(5000))}, "JSON"),
        ({"tools": (Tool(name="a", parameters=schema_of(300)),)}, "JSON"),
    ],
    ids=[
        "form",
        "minimal",
        "effort",
        "stop",
        "no-turn",
        "blank",
        "tiff",
        "huge",
        "half-pair",
        "deep-form",
        "deep-tool",
    ],
)
async def test_what_has_no_place_in_the_api_is_refused_before_it_is_sent(adapter, site, fields, word):
    request = ChatRequest(**{"model": "m", "messages": (HELLO,), **fields})
    failed = await fails(adapter, account(site.url), request)
    assert isinstance(failed.outcome, Rejected)
    assert (failed.outcome.status, failed.fate, failed.outcome.model) == (400, Fate.NOT_SENT, None)
    assert word in failed.outcome.public
    assert site.seen == []


async def test_bytes_may_be_cut_anywhere(adapter, site):
    whole = b": hi\n\n" + start() + event("ping") + text(0, "äöü 🙂") + event("news", odd=1) + end("max_tokens")
    site.answer = site.stream(*(whole[place : place + 7] for place in range(0, len(whole), 7)))
    assert await talk(adapter, account(site.url)) == [NAMED, TextDelta("äöü 🙂"), FIGURES, Finished("length")]


async def test_thoughts_and_calls_go_out_by_the_dialect_and_come_back_untouched(adapter, site):
    """The signature that the API gave must be sent back with the very thought that it was given for."""
    site.answer = site.stream(
        start(),
        block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm, "},
            {"type": "thinking_delta", "thinking": "so"},
            {"type": "signature_delta", "signature": "sig"},
        ),
        block(
            1,
            {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"at": "it"}'},
        ),
        end("tool_use"),
    )
    answer = Answer()
    for each in await talk(adapter, account(site.url)):
        answer.observe(each)
    head = Head(id="msg_1", created=0, model="m", request=ASKING)
    reply = Reply(
        head=head,
        finish=answer.finish,
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        reasoning=answer.reasoning,
        signature=answer.signature,
        tool_calls=answer.calls,
    )
    said = json.loads(AnthropicMessages().whole(reply))["content"]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "a cat"}
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "m", "max_tokens": 10, "messages": turns}
    site.answer = site.stream(start(), text(0, "hi"), end())
    await talk(adapter, account(site.url), parse(json.dumps(body).encode()))
    assert site.seen[-1][2]["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm, so", "signature": "sig"},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}},
    ]


async def test_thoughts_calls_and_figures(adapter, site):
    site.answer = site.stream(
        start(cache_creation_input_tokens=20, cache_read_input_tokens=100),
        block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "signature_delta", "signature": "sig"},
        ),
        text(1, "so"),
        block(
            2,
            {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"at":'},
            {"type": "input_json_delta", "partial_json": '"it"}'},
        ),
        block(3, {"type": "tool_use", "id": "t2", "name": "go", "input": {}}),
        end("tool_use", output_tokens_details={"thinking_tokens": 2}),
    )
    assert await talk(adapter, account(site.url)) == [
        NAMED,
        ReasoningDelta("hm"),
        ReasoningDelta("", "sig"),
        TextDelta("so"),
        ToolCallDelta(({"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": ""}},)),
        ToolCallDelta(({"index": 0, "function": {"arguments": '{"at":'}},)),
        ToolCallDelta(({"index": 0, "function": {"arguments": '"it"}'}},)),
        ToolCallDelta(({"index": 1, "id": "t2", "type": "function", "function": {"name": "go", "arguments": ""}},)),
        ToolCallDelta(({"index": 1, "function": {"arguments": "{}"}},)),
        Measured(prompt_tokens=123, completion_tokens=7, cached_tokens=100, reasoning_tokens=2, upstream_id="msg_up"),
        Finished("tool_calls"),
    ]


@pytest.mark.parametrize(
    ("parts", "events"),
    [
        ((text(0, "a"), end("stop_sequence", "END")), [TextDelta("a"), FIGURES, Finished("stop", "END")]),
        ((text(0, "a"), end("model_context_window_exceeded")), [TextDelta("a"), FIGURES, Finished("length")]),
        ((text(0, "a"), end("some_news")), [TextDelta("a"), FIGURES, Finished("stop")]),
        ((text(0, "a"), end("tool_use")), [TextDelta("a"), FIGURES, Finished("stop")]),
        ((end("refusal"),), [FIGURES, Finished("content_filter")]),
        (
            (end("refusal", details={"type": "refusal", "explanation": "Not that."}),),
            [RefusalDelta("Not that."), FIGURES, Finished("content_filter")],
        ),
        ((end("stop_sequence", "END"),), [FIGURES, Finished("stop", "END")]),
    ],
    ids=["sequence", "window", "news", "no-call", "refusal", "explained", "at-once"],
)
async def test_why_it_ended(adapter, site, parts, events):
    site.answer = site.stream(start(), *parts)
    assert await talk(adapter, account(site.url)) == [NAMED, *events]


async def test_an_answer_is_complete_without_its_last_formality(adapter, site):
    ending = end().removesuffix(event("message_stop"))
    for then in ("break", "hang", "end"):
        site.answer = site.stream(start(), text(0, "a"), ending, then=then)
        assert await talk(adapter, account(site.url)) == [NAMED, TextDelta("a"), FIGURES, Finished("stop")]


@pytest.mark.parametrize(
    ("parts", "then", "kind", "timeout"),
    [
        ((start(), text(0, "a")), "end", Transient, False),
        ((start(), text(0, "a")), "break", Transient, False),
        ((start(), text(0, "a")), "hang", Transient, True),
        ((start(), end()), "end", Transient, False),
        ((), "end", AdapterDrift, False),
        ((b"data: {}\n\n",), "end", AdapterDrift, False),
        ((b"data: <p>\n\n",), "end", AdapterDrift, False),
        ((b"data: []\n\n",), "end", AdapterDrift, False),
        ((event("content_block_delta", index=0),), "end", AdapterDrift, False),
        ((start(), text(0, "a"), event("error", error={"type": "overloaded_error"})), "end", Transient, False),
        ((start(), event("error", error={"type": "timeout_error"})), "end", Transient, True),
        ((start(), text(0, "a"), event("error", error={"type": "rate_limit_error"})), "end", RateLimited, False),
        ((start(), text(0, "a"), event("error")), "end", Transient, False),
    ],
    ids=[
        "cut",
        "broken",
        "silent",
        "empty",
        "nothing",
        "unknown",
        "no-json",
        "no-object",
        "no-delta",
        "overloaded",
        "late",
        "limited",
        "untyped",
    ],
)
async def test_broken_answers_were_accepted(adapter, site, parts, then, kind, timeout):
    site.answer = site.stream(*parts, then=then)
    failed = await fails(adapter, account(site.url))
    assert (type(failed.outcome), failed.fate) == (kind, Fate.ACCEPTED)
    assert getattr(failed.outcome, "timeout", False) == timeout


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "fate"),
    [
        (401, error("authentication_error", KEY), {}, Unauthorized, Fate.NOT_SENT),
        (402, error("billing_error"), {}, Depleted, Fate.NOT_SENT),
        (403, error("permission_error", KEY), {}, Unauthorized, Fate.NOT_SENT),
        (403, b"<html>", {"CF-Mitigated": "challenge"}, Challenged, Fate.NOT_SENT),
        (404, error("not_found_error", f"model: {KEY}"), {}, Rejected, Fate.NOT_SENT),
        (429, error("rate_limit_error"), {"retry-after": "3"}, RateLimited, Fate.NOT_SENT),
        (529, error("overloaded_error"), {}, Transient, Fate.NOT_SENT),
        (504, error("timeout_error"), {}, Transient, Fate.UNKNOWN),
        (307, b"", {"Location": "http://elsewhere.invalid/"}, AdapterDrift, Fate.NOT_SENT),
        (200, b"<html>", {}, AdapterDrift, Fate.ACCEPTED),
        (200, {"type": "message"}, {}, AdapterDrift, Fate.ACCEPTED),
        (200, error("rate_limit_error"), {}, RateLimited, Fate.NOT_SENT),
    ],
    ids=["401", "402", "403", "challenge", "404", "429", "529", "504", "307", "200-page", "200-json", "200-error"],
)
async def test_refusals(adapter, site, status, body, headers, kind, fate):
    site.answer = site.plain(status, body, **headers)
    failed = await fails(adapter, account(site.url))
    assert (type(failed.outcome), failed.fate) == (kind, fate)


async def test_the_list_of_models_page_by_page(adapter, site):
    able = {"image_input": {"supported": True}, "thinking": {"supported": True}}
    first = {"id": "claude-1", "created_at": "2026-01-01T00:00:00Z", "max_input_tokens": 200_000, "max_tokens": 64_000}
    site.pages = [
        [{**first, "capabilities": able}, {"id": "claude-2", "created_at": "1970-01-01T00:00:00Z", "capabilities": {}}],
        [{"id": "claude-3", "created_at": "soon", "max_tokens": None}, {"display_name": "no id"}, {"id": "x" * 300}],
        [],
    ]
    site.pages[1].append({"id": "claude-4"})
    models = await adapter.list_models(account(site.url))
    assert [(model.id, model.owned_by, model.created) for model in models] == [
        ("claude-1", "anthropic", 1767225600),
        ("claude-2", "anthropic", 0),
        ("claude-3", "anthropic", 0),
        ("claude-4", "anthropic", 0),
    ]
    assert models[0].details == {
        "context_length": 200_000,
        "max_output_tokens": 64_000,
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
    }
    assert models[1].details["input_modalities"] == ["text"]
    assert models[2].details == {}
    assert [path for path, _, _ in site.seen] == [
        "/v1/models?limit=1000",
        "/v1/models?limit=1000&after_id=claude-2",
        "/v1/models?limit=1000&after_id=claude-4",
    ]
    assert await adapter.probe(account(site.url)) == f"{site.url[7:]} accepts the key and lists 4 models."


async def test_an_endless_list_ends(adapter, site):
    async def endless(request):
        number = len(site.seen)
        page = {"data": [{"id": f"m-{number}"}], "has_more": True, "last_id": f"m-{number}"}
        return await site.plain(200, page)(request)

    site.pages = endless
    assert len(await adapter.list_models(account(site.url))) == 20


async def test_the_allow_list(adapter, site):
    ref = account(site.url, models=["claude-2", "claude-9"])
    assert [model.id for model in await adapter.list_models(ref)] == ["claude-2"]
    failed = await fails(adapter, ref, model="claude-1")
    assert (failed.outcome.model, failed.outcome.status) == ("claude-1", 404)


@pytest.mark.parametrize(
    "pages", [{"data": 1}, {"data": [{}]}, "x", {"data": ["m"]}], ids=["number", "no-id", "word", "string"]
)
async def test_lists_of_a_shape_that_is_not_known(adapter, site, pages):
    site.pages = pages
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.list_models(account(site.url))
    assert isinstance(caught.value.outcome, AdapterDrift)


async def test_a_wrong_key_is_found_by_the_probe(adapter, site):
    ref = AccountRef(id="acc_2", name="a", offer="o", credentials={"api_key": "wrong", "base_url": site.url})
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.probe(ref)
    assert isinstance(caught.value.outcome, Unauthorized)
    assert (await adapter.read_balance(ref)).points is None


def describe(**credentials):
    return AnthropicAPI(session=None, clock=SystemClock()).describe({"api_key": KEY, **credentials})


def test_one_place_has_one_offer_however_it_is_written():
    offers = {
        describe().offer,
        describe(base_url="https://API.anthropic.com").offer,
        describe(base_url="https://api.anthropic.com:443/v1/").offer,
        describe(base_url="https://api.anthropic.com/v1/messages").offer,
    }
    assert offers == {"anthropic_api:api.anthropic.com"}
    others = [
        describe().offer,
        describe(base_url="https://h.example").offer,
        describe(base_url="http://h.example").offer,
        describe(base_url="https://h.example/anthropic").offer,
        describe(base_url="https://h.example:8443").offer,
        describe(base_url="https://[::1]:8443").offer,
        describe(base_url="https://h.example", models=["a"]).offer,
        describe(base_url="https://h.example", models=["a", "b"]).offer,
    ]
    assert len(set(others)) == len(others)
    assert others[-1] == describe(base_url="https://h.example", models=["b", "a", "a"]).offer


@pytest.mark.parametrize(
    ("credentials", "field"),
    [
        ({"api_key": ""}, "api_key"),
        ({"beta": "a;b"}, "beta"),
        ({"max_output": 0}, "max_output"),
        ({"max_output": True}, "max_output"),
        ({"max_output": 10**9}, "max_output"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())).replace("/", "_")[:30],
)
def test_bad_credentials_name_the_field_and_not_the_value(credentials, field):
    with pytest.raises(CredentialError) as caught:
        describe(**credentials)
    assert caught.value.field == field
    assert KEY not in str(caught.value)


def test_no_secret_in_what_is_shown():
    adapter = AnthropicAPI(session=None, clock=SystemClock())
    ref = account("https://h.example")
    assert KEY not in repr(adapter.describe(ref.credentials)) + repr(ref) + repr(adapter)
    assert KEY not in repr(adapter._doors.of(ref))


async def test_where_a_server_of_ones_own_would_fetch_from_is_judged(site):
    """Else it would be a way for callers into the network that it stands in."""
    looking = Message("user", (TextPart("look"), ImagePart("http://[::ffff:10.0.0.1]/x.png")))
    fetcher = ImageFetcher(Guard())
    async with new_session() as session:
        adapter = AnthropicAPI(session=session, clock=SystemClock(), images=fetcher)
        ref = AccountRef(id="a", name="a", offer="o", credentials={"api_key": KEY, "base_url": site.url})
        with pytest.raises(UpstreamFailure) as caught:
            await anext(adapter.chat(ref, "m", ChatRequest(model="m", messages=(looking,)), None))
    assert caught.value.outcome.code == "invalid_image" and caught.value.fate is Fate.NOT_SENT
    assert not site.seen
    await fetcher.close()
