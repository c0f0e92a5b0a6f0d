"""The mock upstream: a provider without network, for first steps, demonstrations, rehearsals and tests.

Its memory (balance left, calls, concurrency) belongs to the process and starts anew with every new revision of an
account's credentials. ``stats`` and ``total`` let a test compare what the gateway believes with what arrived here.

Its models are small and obedient: they call the tools that are offered, fill in the schema that is asked for, stop
where they are told to, make vectors and pictures, and say the same for the same request. They follow ``stop``, the
limits of tokens, ``logprobs`` and what asks for thinking; other sampling options change nothing.

A request may ask for trouble by its metadata: ``{"mock_fault": "rate_limited"}`` (or ``"slow_start:2.5"``: with
seconds), and for a tool call by ``{"mock_tool": "<function name>"}``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from poe_gateway.chat.events import Bound, ChatEvent
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Ids
from poe_gateway.pool.outcome import Depleted, RateLimited, Rejected
from poe_gateway.upstreams.base import (
    AccountRef,
    Capabilities,
    Described,
    Model,
    Reading,
    UpstreamFailure,
)
from poe_gateway.upstreams.mock.memory import Memory, Stats, Total
from poe_gateway.upstreams.mock.plan import (
    BUILT_IN,
    FIELDS,
    Fault,
    FaultKind,
    Operation,
    Plan,
    failure,
    read_plan,
    read_request_fault,
)
from poe_gateway.upstreams.mock.samples import Unsampled
from poe_gateway.upstreams.mock.script import Script, script
from poe_gateway.upstreams.mock.wishes import Unfulfillable

_CREATED = 1_735_689_600  # 2025-01-01T00:00:00Z


class MockUpstream:
    """Implements ``Upstream``. One instance serves any number of mock accounts."""

    name = "mock"
    capabilities = Capabilities(
        tells_tokens=True,
        balance=True,
        prewarm=True,
        sessions=True,
        images=True,
        operations=frozenset({"chat", "embed", "image"}),
        parameters=None,
        tools=True,
        structured=True,
    )
    credential_fields = FIELDS

    def __init__(self, *, ids: Ids | None = None) -> None:
        self._ids = ids or Ids()
        self._memories: dict[str, Memory] = {}
        self.total = Total()
        """Calls running now and their peak, over all accounts."""

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Offer ``mock``, or ``mock:<digest>`` for accounts that serve more names."""
        plan = read_plan(credentials)
        details = {"models": list(plan.models)} if plan.models else {}
        return Described(offer=plan.offer, metered=plan.points is not None, details=details)

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """The answer in pieces. A ``Bound`` comes first when the request belongs to a session."""
        memory = self._memory(account)
        nth = memory.called("chat")
        with self._slot(memory):
            if model not in BUILT_IN and model not in memory.plan.models:
                public = f"The model '{model}' does not exist."
                raise UpstreamFailure(Rejected(public=public, status=404, code="model_not_found", model=model))
            fault = _requested(request) or memory.plan.due("chat", nth)
            truncated = fault is not None and fault.kind is FaultKind.TRUNCATED
            await self._suffer(memory, fault, model)
            told = _script(memory.plan, model, request)
            price = memory.charge()
            if price is None:
                raise UpstreamFailure(Depleted(detail="no points left"))
            if request.session_id is not None or bound is not None:
                yield self._bind(memory, bound)
            for pause, event in _paced(memory.plan, model, told, truncated=truncated):
                if pause:
                    await asyncio.sleep(pause)
                yield event
            if fault is not None and truncated and (failed := failure(fault, model)):
                raise UpstreamFailure(*failed)
            points = price if memory.plan.points is not None else None
            yield replace(told.measured, points=points, cost=memory.plan.cost)
            memory.answered += 1
        yield told.finished

    async def read_balance(self, account: AccountRef) -> Reading:
        """What is left of ``points``; nothing for an account without a purse."""
        memory = await self._visit(account, "balance")
        return Reading(points=memory.points, details={"spent": memory.spent})

    async def list_models(self, account: AccountRef) -> list[Model]:
        """The built-in models and the account's own additions."""
        memory = await self._visit(account, "models")
        names = dict.fromkeys((*BUILT_IN, *memory.plan.models))
        return [Model(id=name, upstream=name, owned_by="mock", created=_CREATED) for name in names]

    async def prewarm(self, account: AccountRef) -> None:
        """Nothing to open; planned faults show."""
        await self._visit(account, "prewarm")

    async def probe(self, account: AccountRef) -> str:
        """A sentence; planned faults show."""
        memory = await self._visit(account, "probe")
        purse = "" if memory.points is None else f", {memory.points} points left"
        return f"The mock account answers{purse}."

    async def forget(self, account_id: str) -> None:
        """Conversations are dropped; the counters stay, since tests read them afterwards."""
        if memory := self._memories.get(account_id):
            memory.conversations.clear()

    async def close(self) -> None:
        """Nothing is open."""

    def stats(self, account_id: str) -> Stats:
        """What this process has seen of the account; zeros for one never used."""
        memory = self._memories.get(account_id)
        return memory.snapshot() if memory else Stats()

    def _memory(self, account: AccountRef) -> Memory:
        memory = self._memories.get(account.id)
        if memory is None:
            memory = self._memories[account.id] = Memory(read_plan(account.credentials), account.credential_rev)
        elif memory.revision != account.credential_rev:
            memory.renew(read_plan(account.credentials), account.credential_rev)
        return memory

    @contextmanager
    def _slot(self, memory: Memory) -> Iterator[None]:
        """Counts a running call; refuses it where the account's own limit is reached."""
        limit = memory.plan.max_concurrent
        if limit is not None and memory.current >= limit:
            memory.violations += 1
            raise UpstreamFailure(RateLimited(retry_after=1.0, detail=f"more than {limit} at once"))
        memory.enter()
        self.total.enter()
        try:
            yield
        except GeneratorExit:
            memory.cancelled += 1
            raise
        except asyncio.CancelledError:
            memory.cancelled += 1
            raise
        finally:
            memory.leave()
            self.total.leave()

    async def _visit(self, account: AccountRef, operation: Operation) -> Memory:
        memory = self._memory(account)
        await self._suffer(memory, memory.plan.due(operation, memory.called(operation)), "")
        return memory

    async def _suffer(self, memory: Memory, fault: Fault | None, model: str) -> None:
        """The part of a fault that comes before the answer."""
        if fault is None:
            return
        memory.note(fault.kind)
        if fault.kind in (FaultKind.SLOW_START, FaultKind.TIMEOUT):
            await asyncio.sleep(fault.seconds)
        failed = failure(fault, model)
        if failed is not None and fault.kind is not FaultKind.TRUNCATED:
            raise UpstreamFailure(*failed)

    def _bind(self, memory: Memory, bound: Mapping[str, Any] | None) -> Bound:
        conversation = bound.get("conversation") if bound else None
        if not isinstance(conversation, str):
            conversation = self._ids.new("conv")
        memory.turn(conversation)
        return Bound({"conversation": conversation})


def _requested(request: ChatRequest) -> Fault | None:
    """The fault that the request itself asks for."""
    wanted = request.metadata.get("mock_fault")
    if wanted is None:
        return None
    try:
        return read_request_fault(wanted)
    except ValueError:
        public = f"metadata.mock_fault must be one of: {', '.join(FaultKind)}."
        raise UpstreamFailure(Rejected(public=public, code="unknown_mock_fault")) from None


def _script(plan: Plan, model: str, request: ChatRequest) -> Script:
    try:
        return script(plan, model, request)
    except (Unfulfillable, Unsampled) as error:
        raise UpstreamFailure(Rejected(public=str(error), code="invalid_value")) from None


def _paced(plan: Plan, model: str, told: Script, *, truncated: bool) -> Iterator[tuple[float, ChatEvent]]:
    """The pieces, each with the pause before it in seconds; under ``truncated`` only the first half."""
    slow = model == "mock-slow"
    pause = (plan.slow_pause_ms if slow else plan.chunk_delay_ms) / 1000
    for nth, event in enumerate(told.half() if truncated else told.events):
        yield (pause if nth or slow else 0.0), event
