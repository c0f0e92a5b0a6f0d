"""The API-key adapter against a real server on loopback."""

import pytest
from msgspec.structs import replace

from poe_gateway.chat.events import Finished, Measured, TextDelta, ToolCallDelta
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
from poe_gateway.clock import SystemClock
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.base import AccountRef, Fate, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from tests.upstreams.provider import DONE, chunk

KEY = "canary-key-8812345"
ASKING = ChatRequest(model="m-1", messages=(Message("user", (TextPart("Hello"),)),))


@pytest.fixture
async def adapter(provider):
    session = new_session()
    yield OpenAIAPI(
        session=session,
        clock=SystemClock(),
        preset_urls={"poe": provider.url, "openrouter": f"{provider.url}/v1/"},
        idle_timeout=0.4,
        small_timeout=2,
    )
    await session.close()


def account(base_url=None, **more) -> AccountRef:
    credentials = {"api_key": KEY, **more} | ({"base_url": base_url} if base_url else {})
    return AccountRef(id="acc_1", name="a", offer="o", credentials=credentials)


async def talk(adapter, ref, request=ASKING, model="m-1"):
    return [event async for event in adapter.chat(ref, model, request, None)]


async def fails(adapter, ref, request=ASKING, model="m-1") -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await talk(adapter, ref, request, model)
    text = repr(caught.value) + repr(caught.value.outcome) + repr(caught.value.__cause__)
    assert KEY not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


async def test_a_plain_answer(adapter, provider):
    events = await talk(adapter, account(provider.url))
    assert events == [TextDelta("hi"), Measured(3, 1), Finished("stop")]


async def test_what_is_sent(adapter, provider):
    request = ChatRequest(
        model="public-name",
        messages=(
            Message("system", (TextPart("be "), TextPart("brief"))),
            Message(
                "user", (TextPart("look"), ImagePart("https://x/y.png"), ImagePart("data:image/png;base64,AA", "low"))
            ),
            Message("assistant", (), {"prefix": True, "anthropic": [{}]}, (ToolCall("c1", "look", "{}"),)),
            Message("tool", (TextPart("42"),), tool_call_id="c1", name="look"),
        ),
        parameters={"temperature": 0.1, "max_completion_tokens": 5, "stream": False},
        tools=(
            Tool(name="look", description="looks", parameters={"type": "object"}, strict=True),
            Tool(name="go"),
        ),
        tool_choice=ToolChoice(mode="required", name="look"),
        parallel_tool_calls=False,
        output=OutputFormat(kind="json_schema", name="n", description="d", schema={"type": "object"}, strict=True),
        metadata={"session_id": "private"},
    )
    ref = account(provider.url, organization="org-1", http_referer="https://me", title="Me")
    await talk(adapter, ref, request, "m-1")
    path, headers, body = provider.seen[-1]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["OpenAI-Organization"] == "org-1"
    assert (headers["HTTP-Referer"], headers["X-Title"]) == ("https://me", "Me")
    assert headers["User-Agent"].startswith("poe-gateway/")
    assert body == {
        "model": "m-1",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.1,
        "max_completion_tokens": 5,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "looks",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            },
            {"type": "function", "function": {"name": "go"}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True},
        },
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "prefix": True,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "look"},
        ],
    }


IMAGE = ImagePart("data:image/png;base64,AA")
MARK = {"type": "ephemeral"}
SENT_IMAGE = {"type": "image_url", "image_url": {"url": IMAGE.url}}
SENT_IMAGES = {"type": "text", "text": "Images of the results of tools, in their order:"}


def result(call_id, *parts):
    """The result of a tool."""
    return Message("tool", parts, tool_call_id=call_id)


