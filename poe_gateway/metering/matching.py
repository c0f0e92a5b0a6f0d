"""Our rows of an account against the upstream's own book of it: which entry is which row. Pure.

What bears the same id belongs together. The rest is paired by model and time, in order, within a tolerance around the
usual distance of the two clocks; nothing is used twice. What then is left over was never seen by the upstream (a row),
or was spent by somebody else (an entry), once it is old enough to be judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median_low
from typing import Literal, NamedTuple

import msgspec

TOLERANCE = timedelta(seconds=60)
"""Between the moment that we wrote down an attempt and the moment that the upstream did."""
_CELLS = 250_000
"""Of one table of pairs. Beyond it rows take the first entry that fits, in order."""

Certainty = Literal["seen", "doubtful", "put_right", "void"]
"""Of a row: the upstream certainly saw it; perhaps; as far as that is known already, it did; it did not."""


class BookEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an upstream's book."""

    id: str
    """The upstream's name of the exchange."""
    at: datetime
    """When it began, by the upstream's clock."""
    model: str
    """The upstream's name."""
    points: int | None = None
    cost: Decimal | None = None
    """In units of ``currency``; None: not told."""
    currency: str | None = None
    kind: str = ""
    """Where it was spent: ``API``, ``Chat`` …"""


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """What of a row matters for finding its entry."""

    id: str
    at: datetime
    model: str
    """The upstream's name."""
    upstream_id: str | None = None
    certainty: Certainty = "seen"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What may be judged: both sides are known from ``since`` on, and settled before ``until``.

    What is ``missing`` or ``foreign`` is told from ``fresh`` on: before it, it was told at an earlier look. An entry
    is ``foreign`` only when it is older by ``running`` still: the row of a long answer comes at its end.
    """

    since: datetime
    until: datetime
    fresh: datetime | None = None
    running: timedelta = timedelta(0)

    def judges(self, at: datetime) -> bool:
        return self.since <= at < self.until

    def tells(self, at: datetime) -> bool:
        return self.judges(at) and (self.fresh is None or at >= self.fresh)


class Matching(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of rows and entries. No id comes twice in one field, none of ``pairs`` in another one."""

    pairs: dict[str, str] = {}
    """Row -> entry."""
    by_id: frozenset[str] = frozenset()
    """Rows that were found by the upstream's id, and not by their time."""
    unseen: tuple[str, ...] = ()
    """Doubtful rows that the upstream never saw."""
    missing: tuple[str, ...] = ()
    """Rows that the upstream saw, and that are not in its book."""
    foreign: tuple[str, ...] = ()
    """Entries that are no row of ours."""


def match(rows: Iterable[Ours], entries: Iterable[BookEntry], span: Span, tolerance: timedelta = TOLERANCE) -> Matching:
    """Who is who. The order in which rows and entries are given does not matter; ids are unique."""
    ours = sorted((row for row in rows if row.certainty != "void"), key=lambda row: (row.at, row.id))
    book = sorted(entries, key=lambda entry: (entry.at, entry.id))
    pairs = _by_id(ours, book)
    known = frozenset(pairs)
    taken = set(pairs.values())
    # Where ids are comparable, a row whose id is not in the book is no other entry.
    left = [row for row in ours if row.id not in known and not (known and row.upstream_id is not None)]
    offset = _offset(ours, book, pairs)
    for model in sorted({row.model.casefold() for row in left}):
        pairs |= _by_time(
            [row for row in left if row.model.casefold() == model],
            [entry for entry in book if entry.id not in taken and entry.model.casefold() == model],
            offset,
            tolerance,
        )
    taken = set(pairs.values())
    alone = [row for row in ours if row.id not in pairs]
    others = [entry for entry in book if entry.id not in taken]
    names = {row.model.casefold() for row in ours}
    strange = [entry.at - offset for entry in others if entry.model.casefold() not in names]

    def unseen(row: Ours) -> bool:
        # An entry of that moment under a name that none of ours bears may be this row under another name.
        return span.judges(row.at) and not any(abs(at - row.at) <= tolerance for at in strange)

    return Matching(
        pairs=pairs,
        by_id=known,
        unseen=tuple(row.id for row in alone if row.certainty == "doubtful" and unseen(row)),
        missing=tuple(row.id for row in alone if row.certainty == "seen" and span.tells(row.at)),
        foreign=tuple(entry.id for entry in others if span.tells(entry.at - offset + span.running)),
    )


