"""What a provider tells of cost: within an answer, and in its usage history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from poe_gateway.chat.events import Finished, Measured, TextDelta
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import SystemClock
from poe_gateway.pool.outcome import AdapterDrift, Unauthorized
from poe_gateway.upstreams.base import AccountRef, BookEntry, CredentialError, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from poe_gateway.upstreams.openai_api.chunks import Reader
from poe_gateway.upstreams.openai_api.history import History
from tests.upstreams.provider import DONE, Provider, chunk

ASKING = ChatRequest(model="m-1", messages=(Message("user", (TextPart("Hello"),)),))
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def adapter(provider: Provider) -> AsyncIterator[OpenAIAPI]:
    session = new_session()
    yield OpenAIAPI(session=session, clock=SystemClock(), preset_urls={"poe": provider.url}, small_timeout=2)
    await session.close()


def account(**credentials: Any) -> AccountRef:
    return AccountRef(id="acc_1", name="a", offer="o", credentials={"api_key": "key", **credentials})


def told(usage: str) -> Measured | None:
    reader = Reader()
    reader.take(f'{{"choices": [], "usage": {usage}}}')
    return reader.usage


@pytest.mark.parametrize(
    ("written", "cost"),
    [
        ("0.1", "0.1"),
        ("0.10000000000000000001", "0.10000000000000000001"),
        ("1e-05", "1e-05"),
        ("3", "3"),
        ("0", "0"),
        ('"0.25"', "0.25"),
        ("-0.5", None),
        ("true", None),
        ("null", None),
        ('"dear"', None),
        ('"NaN"', None),
        ("1e30", None),
        ("0." + "1" * 60, None),
    ],
)
def test_a_cost_is_kept_as_it_was_written(written: str, cost: str | None) -> None:
    assert told(f'{{"prompt_tokens": 3, "completion_tokens": 1, "cost": {written}}}') == Measured(3, 1, cost=cost)


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ('{"prompt_tokens_details": {"cached_tokens": 5}}', 5),
        ('{"prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 1}', 6),
        ('{"prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 6}', 0),
        ('{"prompt_tokens_details": null}', None),
        ('{"prompt_tokens_details": {"cached_tokens": -1}}', None),
        ('{"prompt_tokens_details": {"cached_tokens": 2.0}}', 2),
        ('{"prompt_tokens_details": {"cached_tokens": 1e300}}', None),
    ],
)
def test_what_was_cached_is_told(usage: str, cached: int | None) -> None:
    measured = told(usage)
    assert measured is not None and measured.cached_tokens == cached


async def test_the_exchange_is_named_before_anything_is_said(adapter: OpenAIAPI, provider: Provider) -> None:
    first = chunk("hi").replace(b'{"object"', b'{"id": "q-1", "object"')
    provider.answer = provider.stream(first, chunk(finish="stop"), chunk(usage=(3, 1)), DONE)
    events = [event async for event in adapter.chat(account(base_url=provider.url), "m-1", ASKING, None)]
    assert events == [
        Measured(upstream_id="q-1"),
        TextDelta("hi"),
        Measured(3, 1, upstream_id="q-1"),
        Finished("stop"),
    ]


@pytest.mark.parametrize("name", ['""', "7", "null", '"a\\nb"', '"' + "x" * 201 + '"'])
def test_what_is_no_name_is_none(name: str) -> None:
    reader = Reader()
    assert reader.take(f'{{"id": {name}, "choices": []}}') == [] and reader.upstream_id is None


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def written(number: int, moment: datetime, **more: Any) -> dict[str, Any]:
    return {
        "query_id": f"q-{number}",
        "creation_time": micros(moment),
        "bot_name": "m-1",
        "usage_type": "API",
        "cost_points": number,
        "cost_usd": "0.00075",
        **more,
    }


class Book:
    """Answers page by page, newest first."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.entries = entries
        self.pages = 0

    async def __call__(self, request: web.Request) -> web.Response:
        self.pages += 1
        after, limit = request.query.get("starting_after"), int(request.query["limit"])
        names = [entry["query_id"] for entry in self.entries]
        start = names.index(after) + 1 if after is not None else 0
        page = self.entries[start : start + limit]
        return web.json_response({"has_more": start + limit < len(names), "length": len(page), "data": page})


