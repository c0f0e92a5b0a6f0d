"""A small house for tests of the walk: real dispatcher, broker, guard and price book, and an upstream that obeys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.events import Bound, ChatEvent, Finished, Measured, TextDelta
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids
from poe_gateway.dispatch.continuity import Continuity, SessionPolicy
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.planning import Planner
from poe_gateway.dispatch.prefixes import PrefixBook
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.guard import Incident
from poe_gateway.pool.memory import MemoryAccounts, filled
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.pricebook_memory import MemoryPrices, MemoryUsage
from poe_gateway.routing.catalog import Catalog
from poe_gateway.telemetry.hub import Recorder, Telemetry
from poe_gateway.upstreams.base import AccountRef, Capabilities, UpstreamFailure
from tests.support.memory import MemorySessions
from tests.unit.builders import StepClock

Part = str | UpstreamFailure | Measured | Bound | asyncio.Event
CALLER = Principal(key_id="key_1", name="one")


class Told:
    """Upstream whose answers are written per account or by ``rule``; text and failures in the order given."""

    name = "mock"
    capabilities = Capabilities(sessions=True, images=True, tools=True, structured=True, parameters=None)

    def __init__(self) -> None:
        self.by_account: dict[str, list[list[Part]]] = {}
        self.rule: Callable[[str, ChatRequest], list[Part]] = lambda account_id, request: ["ok"]
        self.asked: list[tuple[str, ChatRequest]] = []
        self.bound: list[Mapping[str, Any] | None] = []
        """What each call was to go on from."""

    async def chat(
        self, ref: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        self.asked.append((ref.id, request))
        self.bound.append(bound)
        own = self.by_account.get(ref.id)
        for part in own.pop(0) if own else self.rule(ref.id, request):
            await asyncio.sleep(0)
            if isinstance(part, UpstreamFailure):
                raise part
            if isinstance(part, asyncio.Event):
                await part.wait()
            elif isinstance(part, Measured | Bound):
                yield part
            else:
                yield TextDelta(part)
        yield Finished()

    @property
    def accounts(self) -> list[str]:
        """Who was asked, in order."""
        return [account_id for account_id, _ in self.asked]


class _Keychain:
    def at_hand(self, account: Account) -> AccountRef:
        return AccountRef(id=account.id, name=account.name, offer=account.offer, credentials={})


class Walk:
    """``accounts`` with all their slots held by this process."""

    def __init__(
        self,
        *accounts: Account,
        policy: PoolPolicy | None = None,
        walk: WalkPolicy | None = None,
        sessions: SessionPolicy | None = None,
    ) -> None:
        self.clock = StepClock()
        self.policy = policy or PoolPolicy()
        self.upstream = Told()
        self.upstreams: dict[str, Any] = {"mock": self.upstream, "other": self.upstream}
        self.decisions: list[Decision] = []
        self.incidents: list[Incident] = []
        self.told = Recorder()
        self.broker = Broker(store=MemoryAccounts(filled(self.clock, accounts)), policy=self.policy, clock=self.clock)
        self.broker.grants_valid = lambda: True
        self.broker.epoch = "proc_1"
        self.broker.on_incident = self.incidents.append
        self.broker.accept(accounts)
        self.broker.regrant({each.id: each.max_inflight or self.policy.max_inflight for each in accounts}, 100)
        self.sessions = SessionBook(MemorySessions(), alone=lambda: True, lost=lambda what: None)
        self.prefixes = PrefixBook(max_uses=50, max_seconds=3600)
        self.prices = PriceBook(MemoryPrices(self.clock), MemoryUsage(), Ids(1))
        self.catalog = Catalog()
        self.planner = Planner(
            broker=self.broker,
            catalog=self.catalog,
            upstreams=self.upstreams,
            clock=self.clock,
            prices=self.prices,
        )
        self.dispatcher = Dispatcher(
            broker=self.broker,
            keychain=_Keychain(),  # type: ignore[arg-type]
            planner=self.planner,
            continuity=Continuity(
                broker=self.broker,
                sessions=self.sessions,
                clock=self.clock,
                policy=sessions or SessionPolicy(),
                prefixes=self.prefixes,
            ),
            telemetry=Telemetry(self.told),
            clock=self.clock,
            policy=walk or WalkPolicy(),
            prices=self.prices,
            decided=self.decisions.append,
        )
        self.count = 0

    async def ask(
        self,
        *turns: str,
        stream: bool = False,
        session: str | None = None,
        caller: Principal = CALLER,
        timeout: float | None = None,
        model: str = "gpt",
    ) -> str:
        """The whole answer. ``turns``: user and assistant alternate. Raises GatewayError."""
        self.count += 1
        roles = ("user", "assistant")
        request = ChatRequest(
            model=model,
            messages=tuple(
                Message(roles[number % 2], (TextPart(text),)) for number, text in enumerate(turns or ("hi",))
            ),
            stream=stream,
            session_id=session,
            session_explicit=session is not None,
            timeout=timeout,
        )
        answer = await self.dispatcher.chat(caller, request, f"req_{self.count}")
        try:
            return "".join([event.text async for event in answer.events() if isinstance(event, TextDelta)])
        finally:
            await answer.aclose()

    def states(self) -> dict[str, str]:
        return {name: seat.account.health.state.value for name, seat in self.broker.seats.items()}

    def later(self, seconds: float) -> None:
        self.clock.step(seconds)
        self.broker.tick()
