"""The price book's stores in memory: twins of MongoDB's, one contract suite runs on both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from poe_gateway.clock import Clock
from poe_gateway.pool.pricebook import PriceRow
from poe_gateway.pool.prices import WINDOW
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.pool.usage import UsageRow


class MemoryPrices:
    """PriceStore of any number of processes. ``away``: every call fails."""

    def __init__(self, clock: Clock) -> None:
        self.away = False
        self._clock = clock
        self._rows: dict[tuple[str, str], PriceRow] = {}

    def _call(self) -> None:
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")

    async def add(self, rows: Sequence[PriceRow]) -> None:
        self._call()
        for row in rows:
            known = self._rows.get((row.offer, row.model))
            samples = sorted((*(known.samples if known else ()), *row.samples), key=lambda sample: sample.at)
            self._rows[row.offer, row.model] = PriceRow(
                offer=row.offer, model=row.model, samples=tuple(samples[-WINDOW:]), updated_at=self._clock.now()
            )

    async def read(self, since: datetime | None = None) -> list[PriceRow]:
        self._call()
        return [
            row
            for row in self._rows.values()
            if since is None or (row.updated_at is not None and row.updated_at >= since)
        ]


class MemoryUsage:
    """UsageStore of any number of processes. ``away``: every call fails."""

    def __init__(self) -> None:
        self.away = False
        self._rows: dict[tuple[datetime, str, str], UsageRow] = {}
        self._batches: dict[tuple[datetime, str, str, str], int] = {}

    def _call(self) -> None:
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")

    async def add(self, process: str, batch: int, rows: Sequence[UsageRow]) -> None:
        self._call()
        for row in rows:
            key = (row.hour, row.offer, row.model)
            if self._batches.get((*key, process), 0) >= batch:
                continue
            self._batches[(*key, process)] = batch
            known = self._rows.get(key)
            self._rows[key] = (
                row
                if known is None
                else replace(known, requests=known.requests + row.requests, points=known.points + row.points)
            )

    async def read(self, since: datetime) -> list[UsageRow]:
        self._call()
        return [row for row in self._rows.values() if row.hour >= since]
