"""What this process has borrowed of one bucket, and what it did with it. Arithmetic in memory; nothing waits here."""

from __future__ import annotations

import asyncio

from poe_gateway.limits.bucket import STALE, TICKS, Bucket, BucketKey, Move, Standing

_STALE = STALE.total_seconds()
_AHEAD = 0.5
"""Seconds of demand that are borrowed ahead."""


class Slice:
    """Of one bucket under one cap. ``held``: borrowed and unused; ``used``: by requests under way (budgets, parallel).

    For a budget the bucket's lien is ``held`` + ``used`` + what is spent and not yet charged by the ledger; for
    parallel requests ``held`` + ``used``; for a rate ``held`` + ``spent``, which the next move books.
    """

    __slots__ = (
        "cap",
        "demand",
        "epoch",
        "held",
        "key",
        "known",
        "moved_at",
        "moving",
        "needs",
        "refused",
        "refused_until",
        "resting_until",
        "sending",
        "sent_at",
        "since",
        "spent",
        "taken",
        "used",
        "used_at",
        "wake",
    )

    def __init__(self, key: BucketKey, cap: int, now: float) -> None:
        self.key = key
        self.cap = cap
        self.held = 0
        self.used = 0
        self.spent: dict[int, int] = {}
        """Of a rate, by tick: not booked yet."""
        self.epoch = 0
        """Grows when everything held was given up: what was taken before concerns it no more."""
        self.known: Bucket | None = None
        self.sending: Move | None = None
        """A move whose fate is unknown: it goes out again as it was before any other."""
        self.moved_at = now
        """When the last move that was done was first sent: it was not done before."""
        self.sent_at = now
        self.used_at = now
        self.taken = 0
        """Since ``since``: the demand of late."""
        self.since = now
        self.demand = 0.0
        """Amount per second."""
        self.needs = 0
        """Of requests that wait for this slice."""
        self.moving = False
        """A move is under way."""
        self.refused = 0
        self.refused_until = 0.0
        """Until then as much as was refused is refused from memory."""
        self.resting_until = 0.0
        """Until then nothing is borrowed ahead."""
        self.wake: asyncio.Future[None] | None = None
        """Done when a move has ended."""

    def stale(self, now: float) -> bool:
        """Whether what is held here may have lapsed there."""
        return self.key.kind != "budget" and now - self.moved_at > _STALE

    def forget(self) -> None:
        """Give up all that is held without telling: the next move begins anew."""
        self.epoch += 1
        self.held = 0
        self.spent = {}

    def take(self, amount: int, tick: int, now: float) -> None:
        """Use some of what is held."""
        self.held -= amount
        self.taken += amount
        self.used_at = now
        if self.key.kind == "rate":
            self.spent[tick] = self.spent.get(tick, 0) + amount
        else:
            self.used += amount

    def settle(self, taken: int, spent: int, then: int, tick: int, epoch: int) -> None:
        """What was taken in tick ``then`` became ``spent``."""
        kind = self.key.kind
        if kind == "rate":
            more = spent - taken
            if more and epoch == self.epoch:
                when = tick if more > 0 else then
                if when > tick - TICKS:
                    self.held -= more
                    self.spent[when] = self.spent.get(when, 0) + more
            return
        self.used -= taken
        self.held += taken - (spent if kind == "budget" else 0)

    def hungry(self) -> bool:
        """Whether it should borrow ahead before somebody has to wait."""
        return self.held * 4 < self.demand * _AHEAD

    def wish(self, need: int) -> int:
        """How much to borrow at most when ``need`` is lacking."""
        return max(need, self.needs, int(self.demand * _AHEAD))

    def measure(self, now: float) -> None:
        """Take the demand since the last call into account."""
        passed = now - self.since
        if passed < 0.2:
            return
        rate = self.taken / passed
        self.demand = rate if rate > self.demand else 0.5 * (rate + self.demand)
        if self.demand < 0.01:
            self.demand = 0.0
        self.taken, self.since = 0, now

    def next_move(
        self,
        process: str,
        number: int,
        now: float,
        *,
        least: int,
        most: int,
        back: int,
        share: int,
        want: bool,
        stale: bool,
    ) -> Move:
        """The next step, its number above all earlier ones of the process.

        What it books leaves ``spent``; what it gives back leaves ``held``.
        """
        if stale:
            self.forget()
            back = 0
        debt = max(0, -self.held)
        if stale and self.key.kind == "parallel":
            debt += self.used
        booked, self.spent = self.spent, {}
        self.held -= back
        self.sent_at = now
        self.sending = Move(
            process=process,
            number=number,
            least=least,
            most=most,
            share=share,
            back=back,
            spent={tick: amount for tick, amount in booked.items() if amount},
            debt=debt,
            want=want,
            anew=stale,
        )
        return self.sending

    def moved(self, move: Move, granted: int, bucket: Bucket) -> None:
        """The step was done. A lien that may lapse is as large as the bucket says, whatever was believed here."""
        self.sending = None
        self.moved_at = self.sent_at
        self.known = bucket
        if self.key.kind == "budget":
            self.held += granted + move.debt
            return
        lien = bucket.liens.get(move.process)
        self.held = (0 if lien is None else lien.amount) - self.used - sum(self.spent.values())

    @property
    def idle(self) -> bool:
        """Whether there is nothing to tell the bucket."""
        return not (self.held or self.used or self.spent or self.sending is not None or self.needs)

    def standing(self, now_seconds: float) -> Standing:
        """As far as this process knows: the bucket at its last move, and its own use since."""
        known = self.known
        reserved = sum(lien.amount for lien in known.liens.values()) if known is not None else 0
        if self.key.kind == "rate":
            booked = sum(known.ticks.values()) if known is not None else 0
            remaining = self.cap - booked - reserved + self.held
            newest = max((*self.spent, *(known.ticks if known is not None else ())), default=None)
            resets = 0.0
            if newest is not None:
                resets = max(0.0, (newest + TICKS) * self.key.tick_seconds - now_seconds)
            return Standing(
                cap=self.cap, spent=self.cap - max(0, remaining), reserved=0, remaining=remaining, resets_in=resets
            )
        spent = known.spent if known is not None else 0
        ends = self.key.ends_at
        return Standing(
            cap=self.cap,
            spent=spent,
            reserved=max(0, reserved - max(0, self.held)),
            remaining=self.cap - spent - reserved + self.held,
            resets_in=None if ends is None else max(0.0, ends.timestamp() - now_seconds),
        )
