"""The limiter of this process: takes from slices in memory, borrows ahead, gives back what others want.

A request waits only when its bucket's slice is used up here. It is refused only when the bucket itself has nothing
left: where others hold slices they are asked for what they do not use, and waited for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from poe_gateway.limits.borrowing import SURE, Borrowing
from poe_gateway.limits.bucket import Ask, Standing, comes_free, lapsed, spent_of, standing
from poe_gateway.limits.slices import Slice

_PATIENCE = 0.5
"""Seconds that a request waits for slices of other processes to come back."""
_LOOK = 0.05
"""Seconds between two attempts meanwhile."""
_SOON = 1.0
"""Seconds after which asking again is worth it where only reservations are in the way."""


class Exceeded(Exception):
    """A limit does not let the request through.

    ``in_flight``: only reservations, of requests under way or of other processes, are in the way; ``retry_after`` in
    seconds, None where waiting does not help.
    """

    def __init__(self, ask: Ask, standing: Standing, retry_after: float | None, *, in_flight: bool) -> None:
        super().__init__(ask.bucket.id)
        self.ask = ask
        self.standing = standing
        self.retry_after = retry_after
        self.in_flight = in_flight


class Hold:
    """What one request holds, until ``settle``."""

    __slots__ = ("_limiter", "_parts")

    def __init__(self, limiter: Limiter, parts: list[tuple[Slice, int, int]]) -> None:
        self._limiter = limiter
        self._parts = parts
        """Slice, amount and tick of the taking."""

    def settle(self, spent: Mapping[str, int]) -> None:
        """The truth, by bucket id; what is not named spent nothing (requests of rates stay counted). Idempotent."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        seconds = self._limiter.seconds()
        for piece, amount, then in parts:
            key = piece.key
            piece.open -= 1
            if key.counts_requests:
                continue
            piece.settle(amount, spent.get(key.id, 0), then, int(seconds) // key.tick_seconds)

    def release(self) -> None:
        """Nothing was spent."""
        self.settle({})


class Limiter(Borrowing):
    """What requests use: ``take`` and ``reserve``, and the ``Hold`` that settles."""

    def take(self, asks: Sequence[Ask]) -> Hold | None:
        """All of it from memory, or nothing.

        An ask of 0 is always granted; its request may turn out to use something, and is settled like the others.
        """
        now = self._clock.monotonic()
        slices = self._slices
        found: list[tuple[Slice, int]] = []
        for ask in asks:
            piece = slices.get(ask.bucket.id)
            if ask.amount > 0:
                if piece is None or piece.held < ask.amount or piece.cap != ask.cap or piece.stale(now):
                    return None
            else:
                if piece is None:
                    piece = self._slice(ask.bucket, ask.cap)
                piece.watched = True
            piece.key = ask.bucket  # tells how long the document is needed
            found.append((piece, ask.amount))
        seconds = self._clock.now().timestamp()
        parts: list[tuple[Slice, int, int]] = []
        for piece, amount in found:
            tick = int(seconds) // piece.key.tick_seconds
            piece.open += 1
            if amount > 0:
                piece.take(amount, tick, now)
                if not piece.moving and piece.hungry() and now >= piece.resting_until:
                    piece.resting_until = now + _LOOK
                    self._ahead(piece)
            parts.append((piece, amount, tick))
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
                told.append(piece.standing(ask.cap, seconds))
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
                    piece.refused, piece.refused_until = ask.amount, now + SURE
                    raise self._exceeded(ask, piece)
                await asyncio.sleep(_LOOK)
        finally:
            piece.needs -= ask.amount

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
        retry_after: float | None = None
        in_flight = False
        if known is not None and ask.amount <= ask.cap:
            current = lapsed(ask.bucket, known, now)
            retry_after = comes_free(ask.bucket, current, ask.amount - max(0, piece.held), ask.cap, now)
            used = spent_of(ask.bucket, current) + sum(piece.spent.values())
            in_flight = used + ask.amount <= ask.cap
            if in_flight:
                retry_after = _SOON if retry_after is None else min(retry_after, _SOON)
        return Exceeded(ask, piece.standing(ask.cap, now.timestamp()), retry_after, in_flight=in_flight)
