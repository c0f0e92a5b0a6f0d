"""Event loops on virtual time. A world holds one clock and one loop for each simulated process.

The world runs everything that is due, in the order in which it became due, then moves its clock to the next timer: no
time passes in between and nothing depends on the machine. A loop that is *frozen* is not run; what becomes due for it
waits, and is run when it is thawed. A loop that was *killed* is never run again. The world's own timers (``call_at``)
belong to no process: they are what goes on outside.
"""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from heapq import heappop, heappush
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BEGIN = datetime(2026, 6, 1, 7, 0, tzinfo=UTC)
"""The moment at which every world begins: midnight in Los Angeles."""


class Life(StrEnum):
    """Of a loop."""

    RUNNING = "running"
    FROZEN = "frozen"
    KILLED = "killed"


class Timer:
    """A moment outside of all processes."""

    __slots__ = ("_args", "_callback", "_cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args
        self._cancelled = False

    def cancel(self) -> None:
        """It does not come."""
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def run(self) -> None:
        """It comes."""
        self._callback(*self._args)


class World:
    """The clock, the timers of all loops, and the loops. ``now`` in seconds since ``BEGIN``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.loops: list[VirtualLoop] = []
        self.steps = 0
        """Callbacks that were run."""
        self._timers: list[tuple[float, int, Timer | asyncio.Handle, VirtualLoop | None]] = []
        self._due: deque[VirtualLoop] = deque()
        """Loops with something to run, in the order in which that became due."""
        self._number = 0
        self._stopped = False

    def loop(self, name: str) -> VirtualLoop:
        """A new loop, running."""
        loop = VirtualLoop(self, name)
        self.loops.append(loop)
        return loop

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Outside of all processes. What ``callback`` raises ends the run."""
        timer = Timer(callback, args)
        self.add_timer(when, timer, None)
        return timer

    def add_timer(self, when: float, handle: Timer | asyncio.Handle, loop: VirtualLoop | None) -> None:
        """``loop`` is given the handle when its time has come; without one it is the world's own."""
        self._number += 1
        heappush(self._timers, (max(when, self.now), self._number, handle, loop))

    def due(self, loop: VirtualLoop) -> None:
        """The loop has something to run."""
        self._due.append(loop)

    def run(self, until: float) -> None:
        """Everything that is due up to and including second ``until``. The clock stands there then."""
        timers, due = self._timers, self._due
        while not self._stopped:
            if due:
                due.popleft().run_due()
                continue
            if not timers or timers[0][0] > until:
                self.now = max(self.now, until)
                return
            when, _, handle, loop = heappop(timers)
            if handle.cancelled():
                continue
            self.now = when
            if isinstance(handle, Timer):
                self.steps += 1
                handle.run()
            elif loop is not None:
                loop.add(handle)

    def stop(self) -> None:
        """Run nothing any more; the clock stands still."""
        self._stopped = True

    def complete(self, loop: VirtualLoop, work: Coroutine[Any, Any, T], within: float) -> T:
        """Run the world until ``work`` on that loop is done. Raises TimeoutError after ``within`` virtual seconds."""
        task = loop.create_task(work)
        until = self.now + within
        while not task.done() and self.now < until and not self._stopped:
            self.run(min(until, self.now + 1.0))
        if not task.done():
            raise TimeoutError(f"not done within {within} virtual seconds")
        return task.result()

    def close(self) -> None:
        """Cancel what is left on all loops, dead ones too, so that nothing is found pending by the garbage collector.

        Time stands still meanwhile: a clean-up that waits for time is left alone.
        """
        for loop in self.loops:
            loop.end()
        for _ in range(100):
            waiting = [task for loop in self.loops for task in asyncio.all_tasks(loop)]
            if not waiting:
                break
            for task in waiting:
                task.cancel()
            while self._due:
                self._due.popleft().run_due()
        self._timers.clear()
        for loop in self.loops:
            loop.close()


class VirtualLoop(asyncio.BaseEventLoop):
    """The event loop of one process. Nothing of it touches the machine: no selector, no threads, no sockets."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.life = Life.RUNNING
        self.on_error: Callable[[str], None] = lambda text: None
        """Told of every exception that nobody took."""
        self._waiting: deque[asyncio.Handle] = deque()
        self._told_due = False
        self.set_exception_handler(self._unforeseen)

    def __repr__(self) -> str:
        return f"<VirtualLoop {self.name} {self.life} at {self.world.now:.3f}>"

    def time(self) -> float:
        return self.world.now

    def is_running(self) -> bool:
        """At this very moment."""
        return _get_running_loop() is self

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.add(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.add_timer(when, handle, self)
        return handle

    def add(self, handle: asyncio.Handle) -> None:
        """Something is due."""
        self._waiting.append(handle)
        if not self._told_due and self.life is Life.RUNNING:
            self._told_due = True
            self.world.due(self)

    def run_due(self) -> None:
        """What is due now; what becomes due by that comes after the other loops."""
        self._told_due = False
        if self.life is not Life.RUNNING:
            return
        waiting = self._waiting
        _set_running_loop(self)
        try:
            for _ in range(len(waiting)):
                handle = waiting.popleft()
                if not handle.cancelled():
                    self.world.steps += 1
                    handle._run()
        finally:
            _set_running_loop(None)
        if waiting and not self._told_due:
            self._told_due = True
            self.world.due(self)

    def freeze(self) -> None:
        """As if stopped by a signal."""
        if self.life is Life.RUNNING:
            self.life = Life.FROZEN

    def thaw(self) -> None:
        """Go on with everything that became due meanwhile."""
        if self.life is Life.FROZEN:
            self.end()

    def kill(self) -> None:
        """Nothing of it runs any more. Its tasks are kept as they are: their clean-up must not run either."""
        self.life = Life.KILLED

    def end(self) -> None:
        """Let it run (again), whatever it was."""
        self.life = Life.RUNNING
        if self._waiting and not self._told_due:
            self._told_due = True
            self.world.due(self)

    def _unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.on_error(f"{context.get('message')}: {type(error).__name__}: {error}" if error else str(context))


class WorldClock:
    """The clocks of one machine in the world. ``skew``: seconds by which its calendar is wrong; may be set anew."""

    def __init__(self, world: World, skew: float = 0.0) -> None:
        self._world = world
        self.skew = skew

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self._world.now + self.skew)

    def monotonic(self) -> float:
        return self._world.now
