"""Prices and use by hour: one contract on memory and MongoDB."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool.pricebook import PriceBook, PriceRow, PriceStore, UsageStore
from poe_gateway.pool.pricebook_memory import MemoryPrices, MemoryUsage
from poe_gateway.pool.prices import WINDOW, Sample
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.pool.usage import UsageRow
from poe_gateway.storage.client import Database
from poe_gateway.storage.prices import MongoPrices
from poe_gateway.storage.usage import MongoUsage
from tests.storage.making import NOON

ODD = "models/$x.y|z \ud83d"
"""No name that BSON, paths or ids would take as it is."""


def row(*points: int, start: int = 0, offer: str = "poe", model: str = "m") -> PriceRow:
    samples = (Sample(each, 100, NOON + timedelta(seconds=start + number)) for number, each in enumerate(points))
    return PriceRow(offer=offer, model=model, samples=tuple(samples))


class TestPrices:
    @pytest.fixture(params=["memory", "mongo"])
    def store(self, request: pytest.FixtureRequest) -> PriceStore:
        if request.param == "memory":
            return MemoryPrices(SystemClock())
        return MongoPrices(request.getfixturevalue("db"))

    async def points(self, store: PriceStore) -> dict[tuple[str, str], list[int]]:
        return {(each.offer, each.model): [one.points for one in each.samples] for each in await store.read()}

    async def test_samples_are_appended(self, store: PriceStore) -> None:
        await store.add([])
        assert await store.read() == []
        await store.add([row(20, 30), row(7, offer="api:host")])
        await store.add([row(40, start=10)])
        assert await self.points(store) == {("poe", "m"): [20, 30, 40], ("api:host", "m"): [7]}
        (found,) = [each for each in await store.read() if each.offer == "api:host"]
        assert found.samples == row(7).samples

    async def test_the_newest_stay_whoever_writes_last(self, store: PriceStore) -> None:
        await store.add([row(*range(100, 100 + WINDOW), start=50)])
        await store.add([row(1, 2, 3)])
        assert await self.points(store) == {("poe", "m"): list(range(100, 100 + WINDOW))}
        await store.add([row(5, start=1000)])
        assert (await self.points(store))["poe", "m"] == [*range(101, 100 + WINDOW), 5]

    async def test_reading_what_is_new(self, store: PriceStore) -> None:
        await store.add([row(20, model="a")])
        (first,) = await store.read()
        assert first.updated_at is not None
        await asyncio.sleep(0.01)
        await store.add([row(20, model="b")])
        (second,) = await store.read(first.updated_at + timedelta(milliseconds=1))
        assert second.model == "b"
        assert len(await store.read(first.updated_at)) == 2

    async def test_many_processes_at_once(self, store: PriceStore) -> None:
        await asyncio.gather(*(store.add([row(number, start=number)]) for number in range(30)))
        assert await self.points(store) == {("poe", "m"): list(range(30))}


class TestUsage:
    @pytest.fixture(params=["memory", "mongo"])
    def store(self, request: pytest.FixtureRequest) -> UsageStore:
        return MemoryUsage() if request.param == "memory" else MongoUsage(request.getfixturevalue("db"))

    def row(self, requests: int = 1, points: int = 20, hours: int = 0, model: str = "m") -> UsageRow:
        return UsageRow(
            hour=NOON + timedelta(hours=hours), offer="poe", model=model, requests=requests, points=points
        )  # fmt: skip

    async def test_rows_are_summed_over_processes(self, store: UsageStore) -> None:
        await store.add("one", 1, [])
        await store.add("one", 1, [self.row(), self.row(hours=1)])
        await store.add("two", 1, [self.row(2, 50)])
        await store.add("one", 2, [self.row(3, 5), self.row(model="n")])
        found = sorted(await store.read(NOON), key=lambda each: (each.hour, each.model))
        assert found == [self.row(6, 75), self.row(model="n"), self.row(hours=1)]
        assert await store.read(NOON + timedelta(hours=1)) == [self.row(hours=1)]

    async def test_a_batch_counts_once_even_where_it_was_taken_in_part(self, store: UsageStore) -> None:
        await store.add("one", 1, [self.row()])
        await store.add("one", 1, [self.row(), self.row(hours=1)])
        await store.add("one", 1, [self.row(), self.row(hours=1)])
        assert sorted(await store.read(NOON), key=lambda each: each.hour) == [self.row(), self.row(hours=1)]

    async def test_many_processes_at_once(self, store: UsageStore) -> None:
        await asyncio.gather(*(store.add(f"p{number}", 1, [self.row(), self.row(hours=1)]) for number in range(30)))
        assert {(each.requests, each.points) for each in await store.read(NOON)} == {(30, 600)}


class TestOnMongo:
    async def test_odd_names(self, db: Database) -> None:
        prices, usage = MongoPrices(db), MongoUsage(db)
        await prices.add([row(20, model=ODD)])
        (price,) = await prices.read()
        assert (price.offer, price.model.startswith("models/$x.y|z")) == ("poe", True)
        await usage.add("one", 1, [UsageRow(hour=NOON, offer="$poe", model=ODD, requests=1, points=2**70)])
        (used,) = await usage.read(NOON)
        assert (used.offer, used.requests, used.points) == ("$poe", 1, 2**63 - 1)

    async def test_documents_are_as_described(self, db: Database) -> None:
        await MongoPrices(db).add([row(20)])
        document = await db.prices.find_one({"_id": "poe|m"})
        assert document is not None
        assert document["samples"] == [{"p": 20, "t": 100, "at": NOON}]
        await MongoUsage(db).add("one", 3, [UsageRow(hour=NOON, offer="poe", model="m", requests=1, points=20)])
        assert await db.usage_hours.find_one({}) == {
            "_id": f"{NOON.isoformat()}|poe|m",
            "hour": NOON,
            "offer": "poe",
            "model": "m",
            "requests": 1,
            "points": 20,
            "batches": {"one": 3},
        }

    async def test_two_books_share_what_they_learn(self, db: Database) -> None:
        one, two = (PriceBook(MongoPrices(db), MongoUsage(db), Ids()) for _ in range(2))
        for number, points in enumerate((20, 21, 22)):
            one.observe("poe", "m", points, 100, NOON + timedelta(microseconds=1_234_567 * number))
            two.observe("poe", "m", points, 100, NOON + timedelta(seconds=100 + number))
            one.used("poe", "m", points, NOON)
        assert await one.flush() and await two.flush()
        await one.refresh()
        await two.load()
        assert one.prices() == two.prices()
        price = two.price("poe", "m")
        assert price is not None and price.samples == 6

    async def test_away(self, nowhere: Database) -> None:
        usage = MongoUsage(nowhere)
        book = PriceBook(MongoPrices(nowhere), usage, Ids())
        book.observe("poe", "m", 20, 0, NOON)
        with pytest.raises(StoreUnavailable):
            await book.load()
        assert not await book.flush()
        with pytest.raises(StoreUnavailable):
            await usage.read(NOON)
