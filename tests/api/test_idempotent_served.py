"""Repetitions of real chat completions: through a real server to the real SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from poe_gateway.api.idempotent import Idempotent
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.idempotency.book import Book
from poe_gateway.idempotency.memory import MemoryAnswers
from poe_gateway.telemetry.events import AttemptFinished, RequestFinished
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.vault import Vault, new_key
from tests.api.test_waiting import ASKED, Door, sdk, served
from tests.unit.test_walk_cancelled import House


class Repeatable:
    """The real endpoint behind the wrapper, as an ASGI application."""

    def __init__(self, house: House) -> None:
        clock, self._ids = SystemClock(), Ids(5)
        vault = Vault((new_key(),))
        self.route = Idempotent(
            Door(house, real=True).chat,
            book=Book(store=MemoryAnswers(clock), vault=vault, pepper=b"pepper", process="p1", ttl=60.0),
            keyring=house.keyring,
            clock=clock,
            max_body=1 << 20,
            streams="replay",
            telemetry=Telemetry(house.told),
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.route(scope, receive, send, self._ids.new("req"))


@pytest.fixture
async def house() -> House:
    return await House().start()


def named(key: str) -> dict[str, Any]:
    return {**ASKED, "extra_headers": {"Idempotency-Key": key}}


async def streamed(client: openai.AsyncOpenAI, key: str) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(**named(key), stream=True)]


async def test_fifty_twins_cost_one_attempt_in_both_modes(house: House) -> None:
    async with served(Repeatable(house)) as address, sdk(address) as client:
        answers = await asyncio.gather(*[client.chat.completions.create(**named("whole")) for _ in range(50)])
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].choices[0].message.content == "one two"
        assert len(house.told.of(AttemptFinished)) == 1
        streams = await asyncio.gather(*[streamed(client, "stream") for _ in range(50)])
        assert all(chunks == streams[0] for chunks in streams)
        assert streams[0][-1].choices[0].finish_reason == "stop"
        assert len(house.told.of(AttemptFinished)) == 2
    told = house.told.of(RequestFinished)
    assert len(told) == 100 and sum(each.replayed for each in told) == 98
    assert all(each.key_id and each.model == "gpt" and each.status == 200 for each in told)


async def test_a_caller_that_hangs_up_finds_its_answer_later(house: House) -> None:
    house.upstream.hang = True
    app = Repeatable(house)
    async with served(app) as address:
        async with sdk(address) as client:
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(**named("a"), timeout=0.2)
        assert house.upstream.running == 1, "the run goes on"
        await app.route.drain(0.0)
        assert house.upstream.running == 0, "until the process has to stop"


async def test_a_refusal_is_the_routes_own_and_frees_the_key(house: House) -> None:
    app = Repeatable(house)
    async with served(app) as address, sdk(address) as client:
        bad = {**named("a"), "n": 2}
        for _ in range(2):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.chat.completions.create(**bad)
            assert refused.value.param == "n"
        assert (await client.chat.completions.create(**named("a"))).choices[0].message.content == "one two"
        with pytest.raises(openai.UnprocessableEntityError) as reused:
            await client.chat.completions.create(**bad)
        assert reused.value.code == "idempotency_key_reused"


async def test_a_stream_that_fails_half_way_may_be_repeated(house: House) -> None:
    app = Repeatable(house)
    whole = house.upstream.chat

    async def broken(*args: Any) -> Any:
        async for event in whole(*args):
            yield event
            raise ConnectionError

    house.upstream.chat = broken  # type: ignore[method-assign]
    async with served(app) as address, sdk(address) as client:
        with pytest.raises(openai.APIError):
            await streamed(client, "a")
        house.upstream.chat = whole  # type: ignore[method-assign]
        chunks = await streamed(client, "a")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
