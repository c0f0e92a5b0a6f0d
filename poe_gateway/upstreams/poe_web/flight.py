"""Single flight: many callers, one piece of work at a time, its result for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Joins callers to the work that is under way. The work outlives a caller that leaves."""

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    async def join(self, work: Callable[[], Awaitable[T]]) -> T:
        """Start ``work`` unless one is under way, and wait for its result or error."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(_as_coroutine(work))
            # An error that nobody is left to hear must not be reported as lost.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._task)


async def _as_coroutine(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
