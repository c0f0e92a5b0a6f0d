"""The operator's verbs: hand in, find, list, count, delete; and the credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Balance, Health, Intent, State
from poe_gateway.pool.store import Ask, StoreUnavailable
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import Database, connect
from poe_gateway.storage.grants import MongoGrants
from tests.storage.making import NOON, account, insert

NAME = "User1@example.org"


@pytest.fixture
def admin(db: Database) -> MongoAccountAdmin:
    return MongoAccountAdmin(db)


def build(ids: Ids | None = None, **fields: Any) -> Callable[[Account | None], Account]:
    """What the admin API does: a new account, or the known one with renewed credentials."""
    source = ids or Ids()

    def made(before: Account | None) -> Account:
        if before is None:
            return account(1, id=source.new("acct"), **fields)
        return transitions.renewed_credentials(before, NOON)

    return made


async def test_upsert_creates_and_then_renews(admin: MongoAccountAdmin) -> None:
    first, created = await admin.upsert("mock", NAME, build(), b"sealed-1", "kid")
    assert created and first.rev == 1
    again, created = await admin.upsert("mock", NAME.lower(), build(), b"sealed-2", "kid")
    assert not created
    assert again.id == first.id and again.rev == 2 and again.credential_rev > first.credential_rev
    assert await admin.get(first.id) == again == await admin.find("mock", NAME.upper())
    assert await admin.find("other", NAME) is None
    assert await admin.get("acct_nobody") is None


async def test_each_version_has_its_own_credentials(admin: MongoAccountAdmin, db: Database) -> None:
    first, _ = await admin.upsert("mock", NAME, build(), b"sealed-1", "kid")
    second, _ = await admin.upsert("mock", NAME, build(), b"sealed-2", "kid")
    assert await admin.credentials(first.id, first.credential_rev) == b"sealed-1", "for requests on their way"
    assert await admin.credentials(first.id, second.credential_rev) == b"sealed-2"
    assert await admin.credentials(first.id, 99) is None
    rows = {each["rev"]: "superseded_at" in each async for each in db.credentials.find()}
    assert rows == {first.credential_rev: True, second.credential_rev: False}


async def test_upserts_of_one_name_by_many_give_one_account(mongo_uri: str, db: Database) -> None:
    """Each caller has its own connection, and hands in its own credentials."""
    names = [NAME, NAME.lower(), NAME.upper()]

    async def process(number: int) -> tuple[Account, bool]:
        async with connect(mongo_uri) as client:
            own = MongoAccountAdmin(client[db.name])
            for _ in range(3):
                result = await own.upsert("mock", names[number % 3], build(Ids(number)), b"%d" % number, "kid")
            return result

    results = await asyncio.gather(*(process(number) for number in range(8)))
    admin = MongoAccountAdmin(db)
    [only], total = await admin.page(1, 10, now=NOON)
    assert total == 1
    assert {stored.id for stored, _ in results} == {only.id}
    assert only.rev == 24
    last = max(results, key=lambda each: each[0].rev)[0]
    assert last == only
    writer = next(number for number, (stored, _) in enumerate(results) if stored == only)
    assert await admin.credentials(only.id, only.credential_rev) == b"%d" % writer
    current = [each async for each in db.credentials.find({"superseded_at": None})]
    assert [(each["account_id"], each["rev"]) for each in current] == [(only.id, only.credential_rev)]


async def test_upserts_race_with_news_about_the_account(admin: MongoAccountAdmin, db: Database) -> None:
    stored, _ = await admin.upsert("mock", NAME, build(), b"0", "kid")
    accounts = MongoAccounts(db, SystemClock())

    async def news() -> None:
        for _ in range(20):
            await accounts.change({stored.id: lambda each: replace(each, error_count=each.error_count + 1)})

    async def operator() -> None:
        for _ in range(10):
            await MongoAccountAdmin(db).upsert(
                "mock", NAME, lambda each: replace(each, metered=True) if each else account(1), b"1", "kid"
            )

    await asyncio.gather(news(), operator(), news(), operator())
    after = await admin.get(stored.id)
    assert after is not None
    assert (after.error_count, after.rev) == (40, 61)
    assert await admin.credentials(after.id, after.credential_rev) == b"1"


async def test_a_crash_between_the_writes_leaves_the_account_as_it_was(
    admin: MongoAccountAdmin, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await admin.upsert("mock", NAME, build(), b"sealed-1", "kid")

    async def crash(*_: object) -> bool:
        raise StoreUnavailable("died here")

    with monkeypatch.context() as patch:
        patch.setattr(admin, "_point", crash)
        with pytest.raises(StoreUnavailable):
            await admin.upsert("mock", NAME, build(), b"lost", "kid")
        with pytest.raises(StoreUnavailable):
            await admin.upsert("mock", "new@example.org", build(), b"lost too", "kid")
    stored = await admin.get(first.id)
    assert stored == first
    assert await admin.credentials(first.id, first.credential_rev) == b"sealed-1"
    # The next one does not pick up what the dead one left.
    second, _ = await admin.upsert("mock", NAME, build(), b"sealed-2", "kid")
    assert await admin.credentials(first.id, second.credential_rev) == b"sealed-2"
    # And what it left is removed in the end.
    assert await admin.purge() == 0, "not before an hour has passed"
    await db.credentials.update_many({}, [{"$set": {"created_at": {"$subtract": ["$created_at", 3_700_000]}}}])
    assert await admin.purge() == 1
    assert await admin.credentials(first.id, second.credential_rev) == b"sealed-2"


async def test_delete_removes_everything_but_a_tombstone(admin: MongoAccountAdmin, db: Database) -> None:
    stored, _ = await admin.upsert("mock", NAME, build(), b"sealed", "kid")
    await MongoGrants(db).join("a", 60.0)
    await MongoGrants(db).take("a", [Ask(key=stored.id, hold=1, cap=2)])
    assert await admin.delete(stored.id) is True
    assert await admin.delete(stored.id) is False
    assert await admin.get(stored.id) is None
    assert await admin.find("mock", NAME) is None
    assert await admin.credentials(stored.id, stored.credential_rev) is None
    assert await admin.page(1, 10, now=NOON) == ([], 0)
    [row] = [each async for each in db.accounts.find()]
    assert set(row) == {"_id", "deleted", "changed_at", "deleted_at"}
    again, created = await admin.upsert("mock", NAME, build(), b"sealed", "kid")
    assert created and again.id != stored.id


async def test_many_tombstones_do_not_collide(admin: MongoAccountAdmin, db: Database) -> None:
    await insert(db, [account(number) for number in range(1, 4)])
    for number in range(1, 4):
        assert await admin.delete(f"acct_{number:05}")


async def test_resealing_for_a_new_key(admin: MongoAccountAdmin) -> None:
    stored, _ = await admin.upsert("mock", NAME, build(), b"old seal", "old")
    [(account_id, version, sealed)] = await admin.sealed_otherwise("new")
    assert (account_id, version, sealed) == (stored.id, stored.credential_rev, b"old seal")
    assert await admin.reseal(account_id, version, b"not this", b"new seal", "new") is False
    assert await admin.reseal(account_id, version, sealed, b"new seal", "new") is True
    assert await admin.sealed_otherwise("new") == []
    assert await admin.credentials(account_id, version) == b"new seal"


class TestPage:
    async def test_order_is_stable_and_total_is_of_all(self, admin: MongoAccountAdmin, db: Database) -> None:
        await insert(db, [account(number, created_at=NOON) for number in (3, 1, 5, 2, 4)])
        pages = [await admin.page(number, 2, now=NOON) for number in (1, 2, 3, 4)]
        assert [[each.id[-1] for each in accounts] for accounts, _ in pages] == [["1", "2"], ["3", "4"], ["5"], []]
        assert {total for _, total in pages} == {5}

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({}, "123456"),
            ({"provider": "poe_web"}, "2"),
            ({"offer": "openai_api:example.org"}, "3"),
            ({"demo": True}, "4"),
            ({"demo": False}, "12356"),
            ({"min_balance": 500}, "1246"),
            ({"max_balance": 500}, "35"),
            ({"min_balance": 20, "max_balance": 30}, "3"),
            ({"text": "USER3@"}, "3"),
            ({"text": "example.org"}, "12346"),
            ({"text": "example_org"}, ""),
            ({"text": ".*"}, ""),
            ({"text": "(a+)+$["}, "5"),
            ({"text": "\x00user1"}, "1"),
            ({"text": "ÄÖ"}, "5"),
            ({"status": ["active"]}, "1346"),
            ({"status": ["cooldown"]}, "2"),
            ({"status": ["depleted", "invalid"]}, "5"),
            ({"status": ["invalid"]}, ""),
            ({"status": ["paused"]}, "6"),
            ({"status": ["paused", "cooldown"]}, "26"),
            ({"status": ["active"], "provider": "mock", "text": "user", "min_balance": 0}, "1346"),
            ({"labels": ["eu"]}, "134"),
            ({"labels": ["eu", "paid"]}, "14"),
            ({"labels": ["paid", "eu"], "priority": 5}, "4"),
            ({"labels": ["e"]}, ""),
            ({"priority": 5}, "24"),
            ({"priority": 0}, "1356"),
            ({"priority": -1}, ""),
        ],
    )
    async def test_filters(self, admin: MongoAccountAdmin, db: Database, filters: dict[str, Any], found: str) -> None:
        later, before = NOON + timedelta(minutes=1), NOON - timedelta(minutes=1)
        await insert(
            db,
            [
                account(1, labels=("eu", "paid")),
                account(2, provider="poe_web", health=Health(state=State.COOLDOWN, until=later), priority=5),
                account(3, offer="openai_api:example.org", balance=Balance(points=25), labels=("eu",)),
                account(
                    4,
                    demo=True,
                    health=Health(state=State.COOLDOWN, until=before),
                    labels=("eu", "paid", "x"),
                    priority=5,
                ),
                account(5, name="äö(a+)+$[x", balance=Balance(points=5), health=Health(state=State.DEPLETED)),
                account(6, intent=Intent.PAUSED, health=Health(state=State.DEPLETED, until=NOON)),
            ],
        )
        accounts, total = await admin.page(1, 10, now=NOON, **filters)
        assert "".join(each.id[-1] for each in accounts) == found
        assert total == len(found)

    async def test_unknown_balances_match_no_range(self, admin: MongoAccountAdmin, db: Database) -> None:
        await insert(db, [account(1, balance=Balance(points=None))])
        assert (await admin.page(1, 10, now=NOON, max_balance=10**9))[1] == 0

    async def test_accounts_of_an_older_version_have_the_defaults(self, admin: MongoAccountAdmin, db: Database) -> None:
        await insert(db, [account(1)])
        await db.accounts.update_one({}, {"$unset": {"priority": 1, "labels": 1, "weight": 1, "keep_percent": 1}})
        [found], total = await admin.page(1, 10, now=NOON, priority=0)
        assert total == 1 and (found.priority, found.labels, found.weight, found.keep_percent) == (0, (), 1, 0)
        assert (await admin.page(1, 10, now=NOON, labels=["eu"]))[1] == 0

    async def test_grants_are_not_read(self, admin: MongoAccountAdmin, db: Database) -> None:
        await insert(db, [account(1)])
        await db.command({"profile": 2})
        await admin.page(1, 10, now=NOON)
        await db.command({"profile": 0})
        query = await db["system.profile"].find_one({"command.find": "accounts"})
        assert query is not None
        assert query["command"]["projection"].items() >= {"grants": 0, "wanted": 0}.items()

    @pytest.mark.parametrize("filters", [{}, {"provider": "mock"}])
    async def test_the_plain_listing_sorts_by_index(
        self, admin: MongoAccountAdmin, db: Database, filters: dict[str, Any]
    ) -> None:
        await insert(db, [account(number) for number in range(1, 300)])
        await db.command({"profile": 2})
        await admin.page(2, 20, now=NOON, **filters)
        await db.command({"profile": 0})
        [listing] = [each async for each in db["system.profile"].find({"command.find": "accounts"})]
        [count] = [each async for each in db["system.profile"].find({"command.aggregate": "accounts"})]
        assert listing["planSummary"].startswith("IXSCAN") and not listing.get("hasSortStage")
        assert listing["keysExamined"] <= 41 and listing["docsExamined"] <= 41
        assert "COLLSCAN" not in count["planSummary"]

    async def test_names_are_found_by_index(self, admin: MongoAccountAdmin, db: Database) -> None:
        await insert(db, [account(number) for number in range(1, 300)])
        await db.command({"profile": 2})
        assert await admin.find("mock", "user7@EXAMPLE.org") is not None
        await db.command({"profile": 0})
        query = await db["system.profile"].find_one({"command.find": "accounts"})
        assert query is not None and query["docsExamined"] == 1


async def test_summary_counts_by_state_as_of_now(admin: MongoAccountAdmin, db: Database) -> None:
    later, before = NOON + timedelta(minutes=1), NOON - timedelta(minutes=1)
    await insert(
        db,
        [
            account(1),
            account(2, health=Health(state=State.COOLDOWN, until=later)),
            account(3, health=Health(state=State.COOLDOWN, until=before)),
            account(4, health=Health(state=State.DEPLETED), balance=Balance(points=None), demo=True),
            account(5, provider="poe_web", intent=Intent.PAUSED),
            account(6, provider="poe_web", health=Health(state=State.INVALID), balance=Balance(points=7)),
        ],
    )
    await admin.delete("acct_00001")
    summary = await admin.summary(NOON)
    providers = summary.pop("providers")
    assert summary == {
        "total": 5,
        "paused": 1,
        "demo": 1,
        "points": 2007,
        "states": {"active": 2, "cooldown": 1, "depleted": 1, "invalid": 1},
    }
    assert list(providers) == ["mock", "poe_web"]
    assert providers["poe_web"] == {
        "total": 2,
        "paused": 1,
        "demo": 0,
        "points": 7,
        "states": {"active": 1, "cooldown": 0, "depleted": 0, "invalid": 1},
    }
    assert (await admin.summary(NOON + timedelta(hours=1)))["states"]["cooldown"] == 0
