"""One counted thing: what is spent of it, and what processes have borrowed of it. Pure arithmetic on frozen values.

A process never asks before it spends: it borrows a slice and spends from memory. At every instant
``spent in the window + borrowed <= cap`` by this document, and what a process spends comes out of what it borrowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from poe_gateway.limits.keys import BucketKey

V = TypeVar("V")

TICKS = 60
"""Ticks of a rate's window: what is spent in one of them is free again when so many have begun after it."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
LAPSE = timedelta(seconds=60)
"""After this long without a move of its holder, a lien on a rate or on parallel requests does not count any more."""
STALE = LAPSE / 2
"""After this long the holder itself does not use it any more."""
_MARKED = timedelta(seconds=2)
"""A refused process that does not ask again is not waited for: others need not do without slices for it."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to use ``amount`` of a bucket under the cap that is in force now."""

    bucket: BucketKey
    amount: int
    cap: int


class Lien(msgspec.Struct, frozen=True):
    """What one process has borrowed and not spent, and when it last moved anything."""

    amount: int
    at: datetime


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """The document. ``rev`` grows with every change."""

    id: str
    rev: int = 0
    spent: int = 0
    """Of a budget, for ever; rates keep ``ticks``."""
    ticks: dict[int, int] = {}
    """Tick number -> what was spent in it."""
    liens: dict[str, Lien] = {}
    """By process."""
    applied: dict[str, int] = {}
    """Process -> place in its spool up to which its rows are counted in ``spent``."""
    moves: dict[str, tuple[int, int]] = {}
    """Process -> number of its last move and what that granted: one of unknown fate may be sent again."""
    wanted: dict[str, datetime] = {}
    """Processes that were refused, and when."""

    @property
    def holders(self) -> set[str]:
        """Processes of which it knows anything."""
        return {*self.liens, *self.applied, *self.moves, *self.wanted}


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What a process changes in one step: gives ``back``, books what it ``spent`` (rates), borrows.

    ``number`` grows with every move of the process on this bucket. It borrows at least ``least`` or nothing, at most
    ``most``, and of what is free not more than one ``share``-th unless it needs it; ``debt`` is borrowed whatever the
    cap says: it is used already.
    """

    process: str
    number: int
    least: int = 0
    most: int = 0
    share: int = 1
    back: int = 0
    spent: dict[int, int] = {}
    debt: int = 0
    want: bool = False
    anew: bool = False
    """The process was away for so long that its lien may have lapsed: what is left of it counts as if it had."""


class Charge(Protocol):
    """Spending of a budget by the row at ``seq`` of a process's spool. A correction does not come out of a lien."""

    @property
    def seq(self) -> int: ...
    @property
    def amount(self) -> int: ...
    @property
    def from_lien(self) -> bool: ...


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a bucket stands. ``resets_in``: seconds until what is spent now has left the window or the window ends."""

    cap: int
    spent: int
    reserved: int
    remaining: int
    resets_in: float | None


def tick_of(key: BucketKey, now: datetime) -> int:
    """Number of the tick at ``now``."""
    return int(now.timestamp()) // key.tick_seconds


def lapsed(key: BucketKey, bucket: Bucket, now: datetime) -> Bucket:
    """The bucket as it is at ``now``: old ticks have left the window, forgotten liens have lapsed."""
    if key.kind == "budget":
        return bucket
    gone = [process for process, lien in bucket.liens.items() if now - lien.at > LAPSE]
    if gone:
        bucket = _forgotten(key, bucket, gone)
    oldest = tick_of(key, now) - TICKS
    if any(tick <= oldest for tick in bucket.ticks):
        bucket = replace(bucket, ticks={tick: amount for tick, amount in bucket.ticks.items() if tick > oldest})
    return bucket


def _forgotten(key: BucketKey, bucket: Bucket, processes: Iterable[str]) -> Bucket:
    """Without the liens of processes. Of a rate they may have used all of it, as late as they could."""
    ticks, liens = bucket.ticks, dict(bucket.liens)
    for process in processes:
        lien = liens.pop(process, None)
        if lien is not None and key.kind == "rate" and lien.amount > 0:
            ticks = _plus(ticks, tick_of(key, lien.at + STALE), lien.amount)
    return replace(bucket, ticks=ticks, liens=liens)


def spent_of(key: BucketKey, bucket: Bucket) -> int:
    """Spent within the window, of a bucket as of now."""
    return sum(bucket.ticks.values()) if key.kind == "rate" else bucket.spent


def reserved_of(bucket: Bucket) -> int:
    """Borrowed by all processes together.

    A lien below zero is a debt whose row was charged before the debt was told: ``spent`` holds it already, and it must
    not let others borrow as much more.
    """
    return sum(lien.amount for lien in bucket.liens.values() if lien.amount > 0)


def free(key: BucketKey, bucket: Bucket, cap: int) -> int:
    """What may still be borrowed, of a bucket as of now; negative when debts went beyond the cap."""
    return cap - spent_of(key, bucket) - reserved_of(bucket)


def move(key: BucketKey, bucket: Bucket, wish: Move, cap: int, now: datetime) -> tuple[Bucket, int]:
    """The bucket after the move, and what was granted (debt not counted)."""
    done = bucket.moves.get(wish.process)
    if done is not None and done[0] >= wish.number:
        return bucket, done[1] if done[0] == wish.number else 0
    bucket = lapsed(key, bucket, now)
    if wish.anew:
        bucket = _forgotten(key, bucket, (wish.process,))
    lien = bucket.liens.get(wish.process, Lien(0, now)).amount
    # What lapsed meanwhile is free already (of a rate: counted), so it can be neither given back nor booked.
    lien -= (wish.back if key.kind == "budget" else min(wish.back, lien)) - wish.debt
    ticks = bucket.ticks
    for tick in sorted(wish.spent, reverse=True):
        amount = max(min(wish.spent[tick], lien), -ticks.get(tick, 0))
        lien -= amount
        ticks = _plus(ticks, tick, amount)
    wanted = {other: at for other, at in bucket.wanted.items() if other != wish.process and now - at < _MARKED}
    bucket = replace(bucket, ticks=ticks, liens=_with(bucket.liens, wish.process, lien, now), wanted=wanted)
    granted = 0
    if wish.most > 0:
        available = free(key, bucket, cap)
        if available >= max(1, wish.least):
            granted = min(available, max(1, wish.least, min(wish.most, available // wish.share)))
            liens = _with(bucket.liens, wish.process, lien + granted, now)
            bucket = replace(bucket, liens=liens)
        elif wish.want:
            bucket = replace(bucket, wanted={**wanted, wish.process: now})
    moves = {**bucket.moves, wish.process: (wish.number, granted)}
    return replace(bucket, rev=bucket.rev + 1, moves=moves), granted


def charge(bucket: Bucket, process: str, entries: Sequence[Charge]) -> Bucket:
    """Count rows of a spool that are not counted yet; the same bucket when there are none."""
    last = bucket.applied.get(process, 0)
    fresh = [entry for entry in entries if entry.seq > last]
    if not fresh:
        return bucket
    spent = bucket.spent + sum(entry.amount for entry in fresh)
    out = sum(entry.amount for entry in fresh if entry.from_lien)
    liens = bucket.liens
    if out:
        present = liens.get(process, Lien(0, _LONG_AGO))
        liens = _with(liens, process, present.amount - out, present.at)
    applied = {**bucket.applied, process: max(entry.seq for entry in fresh)}
    return replace(bucket, rev=bucket.rev + 1, spent=spent, liens=liens, applied=applied)


def close(key: BucketKey, bucket: Bucket, process: str, now: datetime) -> Bucket:
    """A process is over: all its rows are counted, what it had borrowed is free (of a rate: counts as used)."""
    ticks = bucket.ticks
    lien = bucket.liens.get(process)
    if key.kind == "rate" and lien is not None and lien.amount > 0:
        ticks = _plus(ticks, tick_of(key, now), lien.amount)
    return replace(
        bucket,
        rev=bucket.rev + 1,
        ticks=ticks,
        liens=_without(bucket.liens, process),
        applied=_without(bucket.applied, process),
        moves=_without(bucket.moves, process),
        wanted=_without(bucket.wanted, process),
    )


def standing(key: BucketKey, bucket: Bucket | None, cap: int, now: datetime) -> Standing:
    """How it stands at ``now``."""
    if bucket is None:
        bucket = Bucket(id=key.id)
    bucket = lapsed(key, bucket, now)
    spent, reserved = spent_of(key, bucket), reserved_of(bucket)
    resets_in: float | None = 0.0
    if key.kind == "rate" and bucket.ticks:
        resets_in = _leaves(key, max(bucket.ticks), now)
    elif key.kind == "budget":
        resets_in = None if key.ends_at is None else max(0.0, (key.ends_at - now).total_seconds())
    return Standing(cap=cap, spent=spent, reserved=reserved, remaining=cap - spent - reserved, resets_in=resets_in)


def comes_free(key: BucketKey, bucket: Bucket, amount: int, cap: int, now: datetime) -> float | None:
    """Seconds until ``amount`` is free if nothing more is used; None: not by waiting. Liens count as used."""
    bucket = lapsed(key, bucket, now)
    missing = amount - free(key, bucket, cap)
    if missing <= 0:
        return 0.0
    if key.kind == "budget":
        return None if key.ends_at is None or amount > cap else max(0.0, (key.ends_at - now).total_seconds())
    if key.kind == "rate" and amount <= cap:
        for tick in sorted(bucket.ticks):
            missing -= bucket.ticks[tick]
            if missing <= 0:
                return _leaves(key, tick, now)
        return float(TICKS * key.tick_seconds)  # borrowed now, so spent at the latest now
    return None


def _leaves(key: BucketKey, tick: int, now: datetime) -> float:
    return max(0.0, (tick + TICKS) * key.tick_seconds - now.timestamp())


def _plus(ticks: dict[int, int], tick: int, amount: int) -> dict[int, int]:
    total = ticks.get(tick, 0) + amount
    changed = {**ticks, tick: total}
    if total == 0:
        del changed[tick]
    return changed


def _with(liens: dict[str, Lien], process: str, amount: int, now: datetime) -> dict[str, Lien]:
    if amount == 0:
        return _without(liens, process)
    return {**liens, process: Lien(amount, now)}


def _without(table: dict[str, V], process: str) -> dict[str, V]:
    return {name: value for name, value in table.items() if name != process}
