"""Repetitions of requests with an Idempotency-Key, message by message on raw ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from poe_gateway.api.asgi import Receive, Scope, Send
from poe_gateway.api.idempotent import Idempotent
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.idempotency.book import Book, Claim
from poe_gateway.idempotency.memory import MemoryAnswers
from poe_gateway.telemetry.events import Notice, RequestFinished
from poe_gateway.telemetry.hub import Recorder, Telemetry
from poe_gateway.vault import Vault, new_key

KEY, OTHER = "svc_test_key_0000", "svc_test_key_1111"
FERNET = new_key()
STREAM = [b'data: {"id":"1"}\n\n', b": keep-alive\n\n", b'data: {"id":"2"}\n\n', b"data: [DONE]\n\n"]


class Sky(SystemClock):
    """The database's clock, which can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.ahead)


class Inner:
    """The inner route: answers piece by piece, as far as it is let."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self.kind = b"application/json"
        self.pieces: list[bytes] = []
        self.failure: BaseException | None = None
        self.gone = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.sent = 0

    def streams(self, pieces: list[bytes]) -> None:
        self.kind, self.pieces = b"text/event-stream; charset=utf-8", pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.calls.append(request_id)
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        pieces = self.pieces or [b'{"answer": %d}' % len(self.calls)]
        headers = [
            (b"content-type", self.kind),
            (b"x-request-id", request_id.encode()),
            (b"x-gateway-account", b"acc_1"),
            (b"x-ratelimit-remaining-requests", b"7"),
        ]
        await asyncio.sleep(0)
        if self.failure is not None:
            await self.gate.wait()
            raise self.failure
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for piece in pieces:
            await self.gate.wait()
            await send({"type": "http.response.body", "body": piece, "more_body": self.kind.startswith(b"text")})
            self.sent += 1
        if self.kind.startswith(b"text"):
            await send({"type": "http.response.body", "body": b""})


class Reply:
    """What one caller got."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.complete = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def code(self) -> Any:
        return orjson.loads(self.body)["error"]["code"]

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            assert len(self.headers) == len(message["headers"]), "no header twice"
            return
        assert not self.complete
        if message["body"]:
            self.pieces.append(message["body"])
        self.complete = not message.get("more_body", False)


class Process:
    """One process: the wrapper around an inner route; several may share a store."""

    def __init__(
        self, inner: Inner, store: MemoryAnswers | Any, *, process: str = "p1", ttl: float = 60.0, **options: Any
    ) -> None:
        self.told = Recorder()
        clock = SystemClock()
        timing = {name: options.pop(name) for name in ("lease", "beat", "again") if name in options}
        self.book = Book(
            store=store,
            vault=Vault((options.pop("fernet", FERNET),)),
            pepper=b"pepper",
            process=process,
            ttl=ttl,
            **{"again": (0.0, 0.0), **timing},
        )
        self.keyring = KeyRing(store=MemoryKeys(), pepper=b"p", admin_key="admin", clock=clock, ids=Ids(1))
        self.route = Idempotent(
            inner,
            book=self.book,
            keyring=self.keyring,
            clock=clock,
            telemetry=Telemetry(self.told),
            **{"max_body": 10_000, "streams": "replay", **options},
        )
        self.number = 0

    async def started(self) -> Process:
        await self.keyring.start([KEY, OTHER])
        return self

    async def ask(
        self,
        key: str | None = "k",
        body: Any = None,
        *,
        by: str = KEY,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        reply: Reply | None = None,
        method: str = "POST",
        send: Callable[[Any], Any] | None = None,
        receive: Receive | None = None,
    ) -> Reply:
        self.number += 1
        reply = reply or Reply()
        raw = body if isinstance(body, bytes) else orjson.dumps(body if body is not None else {"model": "m"})
        named = () if key is None else ((b"idempotency-key", key.encode()),)
        scope = {
            "type": "http",
            "method": method,
            "path": "/v1/chat/completions",
            "headers": [(b"authorization", b"Bearer " + by.encode()), *named, *headers],
            "client": ("127.0.0.1", 1),
        }
        messages = [{"type": "http.request", "body": raw, "more_body": False}]

        async def incoming() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        await self.route(scope, receive or incoming, send or reply.send, f"req_{self.number}")
        return reply

    async def settled(self) -> None:
        await asyncio.gather(*self.route._runs._tasks)

    def requests(self) -> list[RequestFinished]:
        return self.told.of(RequestFinished)

    def notices(self) -> list[str]:
        return [each.message for each in self.told.of(Notice)]


