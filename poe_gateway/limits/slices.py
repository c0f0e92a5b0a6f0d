"""What this process has borrowed of one bucket, and what it did with it. Arithmetic in memory; nothing waits here."""

from __future__ import annotations

import asyncio

from poe_gateway.limits.bucket import STALE, TICKS, Bucket, Move, Standing
from poe_gateway.limits.keys import BucketKey

_STALE = STALE.total_seconds()
_AHEAD = 0.5
"""Seconds of demand that are borrowed ahead."""


class Slice:
    """Of one bucket under one cap. ``held``: borrowed and unused; ``used``: by requests under way (budgets, parallel).

    For a budget the bucket's lien is ``held`` + ``used`` + what is spent and not yet charged by the ledger; for
    parallel requests ``held`` + ``used``; for a rate ``held`` + ``spent``, which the next move books. Below zero,
    ``held`` is a debt: requests cost more than was reserved for them, and the next move borrows it.
    """

    __slots__ = (
        "booked",
        "cap",
        "demand",
        "held",
        "key",
        "known",
        "lien",
        "moved_at",
        "moving",
        "needs",
        "newest",
        "oldest",
        "open",
        "others",
        "refused",
        "refused_until",
        "resting_until",
        "returned",
        "sending",
        "sent_at",
        "since",
        "spent",
        "taken",
        "told_at",
        "used",
        "used_at",
        "wake",
        "watched",
    )

    def __init__(self, key: BucketKey, cap: int, now: float) -> None:
        self.key = key
        self.cap = cap
        self.held = 0
        self.used = 0
        self.open = 0
        """Requests under way that took of it, be it nothing: they will be settled here."""
        self.spent: dict[int, int] = {}
        """Of a rate, by tick: not booked yet."""
        self.returned: dict[int, int] = {}
        """Of a rate, by tick: booked, and not used after all. Nobody's until a move has told so."""
        self.known: Bucket | None = None
        self.booked = self.others = self.lien = 0
        """Of ``known``: spent, borrowed by others, borrowed by this process."""
        self.oldest = self.newest = 0
        """Of ``known``: its first and last tick."""
        self.told_at = now
        """When ``known`` was heard of."""
        self.watched = False
        """Somebody who needs nothing of it wants to know how it stands."""
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
        """Whether the lien that was borrowed here may have lapsed there."""
        return now - self.moved_at > _STALE and self.key.kind != "budget"

    def _forget(self) -> None:
        """Give up the lien without telling: all of a rate's counts as used there. What went beyond it is still a debt.

        Corrections of what was taken before are told all the same: it is counted there, be it in another tick.
        """
        over = max(0, -self.held) if self.spent else 0
        self.spent = {max(self.spent): over} if over else {}
        self.held = -over

    def take(self, amount: int, tick: int, now: float) -> None:
        """Use some of what is held."""
        self.held -= amount
        self.taken += amount
        self.used_at = now
        if self.key.kind == "rate":
            self.spent[tick] = self.spent.get(tick, 0) + amount
        else:
            self.used += amount

    def settle(self, taken: int, spent: int, then: int, tick: int) -> None:
        """What was taken in tick ``then`` became ``spent``."""
        kind = self.key.kind
        if kind == "rate":
            if spent > taken:
                self.held -= spent - taken
                self.spent[tick] = self.spent.get(tick, 0) + spent - taken
            elif spent < taken and then > tick - TICKS:
                self._return(taken - spent, then)
            return
        self.used -= taken
        self.held += taken - (spent if kind == "budget" else 0)

    def _return(self, amount: int, tick: int) -> None:
        """Not used after all. What is not booked yet can be used again at once."""
        unbooked = self.spent.get(tick, 0)
        if unbooked > amount:
            self.spent[tick] = unbooked - amount
            self.held += amount
            return
        if unbooked > 0:
            del self.spent[tick]
            self.held += unbooked
            amount -= unbooked
        if amount:
            self.returned[tick] = self.returned.get(tick, 0) + amount

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

        What it books leaves ``spent`` and ``returned``; what it gives back leaves ``held``.
        """
        if stale:
            self._forget()
            back = 0
        debt = max(0, -self.held)
        if stale and self.key.kind == "parallel":
            debt += self.used
        booked, self.spent = self.spent, {}
        for tick, amount in self.returned.items():
            booked[tick] = booked.get(tick, 0) - amount
        self.returned = {}
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

    def moved(self, move: Move, granted: int, bucket: Bucket, now: float) -> None:
        """The step was done. A lien that may lapse is as large as the bucket says, whatever was believed here."""
        self.sending = None
        self.moved_at = self.sent_at
        self.learn(bucket, move.process, now)
        if self.key.kind == "budget":
            self.held += granted + move.debt
        else:
            self.held = self.lien - self.used - sum(self.spent.values())

    def learn(self, bucket: Bucket, process: str, now: float) -> None:
        """How the bucket stands, as was heard at ``now``."""
        self.known, self.told_at, self.watched = bucket, now, False
        self.booked = sum(bucket.ticks.values()) if self.key.kind == "rate" else bucket.spent
        self.oldest = min(bucket.ticks, default=0)
        self.newest = max(bucket.ticks, default=0)
        self.others, self.lien = 0, 0
        for holder, lien in bucket.liens.items():
            if holder == process:
                self.lien = lien.amount
            elif lien.amount > 0:
                self.others += lien.amount

    @property
    def unbooked(self) -> bool:
        """Whether there is anything to book."""
        return bool(self.spent or self.returned)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to tell the bucket, nor will be."""
        return not (self.held or self.open or self.unbooked or self.sending is not None or self.needs)

    def standing(self, cap: int, now: float) -> Standing:
        """At epoch second ``now``, as far as this process knows: the bucket when last heard of, its own use since."""
        used = self.lien - self.held  # here, of what the bucket believes to be lent
        if self.key.kind == "rate":
            booked, newest = self.booked, self.newest
            first = int(now) // self.key.tick_seconds - TICKS + 1
            if self.oldest < first and self.known is not None:
                booked = sum(amount for tick, amount in self.known.ticks.items() if tick >= first)
            if self.spent:
                newest = max(newest, max(self.spent))
            remaining = cap - booked - self.others - used + sum(self.returned.values())
            resets = max(0.0, (newest + TICKS) * self.key.tick_seconds - now) if newest else 0.0
            return Standing(cap=cap, spent=cap - max(0, remaining), reserved=0, remaining=remaining, resets_in=resets)
        ends = self.key.ends_at
        return Standing(
            cap=cap,
            spent=self.booked,
            reserved=self.others + used,
            remaining=cap - self.booked - self.others - used,
            resets_in=None if ends is None else max(0.0, ends.timestamp() - now),
        )
