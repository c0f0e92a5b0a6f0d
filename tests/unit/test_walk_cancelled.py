"""A chat request that is cancelled at any moment leaves nothing behind: no slot, no busy session, no waiter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

import orjson
import pytest

from poe_gateway.api.v1.endpoint import Endpoint
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.chat.events import Bound, ChatEvent, Finished, TextDelta
from poe_gateway.chat.openai_chat import OpenAIChat
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.dispatch.continuity import Continuity, SessionPolicy
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.planning import Planner
from poe_gateway.dispatch.router import Router
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.memory import MemoryAccounts, filled
from poe_gateway.pool.outcome import Challenged, RateLimited, Succeeded, Transient
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.routing.catalog import Catalog
from poe_gateway.telemetry.events import AttemptFinished, RequestFinished
from poe_gateway.telemetry.hub import Recorder, Telemetry
from poe_gateway.upstreams.base import AccountRef, Capabilities, Fate, UpstreamFailure
from poe_gateway.upstreams.keychain import Keychain, Version
from poe_gateway.vault import Vault, new_key
from tests.support.memory import MemorySessions
from tests.unit.builders import account

KEY = "svc_test_key_0000"


async def pause(steps: int = 2) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


class SlowUpstream:
    """Suspends wherever an adapter may, its cleaning up included."""

    name = "mock"
    capabilities = Capabilities(sessions=True, images=True, tools=True, structured=True, parameters=None)

    def __init__(self) -> None:
        self.failures: list[UpstreamFailure] = []
        self.hang = False
        self.empty = False
        self.running = 0

    async def chat(
        self, ref: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        self.running += 1
        try:
            await pause()
            if self.failures:
                raise self.failures.pop(0)
            if request.session_id is not None:
                yield Bound({"chat": 1})
            await pause()
            if self.empty:
                yield Finished()
            yield TextDelta("one ")
            await pause()
            if self.hang:
                await asyncio.Event().wait()
            yield TextDelta("two")
            await pause()
            yield Finished()
        finally:
            try:
                await pause()
            finally:
                self.running -= 1


class SlowSessions(MemorySessions):
    async def get(self, session: str) -> Any:
        await pause()
        return await super().get(session)


class Credentials:
    """Sealed credentials of every account."""

    def __init__(self, vault: Vault) -> None:
        self._sealed = vault.seal({})

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        await pause()
        return self._sealed

    async def credentials_of(self, versions: Any) -> dict[Version, bytes]:
        return dict.fromkeys(versions, self._sealed)


class House:
    """The rooms of one request, without a server."""

    def __init__(self, *, request_timeout: float = 30.0, alone: bool = False, strict: bool = False) -> None:
        clock = SystemClock()
        vault = Vault((new_key(),))
        accounts = [account(name, renews_daily=False, max_inflight=1) for name in ("a", "b")]
        self.broker = Broker(store=MemoryAccounts(filled(clock, accounts)), policy=PoolPolicy(), clock=clock)
        self.broker.grants_valid = lambda: True
        self.broker.accept(accounts)
        self.broker.regrant({"a": 1, "b": 1}, 2)
        self.upstream = SlowUpstream()
        self.store = SlowSessions()
        self.sessions = SessionBook(self.store, alone=lambda: alone, lost=lambda what: None)
        self.told = Recorder()
        telemetry = Telemetry(self.told)
        self.keyring = KeyRing(store=MemoryKeys(), pepper=b"p", admin_key="admin", clock=clock, ids=Ids(1))
        catalog = Catalog()
        self.upstreams: dict[str, Any] = {"mock": self.upstream}
        planner = Planner(broker=self.broker, catalog=catalog, upstreams=self.upstreams, clock=clock)
        self.dispatcher = Dispatcher(
            broker=self.broker,
            keychain=Keychain(Credentials(vault), vault, clock),
            planner=planner,
            continuity=Continuity(
                broker=self.broker, sessions=self.sessions, clock=clock, policy=SessionPolicy(strict=strict)
            ),
            telemetry=telemetry,
            clock=clock,
            policy=WalkPolicy(request_timeout=request_timeout),
        )
        self.router = Router(
            dispatcher=self.dispatcher, planner=planner, catalog=catalog, telemetry=telemetry, clock=clock
        )
        self.chat = Endpoint(
            OpenAIChat(),
            router=self.router,
            keyring=self.keyring,
            telemetry=telemetry,
            clock=clock,
            ids=Ids(2),
            max_body=1 << 20,
        )
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.stuck: asyncio.Event | None = None

    async def request(self, *, stream: bool = True, session: str | None = "s", **more: Any) -> None:
        body: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        if session is not None:
            body["metadata"] = {"session_id": session}
        body |= more
        pieces: Iterator[dict[str, Any]] = iter(
            [{"type": "http.request", "body": orjson.dumps(body).replace(b'"huge"', b"9" * 30), "more_body": False}]
        )

        async def receive() -> dict[str, Any]:
            await pause(1)
            message = next(pieces, None)
            if message is None:
                await self.gone.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            await pause(1)
            if self.stuck is not None and message["type"] == "http.response.body":
                await self.stuck.wait()
            self.sent.append(message)

        scope = {"method": "POST", "headers": [(b"authorization", b"Bearer " + KEY.encode())]}
        await self.chat(scope, receive, send, "req_1")

    async def start(self) -> House:
        await self.keyring.start([KEY])
        return self

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def check_nothing_is_left(self) -> None:
        await pause(60)
        assert self.broker.whole.used == 0
        assert not self.broker.leases
        assert all(seat.used == 0 for seat in self.broker.seats.values())
        assert not self.sessions.busy
        assert len(self.broker.line) == 0
        assert self.upstream.running == 0
        assert len([record for record in self.told.records if isinstance(record, RequestFinished)]) == 1


SCENES: dict[str, list[UpstreamFailure]] = {
    "an empty answer": [],
    "goes well": [],
    "second account": [UpstreamFailure(RateLimited(retry_after=60))],
    "a challenge, then another account": [UpstreamFailure(Challenged())],
    "fails for good": [UpstreamFailure(Transient("x"), Fate.UNKNOWN)],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("scene", SCENES)
async def test_cancelled_at_every_step(scene: str, busy: bool, stream: bool) -> None:
    for steps in range(1, 400):
        house = await House().start()
        house.upstream.failures = list(SCENES[scene])
        house.upstream.empty = scene == "an empty answer"
        held: list[Lease] = []
        if busy:  # the request has to stand in line first
            want = Want(offers=frozenset({"mock"}), model="gpt", caller="k", evidence="r", deadline=1e12)
            held = [await house.broker.lease(want) for _ in range(2)]
        task = asyncio.create_task(house.request(stream=stream))
        for step in range(steps):
            await asyncio.sleep(0)
            if step == 9:
                while held:
                    house.broker.settle(held.pop(), Succeeded())
            if task.done():
                break
        ended = task.done()
        task.cancel()
        while held:
            house.broker.settle(held.pop(), Succeeded())
        await asyncio.wait([task])
        await house.check_nothing_is_left()
        if ended:
            assert not task.cancelled() and task.exception() is None
            return
    pytest.fail("the request never ended")


async def test_a_challenge_is_remembered_even_when_the_caller_leaves_while_the_adapter_cleans_up() -> None:
    for steps in range(1, 60):
        house = await House().start()
        house.upstream.failures = [UpstreamFailure(Challenged())]
        task = asyncio.create_task(house.request(session=None))
        for _ in range(steps):
            await asyncio.sleep(0)
        thrown = not house.upstream.failures
        task.cancel()
        await asyncio.wait([task])
        await house.check_nothing_is_left()
        states = {seat.account.health.state.value for seat in house.broker.seats.values()}
        assert thrown is ("invalid" in states)


async def test_an_adapter_that_fails_to_clean_up_costs_no_slot() -> None:
    house = await House().start()

    class Broken:
        name = "mock"
        capabilities = Capabilities(parameters=None)

        async def chat(self, *_: object) -> AsyncGenerator[ChatEvent, None]:
            try:
                yield Bound({})
                await asyncio.sleep(30)
            finally:
                raise RuntimeError("cleaning up failed")

    house.upstreams["mock"] = Broken()
    task = asyncio.create_task(house.request())
    await pause(40)
    task.cancel()
    await asyncio.wait([task])
    await house.check_nothing_is_left()


async def test_an_account_of_a_provider_that_is_not_there_costs_no_slot() -> None:
    house = await House().start()
    house.upstreams.clear()
    await house.request()
    await house.check_nothing_is_left()
    assert house.sent[0]["status"] in (500, 502)


async def test_lost_grants_stop_a_request_that_waits_for_its_first_piece() -> None:
    for steps in range(1, 60):
        house = await House().start()
        house.upstream.hang = True
        task = asyncio.create_task(house.request())
        for _ in range(steps):
            await asyncio.sleep(0)
        leased = house.broker.whole.used
        house.broker.lose_grants()
        if not leased:
            task.cancel()
        _, pending = await asyncio.wait([task], timeout=60)
        assert not pending, f"goes on with a lost slot after {steps} steps"
        if leased:
            assert task.exception() is None and b"capacity_lost" in house.text, steps
        await house.check_nothing_is_left()


async def test_an_answer_that_stalls_ends_with_the_requests_time() -> None:
    house = await House(request_timeout=0.2).start()
    house.upstream.hang = True
    await asyncio.wait_for(house.request(), 60)
    assert b"provider_timeout_error" in house.text
    await house.check_nothing_is_left()
    outcomes = [record.outcome for record in house.told.records if isinstance(record, AttemptFinished)]
    assert outcomes == ["Transient"]


async def test_a_caller_that_does_not_read_gives_its_slot_back_with_the_requests_time() -> None:
    house = await House(request_timeout=0.2).start()
    house.stuck = asyncio.Event()
    task = asyncio.create_task(house.request())
    async with asyncio.timeout(60):
        while house.broker.whole.used or house.upstream.running:
            await asyncio.sleep(0.01)
    assert house.broker.whole.used == 0
    assert house.upstream.running == 0
    house.stuck.set()
    await asyncio.wait_for(task, 60)
    await house.check_nothing_is_left()


async def test_a_strict_session_does_not_move_when_its_account_fails() -> None:
    house = await House(strict=True).start()
    await house.request()
    house.told.records.clear()
    house.sent.clear()
    house.upstream.failures = [UpstreamFailure(RateLimited(retry_after=60))]
    await house.request()
    assert house.sent[0]["status"] != 200
    await house.check_nothing_is_left()


async def test_a_binding_that_is_still_being_stored_is_not_forgotten() -> None:
    house = await House().start()
    stored = asyncio.Event()
    put = house.store.put

    async def slowly(binding: Any) -> None:
        await stored.wait()
        await put(binding)

    house.store.put = slowly  # type: ignore[method-assign]
    await house.request()
    house.sent.clear()
    await house.request()
    assert (b"x-gateway-session", b"continued") in house.sent[0]["headers"]
    stored.set()


async def test_a_turn_that_has_no_digest_costs_no_slot() -> None:
    house = await House().start()
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}", "n": "huge"}}]
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": calls}]
    await house.request(messages=messages)
    await house.check_nothing_is_left()


@pytest.mark.parametrize(
    ("failures", "attempts"),
    [
        ([UpstreamFailure(Transient("x"), Fate.UNKNOWN)], b"1"),
        ([UpstreamFailure(RateLimited(retry_after=60))] * 2, b"2"),
    ],
    ids=["for good", "on both accounts"],
)
async def test_a_refusal_tells_how_many_accounts_were_tried(failures: list[UpstreamFailure], attempts: bytes) -> None:
    house = await House().start()
    house.upstream.failures = list(failures)
    await house.request(session=None)
    assert house.sent[0]["status"] >= 500
    assert dict(house.sent[0]["headers"])[b"x-gateway-attempts"] == attempts


async def test_a_refusal_before_any_account_was_tried_tells_none() -> None:
    house = await House().start()
    await house.request(messages=[])
    assert house.sent[0]["status"] == 400
    assert b"x-gateway-attempts" not in dict(house.sent[0]["headers"])
