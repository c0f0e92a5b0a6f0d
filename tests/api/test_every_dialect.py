"""What holds in every dialect: who leaves takes the upstream's call with him, and a failure comes in the dialect's own
words, before the first piece and after it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from poe_gateway.api.idempotent import Idempotent
from poe_gateway.api.v1.hot import HotParts, hot_routes
from poe_gateway.api.v1.pictures import Pictures
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.conversations.memory import MemoryKept
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.idempotency.book import Book
from poe_gateway.idempotency.memory import MemoryAnswers
from poe_gateway.pool.outcome import Rejected, Transient
from poe_gateway.telemetry.events import AttemptFinished
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.vault import Vault, new_key
from tests.unit.test_walk_cancelled import KEY, House

SAID = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"max_tokens": 50, "messages": SAID},
    "/api/chat": {"messages": SAID},
    "/api/generate": {"prompt": "hi"},
}
FAULTS = {
    "/v1/chat/completions": b'data: {"error":',
    "/v1/responses": b"event: response.failed\n",
    "/v1/messages": b"event: error\n",
    "/api/chat": b'{"error":',
    "/api/generate": b'{"error":',
}
REJECTED = UpstreamFailure(Rejected(public="No such thing."))
BROKEN = UpstreamFailure(Transient("x"), Fate.ACCEPTED)


class Call:
    """One request to one route."""

    def __init__(self, route: Idempotent, path: str, *, stream: bool = True, key: str | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        raw = orjson.dumps({"model": "gpt", "stream": stream} | BODIES[path])
        messages = [{"type": "http.request", "body": raw, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        headers = [(b"authorization", b"Bearer " + KEY.encode())]
        headers += [(b"idempotency-key", key.encode())] if key is not None else []
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
        self.task = asyncio.ensure_future(route(scope, receive, send, "req_1"))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def text(self) -> bytes:
        return b"".join([message.get("body", b"") for message in self.sent])


class Doors:
    """All routes over one house."""

    def __init__(self, house: House) -> None:
        self.house = house
        clock, vault = SystemClock(), Vault((new_key(),))
        self.routes = hot_routes(
            HotParts(
                router=house.router,
                keyring=house.keyring,
                telemetry=Telemetry(house.told),
                clock=clock,
                ids=Ids(3),
                book=Book(store=MemoryAnswers(clock), vault=vault, pepper=b"p", process="p1", ttl=60.0),
                shelf=Shelf(store=MemoryKept(clock), vault=vault, ids=Ids(4), ttl=60.0),
                pictures=Pictures(None),  # type: ignore[arg-type]
                traffic=None,
                max_body=1 << 20,
                notice_after=0.0,
                streams="replay",
                patience=5.0,
            )
        )

    def call(self, path: str, **how: Any) -> Call:
        return Call(self.routes[path], path, **how)

    def breaking_off(self, path: str, **how: Any) -> Call:
        """A call whose answer breaks off as soon as its first piece has arrived; later calls are answered whole."""
        whole = self.house.upstream.chat

        async def broken(*args: Any) -> Any:
            self.house.upstream.chat = whole  # type: ignore[method-assign]
            async for event in whole(*args):
                yield event
                while b"one " not in call.text:  # the first piece is held back for a moment
                    await asyncio.sleep(0.005)
                raise BROKEN

        self.house.upstream.chat = broken  # type: ignore[method-assign]
        call = self.call(path, **how)
        return call


@pytest.fixture
async def doors() -> Doors:
    return Doors(await House().start())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
async def test_who_leaves_takes_the_upstreams_call_with_him(doors: Doors, path: str, stream: bool) -> None:
    doors.house.upstream.hang = True
    call = doors.call(path, stream=stream)
    async with asyncio.timeout(60):
        while not doors.house.upstream.running or len(call.sent) < stream:
            await asyncio.sleep(0.005)
    assert doors.house.upstream.running == 1
    assert bool(call.sent) is stream
    call.gone.set()
    await asyncio.wait_for(call.task, 60)
    await doors.house.check_nothing_is_left()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
async def test_a_refusal_before_the_first_piece_has_the_dialects_shape(doors: Doors, path: str, stream: bool) -> None:
    doors.house.upstream.failures = [REJECTED]
    call = doors.call(path, stream=stream)
    await call.task
    assert call.status == 400
    error = orjson.loads(call.text)["error"]
    assert "No such thing." in (error if path.startswith("/api/") else error["message"])
    assert ("type" in orjson.loads(call.text)) is (path == "/v1/messages")
    await doors.house.check_nothing_is_left()


@pytest.mark.parametrize("path", BODIES)
async def test_a_failure_in_mid_answer_ends_the_stream_in_the_dialects_words(doors: Doors, path: str) -> None:
    call = doors.breaking_off(path)
    await call.task
    assert call.status == 200
    assert b"one " in call.text
    *_, last = [each for each in call.text.split(b"\n\n" if path.startswith("/v1/") else b"\n") if each.strip()]
    assert last.startswith(FAULTS[path]) or (path == "/v1/chat/completions" and last == b"data: [DONE]")
    assert FAULTS[path] in call.text
    assert len(doors.house.told.of(AttemptFinished)) == 1, "nothing is tried again after the first piece"
    await doors.house.check_nothing_is_left()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
async def test_a_repetition_gets_the_same_answer_and_costs_nothing(doors: Doors, path: str, stream: bool) -> None:
    first = doors.call(path, stream=stream, key="k")
    await first.task
    again = doors.call(path, stream=stream, key="k")
    await again.task
    assert (again.status, again.text) == (first.status, first.text) == (200, first.text)
    assert b"one " in first.text
    assert (b"idempotent-replayed", b"true") in again.sent[0]["headers"]
    assert len(doors.house.told.of(AttemptFinished)) == 1


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_that_failed_is_not_kept(doors: Doors, path: str) -> None:
    first = doors.breaking_off(path, key="k")
    await first.task
    assert FAULTS[path] in first.text
    again = doors.call(path, key="k")
    await again.task
    assert b"two" in again.text
    assert FAULTS[path] not in again.text
