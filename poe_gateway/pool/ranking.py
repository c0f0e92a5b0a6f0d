"""Seats in the order of a rank that changes: a sorted list in blocks.

Adding, removing and finding cost a few bisections and one short move in memory, at ten seats and at a hundred
thousand. A heap would do for the first seat, but seats that are passed over must be walked in order and stay.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from poe_gateway.pool.seat import Seat

Entry = tuple[int, float, int, str, Seat]
"""Priority (negated: the highest first), rank, number of joining, id, seat. The id makes entries differ."""

_BLOCK = 256
"""Entries in a new block; one of twice the size is cut in two."""


class Ranking:
    """Entries in ascending order, in blocks: no entry of a block is above the block's bound, all later ones are."""

    __slots__ = ("_blocks", "_bounds")

    def __init__(self) -> None:
        self._blocks: list[list[Entry]] = []
        self._bounds: list[Entry] = []

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __iter__(self) -> Iterator[Entry]:
        for block in self._blocks:
            yield from block

    def add(self, entry: Entry) -> None:
        """Put it where it belongs."""
        blocks, bounds = self._blocks, self._bounds
        if not blocks:
            blocks.append([entry])
            bounds.append(entry)
            return
        at = bisect_left(bounds, entry)
        if at == len(bounds):
            at -= 1
            bounds[at] = entry
        block = blocks[at]
        insort(block, entry)
        if len(block) >= 2 * _BLOCK:
            blocks.insert(at + 1, block[_BLOCK:])
            del block[_BLOCK:]
            bounds.insert(at, block[-1])

    def remove(self, entry: Entry) -> None:
        """Take out an entry that was added."""
        blocks, bounds = self._blocks, self._bounds
        at = bisect_left(bounds, entry)
        block = blocks[at]
        del block[bisect_left(block, entry)]
        if not block:
            del blocks[at], bounds[at]