@pytest.fixture
def sky() -> Sky:
    return Sky()


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def store(sky: Sky) -> MemoryAnswers:
    return MemoryAnswers(sky)


@pytest.fixture
async def one(inner: Inner, store: MemoryAnswers) -> Process:
    return await Process(inner, store).started()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_without_the_header_nothing_is_touched(one: Process, inner: Inner, store: MemoryAnswers) -> None:
    first, second = await one.ask(None), await one.ask(None)
    assert first.body != second.body and len(inner.calls) == 2
    assert store.calls == [] and one.requests() == [], "the inner route tells of its own requests"


@pytest.mark.parametrize("streamed", [False, True])
async def test_fifty_twins_have_one_run_and_identical_answers(one: Process, inner: Inner, streamed: bool) -> None:
    if streamed:
        inner.streams(STREAM)
    inner.gate.clear()
    twins = [asyncio.create_task(one.ask(body={"stream": streamed, "model": "m"})) for _ in range(50)]
    await until(lambda: len(inner.bodies) == 1)
    inner.gate.set()
    replies = await asyncio.gather(*twins)
    assert len(inner.calls) == 1
    assert len({reply.body for reply in replies}) == 1
    assert all(reply.complete and reply.status == 200 for reply in replies)
    assert [reply.replayed for reply in replies] == [False] + [True] * 49
    assert replies[0].headers["x-request-id"] == "req_1"
    assert {reply.headers["x-gateway-original-request-id"] for reply in replies[1:]} == {"req_1"}
    assert len({reply.headers["x-request-id"] for reply in replies}) == 50
    told = one.requests()
    assert len(told) == 49 and all(each.replayed and each.status == 200 for each in told)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_later_repetition_is_a_replay_byte_for_byte(
    one: Process, inner: Inner, store: MemoryAnswers, streamed: bool
) -> None:
    if streamed:
        inner.streams(STREAM)
    first = await one.ask(body=b'{"model": "m", "n": 1}')
    await one.settled()
    again = await one.ask(body=b'{ "n":1,"model":"m" }')
    assert len(inner.calls) == 1
    assert again.pieces == first.pieces, "a stream comes as a stream again"
    assert again.replayed and again.complete
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-gateway-account"] == "acc_1"
    assert again.headers["x-gateway-original-request-id"] == "req_1"
    assert again.headers["x-request-id"] == "req_2"
    assert "x-ratelimit-remaining-requests" not in again.headers, "it says nothing about now"
    [entry] = store.table.values()
    assert entry.sealed is not None and b"answer" not in entry.sealed
    assert "k" not in store.table


async def test_twins_of_another_process_wait_for_the_answer(inner: Inner, store: MemoryAnswers) -> None:
    here = await Process(inner, store, process="p1").started()
    there = await Process(inner, store, process="p2").started()
    # The rings were made one by one, so the same texts have other ids: the scope is the key's id.
    there.keyring = there.route._keyring = here.keyring
    inner.streams(STREAM)
    inner.gate.clear()
    first = asyncio.create_task(here.ask())
    await until(lambda: len(inner.bodies) == 1)
    twins = [asyncio.create_task(there.ask()) for _ in range(10)]
    await until(lambda: store.calls.count("claim") >= 4)
    assert not any(twin.done() for twin in twins)
    inner.gate.set()
    replies = await asyncio.gather(*twins)
    assert len(inner.calls) == 1
    assert {reply.body for reply in replies} == {(await first).body}
    assert all(reply.replayed for reply in replies)


