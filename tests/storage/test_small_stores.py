"""Sessions, catalogue, leases and duties."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from poe_gateway.dispatch.sessions import SessionBinding, SessionStore
from poe_gateway.routing.catalog import Listing, Model
from poe_gateway.storage.catalog import MongoCatalog
from poe_gateway.storage.client import Database
from poe_gateway.storage.duties import MongoDuties
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.sessions import MongoSessions
from tests.storage.making import NOON
from tests.support.memory import MemorySessions


class TestSessions:
    @pytest.fixture(params=["memory", "mongo"])
    def store(self, request: pytest.FixtureRequest) -> SessionStore:
        if request.param == "memory":
            return MemorySessions()
        return MongoSessions(request.getfixturevalue("db"), 3600.0)

    def binding(self, name: str = "s1", **fields: Any) -> SessionBinding:
        made: dict[str, Any] = {
            "id": name,
            "account_id": "acct_00001",
            "offer": "poe_web",
            "model": "m",
            "state": {"chat": 12, "$odd.key": ["x"]},
            "chain": ("a", "b"),
            "updated_at": datetime.now(UTC).replace(microsecond=0),
        }
        return SessionBinding(**{**made, **fields})

    async def test_put_get_drop(self, store: SessionStore) -> None:
        assert await store.get("s1") is None
        for binding in (self.binding(), self.binding(state=None, chain=())):
            await store.put(binding)
            assert await store.get("s1") == binding
        await store.drop("s1")
        await store.drop("s1")
        assert await store.get("s1") is None

    async def test_drop_account(self, store: SessionStore) -> None:
        await store.put(self.binding("s1"))
        await store.put(self.binding("s2"))
        await store.put(self.binding("s3", account_id="other"))
        await store.drop_account("acct_00001")
        assert [await store.get(name) is not None for name in ("s1", "s2", "s3")] == [False, False, True]

    async def test_put_by_many_at_once(self, store: SessionStore) -> None:
        await asyncio.gather(*(store.put(self.binding(model=f"m{number}")) for number in range(10)))
        found = await store.get("s1")
        assert found is not None and found.model.startswith("m")

    async def test_expired_bindings_are_not_found(self, db: Database) -> None:
        store = MongoSessions(db, 3600.0)
        await store.put(self.binding(updated_at=datetime.now(UTC) - timedelta(seconds=3601)))
        assert await store.get("s1") is None


class TestCatalog:
    def listing(self, offer: str = "mock", number: int = 1, at: datetime = NOON) -> Listing:
        model = Model(id=f"M-{number}", upstream=f"m{number}", owned_by="x", created=5, details={"a": {"b": [1]}})
        return Listing(offer=offer, models=(model,), fetched_at=at)

    async def test_put_load_drop(self, db: Database) -> None:
        store = MongoCatalog(db)
        assert await store.load() == []
        await store.put(self.listing())
        await store.put(self.listing("b"))
        newer = self.listing(number=2, at=NOON + timedelta(seconds=1))
        await store.put(newer)
        await store.put(self.listing(number=3))
        assert await store.load() == [self.listing("b"), newer], "an older one does not replace a newer one"
        await store.drop("b")
        assert await store.load() == [newer]


class TestLeases:
    async def test_one_holder_at_a_time_and_growing_tokens(self, db: Database) -> None:
        leases = MongoLeases(db)
        assert await leases.acquire("leader", "a", 60.0) == 1
        assert await leases.acquire("leader", "b", 60.0) == 0
        assert await leases.acquire("leader", "a", 60.0) == 1
        assert await leases.acquire("other", "b", 60.0) == 1
        assert await leases.renew("leader", "a", 0.05)
        assert not await leases.renew("leader", "b", 60.0)
        await asyncio.sleep(0.1)
        assert await leases.acquire("leader", "b", 60.0) == 2
        assert not await leases.renew("leader", "a", 60.0)
        await leases.release("leader", "a")
        assert await leases.acquire("leader", "a", 60.0) == 0
        await leases.release("leader", "b")
        assert await leases.acquire("leader", "a", 60.0) == 3

    async def test_of_many_at_once_one_gets_it(self, db: Database) -> None:
        for number in range(5):
            tokens = await asyncio.gather(
                *(MongoLeases(db).acquire("leader", f"{number}-{each}", 0.01) for each in range(10))
            )
            assert [token for token in tokens if token][:1] == [number + 1]
            assert len({token for token in tokens if token}) == sum(bool(token) for token in tokens)
            await db.leases.update_one({"_id": "leader"}, {"$set": {"token": number + 1}})
            await asyncio.sleep(0.05)


class TestDuties:
    async def test_records_are_kept_by_name(self, db: Database) -> None:
        duties = MongoDuties(db)
        assert await duties.get("reset") is None
        assert await duties.put("reset", last_run_at=NOON, last_day="2026-03-01", ok=True)
        assert await duties.put("refresh", last_run_at=NOON, last_day=None, ok=False, detail="\ud83d", token=2)
        assert await duties.get("reset") == {
            "last_run_at": NOON,
            "last_day": "2026-03-01",
            "ok": True,
            "detail": "",
            "token": 0,
        }
        assert set(await duties.all()) == {"reset", "refresh"}

    async def test_an_earlier_leader_does_not_overwrite(self, db: Database) -> None:
        duties = MongoDuties(db)
        await duties.put("reset", last_run_at=NOON, last_day="2026-03-02", ok=True, token=5)
        assert not await duties.put("reset", last_run_at=NOON, last_day="2026-03-01", ok=True, token=4)
        record = await duties.get("reset")
        assert record is not None and record["last_day"] == "2026-03-02"