def _by_id(ours: Sequence[Ours], book: Sequence[BookEntry]) -> dict[str, str]:
    free = {entry.id for entry in book}
    pairs: dict[str, str] = {}
    for row in ours:
        if row.upstream_id is not None and row.upstream_id in free:
            free.remove(row.upstream_id)
            pairs[row.id] = row.upstream_id
    return pairs


def _offset(ours: Sequence[Ours], book: Sequence[BookEntry], pairs: Mapping[str, str]) -> timedelta:
    """How much later the upstream's moments are than ours, by the pairs that are sure."""
    moments = {entry.id: entry.at for entry in book}
    apart = [moments[pairs[row.id]] - row.at for row in ours if row.id in pairs]
    return median_low(apart) if apart else timedelta(0)


class _Point(NamedTuple):
    """A row or an entry on the line of time, in milliseconds of our clock."""

    at: int
    id: str
    sure: bool


def _by_time(
    rows: Sequence[Ours], entries: Sequence[BookEntry], offset: timedelta, tolerance: timedelta
) -> dict[str, str]:
    """Pairs of one model. Both are in order, and what is more than the tolerance apart is no pair."""
    if not rows or not entries:
        return {}
    zero, tick = rows[0].at, timedelta(milliseconds=1)
    points = [_Point((row.at - zero) // tick, row.id, row.certainty != "doubtful") for row in rows]
    theirs = [_Point((entry.at - offset - zero) // tick, entry.id, False) for entry in entries]
    widest = tolerance // tick
    pairs: dict[str, str] = {}
    for some, others in _clusters(points, theirs, widest):
        if len(some) * len(others) <= _CELLS:
            pairs |= _best(some, others, widest)
        else:
            pairs |= _in_turn(some, others, widest)
    return pairs


def _clusters(
    rows: Sequence[_Point], entries: Sequence[_Point], widest: int
) -> Iterable[tuple[list[_Point], list[_Point]]]:
    """Cut where nothing on one side can be paired with anything on the other."""
    line = sorted([(point.at, 0, point) for point in rows] + [(point.at, 1, point) for point in entries])
    some: list[_Point] = []
    others: list[_Point] = []
    last: int | None = None
    for at, side, point in line:
        if last is not None and at - last > widest:
            if some and others:
                yield some, others
            some, others = [], []
        (others if side else some).append(point)
        last = at
    if some and others:
        yield some, others


def _best(rows: Sequence[_Point], entries: Sequence[_Point], widest: int) -> dict[str, str]:
    """In order, without crossings: first as many sure rows as possible, then as many rows, then the least distance."""
    one = (widest + 1) * (min(len(rows), len(entries)) + 1)
    sure = one * (min(len(rows), len(entries)) + 1)
    table = [[0] * (len(entries) + 1)]
    for row in rows:
        above, line, left = table[-1], [0], 0
        for nth, entry in enumerate(entries):
            best = max(above[nth + 1], left)
            if (apart := abs(entry.at - row.at)) <= widest:
                best = max(best, above[nth] + one + sure * row.sure - apart)
            line.append(best)
            left = best
        table.append(line)
    pairs: dict[str, str] = {}
    nth, mth = len(rows), len(entries)
    while nth and mth:
        if table[nth][mth] == table[nth - 1][mth]:
            nth -= 1
        elif table[nth][mth] == table[nth][mth - 1]:
            mth -= 1
        else:
            nth, mth = nth - 1, mth - 1
            pairs[rows[nth].id] = entries[mth].id
    return pairs


def _in_turn(rows: Sequence[_Point], entries: Sequence[_Point], widest: int) -> dict[str, str]:
    """In order; each row takes the first entry that is near enough and free. As many pairs as ``_best``."""
    pairs: dict[str, str] = {}
    nth = 0
    for row in rows:
        while nth < len(entries) and entries[nth].at < row.at - widest:
            nth += 1
        if nth < len(entries) and entries[nth].at <= row.at + widest:
            pairs[row.id] = entries[nth].id
            nth += 1
    return pairs