@pytest.mark.parametrize(
    ("turns", "sent"),
    [
        ([result("c1")], [{"role": "tool", "tool_call_id": "c1", "content": ""}]),
        ([Message("user", ())], [{"role": "user", "content": ""}]),
        ([Message("assistant", ())], [{"role": "assistant", "content": ""}]),
        (
            [result("c1", TextPart("seen"), IMAGE), result("c2", IMAGE), Message("user", (TextPart("so?"),))],
            [
                {"role": "tool", "tool_call_id": "c1", "content": "seen"},
                {"role": "tool", "tool_call_id": "c2", "content": "(an image)"},
                {"role": "user", "content": [SENT_IMAGES, SENT_IMAGE, SENT_IMAGE]},
                {"role": "user", "content": "so?"},
            ],
        ),
        (
            [result("c1", IMAGE)],
            [
                {"role": "tool", "tool_call_id": "c1", "content": "(an image)"},
                {"role": "user", "content": [SENT_IMAGES, SENT_IMAGE]},
            ],
        ),
    ],
    ids=["empty-result", "empty-user", "empty-assistant", "images-between", "images-last"],
)
async def test_turns_as_the_api_takes_them(adapter, provider, turns, sent):
    await talk(adapter, account(provider.url), replace(ASKING, messages=tuple(turns)))
    assert provider.seen[-1][2]["messages"] == sent


MARKED = {"type": "text", "text": "long", "cache_control": MARK}
SENT_TEXTS = [{"type": "text", "text": "long"}, {"type": "text", "text": "so?"}]


@pytest.mark.parametrize(
    ("where", "sent"),
    [
        ({"preset": "openrouter"}, [[MARKED], [*SENT_TEXTS, {**SENT_IMAGE, "cache_control": MARK}]]),
        ({"preset": "poe"}, ["long", [*SENT_TEXTS, SENT_IMAGE]]),
        ({}, ["long", [*SENT_TEXTS, SENT_IMAGE]]),
    ],
    ids=["known", "preset-without", "own-address"],
)
async def test_cache_marks_reach_only_providers_that_know_them(adapter, provider, where, sent):
    """Strict ones (Groq) refuse the whole request for a field that they do not know."""
    shown = (TextPart("long"), TextPart("so?"), ImagePart(IMAGE.url, cache=MARK))
    turns = (Message("system", (TextPart("long", MARK),)), Message("user", shown))
    ref = account(**where) if where else account(provider.url)
    await talk(adapter, ref, replace(ASKING, messages=turns))
    assert [turn["content"] for turn in provider.seen[-1][2]["messages"]] == sent


async def test_long_ids_of_calls_are_shortened_wherever_they_stand(adapter, provider):
    """OpenAI takes forty signs; vLLM's own ids are longer, and a conversation may go from one to the other."""
    names = ["chatcmpl-tool-" + "a" * 32, "chatcmpl-tool-" + "b" * 32, "c" * 40]
    calls = Message("assistant", (), tool_calls=tuple([ToolCall(name, "f", "{}") for name in names]))
    turns = (*ASKING.messages, calls, *[result(name, TextPart("x")) for name in names])
    await talk(adapter, account(provider.url), replace(ASKING, messages=turns))
    _, asked, *told = provider.seen[-1][2]["messages"]
    sent = [call["id"] for call in asked["tool_calls"]]
    assert sent == [each["tool_call_id"] for each in told]
    assert len(set(sent)) == 3 and all(len(name) <= 40 for name in sent)
    assert sent[2] == names[2]


NEW, OLD = {"max_completion_tokens": 9}, {"max_tokens": 7}


@pytest.mark.parametrize(
    ("preset", "given", "sent"),
    [
        ("openai", OLD, {"max_completion_tokens": 7}),
        ("openai", NEW | OLD, NEW),
        ("openai", {"max_tokens": None}, {"max_tokens": None}),
        ("ollama", NEW, {"max_tokens": 9}),
        ("qwen", NEW, {"max_tokens": 9}),
        ("openrouter", OLD, OLD),
        ("poe", NEW, NEW),
    ],
    ids=["openai", "openai-both", "openai-none", "ollama", "qwen", "openrouter", "poe"],
)
async def test_a_limit_goes_by_the_name_that_the_provider_takes(provider, preset, given, sent):
    """Newer models of OpenAI refuse the older name, by which other dialects' limits come; some pass over the newer."""
    async with new_session() as session:
        adapter = OpenAIAPI(session=session, clock=SystemClock(), preset_urls={preset: f"{provider.url}/v1"})
        await talk(adapter, account(preset=preset), replace(ASKING, parameters=given))
    body = provider.seen[-1][2]
    assert {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body} == sent


