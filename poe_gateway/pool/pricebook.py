"""The price book of this process: known prices and counted use in memory, shared with other processes by the store.

The hot path only looks up and remembers. Everything else happens in ``run``: what was observed is written, what others
observed is taken over, and prices are estimated anew where many samples came.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

import msgspec

from poe_gateway.clock import Ids
from poe_gateway.pool.prices import WINDOW, Change, Price, Sample, assess, at_most, expected, rungs
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.pool.usage import UsageRow

_FLUSH = 2.0
"""Seconds between two writes."""
_FLUSHES = 10
"""Writes between two looks at what other processes observed."""
_BATCH = 500
_PRICES = 4096
"""Prices that are remembered; beyond it those go that were observed longest ago."""
_ROWS = 20_000
"""Rows of use that are kept while the database is away; further models are not counted then."""
_OFTEN = 16
"""Up to so many samples each one is estimated with at once; then with each write, or after so many more."""
_AFTER = 64
_OVERLAP = timedelta(seconds=10)
"""Writes of the same moment may become visible one after the other."""
_Key = tuple[str, str]


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one price. ``updated_at`` is the store's own time of the newest write."""

    offer: str
    model: str
    samples: tuple[Sample, ...]
    updated_at: datetime | None = None


class PriceStore(Protocol):
    """Where samples of all processes come together. Both methods raise StoreUnavailable."""

    async def add(self, rows: Sequence[PriceRow]) -> None:
        """Append samples; of each price the newest ``WINDOW`` stay."""

    async def read(self, since: datetime | None = None) -> list[PriceRow]:
        """All prices, or those written at or after ``since``."""


class UsageStore(Protocol):
    """Use by hour, summed over all processes. Both methods raise StoreUnavailable."""

    async def add(self, process: str, batch: int, rows: Sequence[UsageRow]) -> None:
        """Add to the hours' sums. ``batch`` grows with each new batch of a process: one that comes twice, whole or in
        part, counts once."""

    async def read(self, since: datetime) -> list[UsageRow]:
        """The rows of hours at or after ``since``."""


