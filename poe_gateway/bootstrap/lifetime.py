"""What lives as long as the process: the loops that go on all the time, and what is due at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry

_AGAIN = 1.0
"""Seconds after which a loop that ended is begun anew."""
_LOST = 3.0
"""Seconds after which a task that goes on is asked once more to stop."""


class Tasks:
    """The tasks of one process, until ``stop``."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._running: set[asyncio.Task[None]] = set()

    def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for ever; an unforeseen end is told and the loop begun again."""

        async def forever() -> None:
            while True:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - a loop of the house must not die silently
                    detail = {"task": name, "error": type(error).__name__, "detail": str(error)[:200]}
                    self._telemetry.emit(Notice(level="error", message="a background task failed", fields=detail))
                await asyncio.sleep(_AGAIN)

        self._running.add(asyncio.create_task(forever(), name=name))

    def soon(self, work: Awaitable[None]) -> None:
        """Do something once, behind the back of whoever asks for it."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Cancel all; return when none runs any more."""
        running = set(self._running)
        while running:  # the driver may lose a cancellation, see ``storage.client``
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=_LOST)


class Ending:
    """What is due at the end of the process, told at the moment when it became due.

    What is handed over to other processes goes first, in the order of the start; then everything is closed in the
    opposite order. Each is done whatever became of those before it.
    """

    def __init__(self) -> None:
        self._handing_over: list[Callable[[], Awaitable[None]]] = []
        self._closing: list[Callable[[], Awaitable[None]]] = []

    def hand_over(self, work: Callable[[], Awaitable[None]]) -> None:
        """While everything is still open."""
        self._handing_over.append(work)

    def close(self, work: Callable[[], Awaitable[None]]) -> None:
        """After everything that is told later than this."""
        self._closing.append(work)

    async def __call__(self) -> None:
        """Do it all. A second call does nothing."""
        async with AsyncExitStack() as stack:
            for work in (*self._closing, *reversed(self._handing_over)):
                stack.push_async_callback(work)
            self._closing.clear()
            self._handing_over.clear()
