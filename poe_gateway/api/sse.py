"""Sending server-sent events, with comments that keep an idle connection alive."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from poe_gateway.api.asgi import Send

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it."""
_IDLE = 15.0
"""Seconds without an event before a comment is sent; proxies commonly cut at 30 or 60."""


class KeepAlive:
    """Sends chunks of a body; ``: keep-alive`` comments fill silences. One timer for a whole stream."""

    def __init__(self, send: Send, idle: float = _IDLE) -> None:
        self._send = send
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._handle: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._handle = self._loop.call_later(self._idle, self._due)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._comment is not None:
            self._comment.cancel()

    def _due(self) -> None:
        wait = self._last + self._idle - self._loop.time()
        if wait <= 0 and (self._comment is None or self._comment.done()):
            self._comment = asyncio.ensure_future(self.send(KEEP_ALIVE))
        self._handle = self._loop.call_later(wait if wait > 0 else self._idle, self._due)

    async def send(self, chunk: bytes) -> None:
        """One piece of the body; more will follow."""
        self._last = self._loop.time()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