async def test_a_twin_does_not_wait_for_ever(inner: Inner, store: MemoryAnswers) -> None:
    here = await Process(inner, store, process="p1").started()
    there = await Process(inner, store, process="p2").started()
    there.route._keyring = here.keyring
    inner.gate.clear()
    first = asyncio.create_task(here.ask())
    await until(lambda: len(inner.bodies) == 1)
    reply = await there.ask(headers=((b"x-timeout", b"0.01"),))
    assert (reply.status, reply.code) == (409, "idempotency_in_progress")
    assert reply.headers["retry-after"] == "2"
    inner.gate.set()
    assert (await first).status == 200


async def test_another_body_under_the_same_key_is_refused(one: Process, inner: Inner) -> None:
    inner.gate.clear()
    first = asyncio.create_task(one.ask(body={"model": "a"}))
    await until(lambda: len(inner.bodies) == 1)
    during = await one.ask(body={"model": "b"})
    inner.gate.set()
    await first
    await one.settled()
    after = await one.ask(body={"model": "b"})
    for reply in (during, after):
        assert (reply.status, reply.code) == (422, "idempotency_key_reused")
        assert not reply.replayed
    assert len(inner.calls) == 1


async def test_keys_are_the_callers_own(one: Process, inner: Inner) -> None:
    mine, other = await one.ask(by=KEY), await one.ask(by=OTHER)
    assert len(inner.calls) == 2 and mine.body != other.body


async def test_strangers_and_revoked_keys_get_nothing(one: Process, inner: Inner, store: MemoryAnswers) -> None:
    await one.ask()
    await one.settled()
    stranger = await one.ask(by="svc_wrong_key_0000")
    assert (stranger.status, stranger.code) == (401, "invalid_api_key")
    issued = one.keyring.keys()
    for key in issued:
        await one.keyring.revoke(key.id)
    revoked = await one.ask()
    assert (revoked.status, revoked.code) == (401, "invalid_api_key")
    assert revoked.headers["x-request-id"] == "req_3"
    assert len(inner.calls) == 1 and [each.status for each in one.requests()] == [401, 401]


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_failure_goes_to_all_who_are_there_and_frees_the_key(one: Process, inner: Inner, status: int) -> None:
    inner.status = status
    inner.gate.clear()
    twins = [asyncio.create_task(one.ask()) for _ in range(5)]
    await until(lambda: len(inner.bodies) == 1)
    inner.gate.set()
    assert {reply.status for reply in await asyncio.gather(*twins)} == {status}
    inner.status = 200
    again = await one.ask()
    assert again.status == 200 and not again.replayed and len(inner.calls) == 2


async def test_whoever_is_refused_may_ask_better_at_once(one: Process, inner: Inner, store: MemoryAnswers) -> None:
    inner.status, reply, kept = 400, Reply(), []

    async def send(message: Any) -> None:
        kept.append(dict(store.table))
        await reply.send(message)

    async def later(claim: Claim) -> None:
        await asyncio.sleep(0.01)
        await free(claim)

    free, store.free = store.free, later  # type: ignore[method-assign]
    await one.ask(body={"model": "wrong"}, send=send)
    assert reply.status == 400 and kept == [{}, {}], "the key is free before anybody is told"
    inner.status = 200
    assert (await one.ask(body={"model": "right"})).status == 200


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([STREAM[0]], id="without its end"),
        pytest.param([STREAM[0], b'data: {"error":{"code":"upstream_error"}}\n\n'], id="error event"),
        pytest.param([b'data: {"error":{}}\n\ndata: [DONE]\n\n'], id="error event and an end"),
    ],
)
async def test_a_stream_that_broke_is_not_kept(one: Process, inner: Inner, pieces: list[bytes]) -> None:
    inner.streams(pieces)
    broken = await one.ask()
    assert broken.status == 200 and broken.pieces == pieces
    inner.streams(STREAM)
    again = await one.ask()
    assert again.pieces == STREAM and not again.replayed and len(inner.calls) == 2


async def test_an_unforeseen_failure_of_the_route_is_told(one: Process, inner: Inner, store: MemoryAnswers) -> None:
    inner.failure = RuntimeError("boom")
    inner.gate.clear()
    twins = [asyncio.create_task(one.ask()) for _ in range(3)]
    await until(lambda: len(inner.bodies) == 1)
    inner.gate.set()
    replies = await asyncio.gather(*twins)
    assert {(reply.status, reply.code) for reply in replies} == {(500, "internal_error")}
    await one.settled()
    assert one.notices() == ["a request failed in an unforeseen way"] and store.table == {}


