"""What a caller is told while its request stands in line: headers with the answer, comments on a stream that waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from poe_gateway.api.asgi import Send
from poe_gateway.api.errors import Headers
from poe_gateway.api.sse import KEEP_ALIVE
from poe_gateway.clock import Clock
from poe_gateway.pool.queue import Place

Where = Callable[[], Place | None]
"""The present place of a request; None when it has its slot and waits for the upstream only."""


class Waiting:
    """Of one request. ``joined`` is called when the request has joined the line, perhaps again after a failed attempt.

    A response that ``begins`` early is started when the request still stands in line ``after`` seconds later: ``begin``
    sends its start, then a comment follows every ``every`` seconds until ``stop``.
    """

    __slots__ = (
        "_after",
        "_begin",
        "_clock",
        "_every",
        "_handle",
        "_send",
        "_since",
        "_task",
        "_where",
        "_writing",
        "begins",
        "begun",
        "first",
    )

    def __init__(
        self, begin: Callable[[], Awaitable[None]], send: Send, *, clock: Clock, after: float, every: float
    ) -> None:
        self.first: Place | None = None
        """The place at joining; None when the request did not wait."""
        self.begins = False
        self.begun = False
        """Whether the response has been started from here."""
        self._begin = begin
        self._send = send
        self._clock = clock
        self._since = 0.0
        self._after = after
        self._every = every
        self._where: Where | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Lock | None = None

    def joined(self, where: Where) -> None:
        """The request stands in line; ``where`` tells its place for as long as it does."""
        self._where = where
        if self.first is None:
            self.first, self._since = where(), self._clock.monotonic()
        if self.begins and self._handle is None and self._task is None:
            self._handle = asyncio.get_running_loop().call_later(self._after, self._due)

    def headers(self) -> Headers:
        """``x-gateway-queue-*`` as of joining; none when the request did not wait."""
        if self.first is None:
            return []
        headers = [(b"x-gateway-queue-position", str(self.first.position).encode())]
        if self.first.expected is not None:
            headers.append((b"x-gateway-queue-expected-ms", str(int(self.first.expected * 1000)).encode()))
        return headers

    def seconds(self) -> float:
        """Since joining."""
        return self._clock.monotonic() - self._since

    def _due(self) -> None:
        self._handle = None
        if self._where is not None and self._where() is not None:
            self._writing = asyncio.Lock()
            self._task = asyncio.ensure_future(self._tell(self._writing))

    async def _tell(self, writing: asyncio.Lock) -> None:
        async with writing:
            self.begun = True
            await self._begin()
        while True:
            async with writing:
                await self._send({"type": "http.response.body", "body": self._comment(), "more_body": True})
            await asyncio.sleep(self._every)

    def _comment(self) -> bytes:
        place = self._where() if self._where is not None else None
        if place is None:
            return KEEP_ALIVE
        expected = "" if place.expected is None else f" expected={math.ceil(place.expected)}s"
        return f": queued position={place.position}{expected}\n\n".encode()

    async def stop(self) -> BaseException | None:
        """Tell no more. What is being sent is sent to its end; afterwards nothing is written from here.

        What telling failed with, once.
        """
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        task, writing = self._task, self._writing
        if task is None or writing is None:
            return None
        async with writing:
            task.cancel()
        self._task = None
        return task.exception() if task.done() and not task.cancelled() else None

    def abandon(self) -> None:
        """Nobody is left to be told. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        task = self._task
        if task is not None and not task.cancel() and not task.cancelled():
            task.exception()  # sending failed: the caller was gone