async def test_a_history_is_read_back_to_the_moment_asked_for(adapter: OpenAIAPI, provider: Provider) -> None:
    book = Book([written(n, NOON - timedelta(minutes=n)) for n in range(450)])
    provider.history = book
    since = NOON - timedelta(minutes=150)
    books = await adapter.read_books(account(preset="poe"), since)
    assert books is not None and books.since == since
    assert [entry.id for entry in books.entries] == [f"q-{n}" for n in range(151)]
    assert book.pages == 2
    assert books.entries[7] == BookEntry(
        id="q-7",
        at=NOON - timedelta(minutes=7),
        model="m-1",
        points=7,
        cost=Decimal("0.00075"),
        currency="USD",
        kind="API",
    )
    books = await adapter.read_books(account(preset="poe"), NOON - timedelta(days=20))
    assert books is not None and len(books.entries) == 450


async def test_a_history_without_end_is_whole_only_as_far_as_it_was_read(
    adapter: OpenAIAPI, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poe_gateway.upstreams.openai_api.history._PAGES", 2)
    provider.history = Book([written(n, NOON - timedelta(minutes=n)) for n in range(450)])
    books = await adapter.read_books(account(preset="poe"), NOON - timedelta(days=20))
    assert books is not None and books.since == NOON - timedelta(minutes=199) and len(books.entries) == 200


async def test_who_keeps_no_history_says_so_without_a_call(adapter: OpenAIAPI, provider: Provider) -> None:
    elsewhere = provider.url.replace("127.0.0.1", "localhost")
    assert await adapter.read_books(account(base_url=elsewhere), NOON) is None
    assert provider.seen == []
    like_poe = await adapter.read_books(replace(account(base_url=elsewhere, books="poe"), credential_rev=1), NOON)
    assert like_poe is not None and like_poe.entries == (), "an empty book is a book"
    with pytest.raises(CredentialError) as refused:
        adapter.describe({"api_key": "key", "base_url": provider.url, "books": "other"})
    assert refused.value.field == "books"


async def test_a_bare_or_older_shape_is_read(adapter: OpenAIAPI, provider: Provider) -> None:
    old = {"app_name": "m-1", "creation_time": int(NOON.timestamp()), "query_id": "q", "cost_points": 25}
    provider.history = {"has_more": False, "data": [old]}
    books = await adapter.read_books(account(preset="poe"), NOON)
    assert books is not None and books.entries == (BookEntry(id="q", at=NOON, model="m-1", points=25),)


@pytest.mark.parametrize(
    "page",
    [
        [],
        {"has_more": False},
        {"data": ["x"]},
        {"data": [written(1, NOON) | {"query_id": ""}]},
        {"data": [written(1, NOON) | {"creation_time": "yesterday"}]},
        {"data": [written(1, NOON) | {"creation_time": 10**30}]},
        {"data": [written(1, NOON) | {"bot_name": None}]},
        {"has_more": True, "data": [written(1, NOON)]},
    ],
)
async def test_a_history_that_is_not_understood_is_no_empty_history(
    adapter: OpenAIAPI, provider: Provider, page: Any
) -> None:
    provider.history = page
    with pytest.raises(UpstreamFailure) as failed:
        await asyncio.wait_for(adapter.read_books(account(preset="poe"), NOON - timedelta(days=1)), 5)
    assert isinstance(failed.value.outcome, AdapterDrift)


async def test_a_key_that_is_refused_is_told_as_such(adapter: OpenAIAPI, provider: Provider) -> None:
    provider.history = provider.plain(401, {"error": {"type": "authentication_error", "message": "no"}})
    with pytest.raises(UpstreamFailure) as failed:
        await adapter.read_books(account(preset="poe"), NOON)
    assert isinstance(failed.value.outcome, Unauthorized)


def test_points_that_are_no_count_are_not_told() -> None:
    history = History(NOON)
    rows = [written(n, NOON, cost_points=points) for n, points in enumerate((-5, True, "7", 2.5, 3))]
    history.take(json.dumps({"has_more": False, "data": rows}).encode())
    assert [entry.points for entry in history.books().entries] == [None, None, None, None, 3]