def budget(tokens, **others):
    """Parameters with a budget of thinking, as Anthropic's dialect has them."""
    return {"parameters": {"thinking": {"type": "enabled", "budget_tokens": tokens}, **others}}


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"tools": (Tool(name="go"),), "tool_choice": ToolChoice(mode="none")}, {"tool_choice": "none"}),
        ({"tool_choice": ToolChoice(mode="none")}, {"tool_choice": None}),
        ({"output": OutputFormat(kind="json_object")}, {"response_format": {"type": "json_object"}}),
        ({"parallel_tool_calls": True}, {}),
        ({"parameters": {"modalities": ["text"], "reasoning_effort": "low"}}, {"reasoning_effort": "low"}),
        (budget(1024), {"thinking": None, "reasoning_effort": "low"}),
        (budget(4096), {"thinking": None, "reasoning_effort": "medium"}),
        (budget(16384), {"thinking": None, "reasoning_effort": "high"}),
        (budget(1024, reasoning_effort="high"), {"thinking": None, "reasoning_effort": "high"}),
        ({"parameters": {"thinking": {"type": "adaptive"}}}, {"thinking": None, "reasoning_effort": None}),
        ({"parameters": {"thinking": {"type": "disabled"}}}, {"thinking": {"type": "disabled"}}),
        ({"parameters": {"thinking": "deep"}}, {"thinking": "deep"}),
    ],
    ids=[
        "no-calls",
        "choice-without-tools",
        "any-json",
        "parallel-without-tools",
        "parameters",
        "small-budget",
        "middling-budget",
        "large-budget",
        "budget-and-effort",
        "adaptive",
        "without-thinking",
        "another-word",
    ],
)
async def test_options_have_their_place(adapter, provider, fields, sent):
    await talk(adapter, account(provider.url), replace(ASKING, **fields))
    body = provider.seen[-1][2]
    assert {name: body.get(name) for name in sent} == sent
    assert ("parallel_tool_calls" in body) is False


@pytest.mark.parametrize("parameters", [{"modalities": ["text", "audio"]}, {"audio": {"voice": "alloy"}}])
async def test_sound_is_refused_since_it_would_be_lost(adapter, provider, parameters):
    failed = await fails(adapter, account(provider.url), replace(ASKING, parameters=parameters))
    assert (failed.outcome.code, failed.fate) == ("unsupported_parameter", Fate.NOT_SENT)
    assert not provider.seen


async def test_bytes_may_be_cut_anywhere(adapter, provider):
    whole = b": hi\n\n" + chunk("äöü 🙂") + chunk(finish="length") + DONE
    provider.answer = provider.stream(*(whole[i : i + 1] for i in range(len(whole))))
    assert await talk(adapter, account(provider.url)) == [TextDelta("äöü 🙂"), Finished("length")]


async def test_tool_calls_and_odd_words_of_clones(adapter, provider):
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    provider.answer = provider.stream(chunk(tool_calls=[call]), chunk(finish="stop"), DONE)
    assert await talk(adapter, account(provider.url)) == [ToolCallDelta((call,)), Finished("tool_calls")]
    provider.answer = provider.stream(chunk([{"type": "text", "text": "a"}]), chunk(finish="eos_token"))
    assert await talk(adapter, account(provider.url)) == [TextDelta("a"), Finished("stop")]
    provider.answer = provider.stream(chunk(finish="content_filter"), DONE)
    assert await talk(adapter, account(provider.url)) == [Finished("content_filter")]


async def test_an_answer_is_complete_without_its_last_formality(adapter, provider):
    for then in ("break", "hang"):
        provider.answer = provider.stream(chunk("a"), chunk(finish="stop"), then=then)
        assert await talk(adapter, account(provider.url)) == [TextDelta("a"), Finished("stop")]
    provider.answer = provider.stream(chunk("a"), DONE)
    assert await talk(adapter, account(provider.url)) == [TextDelta("a"), Finished("stop")]


