"""One answer on its way to the caller: the lease lives exactly as long as this stream.

However the stream ends (finished, failed, cut off, abandoned, revoked), it is settled once: the slot comes back, the
account learns the outcome, the session remembers the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from poe_gateway.chat import estimate
from poe_gateway.chat.events import Bound, ChatEvent, Discarded, Finished, Measured
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.usage import Counted, Usage
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.bills import Bill
from poe_gateway.dispatch.charging import Charge
from poe_gateway.dispatch.failover import as_error
from poe_gateway.dispatch.fitting import NOTHING, Fit
from poe_gateway.errors import GatewayError, Overloaded, UpstreamTimeout
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.outcome import Cancelled, Outcome, Succeeded, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure


def capacity_lost() -> Overloaded:
    """What a caller is told whose slot now belongs to another process."""
    return Overloaded("The gateway lost its claim on the account.", code="capacity_lost", retry_after=1)


async def close(source: AsyncGenerator[ChatEvent, None], pending: asyncio.Task[ChatEvent | None] | None) -> None:
    """Close a source that a read may still be waiting for."""
    if pending is not None and not pending.done():
        pending.cancel()
        await asyncio.wait((pending,))
    if pending is not None and not pending.cancelled():
        pending.exception()  # its failure came too late for anybody
    await source.aclose()


_UNSEEN = (Finished, Measured, Bound, Discarded)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for one attempt; for headers, telemetry and the session."""

    number: int
    lease: Lease
    provider: str
    target: str
    """Upstream's name of the model."""
    session: str | None
    """``new``, ``continued``, ``replayed``, ``moved`` or ``borrowed``; None without a session."""
    fit: Fit = NOTHING
    """What of the request is emulated, or dropped, at this upstream."""


class ChatStream:
    """The events of one answer, the first of which is already here. Iterate ``events`` once, then ``aclose``."""

    def __init__(
        self,
        *,
        request: ChatRequest,
        model: str,
        attempt: Attempt,
        answer: Answer,
        head: list[ChatEvent],
        source: AsyncGenerator[ChatEvent, None],
        deadline: float,
        settle: Callable[[Outcome, Fate | None], None],
        pending: asyncio.Task[ChatEvent | None] | None = None,
        charge: Charge | None = None,
    ) -> None:
        """``head``: events that are here already; ``pending``: a read of the source that was begun."""
        self.request = request
        self.model = model
        self.attempt = attempt
        self.answer = answer
        self.charge = charge
        self.tier: str | None = None
        """How it was routed, told by the router: tier, profiles, the classifier's word, legs left behind."""
        self.profile = ""
        self.label = ""
        self.escalations = 0
        self.judged = ""
        """Why it was not good enough, in one word, where it is the best that was to be had; else empty."""
        self._head = head
        self._source = source
        self._pending = pending
        self._settle = settle
        self._stopped: UpstreamFailure | GatewayError | None = None
        """Why the answer may not go on: its time is up, or the slot is lost."""
        self._reader: asyncio.Task[Any] | None = None
        """The task that waits for the upstream's next event right now."""
        self._ending = False
        self._closing: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_at(deadline, self._late)
        attempt.lease.on_revoked = self._revoke

    async def events(self) -> AsyncGenerator[ChatEvent, None]:
        """Content events, then ``Finished``. Raises GatewayError when the answer breaks off."""
        finished = any(isinstance(event, Finished) for event in self._head)
        failure: UpstreamFailure | None = None
        try:
            try:
                for event in self._head:
                    if not isinstance(event, _UNSEEN):
                        yield event
                while not finished:
                    following = await self._next()
                    if following is None:
                        raise UpstreamFailure(Transient("the answer was cut off"), Fate.ACCEPTED)
                    self.answer.observe(following)
                    if isinstance(following, Finished):
                        finished = True
                    elif not isinstance(following, _UNSEEN):
                        yield following
            except UpstreamFailure as error:
                failure = error
                raise
            finally:
                await self._close()
            if self.answer.empty and self.answer.finish == "stop":
                raise UpstreamFailure(Transient("the answer was empty"), Fate.ACCEPTED)
            self._end(Succeeded(points=self.answer.points), None)
            yield Finished(self.answer.finish or "stop", self.answer.stop_sequence)
        except UpstreamFailure as error:
            self._end(error.outcome, error.fate)
            raise self._broken(as_error(error.outcome, error.fate)) from None
        finally:
            if failure is not None:  # the caller left while the upstream's side was closed: the news stays true
                self._end(failure.outcome, failure.fate)
            self._end(Cancelled(), None)  # cancelled or abandoned; does nothing when settled above

    async def _next(self) -> ChatEvent | None:
        """The upstream's next event; None at its end. Raises what the stream was stopped with."""
        self._raise_if_stopped()
        reader = self._reader = asyncio.current_task()
        try:
            if self._pending is not None:
                begun, self._pending = self._pending, None
                return await begun
            return await anext(self._source, None)
        except asyncio.CancelledError:
            if self._stopped is not None and reader is not None:
                reader.uncancel()
                raise self._stopped from None
            raise
        finally:
            self._reader = None

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    async def aclose(self) -> None:
        """Close the upstream's side if ``events`` was never begun, or was left early. Idempotent."""
        try:
            await self._close()
        finally:
            self._end(Cancelled(), None)

    async def _close(self) -> None:
        self._ending = True
        if self._closing is not None:
            await asyncio.wait([self._closing])
        else:
            await close(self._source, self._pending)

    def _end(self, outcome: Outcome, fate: Fate | None) -> None:
        self._timer.cancel()
        self._settle(outcome, fate)

    @staticmethod
    def _broken(error: GatewayError) -> GatewayError:
        if not isinstance(error, UpstreamTimeout):
            error.message = f"The answer broke off. {error.message}"
        return error

    def _revoke(self) -> None:
        self._stop(capacity_lost())

    def _late(self) -> None:
        self._stop(UpstreamFailure(Transient("the answer took too long", timeout=True), Fate.ACCEPTED))

    def _stop(self, error: UpstreamFailure | GatewayError) -> None:
        if self._stopped is not None or self._ending:
            return
        self._stopped = error
        if self._reader is not None:
            self._reader.cancel()
        else:
            # The caller does not take what is there already: the slot does not wait for it.
            self._closing = asyncio.ensure_future(self._abandon())

    async def _abandon(self) -> None:
        try:
            await close(self._source, self._pending)
        finally:
            self._end(Cancelled(), None)

    def usage(self) -> Usage:
        """Tokens of the exchange, counted here where the upstream told none; what it cost, once it is over."""
        answer = self.answer
        told = answer.prompt_tokens, answer.completion_tokens
        reckoned = answer.prompt_reckoned, answer.completion_reckoned
        counted: Counted = "upstream"
        if None in told:
            whole = all(one is not None or other is not None for one, other in zip(told, reckoned, strict=True))
            counted = "tokenizer" if whole else "estimate"
        prompt = told[0] if told[0] is not None else reckoned[0]
        completion = told[1] if told[1] is not None else reckoned[1]
        bill = self.charge.bill if self.charge is not None else Bill()
        return Usage(
            prompt_tokens=estimate.prompt_tokens(self.request) if prompt is None else prompt,
            completion_tokens=estimate.tokens(answer.length) if completion is None else completion,
            counted=counted,
            points=answer.points,
            cached_tokens=answer.cached_tokens or 0,
            reasoning_tokens=answer.reasoning_tokens or 0,
            raw_cost=bill.shown(bill.raw),
            billed_cost=bill.shown(bill.billed),
            currency=bill.unit,
        )
