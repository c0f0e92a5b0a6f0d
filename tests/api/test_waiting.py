"""What a waiting caller is told: through a real server to the real SDK, and message by message on raw ASGI."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import orjson
import pytest
import uvicorn

from poe_gateway.api.v1.endpoint import Endpoint
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.openai_chat import OpenAIChat
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.dispatch.router import Stream
from poe_gateway.errors import GatewayError, Overloaded, UpstreamFailed
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Succeeded
from poe_gateway.pool.queue import Place
from poe_gateway.routing.course import Asked
from poe_gateway.telemetry.events import Notice, RequestFinished
from poe_gateway.telemetry.hub import Telemetry
from tests.unit.test_walk_cancelled import KEY, House, pause

SOON = 0.01
"""Notices come after, and every, so many seconds in these tests."""


class Turnstile:
    """A dispatcher that makes every request stand in line until it is let through, then walks it for real."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.places: list[Place | None] = [Place(3, 11.2), Place(3, 11.2), Place(2, 7.9), Place(1)]
        """One for each time that somebody asks (at joining, when notices are due, for each notice); the last stays."""
        self.asked = 0
        self.through = asyncio.Event()
        self.refusal: BaseException | None = None
        self.joins = True
        self.waiting = 0
        self.told: Callable[[Any], None] = lambda where: None

    def place(self) -> Place | None:
        self.asked += 1
        return self.places.pop(0) if len(self.places) > 1 else self.places[0]

    async def chat(
        self, principal: Principal, request: ChatRequest, request_id: str, waiting: Callable[[Any], None], asked: Asked
    ) -> Stream:
        self.waiting += 1
        self.told = waiting
        try:
            if self.joins:
                waiting(self.place)
                await self.through.wait()
        finally:
            self.waiting -= 1
        if self.refusal is not None:
            raise self.refusal
        return await self.house.router.chat(principal, request, request_id, None, asked)


