"""The opening of an answer: what is read before the caller is shown anything, so that a failure can still be hidden.

A streamed answer is held back for a moment after its first piece; an answer that is sent as a whole is read to its end,
since nothing of it reaches the caller before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from poe_gateway.chat.events import Bound, ChatEvent, Discarded, Measured, ReasoningDelta
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.stream import close
from poe_gateway.pool.outcome import Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure

_HELD = 16
"""Events that are held back at most."""


class Opening:
    """Reads the opening. ``head``: the events so far; ``pending``: a read that was begun and not finished."""

    def __init__(self, source: AsyncGenerator[ChatEvent, None], answer: Answer) -> None:
        self.head: list[ChatEvent] = []
        self.pending: asyncio.Task[ChatEvent | None] | None = None
        self._source = source
        self._answer = answer

    async def read(self, deadline: float, began: Callable[[], None], *, whole: bool) -> None:
        """Up to the first piece, or the whole answer. ``deadline``: on the loop's clock. Raises UpstreamFailure.

        ``began`` is called with the first piece.
        """
        shown = False
        try:
            async with asyncio.timeout_at(deadline):
                async for event in self._source:
                    self._take(event)
                    if not shown and (self.finished or self._shows(event)):
                        shown = True
                        began()
                    if self.finished or (shown and not whole):
                        break
                else:
                    text = "the answer was cut off" if shown else "the answer was cut off before it began"
                    raise UpstreamFailure(Transient(text), Fate.ACCEPTED)
        except TimeoutError:
            text, fate = ("the answer took too long", Fate.ACCEPTED) if shown else ("no answer in time", Fate.UNKNOWN)
            raise UpstreamFailure(Transient(text, timeout=True), fate) from None
        self._refuse_empty()

    async def hold_back(self, until: float) -> None:
        """A little more, up to ``until`` on the loop's clock. Raises UpstreamFailure."""
        loop = asyncio.get_running_loop()
        while not self.finished and len(self.head) < _HELD:
            left = until - loop.time()
            if left <= 0:
                return
            # Not a time-out around ``anext``: that would end the generator.
            self.pending = asyncio.ensure_future(_next(self._source))
            done, _ = await asyncio.wait((self.pending,), timeout=left)
            if not done:
                return
            event = self.pending.result()
            self.pending = None
            if event is None:
                raise UpstreamFailure(Transient("the answer was cut off"), Fate.ACCEPTED)
            self._take(event)
        self._refuse_empty()

    async def abandon(self) -> None:
        """Close the upstream's side."""
        await close(self._source, self.pending)

    def _shows(self, event: ChatEvent) -> bool:
        if isinstance(event, ReasoningDelta):
            return bool(event.text)
        return not (isinstance(event, Measured | Bound | Discarded) or self._answer.empty)

    @property
    def finished(self) -> bool:
        return self._answer.finish is not None

    def _take(self, event: ChatEvent) -> None:
        self.head.append(event)
        self._answer.observe(event)

    def _refuse_empty(self) -> None:
        if self._answer.finish == "stop" and self._answer.empty:
            raise UpstreamFailure(Transient("the answer was empty"), Fate.ACCEPTED)


async def _next(source: AsyncGenerator[ChatEvent, None]) -> ChatEvent | None:
    return await anext(source, None)