class PriceBook:
    """Prices by offer and model key.

    Samples whose write failed are written again: where the database did take them, they are there twice, which a
    robust estimate bears. Use is counted exactly once, even then; only what was not written when the process died is
    lost.
    """

    def __init__(self, prices: PriceStore, usage: UsageStore, ids: Ids) -> None:
        self.on_changed: Callable[[str, str, Change], None] = lambda offer, model, change: None
        """Told once when the samples show that the site changed a price. Every process that sees it tells it."""
        self._store = prices
        self._usage_store = usage
        self._process = ids.new("book", 12)
        self._batch = 0
        self._known: dict[str, dict[str, Price]] = {}
        self._samples: OrderedDict[_Key, deque[Sample]] = OrderedDict()
        self._fresh: dict[_Key, int] = {}
        """Samples since the last estimate."""
        self._told: dict[_Key, float] = {}
        self._pending: OrderedDict[_Key, list[Sample]] = OrderedDict()
        self._use: OrderedDict[tuple[datetime, str, str], list[int]] = OrderedDict()
        self._sending: tuple[int, list[UsageRow]] | None = None
        """A batch whose fate is unknown goes out again as it was."""
        self._seen: datetime | None = None
        self._lock = asyncio.Lock()

    # Look-up, for the hot path.

    def price(self, offer: str, model: str) -> Price | None:
        """None: not known."""
        offers = self._known.get(model)
        return None if offers is None else offers.get(offer)

    def at_most(self, offers: frozenset[str], model: str, tokens: int) -> int:
        """Points to reserve: what the dearest of the offers may ask. 0: not known."""
        known = self._known.get(model)
        if known is None:
            return 0
        most = 0
        for offer in offers:
            price = known.get(offer)
            if price is not None and (points := at_most(price, tokens)) > most:
                most = points
        return most

    def expected(self, offers: frozenset[str], model: str, tokens: int) -> int:
        """Points that it will probably cost in the dearest of the offers. 0: not known."""
        known = self._known.get(model)
        if known is None:
            return 0
        most = 0
        for offer in offers:
            price = known.get(offer)
            if price is not None and (points := expected(price, tokens)) > most:
                most = points
        return most

    def prices(self) -> dict[_Key, Price]:
        """All known prices by (offer, model)."""
        return {(offer, model): price for model, offers in self._known.items() for offer, price in offers.items()}

    def rungs(self, threshold: int) -> tuple[int, ...]:
        """The prices that matter for best fit; see ``prices.rungs``."""
        return rungs((price.upper for offers in self._known.values() for price in offers.values()), threshold)

    # News.

    def observe(self, offer: str, model: str, points: int, tokens: int, at: datetime) -> None:
        """A request cost ``points``; ``tokens``: estimated size of its prompt, 0: not known."""
        if points < 0:
            return
        # Stores keep times to the millisecond: a sample must be the same when it comes back.
        sample = Sample(points, max(0, tokens), at.replace(microsecond=at.microsecond // 1000 * 1000))
        key = (offer, model)
        self._remember(key, (sample,))
        waiting = self._pending.setdefault(key, [])
        waiting.append(sample)
        del waiting[:-WINDOW]
        while len(self._pending) > _PRICES:
            self._pending.popitem(last=False)
        fresh = self._fresh[key] = self._fresh.get(key, 0) + 1
        if len(self._samples[key]) <= _OFTEN or fresh >= _AFTER:
            self._estimate(key)

    def used(self, offer: str, model: str, points: int | None, at: datetime) -> None:
        """Count a request of the hour. ``points``: None where nobody told; then what it probably cost is counted."""
        if points is None:
            known = self.price(offer, model)
            points = 0 if known is None else expected(known, 0)
        key = (at.replace(minute=0, second=0, microsecond=0), offer, model)
        row = self._use.get(key)
        if row is None:
            if len(self._use) >= _ROWS:
                return
            row = self._use[key] = [0, 0]
        row[0] += 1
        row[1] += points

    def _remember(self, key: _Key, samples: Iterable[Sample]) -> None:
        kept = self._samples.get(key)
        if kept is None:
            kept = self._samples[key] = deque(maxlen=WINDOW)
            while len(self._samples) > _PRICES:
                self._forget(next(iter(self._samples)))
        else:
            self._samples.move_to_end(key)
        kept.extend(samples)

    def _forget(self, key: _Key) -> None:
        offer, model = key
        del self._samples[key]
        self._fresh.pop(key, None)
        self._told.pop(key, None)
        offers = self._known.get(model, {})
        offers.pop(offer, None)
        if not offers:
            self._known.pop(model, None)

    def _estimate(self, key: _Key, *, tell: bool = True) -> None:
        offer, model = key
        self._fresh.pop(key, None)
        price, change = assess(self._samples[key])
        if price is None:
            return
        self._known.setdefault(model, {})[offer] = price
        if change is None:
            return
        # As samples come in, the same change is seen again and again.
        told = self._told.get(key)
        self._told[key] = change.after
        news = told is None or not math.isclose(told, change.after, rel_tol=0.3, abs_tol=1.0)
        if tell and news:
            self.on_changed(offer, model, change)

    # The store.

    async def load(self) -> None:
        """Take over all stored prices. Changes of price that they show are old news. Raises StoreUnavailable."""
        await self._take_over(tell=False)

    async def refresh(self) -> None:
        """Take over what other processes observed. Raises StoreUnavailable."""
        await self._take_over(tell=True)

    async def _take_over(self, *, tell: bool) -> None:
        async with self._lock:
            since = None if self._seen is None else self._seen - _OVERLAP
            for row in await self._store.read(since):
                if row.updated_at is not None and (self._seen is None or row.updated_at > self._seen):
                    self._seen = row.updated_at
                key = (row.offer, row.model)
                stored = sorted((*row.samples, *self._pending.get(key, ())), key=lambda sample: sample.at)
                if list(self._samples.get(key, ())) == stored[-WINDOW:]:
                    continue
                self._samples.pop(key, None)
                self._remember(key, stored)
                self._estimate(key, tell=tell)

    async def flush(self) -> bool:
        """Write what waits, in bounded batches; False when the database failed: it is kept for the next time."""
        async with self._lock:
            for key in list(self._fresh):
                self._estimate(key)
            try:
                await self._flush_samples()
                await self._flush_use()
            except StoreUnavailable:
                return False
            return True

    async def _flush_samples(self) -> None:
        for _ in range(-(-len(self._pending) // _BATCH)):  # not what comes in meanwhile
            taken = {key: self._pending.pop(key) for key in list(islice(self._pending, _BATCH))}
            try:
                await self._store.add(
                    [PriceRow(offer=key[0], model=key[1], samples=tuple(samples)) for key, samples in taken.items()]
                )
            except BaseException:
                for key, samples in taken.items():
                    self._pending[key] = (samples + self._pending.get(key, []))[-WINDOW:]
                raise

    async def _flush_use(self) -> None:
        for _ in range(-(-len(self._use) // _BATCH) + (self._sending is not None)):
            if self._sending is None:
                self._batch += 1
                taken = [(key, self._use.pop(key)) for key in list(islice(self._use, _BATCH))]
                self._sending = (
                    self._batch,
                    [
                        UsageRow(hour=hour, offer=offer, model=model, requests=requests, points=points)
                        for (hour, offer, model), (requests, points) in taken
                    ],
                )
            number, rows = self._sending
            await self._usage_store.add(self._process, number, rows)
            self._sending = None

    async def run(self) -> None:
        """Write every two seconds and look at the others' observations every twenty, until cancelled."""
        turn = 0
        while True:
            await asyncio.sleep(_FLUSH)
            turn += 1
            if await self.flush() and turn >= _FLUSHES:
                try:
                    await self.refresh()
                except StoreUnavailable:
                    continue  # at the next turn
                turn = 0
