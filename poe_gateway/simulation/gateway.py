"""One simulated gateway process: its background loops and its callers, on a virtual loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from poe_gateway.accounts.visits import VisitFailed, Visitor
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids, ServerClock
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.errors import GatewayError
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause, Intent, State
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.memory import MemoryDoorbell
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.store import AccountStore, StoreUnavailable
from poe_gateway.simulation.plan import Arrival
from poe_gateway.simulation.virtual_time import Life, VirtualLoop, WorldClock
from poe_gateway.simulation.watch import Watch, WatchedBroker
from poe_gateway.simulation.wire import server_time
from poe_gateway.simulation.wiring import Surroundings, assemble
from poe_gateway.upstreams.keychain import Keychain

_TICK = 10.0
_FOLLOW = 30.0
"""Seconds between two looks at what others stored, where nothing rings."""
_QUIET = 60.0
"""Seconds between two writes of unhurried news."""
_RETRY = 2.0
_BOOK = 300.0
"""Seconds between two writes of prices."""
_ROUND = 1800.0
"""Seconds between two rounds over the balances."""


class Gateway:
    """One process. ``number`` is its row in the plan, ``place`` its machine."""

    def __init__(self, around: Surroundings, number: int, place: int, skew: float, ids: Ids) -> None:
        self.around = around
        self.number = number
        self.place = place
        self.pid = len(around.gateways) + 1
        self.name = f"p{number}.{self.pid}"
        self.loop: VirtualLoop = around.world.loop(self.name)
        self.loop.on_error = lambda text: around.judge.broken("nothing fails unforeseen", f"{self.name}: {text}")
        self.machine = WorldClock(around.world, skew)
        self.clock = ServerClock(self.machine)
        self.ids = ids
        self.ready = False
        self.followed_from = -1.0
        """When the last look at the database's news that was taken over was begun."""
        self.decisions: list[Decision] = []
        self._urgent = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._callers: set[asyncio.Task[None]] = set()
        assemble(self)

    # Assigned by ``assemble``.
    broker: WatchedBroker
    keeper: Keeper
    dispatcher: Dispatcher
    visitor: Visitor
    keychain: Keychain
    pricebook: PriceBook
    store: AccountStore
    sessions: SessionBook
    watch: Watch
    doorbell: MemoryDoorbell | None
    bell: asyncio.Event

    # Life.

    @property
    def lives(self) -> bool:
        return self.loop.life is not Life.KILLED

    @property
    def awake(self) -> bool:
        return self.ready and self.loop.life is Life.RUNNING

    def start(self) -> None:
        """As the composition root does it."""
        self._tasks.append(self.loop.create_task(self._start()))

    async def _start(self) -> None:
        around = self.around
        while True:
            try:
                sent = self.clock.monotonic()
                self.clock.sync(await server_time(around.line, around.hub.clock.now), sent, self.clock.monotonic())
                accounts = await self.store.load()
                await self.pricebook.load()
            except StoreUnavailable:
                await asyncio.sleep(_RETRY)
                continue
            break
        self.watch.awake_since = around.world.now
        self.broker.accept(accounts)
        for work in (
            self.keeper.run, self._journal, self._follow, self._tick, self._credentials, self._prices, self._care
        ):  # fmt: skip
            self._tasks.append(self.loop.create_task(self._forever(work)))
        self.ready = True

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        ended = "it returned"
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - what the house mends by starting anew is a finding here
            ended = f"{type(error).__name__}: {error}"
        self.around.judge.broken("background tasks go on", f"{self.name}: {work.__qualname__} ended, {ended}")

    def freeze(self) -> None:
        """Stopped by a signal: its requests at the provider go on."""
        self.loop.freeze()

    def thaw(self) -> None:
        self.watch.awake_since = self.around.world.now
        self.loop.thaw()

    def kill(self) -> None:
        """Gone: its connections close."""
        self.loop.kill()
        self.ready = False
        if self.doorbell is not None:
            self.around.hub.bells.remove(self.bell)
        self.around.site.hang_up(self.name)

    # What goes on all the time.

    async def _journal(self) -> None:
        """As ``Journal.flush_forever``, with longer pauses between unhurried writes."""
        journal = self.broker.journal
        turn = self.loop.time() + _QUIET
        while True:
            try:
                async with asyncio.timeout_at(turn):
                    await self._urgent.wait()
            except TimeoutError:
                turn = self.loop.time() + _QUIET
            hurried = self._urgent.is_set()
            self._urgent.clear()
            if not await journal.flush(only_urgent=hurried):
                await asyncio.sleep(_RETRY)
                self._urgent.set()

    def stepped(self, before: Account, after: Account) -> None:
        """Of the broker: urgent news is written at once."""
        if after.health != before.health or after.model_blocks != before.model_blocks:
            self._urgent.set()

    async def _follow(self) -> None:
        while True:
            if self.doorbell is not None:
                await self.doorbell.wait(_FOLLOW)
            else:
                await asyncio.sleep(_FOLLOW)
            begun = self.clock.monotonic()
            try:
                changes = await self.store.changes()
            except StoreUnavailable:
                await asyncio.sleep(_RETRY)
                continue
            self.broker.accept(changes.stored)
            self.followed_from = begun
            self.keeper.ring()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.broker.tick()

    async def _credentials(self) -> None:
        while True:
            held = (seat.account for seat in self.broker.seats.values() if seat.held and seat.allowed)
            with suppress(StoreUnavailable):
                await self.keychain.prefetch(held)
            await asyncio.sleep(_BOOK)

    async def _prices(self) -> None:
        while True:
            await asyncio.sleep(_BOOK)
            if await self.pricebook.flush():
                with suppress(StoreUnavailable):
                    await self.pricebook.refresh()

    async def _care(self) -> None:
        """The first process that is awake looks at the balances and gives dead credentials another chance."""
        while True:
            await asyncio.sleep(_ROUND)
            if next((each for each in self.around.gateways if each.awake), None) is not self:
                continue
            for seat in list(self.broker.seats.values()):
                if _worth_a_visit(seat.account):
                    await self.measure(seat.account.id)

    async def measure(self, account_id: str) -> None:
        """One look at a balance; failures are news to the broker and to nobody else."""
        with suppress(VisitFailed, GatewayError, StoreUnavailable):
            await self.visitor.visit(
                account_id,
                lambda upstream, ref: upstream.read_balance(ref),
                evidence="refresh",
                wanted=_worth_a_visit,
                news=lambda reading: transitions.Measurement(
                    at=self.clock.now(),
                    points=reading.points,
                    subscription_active=reading.subscription_active,
                    allotment=reading.allotment,
                    next_grant_at=reading.next_grant_at,
                    evidence="refresh",
                ),
            )

    # Callers.

    def ask(self, arrival: Arrival, done: Callable[[Arrival, str], None]) -> None:
        """A caller's request comes in; ``done`` is told how it ended: ``served`` or a code."""
        task = self.loop.create_task(self._serve(arrival, done))
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)
        if arrival.leaves is not None:
            self.loop.call_later(arrival.leaves, task.cancel)

    async def _serve(self, arrival: Arrival, done: Callable[[Arrival, str], None]) -> None:
        key, request_id = arrival.key, f"r{arrival.number}"
        policy, now = self.around.plan.policy, self.clock.monotonic()
        self.watch.deadlines[request_id] = now + min(key.patience, policy.acquire_timeout, policy.request_timeout)
        principal = Principal(
            key_id=key.id,
            name=key.id,
            priority=key.priority,
            weight=key.weight,
            labels=key.labels,
            without=key.without,
        )
        told = "served"
        try:
            stream = await self.dispatcher.chat(principal, _request(arrival, request_id), request_id)
            try:
                async for _ in stream.events():
                    pass
            finally:
                await stream.aclose()
        except GatewayError as error:
            told = error.code or "error"
        except asyncio.CancelledError:
            told = "left"
        finally:
            self.watch.deadlines.pop(request_id, None)
        self.around.judge.tell(self.name, f"{request_id} of {key.id} is told: {told}")
        done(arrival, told)


def _worth_a_visit(account: Account) -> bool:
    if account.intent is not Intent.ENABLED or account.health.cause in (Cause.CHALLENGED, Cause.RATE_LIMITED):
        return False
    return account.health.state is not State.INVALID or account.health.cause is Cause.UNAUTHORIZED


def _request(arrival: Arrival, request_id: str) -> ChatRequest:
    opening = f"{arrival.body} "
    return ChatRequest(
        model=arrival.model,
        messages=(Message("user", (TextPart(opening + "x" * max(1, arrival.size - len(opening))),)),),
        stream=arrival.stream,
        session_id=arrival.session,
        session_explicit=arrival.session is not None,
        metadata={"request": request_id, "body": str(arrival.body), "seconds": str(arrival.seconds)},
        timeout=arrival.key.patience,
    )