@pytest.mark.parametrize("at", range(8))
async def test_the_first_caller_may_leave_at_any_point(one: Process, inner: Inner, at: int) -> None:
    """Its task is cancelled after so many of its own steps; the run goes on for the one who asks again."""
    inner.streams(STREAM)
    steps = asyncio.Semaphore(0)
    reply = Reply()

    async def slow(message: Any) -> None:
        await steps.acquire()
        await reply.send(message)

    task = asyncio.create_task(one.ask(send=slow))
    await until(lambda: len(inner.calls) == 1)
    for _ in range(at):
        steps.release()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = await one.ask()
    assert again.pieces == STREAM and again.replayed
    assert len(inner.calls) == 1 and inner.gone == 0


async def test_a_caller_that_leaves_while_sending_its_body_starts_nothing(
    one: Process, inner: Inner, store: MemoryAnswers
) -> None:
    messages = [{"type": "http.request", "body": b'{"mod', "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    await one.ask(receive=receive)
    assert inner.gone == 1 and store.calls == [], "the route itself sees what happened"


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b'{"a": "%s"}' % (b"x" * 10_000)])
async def test_what_cannot_be_a_request_goes_straight_to_the_route(
    one: Process, inner: Inner, store: MemoryAnswers, body: bytes
) -> None:
    await one.ask(body=body)
    assert inner.bodies == [body] and store.calls == [] and one.requests() == []


async def test_a_body_that_says_it_is_too_large_is_not_read(one: Process, inner: Inner) -> None:
    await one.ask(headers=((b"content-length", b"10001"),))
    assert inner.bodies == [b'{"model":"m"}'], "the route has all of it still to read"


async def test_other_methods_are_the_routes_own(one: Process, inner: Inner, store: MemoryAnswers) -> None:
    await one.ask(method="GET")
    assert len(inner.calls) == 1 and store.calls == []


@pytest.mark.parametrize("key", ["", " ", '"', '""', '"a', "a\tb", "grüße", "x" * 256, '"a";b'])
async def test_a_key_that_is_none_is_refused(one: Process, inner: Inner, key: str) -> None:
    reply = await one.ask(key)
    assert reply.status == 400
    assert orjson.loads(reply.body)["error"]["param"] == "Idempotency-Key"
    assert inner.calls == []


async def test_two_different_keys_are_refused_and_the_same_twice_is_one(one: Process, inner: Inner) -> None:
    assert (await one.ask("a", headers=((b"idempotency-key", b"b"),))).status == 400
    assert (await one.ask("a", headers=((b"idempotency-key", b"a"),))).status == 200
    assert (await one.ask('"a"')).replayed, "quoted or bare, it is the same key"
    assert len(inner.calls) == 1


async def test_streams_can_be_refused(inner: Inner, store: MemoryAnswers) -> None:
    one = await Process(inner, store, streams="reject").started()
    reply = await one.ask(body={"model": "m", "stream": True})
    assert reply.status == 400
    assert orjson.loads(reply.body)["error"]["message"] == "Idempotency is not supported with streaming"
    assert (await one.ask(body={"model": "m", "stream": False})).status == 200
    assert (await one.ask(None, body={"model": "m", "stream": True})).status == 200
    assert len(inner.calls) == 2


async def test_an_answer_expires(one: Process, inner: Inner, sky: Sky) -> None:
    await one.ask()
    await one.settled()
    sky.ahead = 61.0
    again = await one.ask(body={"model": "another"})
    assert again.status == 200 and not again.replayed and len(inner.calls) == 2


async def test_the_claim_of_a_process_that_died_is_taken_over(inner: Inner, store: MemoryAnswers, sky: Sky) -> None:
    here = await Process(inner, store, process="p1").started()
    claim = here.book.claim_of(
        here.keyring.known(KEY).key_id,  # type: ignore[union-attr]
        "k",
        "/v1/chat/completions",
        b'{"model":"m"}',
        "req_dead",
    )
    assert await here.book.claim(claim) == "ours", "and then its process dies"
    waiting = asyncio.create_task(here.ask())
    await until(lambda: store.calls.count("claim") >= 3)
    assert inner.calls == [], "it may still be running"
    sky.ahead = 16.0
    reply = await waiting
    assert reply.status == 200 and not reply.replayed and len(inner.calls) == 1
    await here.settled()
    assert (await here.ask()).replayed


