"""What this process borrows: one slice a bucket, one move at a time, booked, renewed and given back in rounds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any

from poe_gateway.clock import Clock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import STALE, Bucket
from poe_gateway.limits.keys import BucketKey
from poe_gateway.limits.slices import Slice
from poe_gateway.limits.store import BucketStore

_ROUND = 0.1
"""Seconds between two rounds over all slices."""
_BOOK = 2.0
"""Seconds after which spending of a rate is booked at the latest: until then it counts as borrowed."""
_IDLE = 2.0
"""Seconds without use after which a slice is given back."""
_RENEW = STALE.total_seconds() / 2
"""Seconds after which a lien that may lapse is moved again."""
_TELL = 1.0
"""Seconds between two looks at a bucket of which requests need nothing."""
_FORGET = 60.0
"""Seconds without use or news after which a slice that holds nothing is dropped."""
_GRAIN = 64
"""Moves of one round that are under way at a time."""
SURE = 0.1
"""Seconds for which a refusal is repeated from memory, and nothing is borrowed ahead where nothing was to be had."""


class Borrowing:
    """Slices by bucket. ``process`` borrows under this name; ``live``: how many processes share the buckets."""

    def __init__(self, *, store: BucketStore, process: str, clock: Clock, live: Callable[[], int] = lambda: 1) -> None:
        self._store = store
        self._process = process
        self._clock = clock
        self._live = live
        self._slices: dict[str, Slice] = {}
        self._numbers = itertools.count(1)
        """Of moves: a slice that was forgotten and comes back must not repeat one."""
        self._tasks: set[asyncio.Task[None]] = set()

    def seconds(self) -> float:
        """Epoch seconds on the database's clock."""
        return self._clock.now().timestamp()

    def _slice(self, key: BucketKey, cap: int) -> Slice:
        piece = self._slices.get(key.id)
        if piece is None:
            piece = self._slices[key.id] = Slice(key, cap, self._clock.monotonic())
        return piece

    async def _ended(self, piece: Slice) -> None:
        """Wait for the end of the move that is under way. Raises its StoreUnavailable: one failure is enough for all
        who wait, who would otherwise fail one after the other."""
        if piece.wake is None:
            piece.wake = asyncio.get_running_loop().create_future()
        await asyncio.shield(piece.wake)

    async def _step(self, piece: Slice, *, least: int = 0, most: int = 0, back: int = 0, want: bool = False) -> None:
        """One move, after one of unknown fate has been sent again. Only one at a time. Raises StoreUnavailable."""
        assert not piece.moving  # noqa: S101 - callers look
        piece.moving = True
        failed: StoreUnavailable | None = None
        try:
            if piece.sending is not None:
                await self._send(piece)
                back = min(back, max(0, piece.held))
            stale = piece.stale(self._clock.monotonic())
            share = 2 * max(1, self._live())
            number = next(self._numbers)
            piece.next_move(
                self._process,
                number,
                self._clock.monotonic(),
                least=least,
                most=most,
                back=back,
                share=share,
                want=want,
                stale=stale,
            )
            await self._send(piece)
        except StoreUnavailable as error:
            failed = error
            raise
        finally:
            piece.moving = False
            wake, piece.wake = piece.wake, None
            if wake is not None and failed is not None:
                wake.set_exception(failed)
                wake.exception()  # nobody need be there any more to hear it
            elif wake is not None:
                wake.set_result(None)

    async def _send(self, piece: Slice) -> None:
        move = piece.sending
        assert move is not None  # noqa: S101 - see _step
        moved = await self._store.move(piece.key, move, piece.cap, self._clock.now())
        piece.moved(move, moved.granted, moved.bucket, self._clock.monotonic())

    def _ahead(self, piece: Slice) -> None:
        """Borrow in the background; whoever needs it while that fails is told then."""

        async def borrow() -> None:
            if piece.moving:
                return
            before = piece.held
            with contextlib.suppress(StoreUnavailable):
                await self._step(piece, least=1, most=piece.wish(1))
            if piece.held <= before:  # near the cap: those who need some will ask for themselves
                piece.resting_until = self._clock.monotonic() + SURE

        self._start(borrow())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Book, renew, give back what is idle or wanted, for ever."""
        while True:
            await asyncio.sleep(_ROUND)
            with contextlib.suppress(StoreUnavailable):  # tried again in the next round
                await self.round()

    async def round(self) -> None:
        """One round over all slices. Raises StoreUnavailable."""
        now = self._clock.monotonic()
        wanted = await self._wanted()
        due: list[tuple[Slice, int]] = []
        for bucket_id, piece in list(self._slices.items()):
            piece.measure(now)
            if piece.moving:
                continue
            back = self._surplus(piece, wanted.get(bucket_id, {}), now)
            late = now - piece.moved_at
            if (
                back
                or piece.held < 0
                or piece.sending is not None
                or (piece.unbooked and late >= _BOOK)
                or (piece.key.kind != "budget" and (piece.held or piece.used) and late >= _RENEW)
            ):
                due.append((piece, back))
            elif piece.idle and now - max(piece.used_at, piece.told_at) > _FORGET:
                del self._slices[bucket_id]
        await self._all(due)
        await self._look(now)

    def _surplus(self, piece: Slice, wanted: Mapping[str, datetime], now: float) -> int:
        """How much is to be given back now."""
        others = any(process != self._process for process in wanted)
        # Of those that wait with a part each, one keeps its part: else all would wait for each other.
        if piece.held <= 0 or (piece.needs and self._process <= min(wanted, default=self._process)):
            return 0
        return piece.held if others or now - piece.used_at >= _IDLE else 0

    async def _wanted(self) -> dict[str, dict[str, datetime]]:
        """Who was refused while we hold something; nobody else is there to want anything when we are alone."""
        if self._live() <= 1:
            return {}
        held = [bucket_id for bucket_id, piece in self._slices.items() if piece.held > 0]
        return await self._store.wanted(held) if held else {}

    async def _look(self, now: float) -> None:
        """Learn how buckets stand that requests name and need nothing of. Raises StoreUnavailable."""
        watched = [
            bucket_id
            for bucket_id, piece in self._slices.items()
            if piece.watched and not piece.moving and (piece.known is None or now - piece.told_at >= _TELL)
        ]
        if not watched:
            return
        known = await self._store.read(watched)
        for bucket_id in watched:
            piece = self._slices.get(bucket_id)
            bucket = known.get(bucket_id, Bucket(id=bucket_id))
            # A move that ended meanwhile knows better.
            if piece is not None and not piece.moving and (piece.known is None or bucket.rev >= piece.known.rev):
                piece.learn(bucket, self._process, now)

    async def _all(self, due: Sequence[tuple[Slice, int]]) -> None:
        """Moves of many slices, some at a time. Raises the first failure when all have ended."""
        failed: StoreUnavailable | None = None
        for start in range(0, len(due), _GRAIN):
            steps = [self._tend(piece, back) for piece, back in due[start : start + _GRAIN]]
            for result in await asyncio.gather(*steps, return_exceptions=True):
                if isinstance(result, StoreUnavailable):
                    failed = result
                elif isinstance(result, BaseException):
                    raise result
            if failed is not None:
                raise failed

    async def _tend(self, piece: Slice, back: int) -> None:
        """One move, unless a request began one meanwhile; what was used meanwhile is not given back."""
        if not piece.moving:
            await self._step(piece, back=min(back, max(0, piece.held)))

    async def flush(self) -> None:
        """Book everything that is spent. Raises StoreUnavailable."""
        await self._all([(piece, 0) for piece in self._slices.values() if piece.unbooked or piece.sending is not None])

    async def leave(self) -> None:
        """Give everything back: this process is about to end. Raises StoreUnavailable."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A move of unknown fate may bring some more when it is sent again.
        while left := [piece for piece in self._slices.values() if piece.held or piece.unbooked or piece.sending]:
            await self._all([(piece, max(0, piece.held)) for piece in left])