@pytest.mark.parametrize(
    ("parts", "then", "kind", "timeout"),
    [
        ((chunk("a"),), "end", Transient, False),
        ((chunk("a"),), "break", Transient, False),
        ((chunk("a"),), "hang", Transient, True),
        ((chunk(finish="stop"), DONE), "end", Transient, False),
        ((DONE,), "end", Transient, False),
        ((), "end", AdapterDrift, False),
        ((b"data: {}\n\n",), "end", AdapterDrift, False),
        ((b"data: <p>\n\n",), "end", AdapterDrift, False),
        ((chunk("a"), b'data: {"error": {"message": "x"}}\n\n'), "end", Transient, False),
        ((b'event: error\ndata: {"error": {"code": 502}}\n\n',), "end", Transient, False),
    ],
)
async def test_broken_answers_were_accepted(adapter, provider, parts, then, kind, timeout):
    provider.answer = provider.stream(*parts, then=then)
    failed = await fails(adapter, account(provider.url))
    assert (type(failed.outcome), failed.fate) == (kind, Fate.ACCEPTED)
    assert getattr(failed.outcome, "timeout", False) == timeout


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "fate"),
    [
        (401, {"error": {"message": KEY}}, {}, Unauthorized, Fate.NOT_SENT),
        (402, {"error": {}}, {}, Depleted, Fate.NOT_SENT),
        (403, {"error": {"message": KEY}}, {}, Rejected, Fate.NOT_SENT),
        (403, b"<html>", {"CF-Mitigated": "challenge"}, Challenged, Fate.NOT_SENT),
        (403, b"<html>", {}, Transient, Fate.NOT_SENT),
        (404, {"error": {"message": "no"}}, {}, Rejected, Fate.NOT_SENT),
        (429, {"error": {}}, {"Retry-After": "3"}, RateLimited, Fate.NOT_SENT),
        (504, b"", {}, Transient, Fate.UNKNOWN),
        (307, b"", {"Location": "http://elsewhere.invalid/"}, AdapterDrift, Fate.NOT_SENT),
        (200, b"<html>", {}, AdapterDrift, Fate.ACCEPTED),
        (200, {"choices": []}, {}, AdapterDrift, Fate.ACCEPTED),
        (200, {"error": {"code": 429}}, {}, RateLimited, Fate.NOT_SENT),
    ],
)
async def test_refusals(adapter, provider, status, body, headers, kind, fate):
    provider.answer = provider.plain(status, body, **headers)
    failed = await fails(adapter, account(provider.url))
    assert (type(failed.outcome), failed.fate) == (kind, fate)


async def test_a_plain_server_behind_https(adapter, provider):
    failed = await fails(adapter, account(provider.url.replace("http:", "https:")))
    assert (type(failed.outcome), failed.fate) == (NetworkFault, Fate.NOT_SENT)


async def test_models_and_the_allow_list(adapter, provider):
    models = await adapter.list_models(account(provider.url))
    assert [(model.id, model.owned_by, model.created) for model in models] == [("m-1", "x", 5), ("m-2", "unknown", 0)]
    narrow = AccountRef(
        id="acc_2",
        name="a",
        offer="o",
        credentials={"api_key": KEY, "base_url": provider.url, "models": ["m-2", "m-9"]},
    )
    assert [model.id for model in await adapter.list_models(narrow)] == ["m-2"]
    failed = await fails(adapter, narrow, model="m-1")
    assert failed.outcome.model == "m-1"
    for odd in ({"data": 1}, {"data": [{}]}, "x"):
        provider.models = odd
        with pytest.raises(UpstreamFailure) as caught:
            await adapter.list_models(account(provider.url))
        assert isinstance(caught.value.outcome, AdapterDrift)


async def test_the_balance_of_the_poe_preset(adapter, provider):
    ref = account(preset="poe")
    described = adapter.describe(ref.credentials)
    assert described.metered
    assert described.details["preset"] == "poe"
    assert (await adapter.read_balance(ref)).points == 1234
    assert provider.seen[-1][0] == "/usage/current_balance"
    assert "1234 points left" in await adapter.probe(ref)
    provider.points = {"balance": 1}
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.read_balance(ref)
    assert isinstance(caught.value.outcome, AdapterDrift)


async def test_a_balance_that_nobody_tells(adapter):
    assert (await adapter.read_balance(account("https://api.example.com"))).points is None


async def test_the_key_is_verified_where_the_list_of_models_is_public(adapter, provider):
    provider.key = provider.plain(401, {"error": {}})
    with pytest.raises(UpstreamFailure) as caught:
        await adapter.probe(account(preset="openrouter"))
    assert isinstance(caught.value.outcome, Unauthorized)