async def test_a_running_claim_is_renewed(inner: Inner, store: MemoryAnswers, sky: Sky) -> None:
    one = await Process(inner, store, beat=0.001).started()
    inner.gate.clear()
    first = asyncio.create_task(one.ask())
    await until(lambda: len(inner.bodies) == 1)
    for _ in range(4):
        sky.ahead += 10.0
        renewed = store.calls.count("renew")
        await until(lambda renewed=renewed: store.calls.count("renew") > renewed + 1)  # type: ignore[misc]
    [entry] = store.table.values()
    assert entry.lease_until > sky.now()
    inner.gate.set()
    assert (await first).status == 200


async def test_a_run_that_lost_its_claim_does_not_overwrite_the_other(
    inner: Inner, store: MemoryAnswers, sky: Sky
) -> None:
    one = await Process(inner, store, beat=1000.0).started()
    inner.gate.clear()
    first = asyncio.create_task(one.ask())
    await until(lambda: len(inner.bodies) == 1)
    [entry] = store.table.values()
    entry.owner = "somebody else"
    inner.gate.set()
    assert (await first).status == 200
    await one.settled()
    assert entry.sealed is None and len(one.notices()) == 1


async def test_beyond_the_bound_it_is_delivered_but_not_kept(inner: Inner, store: MemoryAnswers) -> None:
    one = await Process(inner, store, limit=500).started()
    pieces = [b"data: %02d" % number + b"x" * 90 + b"\n\n" for number in range(20)] + [b"data: [DONE]\n\n"]
    inner.streams(pieces)
    first = await one.ask()
    await one.settled()
    assert first.pieces == pieces and first.complete
    assert store.table == {}
    assert one.notices() == ["an answer is too large to be repeated; its Idempotency-Key is free again"]
    again = await one.ask()
    assert again.pieces == pieces and not again.replayed and len(inner.calls) == 2


async def test_a_slow_follower_holds_nobody_up(one: Process, inner: Inner) -> None:
    inner.streams(STREAM)
    inner.gate.clear()
    first = asyncio.create_task(one.ask())
    await until(lambda: len(inner.bodies) == 1)
    stuck, slow = asyncio.Event(), Reply()

    async def slowly(message: Any) -> None:
        await stuck.wait()
        await slow.send(message)

    laggard = asyncio.create_task(one.ask(send=slowly))
    await asyncio.sleep(0)
    inner.gate.set()
    assert (await first).pieces == STREAM
    await one.settled()
    stuck.set()
    await laggard
    assert slow.pieces == STREAM and slow.complete and len(inner.calls) == 1


async def test_with_the_database_away_a_request_with_a_key_is_refused(
    one: Process, inner: Inner, store: MemoryAnswers
) -> None:
    store.away = {"claim"}
    twins = await asyncio.gather(*[one.ask() for _ in range(3)])
    assert {(reply.status, reply.code) for reply in twins} == {(503, "database_unavailable")}
    assert all(reply.headers["retry-after"] == "5" and not reply.replayed for reply in twins)
    assert inner.calls == [], "a twin might run"
    assert (await one.ask(None)).status == 200
    store.away = set()
    assert (await one.ask()).status == 200


async def test_an_answer_that_cannot_be_kept_is_delivered_and_the_claim_lapses(
    one: Process, inner: Inner, store: MemoryAnswers, sky: Sky
) -> None:
    store.away = {"finish"}
    assert (await one.ask()).status == 200
    await one.settled()
    assert store.calls.count("finish") == 3 and len(one.notices()) == 1
    store.away = set()
    sky.ahead = 16.0
    again = await one.ask()
    assert again.status == 200 and not again.replayed and len(inner.calls) == 2


