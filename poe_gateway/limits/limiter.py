"""The limiter of this process: takes from slices in memory, borrows ahead, gives back what others want.

A request waits only when its bucket's slice is used up here. It is refused only when the bucket itself has nothing
left: where others hold slices they are asked for what they do not use, and waited for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any

from poe_gateway.clock import Clock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.limits.bucket import STALE, Ask, BucketKey, Standing, comes_free, lapsed, spent_of, standing
from poe_gateway.limits.slices import Slice
from poe_gateway.limits.store import BucketStore

_PATIENCE = 0.5
"""Seconds that a request waits for slices of other processes to come back."""
_LOOK = 0.05
"""Seconds between two attempts meanwhile."""
_ROUND = 0.1
"""Seconds between two rounds over all slices."""
_BOOK = 2.0
"""Seconds after which spending of a rate is booked at the latest: until then it counts as borrowed."""
_IDLE = 2.0
"""Seconds without use after which a slice is given back."""
_RENEW = STALE.total_seconds() / 2
_FORGET = 60.0
_SURE = 0.1
"""Seconds for which a refusal is repeated from memory."""
_GRAIN = 64
"""Moves of one round that are under way at a time."""


class Exceeded(Exception):
    """A limit does not let the request through. ``in_flight``: only reservations of requests under way are in the way;
    ``retry_after`` in seconds, None where waiting does not help."""

    def __init__(self, ask: Ask, standing: Standing, retry_after: float | None, *, in_flight: bool) -> None:
        super().__init__(ask.bucket.id)
        self.ask = ask
        self.standing = standing
        self.retry_after = retry_after
        self.in_flight = in_flight


class Hold:
    """What one request holds, until ``settle``."""

    __slots__ = ("_limiter", "_parts")

    def __init__(self, limiter: Limiter, parts: list[tuple[Slice, int, int, int]]) -> None:
        self._limiter = limiter
        self._parts = parts
        """Slice, amount, tick and epoch of the taking."""

    def settle(self, spent: Mapping[str, int]) -> None:
        """The truth, by bucket id; what is not named spent nothing (requests of rates stay counted). Idempotent."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        seconds = self._limiter.seconds()
        for piece, amount, then, epoch in parts:
            key = piece.key
            if key.kind == "rate" and key.counts_requests:
                continue
            piece.settle(amount, spent.get(key.id, 0), then, int(seconds) // key.tick_seconds, epoch)

    def release(self) -> None:
        """Nothing was spent."""
        self.settle({})


class Limiter:
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

    # On the request's path.

    def take(self, asks: Sequence[Ask]) -> Hold | None:
        """All of it from memory, or nothing."""
        now = self._clock.monotonic()
        found: list[tuple[Slice, int]] = []
        for ask in asks:
            if ask.amount <= 0:
                continue
            piece = self._slices.get(ask.bucket.id)
            if piece is None or piece.held < ask.amount or piece.cap != ask.cap or piece.stale(now):
                return None
            piece.key = ask.bucket  # tells how long the document is needed
            found.append((piece, ask.amount))
        seconds = self.seconds()
        parts: list[tuple[Slice, int, int, int]] = []
        for piece, amount in found:
            tick = int(seconds) // piece.key.tick_seconds
            piece.take(amount, tick, now)
            parts.append((piece, amount, tick, piece.epoch))
            if piece.hungry() and not piece.moving and now >= piece.resting_until:
                piece.resting_until = now + _LOOK
                self._ahead(piece)
        return Hold(self, parts)

    async def reserve(self, asks: Sequence[Ask]) -> Hold:
        """The same, and borrow what is lacking. Raises Exceeded, StoreUnavailable."""
        deadline = self._clock.monotonic() + _PATIENCE
        while True:
            hold = self.take(asks)
            if hold is not None:
                return hold
            for ask in asks:
                if ask.amount > 0:
                    await self._provide(ask, deadline)

    def standings(self, asks: Sequence[Ask]) -> list[Standing]:
        """How the buckets stand, as far as this process knows."""
        seconds = self.seconds()
        told = []
        for ask in asks:
            piece = self._slices.get(ask.bucket.id)
            if piece is None:
                told.append(standing(ask.bucket, None, ask.cap, self._clock.now()))
            else:
                told.append(piece.standing(seconds))
        return told

    async def _provide(self, ask: Ask, deadline: float) -> None:
        """Return when the slice can pay the ask, perhaps. Raises Exceeded, StoreUnavailable."""
        piece = self._slice(ask.bucket, ask.cap)
        if ask.amount > ask.cap:
            raise self._exceeded(ask, piece)
        piece.needs += ask.amount
        try:
            while True:
                now = self._clock.monotonic()
                if piece.cap == ask.cap and piece.held >= ask.amount and not piece.stale(now):
                    return
                if now < piece.refused_until and piece.cap == ask.cap and ask.amount >= piece.refused:
                    raise self._exceeded(ask, piece)
                if piece.moving:
                    await self._ended(piece)
                    continue
                back = 0
                if piece.cap != ask.cap:  # what was borrowed under another cap is given back first
                    piece.cap, back = ask.cap, max(0, piece.held)
                lacking = ask.amount - (piece.held - back)
                await self._step(piece, least=lacking, most=piece.wish(lacking), back=back, want=True)
                if piece.held >= ask.amount:
                    return
                now = self._clock.monotonic()
                if now >= deadline or not self._may_come(piece, ask.amount):
                    piece.refused, piece.refused_until = ask.amount, now + _SURE
                    raise self._exceeded(ask, piece)
                await asyncio.sleep(_LOOK)
        finally:
            piece.needs -= ask.amount

    def _slice(self, key: BucketKey, cap: int) -> Slice:
        piece = self._slices.get(key.id)
        if piece is None:
            piece = self._slices[key.id] = Slice(key, cap, self._clock.monotonic())
        return piece

    def _may_come(self, piece: Slice, amount: int) -> bool:
        """Whether others hold what would be enough if they gave it back."""
        known = piece.known
        return (
            known is not None
            and any(lien.amount > 0 for process, lien in known.liens.items() if process != self._process)
            and spent_of(piece.key, lapsed(piece.key, known, self._clock.now())) + amount <= piece.cap
        )

    def _exceeded(self, ask: Ask, piece: Slice) -> Exceeded:
        now, known = self._clock.now(), piece.known
        stands = piece.standing(now.timestamp())
        retry_after: float | None = None
        in_flight = False
        if known is not None and ask.amount <= ask.cap:
            own = lapsed(ask.bucket, known, now)
            retry_after = comes_free(ask.bucket, own, ask.amount - max(0, piece.held), ask.cap, now)
            in_flight = ask.bucket.kind != "rate" and spent_of(ask.bucket, own) + ask.amount <= ask.cap
        return Exceeded(ask, stands, retry_after, in_flight=in_flight)

    # Moves.

    async def _ended(self, piece: Slice) -> None:
        """Wait for the end of the move that is under way."""
        if piece.wake is None:
            piece.wake = asyncio.get_running_loop().create_future()
        await asyncio.shield(piece.wake)

    async def _step(self, piece: Slice, *, least: int = 0, most: int = 0, back: int = 0, want: bool = False) -> None:
        """One move, after one of unknown fate has been sent again. Only one at a time. Raises StoreUnavailable."""
        assert not piece.moving  # noqa: S101 - callers look
        piece.moving = True
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
        finally:
            piece.moving = False
            if piece.wake is not None:
                piece.wake.set_result(None)
                piece.wake = None

    async def _send(self, piece: Slice) -> None:
        move = piece.sending
        assert move is not None  # noqa: S101 - see _step
        moved = await self._store.move(piece.key, move, piece.cap, self._clock.now())
        piece.moved(move, moved.granted, moved.bucket)

    def _ahead(self, piece: Slice) -> None:
        """Borrow in the background; whoever needs it while that fails is told then."""

        async def borrow() -> None:
            if piece.moving:
                return
            before = piece.held
            with contextlib.suppress(StoreUnavailable):
                await self._step(piece, least=1, most=piece.wish(1))
            if piece.held <= before:  # near the cap: those who need some will ask for themselves
                piece.resting_until = self._clock.monotonic() + _SURE

        self._start(borrow())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What goes on all the time.

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
                or (piece.spent and late >= _BOOK)
                or (piece.key.kind != "budget" and (piece.held or piece.used) and late >= _RENEW)
            ):
                due.append((piece, back))
            elif piece.idle and now - piece.used_at > _FORGET:
                del self._slices[bucket_id]
        await self._all(due)

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
        await self._all([(piece, 0) for piece in self._slices.values() if piece.spent or piece.sending is not None])

    async def leave(self) -> None:
        """Give everything back: this process is about to end. Raises StoreUnavailable."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A move of unknown fate may bring some more when it is sent again.
        while left := [piece for piece in self._slices.values() if piece.held or piece.spent or piece.sending]:
            await self._all([(piece, max(0, piece.held)) for piece in left])
