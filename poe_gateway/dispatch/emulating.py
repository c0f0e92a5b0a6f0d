"""One request whose tools, form or end are emulated: the upstream is called, its answer read, and corrected once.

A correction is a further turn of the same conversation on the same account, not a retry: both calls are paid.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from poe_gateway.chat.emulation import turns
from poe_gateway.chat.emulation.cutting import Limit, Stops
from poe_gateway.chat.emulation.plan import Emulation
from poe_gateway.chat.emulation.reader import Ending, Reader
from poe_gateway.chat.emulation.tally import Tally
from poe_gateway.chat.emulation.validation import SchemaError
from poe_gateway.chat.events import Bound, ChatEvent, Discarded, Finished, Measured
from poe_gateway.chat.request import ChatRequest
from poe_gateway.pool.outcome import Rejected
from poe_gateway.upstreams.base import AccountRef, Fate, Upstream, UpstreamFailure


class Emulated:
    """One emulated answer. Use ``events()`` once."""

    def __init__(
        self,
        emulation: Emulation,
        upstream: Upstream,
        ref: AccountRef,
        model: str,
        request: ChatRequest,
        bound: Mapping[str, Any] | None,
        *,
        salt: str,
        count: Callable[[str], int] | None,
    ) -> None:
        self._emulation = emulation
        self._upstream = upstream
        self._ref = ref
        self._model = model
        self._request = turns.asked(request, emulation)
        self._bound = bound
        self._kept = bound is not None or request.session_id is not None
        """The upstream keeps the conversation for more turns."""
        self._name_call = partial(turns.call_id, request, salt)
        self._count = count
        self._stops = Stops(emulation.stop)
        self._tally = Tally()
        self._finished: Finished | None = None

    async def events(self) -> AsyncGenerator[ChatEvent, None]:
        """The answer. Closing the iterator early closes the upstream's. Raises UpstreamFailure."""
        reader = Reader(self._emulation, self._name_call)
        async with aclosing(self._read(reader)) as answer:
            async for event in answer:
                yield event
        ending = self._end(reader)
        if ending is not None and ending.problem:
            yield Discarded(reader.text)
            self._ask_again(reader.text, ending.problem)
            reader = Reader(self._emulation, self._name_call, again=True, shown=reader.shown)
            async with aclosing(self._read_again(reader)) as answer:
                async for event in answer:
                    yield event
            ending = self._end(reader)
            if ending is not None and ending.problem and not self._is_enough():
                yield Discarded(reader.text)
                raise UpstreamFailure(unusable(ending.problem), Fate.ACCEPTED)
        if ending is None:  # cut off, as the lack of ``Finished`` says
            return
        for event in (*self._stops.take(ending.events), *self._stops.rest()):
            yield event
        yield self._stopped() or ending.finished

    async def _read(self, reader: Reader) -> AsyncGenerator[ChatEvent, None]:
        """What may be shown of one call of the upstream, which is closed as soon as nothing more is wanted of it."""
        limit, stops = Limit(self._emulation.max_tokens, self._count), self._stops
        self._finished = None
        source = self._upstream.chat(self._ref, self._model, self._request, self._bound)
        async with aclosing(source) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self._finished = event
                    continue
                if isinstance(event, Bound):
                    self._bound = event.state
                shown = self._tally.take(event) if isinstance(event, Measured) else event
                for each in stops.take(reader.take(limit.take(shown))):
                    yield each
                if limit.full or stops.hit is not None:
                    self._finished = Finished("length") if stops.hit is None else self._stopped()
                    return

    async def _read_again(self, reader: Reader) -> AsyncGenerator[ChatEvent, None]:
        """The second call: whatever becomes of it, the caller's message was accepted by the first."""
        try:
            async with aclosing(self._read(reader)) as answer:
                async for event in answer:
                    yield event
        except UpstreamFailure as failure:
            if failure.fate is not Fate.NOT_SENT:
                raise
            raise UpstreamFailure(failure.outcome, Fate.ACCEPTED) from None

    def _ask_again(self, said: str, problem: str) -> None:
        goes_on = self._kept and self._bound is not None and self._upstream.capabilities.sessions
        self._request = turns.corrected(self._request, said, problem, self._emulation, goes_on=goes_on)
        if not goes_on:
            self._bound = None
        self._tally.next_call()

    def _end(self, reader: Reader) -> Ending | None:
        if self._finished is None:
            return None
        if self._stops.hit is not None:
            return Ending(finished=self._finished)
        try:
            return reader.end(self._finished)
        except SchemaError as error:
            public = f"The answer cannot be checked by the JSON schema that was sent: {error}."
            raise UpstreamFailure(Rejected(public=public, code="invalid_schema"), Fate.ACCEPTED) from None

    def _stopped(self) -> Finished | None:
        return None if self._stops.hit is None else Finished("stop", self._stops.hit)

    def _is_enough(self) -> bool:
        """Whether an answer in plain words will do."""
        offer = self._emulation.offer
        return self._emulation.output is None and (offer is None or offer.mode != "required")


def unusable(problem: str) -> Rejected:
    """The model does not do as it is told. The account is not to blame."""
    return Rejected(
        public=f"The model did not answer in the form asked for, twice. What was wrong last: {problem[:600]}.",
        status=502,
        code="invalid_output",
    )