async def test_a_key_that_cannot_be_freed_lapses(one: Process, inner: Inner, store: MemoryAnswers, sky: Sky) -> None:
    store.away = {"free"}
    inner.status = 500
    assert (await one.ask()).status == 500
    await one.settled()
    store.away = set()
    sky.ahead, inner.status = 16.0, 200
    assert (await one.ask()).status == 200


async def test_renewals_that_fail_are_tried_again(inner: Inner, store: MemoryAnswers) -> None:
    one = await Process(inner, store, beat=0.001).started()
    store.away = {"renew"}
    inner.gate.clear()
    first = asyncio.create_task(one.ask())
    await until(lambda: store.calls.count("renew") >= 2)
    inner.gate.set()
    assert (await first).status == 200
    await one.settled()
    assert (await one.ask()).replayed


async def test_an_answer_under_a_lost_vault_key_is_not_run_again(inner: Inner, store: MemoryAnswers) -> None:
    one = await Process(inner, store).started()
    await one.ask()
    await one.settled()
    later = await Process(inner, store, fernet=new_key()).started()
    later.route._keyring = one.keyring
    reply = await later.ask()
    assert (reply.status, reply.code) == (409, "idempotency_answer_lost")
    assert reply.headers["x-should-retry"] == "false"
    assert len(inner.calls) == 1


@pytest.mark.parametrize("begun", [False, True])
async def test_draining_waits_and_then_breaks_off(
    one: Process, inner: Inner, store: MemoryAnswers, begun: bool
) -> None:
    await one.route.drain()
    inner.streams(STREAM)
    if not begun:
        inner.failure = RuntimeError("never comes to this")
    inner.gate.clear()
    reply = Reply()
    first = asyncio.create_task(one.ask(reply=reply))
    await until(lambda: len(inner.bodies) == 1 and (not begun or reply.status == 200))
    await one.route.drain(0.01)
    await first
    error = reply.body if not begun else reply.pieces[-1].removeprefix(b"data: ")
    assert orjson.loads(error)["error"]["code"] == "draining"
    assert reply.complete and reply.status == (200 if begun else 503)
    assert store.table == {}, "the key is free"


async def test_draining_lets_a_run_finish(one: Process, inner: Inner, store: MemoryAnswers) -> None:
    inner.gate.clear()
    first = asyncio.create_task(one.ask())
    await until(lambda: len(inner.bodies) == 1)
    drained = asyncio.create_task(one.route.drain(20.0))
    await asyncio.sleep(0)
    inner.gate.set()
    await drained
    assert (await first).status == 200
    [entry] = store.table.values()
    assert entry.sealed is not None


def form(boundary: bytes, picture: bytes = b"\x89PNG") -> bytes:
    named = ((b'name="model"', b"painter"), (b'name="image"; filename="a.png"', picture))
    head = b"\r\nContent-Disposition: form-data; "
    body = b"".join([b"--" + boundary + head + name + b"\r\n\r\n" + text + b"\r\n" for name, text in named])
    return body + b"--" + boundary + b"--\r\n"


async def test_a_form_is_run_once_whatever_its_boundary(one: Process, inner: Inner) -> None:
    async def sent(boundary: bytes, **more: bytes) -> Reply:
        told = ((b"content-type", b"multipart/form-data; boundary=" + boundary),)
        reply = await one.ask(body=form(boundary, **more), headers=told)
        await one.settled()
        return reply

    first, again = await sent(b"one"), await sent(b"two")
    assert len(inner.calls) == 1
    assert again.replayed and again.pieces == first.pieces
    assert inner.bodies == [form(b"one")], "as it came"
    other = await sent(b"one", picture=b"\x89PNG other")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert one.requests()[0].model == "painter"


async def test_where_a_body_that_says_nothing_asks_for_a_stream_it_counts_as_one(
    inner: Inner, store: MemoryAnswers
) -> None:
    one = await Process(inner, store, streams="reject", streaming=True).started()
    assert (await one.ask(body={"model": "m"})).code == "idempotency_not_supported"
    assert (await one.ask(body={"model": "m", "stream": None})).code == "idempotency_not_supported"
    assert (await one.ask(body={"model": "m", "stream": False})).status == 200
