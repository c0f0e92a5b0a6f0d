"""What the adapters of all APIs by key do alike, each against its own server on loopback."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import SystemClock
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool.outcome import NetworkFault, Unauthorized
from poe_gateway.upstreams.anthropic_api import AnthropicAPI
from poe_gateway.upstreams.base import AccountRef, CredentialError, Fate, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from tests.upstreams.anthropic_site import KEY, Site, event, start
from tests.upstreams.provider import Provider, chunk
from tests.upstreams.server import Server

ASKING = ChatRequest(model="m-1", messages=(Message("user", (TextPart("Hello"),)),))


class Kind(NamedTuple):
    """An adapter, its server, and how it sends the key."""

    adapter: Callable[..., Any]
    server: Callable[[], Server]
    header: str
    sent: str
    tail: str
    opening: bytes
    piece: bytes


KINDS = {
    "openai": Kind(OpenAIAPI, Provider, "Authorization", "Bearer {}", "/chat/completions", b"", chunk("a")),
    "anthropic": Kind(AnthropicAPI, Site, "x-api-key", "{}", "/messages", start(), event("ping")),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


@pytest.fixture
async def server(kind):
    own = kind.server()
    await own.start()
    yield own
    await own.stop()


@pytest.fixture
async def adapter(kind):
    async with new_session() as session:
        yield kind.adapter(session=session, clock=SystemClock(), idle_timeout=0.4, small_timeout=2)


def account(url, key=KEY, rev=0, **more) -> AccountRef:
    credentials = {"base_url": url} | ({"api_key": key} if key else {}) | more
    return AccountRef(id="acc_1", name="a", offer="o", credentials=credentials, credential_rev=rev)


async def fails(adapter, ref) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        async for _ in adapter.chat(ref, "m-1", ASKING, None):
            pass
    told = repr(caught.value) + repr(caught.value.outcome) + repr(caught.value.__cause__)
    assert KEY not in told
    return caught.value


async def test_nobody_listens(adapter):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        failed = await fails(adapter, account(url))
    assert (type(failed.outcome), failed.fate) == (NetworkFault, Fate.NOT_SENT)
    failed = await fails(adapter, account("http://host.invalid"))
    assert (type(failed.outcome), failed.fate) == (NetworkFault, Fate.NOT_SENT)


async def test_an_address_that_the_guard_refuses_is_a_typed_failure(kind, server):
    async with new_session(guard=Guard()) as session:
        guarded = kind.adapter(session=session, clock=SystemClock())
        with pytest.raises(UpstreamFailure) as caught:
            await guarded.list_models(account(server.url))
    assert (type(caught.value.outcome), caught.value.fate) == (NetworkFault, Fate.NOT_SENT)
    assert server.seen == []


async def test_a_break_or_silence_before_the_answer_leaves_the_fate_open(adapter, server):
    async def hang_up(request):
        request.transport.abort()
        await asyncio.sleep(1)

    async def sleep(request):
        await asyncio.sleep(60)

    server.answer = hang_up
    assert (await fails(adapter, account(server.url))).fate is Fate.UNKNOWN
    server.answer = sleep
    failed = await fails(adapter, account(server.url))
    assert failed.fate is Fate.UNKNOWN
    assert failed.outcome.timeout
    assert len(server.seen) == 2, "a message is sent once"


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_the_caller_leaves_and_the_provider_learns_of_it(adapter, kind, server, leave):
    server.answer = server.stream(kind.opening, *[kind.piece] * 100, pause=0.02, then="hang")
    stream = adapter.chat(account(server.url), "m-1", ASKING, None)
    await anext(stream)
    if leave == "close":
        await stream.aclose()
    else:

        async def drain():
            async for _ in stream:
                pass

        task = asyncio.create_task(drain())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(server.left.wait(), 2)


async def test_new_credentials_are_used_at_once(adapter, kind, server):
    await list_or_fail(adapter, account(server.url, "first"))
    await list_or_fail(adapter, account(server.url, "second", rev=1))
    assert keys(kind, server) == ["first", "second"]


async def test_a_reference_alone_is_described_but_asks_nothing(adapter, server):
    ref = account(server.url, key=None, api_key_env="SOME_KEY")
    assert adapter.describe(ref.credentials).details["host"] == server.url[7:]
    failed = await fails(adapter, ref)
    assert (type(failed.outcome), failed.fate) == (Unauthorized, Fate.NOT_SENT)
    with pytest.raises(UpstreamFailure):
        await adapter.list_models(ref)
    assert server.seen == []


async def test_a_reference_that_leads_to_a_new_key_is_followed(adapter, kind, server):
    """The credentials are as old as before: only what the variable holds has changed."""
    for key in ("first", "second"):
        await list_or_fail(adapter, account(server.url, key, api_key_env="SOME_KEY"))
    assert keys(kind, server) == ["first", "second"]


async def test_a_reference_that_leads_to_no_key_is_a_typed_failure(adapter, server):
    failed = await fails(adapter, account(server.url, f"two words {KEY}", api_key_file="/some/key"))
    assert (type(failed.outcome), failed.fate) == (Unauthorized, Fate.NOT_SENT)
    assert server.seen == []


async def test_the_allow_list_stands_in_for_a_list_that_there_is_not(adapter, server):
    """Many servers that speak a dialect have its chats only."""
    listing = "models" if isinstance(server, Provider) else "pages"
    setattr(server, listing, server.plain(404, b"<html>"))
    models = await adapter.list_models(account(server.url, models=["b", "a"]))
    assert [(model.id, model.upstream) for model in models] == [("a", "a"), ("b", "b")]
    with pytest.raises(UpstreamFailure):
        await adapter.list_models(account(server.url, rev=1))
    setattr(server, listing, server.plain(503, b""))
    with pytest.raises(UpstreamFailure):
        await adapter.list_models(account(server.url, models=["b", "a"]))


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h.example", "http://h.example/v1"),
        ("http://h.example/v1/", "http://h.example/v1"),
        ("http://h.example/api", "http://h.example/api/v1"),
        ("http://h.example/v1beta/openai", "http://h.example/v1beta/openai"),
        ("http://h.example/v1{tail}", "http://h.example/v1"),
        ("http://h.example/inference{tail}", "http://h.example/inference"),
        ("http://h.example{tail}/", "http://h.example"),
    ],
    ids=["bare", "version", "path", "version-within", "whole", "whole-without-version", "whole-at-the-root"],
)
def test_the_address_as_people_write_it(kind, given, base):
    """``/v1`` is supplied, but for those who give the whole address."""
    adapter = kind.adapter(session=None, clock=SystemClock())
    door = adapter._doors.of(account(given.format(tail=kind.tail)))
    assert door.base == base


@pytest.mark.parametrize(
    ("credentials", "field"),
    [
        ({"base_url": "ftp://a.example"}, "base_url"),
        ({"base_url": "api.example.com"}, "base_url"),
        ({"base_url": "https://user:pw@a.example"}, "base_url"),
        ({"base_url": "https://a.example/v1?key=1"}, "base_url"),
        ({"base_url": "https://a.example:99999"}, "base_url"),
        ({"base_url": "https://[::1"}, "base_url"),
        ({"api_key": "two words"}, "api_key"),
        ({"api_key": "schlüssel"}, "api_key"),
        ({"api_key_env": "A", "api_key_file": "B"}, "api_key_file"),
        ({"models": [1]}, "models"),
        ({"password": "x"}, "password"),
    ],
    ids=[
        *("scheme", "no-scheme", "user", "query", "port", "bracket"),
        *("words", "not-ascii", "two-references", "models", "unknown"),
    ],
)
def test_bad_credentials_name_the_field_and_not_the_value(kind, credentials, field):
    adapter = kind.adapter(session=None, clock=SystemClock())
    with pytest.raises(CredentialError) as caught:
        adapter.describe({"api_key": KEY, "base_url": "https://h.example"} | credentials)
    assert caught.value.field == field
    assert KEY not in str(caught.value)
    assert "user:pw" not in str(caught.value)


async def list_or_fail(adapter, ref) -> None:
    """The list; one server refuses keys that are not its own."""
    try:
        await adapter.list_models(ref)
    except UpstreamFailure as failed:
        assert isinstance(failed.outcome, Unauthorized)


def keys(kind, server) -> list[str]:
    """Every key that arrived."""
    before, _, after = kind.sent.partition("{}")
    return [headers[kind.header].removeprefix(before).removesuffix(after) for _, headers, _ in server.seen]
