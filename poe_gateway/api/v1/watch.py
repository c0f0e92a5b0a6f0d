"""Whether the caller is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from poe_gateway.api.asgi import Receive

_GRACE = 0.02
"""Seconds before a request is worth watching for its caller's going away."""


class Gone(Exception):
    """The caller went away before the body was complete."""


class Watch:
    """Cancels the request's task when its caller goes away. Started late: most requests are answered before."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any], gone: Callable[[], None]) -> None:
        """``gone`` is called right before the cancellation."""
        self._receive = receive
        self._task = task
        self._gone = gone
        self._handle: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(_GRACE, self._begin)

    def _begin(self) -> None:
        self._watching = asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()
        self._task.cancel()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._watching is not None:
            self._watching.cancel()