class Door:
    """The endpoint over a turnstile. As an ASGI application, and to be driven by hand."""

    def __init__(self, house: House, *, after: float = SOON, every: float = SOON, real: bool = False) -> None:
        self.house = house
        self.turnstile = Turnstile(house)
        self.chat = Endpoint(
            OpenAIChat(),
            router=house.router if real else self.turnstile,  # type: ignore[arg-type]
            keyring=house.keyring,
            telemetry=Telemetry(house.told),
            clock=SystemClock(),
            ids=Ids(3),
            max_body=1 << 20,
            notice_after=after,
            notice_every=every,
        )
        self.sent: list[dict[str, Any]] = []
        self.sending = 0
        self.faults: list[str] = []
        self.gone = asyncio.Event()
        self.pace: Callable[[], Any] = lambda: asyncio.sleep(0)
        """Awaited in the middle of sending each message."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.chat(scope, receive, send, "req_1")

    async def request(self, *, stream: bool = True) -> None:
        """One request; what is sent is kept, and so are the faults: messages must come one after the other."""
        body = orjson.dumps({"model": "gpt", "messages": [{"role": "user", "content": "hi"}], "stream": stream})
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if self.sending:
                self.faults.append("two senders at once")
            if self.sent and not self.sent[-1].get("more_body", self.sent[-1]["type"] == "http.response.start"):
                self.faults.append("sent after the end")
            self.sending += 1
            try:
                await self.pace()
            finally:
                self.sending -= 1
            self.sent.append(message)

        await self({"method": "POST", "headers": [(b"x-api-key", KEY.encode())]}, receive, send)

    async def sees(self, count: int) -> None:
        """Until so many messages were sent."""
        async with asyncio.timeout(60):
            while len(self.sent) < count:
                await asyncio.sleep(0.001)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def finished(self) -> RequestFinished:
        (record,) = [each for each in self.house.told.records if isinstance(each, RequestFinished)]
        return record


@pytest.fixture
async def house() -> House:
    return await House().start()


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The address of a real server in front of the application."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", log_level="warning", http="httptools")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


def sdk(address: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=KEY, base_url=f"{address}/v1", max_retries=0)


ASKED: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}


# Through a real server to the real SDK.


async def test_the_sdk_reads_an_answer_that_waited_without_noticing(house: House) -> None:
    door = Door(house)
    async with served(door) as address, sdk(address) as client:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        headers = stream.response.headers
        assert door.turnstile.waiting == 1, "begun while it waits"
        door.turnstile.through.set()
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "one two"
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-request-id"] == "req_1"
    assert (headers["x-gateway-queue-position"], headers["x-gateway-queue-expected-ms"]) == ("3", "11200")
    assert "x-gateway-account" not in headers
    await house.check_nothing_is_left()
    assert (door.finished.status, door.finished.error_code, door.finished.client_gone) == (200, None, False)


async def test_the_sdk_raises_a_refusal_that_comes_after_the_start(house: House) -> None:
    door = Door(house)
    door.turnstile.refusal = Overloaded("All accounts are busy; the waiting time is over.", retry_after=7)
    async with served(door) as address, sdk(address) as client:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        door.turnstile.through.set()
        with pytest.raises(openai.APIError, match="waiting time is over") as raised:
            [chunk async for chunk in stream]
    assert (raised.value.code, raised.value.type) == ("saturated", "overloaded_error")
    assert (door.finished.status, door.finished.error_code) == (200, "saturated")


async def test_the_comments_on_the_wire(house: House) -> None:
    door = Door(house)
    headers = {"Authorization": f"Bearer {KEY}"}
    lines: list[str] = []
    async with (
        served(door) as address,
        httpx.AsyncClient() as http,
        http.stream("POST", address + OpenAIChat.route, json={**ASKED, "stream": True}, headers=headers) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.append(line)
            if line == ": queued position=1":
                door.turnstile.through.set()
    told = [line for line in lines if line.startswith(":")]
    assert told[0] == ": queued position=2 expected=8s"
    assert set(told[1:]) == {": queued position=1"}
    events = [line for line in lines if line][len(told) :]
    assert events[-1] == "data: [DONE]" and all(line.startswith("data: {") for line in events[:-1])


async def test_who_goes_away_while_waiting_is_waited_for_no_longer(house: House) -> None:
    door = Door(house)
    async with served(door) as address, sdk(address) as client:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        await stream.response.aclose()
        async with asyncio.timeout(60):
            while not house.told.records:
                await asyncio.sleep(0.001)
    assert door.turnstile.waiting == 0
    assert (door.finished.status, door.finished.client_gone) == (200, True)


# Headers.


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_in_time_tells_its_place_in_headers(house: House, stream: bool) -> None:
    door = Door(house, after=60)
    door.turnstile.through.set()
    await door.request(stream=stream)
    assert (door.headers["x-gateway-queue-position"], door.headers["x-gateway-queue-expected-ms"]) == ("3", "11200")
    assert door.headers["x-gateway-account"] in ("a", "b")
    assert int(door.headers["x-gateway-wait-ms"]) >= 0, "told to one that waited in vain and borrowed, too"
    assert not [body for body in door.bodies if body.startswith(b":")]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_in_time_tells_its_place_and_its_wait_in_headers(house: House, stream: bool) -> None:
    door = Door(house, after=60)
    door.turnstile.places = [Place(4)]
    door.turnstile.refusal = Overloaded(retry_after=3)
    door.turnstile.through.set()
    await door.request(stream=stream)
    assert door.sent[0]["status"] == 503
    assert door.headers["x-gateway-queue-position"] == "4"
    assert "x-gateway-queue-expected-ms" not in door.headers
    assert int(door.headers["x-gateway-wait-ms"]) >= 0
    assert door.headers["retry-after"] == "3"


async def test_headers_of_the_error_itself_go_first(house: House) -> None:
    door = Door(house)
    door.turnstile.refusal = Overloaded(headers={"x-gateway-queue-position": "9"})
    door.turnstile.through.set()
    await door.request()
    assert [value for name, value in door.sent[0]["headers"] if name == b"x-gateway-queue-position"] == [b"9"]


async def test_who_did_not_wait_is_told_nothing(house: House) -> None:
    door = Door(house)
    door.turnstile.joins = False
    await door.request()
    refused = Door(house)
    refused.turnstile.joins = False
    refused.turnstile.refusal = UpstreamFailed()
    await refused.request()
    for each in (door, refused):
        assert not [name for name in each.headers if "queue" in name or "wait" in name]


async def test_the_place_in_the_real_line(house: House) -> None:
    """The real walk: both slots are taken, so the request stands in line and is served when one comes back."""
    want = Want(offers=frozenset({"mock"}), model="gpt", caller="k", evidence="r", deadline=1e12)
    held: list[Lease] = [await house.broker.lease(want) for _ in range(2)]
    door = Door(house, after=60, real=True)
    request = asyncio.create_task(door.request(stream=False))
    await pause(20)
    while held:
        house.broker.settle(held.pop(), Succeeded())
    await request
    assert (door.sent[0]["status"], door.headers["x-gateway-queue-position"]) == (200, "1")
    assert int(door.headers["x-gateway-wait-ms"]) >= 0


# Message by message.


async def test_a_place_is_told_again_until_the_answer_begins(house: House) -> None:
    door = Door(house)
    request = asyncio.create_task(door.request())
    await door.sees(4)
    assert door.bodies[:2] == [b": queued position=2 expected=8s\n\n", b": queued position=1\n\n"]
    door.turnstile.through.set()
    await request
    first = next(number for number, body in enumerate(door.bodies) if body.startswith(b"data: "))
    assert not [body for body in door.bodies[first:] if body.startswith(b":")]
    assert door.sent[-1] == {"type": "http.response.body", "body": b""}
    assert [message["type"] for message in door.sent].count("http.response.start") == 1


async def test_who_has_a_slot_is_told_no_place_any_more(house: House) -> None:
    door = Door(house)
    door.turnstile.places = [Place(2), Place(1), Place(1), None]
    request = asyncio.create_task(door.request())
    await door.sees(4)
    assert door.bodies[:3] == [b": queued position=1\n\n"] + [b": keep-alive\n\n"] * 2
    door.turnstile.through.set()
    await request


async def test_nothing_is_begun_for_who_has_a_slot_in_time(house: House) -> None:
    """The upstream is slow, the line was not: the status still tells how the request ends."""
    door = Door(house)
    door.turnstile.places = [Place(2), None]
    request = asyncio.create_task(door.request())
    async with asyncio.timeout(60):
        while door.turnstile.asked < 2:
            await asyncio.sleep(0.001)
    await pause(5)
    assert door.sent == []
    door.turnstile.refusal = UpstreamFailed()
    door.turnstile.through.set()
    await request
    assert door.sent[0]["status"] == 502


async def test_notices_begin_at_a_second_wait_of_the_same_request(house: House) -> None:
    """The first attempt had a slot in time and failed; now the request waits again."""
    door = Door(house)
    door.turnstile.places = [Place(2), None]
    request = asyncio.create_task(door.request())
    async with asyncio.timeout(60):
        while door.turnstile.asked < 2:
            await asyncio.sleep(0.001)
    door.turnstile.places = [Place(7)]
    door.turnstile.told(door.turnstile.place)
    await door.sees(2)
    assert door.headers["x-gateway-queue-position"] == "2", "as of the first joining"
    assert door.bodies[0] == b": queued position=7\n\n"
    door.turnstile.through.set()
    await request


@pytest.mark.parametrize("switched_off", [True, False])
async def test_notices_are_for_streams_and_can_be_switched_off(house: House, switched_off: bool) -> None:
    door = Door(house, after=0 if switched_off else SOON)
    request = asyncio.create_task(door.request(stream=switched_off))
    await asyncio.sleep(5 * SOON)
    assert (door.sent, door.turnstile.waiting) == ([], 1)
    door.turnstile.through.set()
    await request
    assert door.headers["x-gateway-queue-position"] == "3"
    assert door.headers["x-gateway-account"]


@pytest.mark.parametrize("refusal", [None, Overloaded(), UpstreamFailed(), ZeroDivisionError()], ids=repr)
async def test_messages_never_meet_whenever_the_line_ends(house: House, refusal: BaseException | None) -> None:
    """Sending takes several steps; the wait ends at each. ``Door`` sees what overlaps or comes late."""
    for steps in range(1, 80):
        door = Door(house, after=1e-9, every=0)
        door.pace = lambda: pause(3)
        door.turnstile.refusal = refusal
        request = asyncio.create_task(door.request())
        await pause(steps)
        door.turnstile.through.set()
        await request
        if door.sent[0]["status"] == 200:
            answered = b"".join(body for body in door.bodies if not body.startswith(b":"))
            assert answered.endswith(b"data: [DONE]\n\n") if refusal is None else answered.startswith(b'data: {"error"')
        else:
            assert refusal is not None
        count = len(door.sent)
        await pause(10)
        assert (len(door.sent), door.faults) == (count, [])
        assert door.sent[-1].get("more_body", False) is False


async def test_leaving_at_any_step_ends_all_telling(house: House) -> None:
    begun = 0
    for steps in range(1, 80):
        house.told.records.clear()
        door = Door(house, after=1e-9, every=0)
        door.pace = lambda: pause(3)
        request = asyncio.create_task(door.request())
        await pause(steps)
        begun += bool(door.sent)
        request.cancel()
        await asyncio.wait([request])
        count = len(door.sent)
        await pause(10)
        assert (len(door.sent), door.sending, door.turnstile.waiting, door.faults) == (count, 0, 0, [])
        assert door.finished.status == (200 if door.sent else door.finished.status)
    assert begun


@pytest.mark.parametrize("refusal", [None, Overloaded()], ids=repr)
async def test_a_failure_to_tell_is_told_to_the_operator(house: House, refusal: GatewayError | None) -> None:
    """The place cannot be worked out: the stream, which was begun, ends with an error; nothing is lost in silence."""
    door = Door(house)
    door.turnstile.refusal = refusal
    place, failed = door.turnstile.place, asyncio.Event()

    def broken() -> Place | None:
        if door.turnstile.asked == 3:
            failed.set()
            raise ZeroDivisionError
        return place()

    door.turnstile.place = broken  # type: ignore[method-assign]
    request = asyncio.create_task(door.request())
    await failed.wait()
    door.turnstile.through.set()
    await request
    assert orjson.loads(door.bodies[-2][6:])["error"]["code"] == ("internal_error" if refusal is None else "saturated")
    assert door.sent[-1] == {"type": "http.response.body", "body": b""}
    assert [each.fields["error"] for each in house.told.of(Notice)] == ["ZeroDivisionError"]
    await house.check_nothing_is_left()


async def test_a_caller_that_does_not_read_holds_up_only_itself(house: House) -> None:
    """The start cannot be sent: the request ends with the caller, and the turnstile is free."""
    door = Door(house)
    stuck = asyncio.Event()
    door.pace = stuck.wait
    request = asyncio.create_task(door.request())
    async with asyncio.timeout(60):
        while not door.sending:
            await asyncio.sleep(0.001)
    door.turnstile.refusal = GatewayError()
    door.turnstile.through.set()
    await pause(10)
    assert not request.done()
    door.gone.set()
    await asyncio.wait_for(request, 60)
    assert (door.sent, door.turnstile.waiting, door.finished.client_gone) == ([], 0, True)
