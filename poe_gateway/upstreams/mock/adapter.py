"""The mock upstream: a provider without network, for first steps, demonstrations, rehearsals and tests.

Its memory (balance left, calls, concurrency) belongs to the process and starts anew with every new revision of an
account's credentials. ``stats`` and ``total`` let a test compare what the gateway believes with what arrived here.

A request may ask for trouble by its metadata: ``{"mock_fault": "rate_limited"}`` (or ``"slow_start:2.5"``: with
seconds), and for a tool call by ``{"mock_tool": "<function name>"}``. Sampling options, tools and images are accepted
and change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from poe_gateway.chat.events import Bound, ChatEvent, Finished, Measured, TextDelta, ToolCallDelta
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
from poe_gateway.upstreams.mock.answer import answer, last_user_text, tokens, tool_call
from poe_gateway.upstreams.mock.memory import Memory, Stats, Total
from poe_gateway.upstreams.mock.plan import (
    BUILT_IN,
    FIELDS,
    Fault,
    FaultKind,
    Operation,
    failure,
    read_plan,
    read_request_fault,
)

_CREATED = 1_735_689_600  # 2025-01-01T00:00:00Z


class MockUpstream:
    """Implements ``Upstream``. One instance serves any number of mock accounts."""

    name = "mock"
    capabilities = Capabilities(balance=True, prewarm=True, sessions=True, images=True, parameters=True)
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
            await self._suffer(memory, fault, model)
            price = memory.charge()
            if price is None:
                raise UpstreamFailure(Depleted(detail="no points left"))
            if request.session_id is not None or bound is not None:
                yield self._bind(memory, bound)
            spoken = 0
            for pause, event in _script(memory, model, request, fault):
                if pause:
                    await asyncio.sleep(pause)
                if isinstance(event, TextDelta):
                    spoken += len(event.text)
                yield event
            if fault is not None and fault.kind is FaultKind.TRUNCATED and (failed := failure(fault, model)):
                raise UpstreamFailure(*failed)
            prompt = sum(len(message.text) for message in request.messages)
            points = price if memory.plan.points is not None else None
            yield Measured(
                prompt_tokens=tokens(prompt),
                completion_tokens=tokens(spoken),
                points=points,
                cost=memory.plan.cost,
            )
            memory.answered += 1
        yield Finished("tool_calls" if "mock_tool" in request.metadata else "stop")

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


def _script(
    memory: Memory, model: str, request: ChatRequest, fault: Fault | None
) -> Iterator[tuple[float, TextDelta | ToolCallDelta]]:
    """What is said and the pause before it, in seconds; under ``truncated`` only the first half."""
    said = last_user_text(request.messages)
    if (tool := request.metadata.get("mock_tool")) is not None:
        yield from ((0.0, ToolCallDelta((call,))) for call in tool_call(tool, said))
        return
    pieces = answer(model, said, memory.plan.slow_pieces)
    if fault is not None and fault.kind is FaultKind.TRUNCATED:
        pieces = pieces[: -(-len(pieces) // 2)]
    slow = model == "mock-slow"
    pause = (memory.plan.slow_pause_ms if slow else memory.plan.chunk_delay_ms) / 1000
    for nth, piece in enumerate(pieces):
        yield (pause if nth or slow else 0.0), TextDelta(piece)
