"""One answer on its way to the caller: the lease lives exactly as long as this stream.

However the stream ends (finished, failed, cut off, abandoned, revoked), it is settled once: the slot comes back, the
account learns the outcome, the session remembers the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from poe_gateway.chat import estimate
from poe_gateway.chat.events import (
    Bound,
    ChatEvent,
    Finished,
    FinishReason,
    Measured,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.openai_chat import Usage
from poe_gateway.chat.request import ChatRequest
from poe_gateway.dispatch.failover import as_error
from poe_gateway.errors import GatewayError, Overloaded, UpstreamTimeout
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.outcome import Cancelled, Outcome, Succeeded, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for one attempt; for headers, telemetry and the session."""

    number: int
    lease: Lease
    provider: str
    target: str
    """Upstream's name of the model."""
    session: str | None
    """``new``, ``continued``, ``replayed`` or ``moved``; None without a session."""


class Answer(msgspec.Struct, kw_only=True):
    """What the upstream has said so far."""

    pieces: list[str] = []
    tool_calls: list[dict[str, Any]] = []
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    points: int | None = None
    state: dict[str, Any] | None = None
    finish: FinishReason | None = None

    def observe(self, event: ChatEvent) -> None:
        """Take one event in."""
        if isinstance(event, TextDelta):
            self.pieces.append(event.text)
        elif isinstance(event, TextReplaced):
            self.pieces[:] = [event.text]
        elif isinstance(event, ToolCallDelta):
            self.tool_calls.extend(event.calls)
        elif isinstance(event, Measured):
            self.prompt_tokens = event.prompt_tokens if event.prompt_tokens is not None else self.prompt_tokens
            self.completion_tokens = (
                event.completion_tokens if event.completion_tokens is not None else self.completion_tokens
            )
            self.points = event.points if event.points is not None else self.points
        elif isinstance(event, Bound):
            self.state = event.state
        else:
            self.finish = event.reason

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def empty(self) -> bool:
        return not self.tool_calls and not any(self.pieces)


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
    ) -> None:
        self.request = request
        self.model = model
        self.attempt = attempt
        self.answer = answer
        self._head = head
        self._source = source
        self._deadline = deadline
        self._settle = settle
        self._revoked = False
        self._reader: asyncio.Task[Any] | None = None
        attempt.lease.on_revoked = self._revoke

    async def events(self) -> AsyncIterator[ChatEvent]:
        """Content events, then ``Finished``. Raises GatewayError when the answer breaks off."""
        self._reader = asyncio.current_task()
        loop = asyncio.get_running_loop()
        finished = any(isinstance(event, Finished) for event in self._head)
        try:
            async with aclosing(self._source):
                for event in self._head:
                    if not isinstance(event, Finished):
                        yield event
                while not finished:
                    try:
                        event = await anext(self._source)
                    except StopAsyncIteration:
                        break
                    self.answer.observe(event)
                    if isinstance(event, Finished):
                        finished = True
                    elif isinstance(event, TextDelta | TextReplaced | ToolCallDelta):
                        yield event
                        if loop.time() > self._deadline:
                            raise UpstreamFailure(Transient("the answer took too long", timeout=True), Fate.ACCEPTED)
            if not finished:
                raise UpstreamFailure(Transient("the answer was cut off"), Fate.ACCEPTED)
            if self.answer.empty and self.answer.finish == "stop":
                raise UpstreamFailure(Transient("the answer was empty"), Fate.ACCEPTED)
            self._settle(Succeeded(points=self.answer.points), None)
            yield Finished(self.answer.finish or "stop")
        except UpstreamFailure as failure:
            self._settle(failure.outcome, failure.fate)
            raise self._broken(as_error(failure.outcome, failure.fate)) from None
        except asyncio.CancelledError:
            self._settle(Cancelled(), None)
            if not self._revoked:
                raise
            reader = asyncio.current_task()
            if reader is not None:
                reader.uncancel()
            raise Overloaded(
                "The gateway lost its claim on the account.", code="capacity_lost", retry_after=1
            ) from None
        finally:
            self._settle(Cancelled(), None)  # abandoned; does nothing when settled above

    async def aclose(self) -> None:
        """Close the upstream's side if ``events`` was never begun, or was left early. Idempotent."""
        try:
            await self._source.aclose()
        finally:
            self._settle(Cancelled(), None)

    @staticmethod
    def _broken(error: GatewayError) -> GatewayError:
        if not isinstance(error, UpstreamTimeout):
            error.message = f"The answer broke off. {error.message}"
        return error

    def _revoke(self) -> None:
        self._revoked = True
        if self._reader is not None:
            self._reader.cancel()

    def usage(self) -> Usage:
        """Tokens of the exchange, estimated where the upstream told none."""
        answer = self.answer
        estimated = answer.prompt_tokens is None or answer.completion_tokens is None
        prompt = answer.prompt_tokens
        completion = answer.completion_tokens
        return Usage(
            prompt_tokens=estimate.prompt_tokens(self.request) if prompt is None else prompt,
            completion_tokens=estimate.tokens(len(answer.text)) if completion is None else completion,
            estimated=estimated,
            points=answer.points,
        )
