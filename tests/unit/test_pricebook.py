"""The price book: what it answers at once, what it writes, and what it learns from other processes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from poe_gateway.clock import Ids
from poe_gateway.pool import pricebook
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.pricebook_memory import MemoryPrices, MemoryUsage
from poe_gateway.pool.prices import Change
from tests.unit.builders import NOON, StepClock

POE = frozenset({"poe"})


class Pool:
    """Stores that several books share."""

    def __init__(self) -> None:
        self.clock = StepClock()
        self.prices = MemoryPrices(self.clock)
        self.usage = MemoryUsage()

    def book(self) -> PriceBook:
        return PriceBook(self.prices, self.usage, Ids())

    async def requests(self, offer: str = "poe", model: str = "m") -> tuple[int, int]:
        rows = [row for row in await self.usage.read(NOON) if (row.offer, row.model) == (offer, model)]
        return sum(row.requests for row in rows), sum(row.points for row in rows)


def seen(book: PriceBook, *points: int, start: int = 0, tokens: int = 0, offer: str = "poe") -> None:
    for number, each in enumerate(points):
        book.observe(offer, "m", each, tokens, NOON + timedelta(seconds=start + number))


class TestLookUp:
    def test_unknown_is_zero(self) -> None:
        book = Pool().book()
        assert (book.at_most(POE, "m", 100), book.expected(POE, "m", 100), book.price("poe", "m")) == (0, 0, None)

    def test_what_was_observed_counts_at_once(self) -> None:
        book = Pool().book()
        seen(book, 20, 30, 40)
        assert book.expected(POE, "m", 0) == 30
        assert book.at_most(POE, "m", 0) >= 40
        assert book.at_most(POE, "other", 0) == 0
        assert book.at_most(frozenset({"other"}), "m", 0) == 0

    def test_of_several_offers_the_dearest_counts(self) -> None:
        book = Pool().book()
        seen(book, 20)
        seen(book, 50, offer="api")
        both = frozenset({"poe", "api", "unknown"})
        assert (book.at_most(both, "m", 0), book.expected(both, "m", 0)) == (50, 50)

    def test_rungs(self) -> None:
        book = Pool().book()
        for model, points in (("a", 10), ("b", 50), ("c", 400), ("d", 300)):
            book.observe("poe", model, points, 0, NOON)
        assert book.rungs(20) == (50, 400)

    def test_negative_prices_are_no_prices(self) -> None:
        book = Pool().book()
        seen(book, -5)
        assert book.price("poe", "m") is None

    def test_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pricebook, "_PRICES", 3)
        book = Pool().book()
        for model in ("a", "b", "a", "c", "d"):
            book.observe("poe", model, 20, 0, NOON)
        assert set(book.prices()) == {("poe", "a"), ("poe", "c"), ("poe", "d")}, "who was seen longest ago goes"


class TestChanges:
    async def test_told_once(self) -> None:
        book, told = Pool().book(), list[Change]()
        book.on_changed = lambda offer, model, change: told.append(change)
        seen(book, *[20] * 40)
        assert not told
        seen(book, *[50] * 40, start=100)
        await book.flush()
        assert [(each.before, each.after) for each in told] == [(20, 50)]

    async def test_the_next_change_is_news_again(self) -> None:
        book, told = Pool().book(), list[Change]()
        book.on_changed = lambda offer, model, change: told.append(change)
        for number, points in enumerate((20, 50, 20)):
            seen(book, *[points] * 40, start=100 * number)
            await book.flush()
        assert [each.after for each in told] == [50, 20]

    async def test_an_old_change_is_not_told_at_the_start(self) -> None:
        pool, told = Pool(), list[Change]()
        first = pool.book()
        seen(first, *[20] * 40, *[50] * 10)
        await first.flush()
        second = pool.book()
        second.on_changed = lambda offer, model, change: told.append(change)
        await second.load()
        assert second.expected(POE, "m", 0) == 50
        assert not told


class TestSharing:
    async def test_other_processes_learn(self) -> None:
        pool = Pool()
        one, two = pool.book(), pool.book()
        await two.load()
        seen(one, 20, 20)
        seen(two, 40, start=10)
        assert await one.flush() and await two.flush()
        await two.refresh()
        assert two.expected(POE, "m", 0) == 20
        await one.refresh()
        assert one.prices() == two.prices()

    async def test_what_is_not_written_yet_is_not_forgotten(self) -> None:
        pool = Pool()
        one, two = pool.book(), pool.book()
        seen(one, 20)
        await one.flush()
        seen(two, 30, 30, 30, start=10)
        await two.refresh()
        price = two.price("poe", "m")
        assert price is not None and (price.samples, price.typical) == (4, 30)

    async def test_refresh_reads_what_is_new(self) -> None:
        pool = Pool()
        one, two = pool.book(), pool.book()
        asked: list[datetime | None] = []
        read = pool.prices.read

        async def recording(since: datetime | None = None) -> list[pricebook.PriceRow]:
            asked.append(since)
            return await read(since)

        pool.prices.read = recording  # type: ignore[method-assign]
        seen(one, 20)
        await one.flush()
        await two.load()
        pool.clock.step(60)
        seen(one, 40, start=10)
        await one.flush()
        await two.refresh()
        assert asked == [None, NOON - timedelta(seconds=10)]
        assert two.expected(POE, "m", 0) == 30

    async def test_a_sample_is_written_once(self) -> None:
        pool = Pool()
        book = pool.book()
        seen(book, 20, 30)
        await book.flush()
        await book.flush()
        (row,) = await pool.prices.read()
        assert [each.points for each in row.samples] == [20, 30]

    async def test_nothing_is_lost_while_the_database_is_away(self) -> None:
        pool = Pool()
        book = pool.book()
        seen(book, 20)
        book.used("poe", "m", 20, NOON)
        pool.prices.away = pool.usage.away = True
        assert not await book.flush()
        seen(book, 30, start=10)
        book.used("poe", "m", 30, NOON)
        assert not await book.flush()
        pool.prices.away = False
        assert not await book.flush()
        pool.usage.away = False
        assert await book.flush()
        (row,) = await pool.prices.read()
        assert [each.points for each in row.samples] == [20, 30]
        assert await pool.requests() == (2, 50)

    async def test_batches_are_bounded_and_all_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pricebook, "_BATCH", 2)
        pool = Pool()
        book = pool.book()
        sizes: list[int] = []
        add = pool.prices.add

        async def recording(rows: list[pricebook.PriceRow]) -> None:
            sizes.append(len(rows))
            await add(rows)

        pool.prices.add = recording  # type: ignore[assignment, method-assign]
        for number in range(5):
            book.observe("poe", f"m{number}", 20, 0, NOON)
            book.used("poe", f"m{number}", 20, NOON)
        assert await book.flush()
        assert sizes == [2, 2, 1]
        assert len(await pool.usage.read(NOON)) == 5

    async def test_a_cancelled_write_keeps_its_samples(self) -> None:
        pool = Pool()
        book = pool.book()
        seen(book, 20)
        add = pool.prices.add

        async def never(rows: list[pricebook.PriceRow]) -> None:
            await asyncio.Event().wait()

        pool.prices.add = never  # type: ignore[assignment, method-assign]
        task = asyncio.create_task(book.flush())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pool.prices.add = add  # type: ignore[method-assign]
        assert await book.flush()
        assert len(await pool.prices.read()) == 1


class TestUse:
    async def test_use_is_summed_by_hour(self) -> None:
        pool = Pool()
        books = [pool.book(), pool.book()]
        for book in books:
            book.used("poe", "m", 20, NOON + timedelta(minutes=59))
            book.used("poe", "m", 5, NOON + timedelta(minutes=61))
            await book.flush()
        rows = {row.hour: (row.requests, row.points) for row in await pool.usage.read(NOON)}
        assert rows == {NOON: (2, 40), NOON + timedelta(hours=1): (2, 10)}

    async def test_an_unpriced_request_counts_with_what_it_probably_cost(self) -> None:
        pool = Pool()
        book = pool.book()
        book.used("poe", "m", None, NOON)
        seen(book, 20)
        book.used("poe", "m", None, NOON)
        await book.flush()
        assert await pool.requests() == (2, 20)

    async def test_a_batch_of_unknown_fate_counts_once(self) -> None:
        """The database took it, but the answer was lost."""
        pool = Pool()
        book = pool.book()
        book.used("poe", "m", 20, NOON)
        add = pool.usage.add

        async def taken_but_unanswered(process: str, batch: int, rows: list[pricebook.UsageRow]) -> None:
            await add(process, batch, rows)
            raise pricebook.StoreUnavailable

        pool.usage.add = taken_but_unanswered  # type: ignore[assignment, method-assign]
        assert not await book.flush()
        book.used("poe", "m", 30, NOON)
        pool.usage.add = add  # type: ignore[method-assign]
        assert await book.flush()
        assert await pool.requests() == (2, 50)


async def test_run_writes_and_takes_over_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricebook, "_FLUSH", 0.001)
    pool = Pool()
    one, two = pool.book(), pool.book()
    seen(one, 20)
    tasks = [asyncio.create_task(book.run()) for book in (one, two)]
    async with asyncio.timeout(30):
        while two.expected(POE, "m", 0) != 20:
            await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
