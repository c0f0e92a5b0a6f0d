"""The audit chain and the traffic records on a real MongoDB."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from poe_gateway.metering.changes import ChangeFilter
from poe_gateway.metering.rows import Change, Traffic
from poe_gateway.metering.traffic import TrafficFilter, TrafficShape
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage import schema
from poe_gateway.storage.audit import MongoAudit
from poe_gateway.storage.client import Database
from poe_gateway.storage.traffic import MongoTraffic
from poe_gateway.vault import Vault, new_key
from tests.accounts.support import START, HandClock

PEPPER = b"pepper"
RAW: Any = CodecOptions(document_class=RawBSONDocument)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def change(number: int, **more: Any) -> Change:
    fields: dict[str, Any] = {
        "at": START + timedelta(seconds=number, microseconds=1234),
        "actor": "admin:alice",
        "address": "10.0.0.1",
        "action": "key.change",
        "target": f"key:key_{number}",
        "before": {"rpm": number, "ratio": 1.0, "models": [], "note": "ü"},
        "after": {"rpm": 2**40, "on": True, "none": None},
    }
    return Change(**{**fields, **more})


async def wrong(audit: MongoAudit) -> tuple[int | None, str | None]:
    report = await audit.verify()
    assert report.ok == (report.wrong is None)
    return report.bad, report.wrong


async def filled(db: Database, clock: HandClock, size: int, days: int = 0) -> MongoAudit:
    audit = MongoAudit(db, PEPPER, clock, days)
    await audit.put("spool_a", [(seq, change(seq)) for seq in range(1, size + 1)])
    return audit


async def test_changes_come_back_as_they_were_and_the_chain_is_whole(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 3)
    await audit.put("spool_b", [(7, change(7, before=None, after=None, request_id="req_1", address=None))])
    report = await MongoAudit(db, PEPPER, clock).verify()
    assert report.ok and (report.checked, report.first, report.last) == (4, 1, 4)
    [newest, *_, oldest] = await audit.entries(ChangeFilter(), 10)
    assert (newest.n, newest.source, newest.request_id, newest.before) == (4, "spool_b-7", "req_1", None)
    assert oldest.before == change(1).before and oldest.after == change(1).after
    assert oldest.at == START + timedelta(seconds=1, milliseconds=1)
    assert newest.hash == report.hash and await audit.entry(1) == oldest and await audit.entry(9) is None
    head = await db[schema.META].find_one({"_id": "audit"})
    assert head is not None and head["n"] == 4 and not head["trimmed"]


async def test_a_change_counts_once_however_often_it_is_put(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 5)
    for size in (3, 5, 8):
        await audit.put("spool_a", [(seq, change(seq)) for seq in range(1, size + 1)])
    await audit.put("spool_a", [])
    assert await db[schema.AUDIT].count_documents({}) == 8 and (await audit.verify()).checked == 8


async def test_processes_that_append_at_once_make_one_chain(db: Database, clock: HandClock) -> None:
    audits = [MongoAudit(db, PEPPER, clock) for _ in range(6)]

    async def write(audit: MongoAudit, spool: str) -> None:
        for seq in range(1, 13, 3):
            await audit.put(spool, [(seq + each, change(seq + each)) for each in range(3)])

    # The last two drain the same spool.
    spools = [f"spool_{min(number, 4)}" for number in range(6)]
    await asyncio.gather(*map(write, audits, spools))
    report = await audits[0].verify()
    assert report.ok and report.checked == 5 * 12
    sources = [each.source for each in await audits[0].entries(ChangeFilter(), 500)]
    assert len(set(sources)) == 5 * 12
    for spool in set(spools):
        seqs = [int(each.rpartition("-")[2]) for each in sources if each.startswith(spool)]
        assert seqs == list(range(12, 0, -1)) or spool == "spool_4"
    assert (await db[schema.META].find_one({"_id": "audit"}) or {})["n"] == 60


@pytest.mark.parametrize(
    ("spoil", "bad", "what"),
    [
        ({"$set": {"actor": "admin:bob"}}, 3, "changed"),
        ({"$set": {"after.rpm": 1}}, 3, "changed"),
        ({"$set": {"before.ratio": 1}}, 3, "changed"),
        ({"$unset": {"after": ""}}, 3, "changed"),
        ({"$set": {"more": 1}}, 3, "changed"),
        ({"$set": {"at": START}}, 3, "changed"),
        ({"$set": {"at": "yesterday", "hash": 5, "before": "x", "prev": None}}, 3, "changed"),
        ({"$set": {"hash": "00"}}, 3, "changed"),
        ({"$set": {"kid": "other"}}, 3, "foreign key"),
    ],
)
async def test_a_document_that_was_meddled_with(
    db: Database, clock: HandClock, spoil: dict[str, Any], bad: int, what: str
) -> None:
    audit = await filled(db, clock, 5)
    await db[schema.AUDIT].update_one({"_id": 3}, spoil)
    assert await wrong(audit) == (bad, what)
    assert len(await audit.entries(ChangeFilter(), 10)) == 5  # shown all the same
    await audit.put("spool_a", [(6, change(6))])
    assert await wrong(audit) == (bad, what)


async def test_documents_that_were_taken_out_moved_or_added(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 6)
    collection = db[schema.AUDIT]
    kept = await collection.find({}).to_list()

    async def restore() -> None:
        await collection.delete_many({})
        await collection.insert_many([dict(each) for each in kept])
        assert await wrong(audit) == (None, None)

    for gone in (1, 4):
        await collection.delete_one({"_id": gone})
        assert await wrong(audit) == (gone, "missing")
        await restore()
    await collection.delete_many({"_id": {"$gt": 4}})
    assert await wrong(audit) == (5, "cut off")
    await restore()
    await collection.delete_many({"_id": {"$in": [2, 5]}})
    await collection.insert_many([{**kept[4], "_id": 2}, {**kept[1], "_id": 5}])
    assert await wrong(audit) == (2, "reordered")
    await restore()
    for stray in ("x", 2.5):
        await collection.insert_one({**kept[0], "_id": stray, "source": "elsewhere"})
        assert await wrong(audit) == (None, "changed")
        await collection.delete_one({"_id": stray})
    await collection.delete_many({})
    assert await wrong(audit) == (1, "cut off")


async def test_what_was_cut_off_stays_missing_when_more_is_written(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 6)
    await db[schema.AUDIT].delete_many({"_id": {"$gt": 4}})
    await audit.put("spool_b", [(1, change(1))])
    assert await wrong(audit) == (5, "missing")
    assert [each.n for each in await audit.entries(ChangeFilter(), 3)] == [7, 4, 3]


async def test_a_writer_that_died_before_the_head_moved_does_no_harm(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 2)
    meta = db[schema.META]
    head = await meta.find_one({"_id": "audit"})
    assert head is not None
    await audit.put("spool_a", [(3, change(3))])
    await meta.replace_one({"_id": "audit"}, head)
    assert await wrong(audit) == (None, None)
    await audit.put("spool_a", [(3, change(3))])  # the same records come again from its spool
    assert (await meta.find_one({"_id": "audit"}) or {})["n"] == 3
    await meta.replace_one({"_id": "audit"}, head)
    await audit.put("spool_b", [(1, change(1))])
    assert (await audit.verify()).last == 4 and (await meta.find_one({"_id": "audit"}) or {})["n"] == 4


async def test_a_head_that_is_gone_or_forged_is_told_and_left(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 3)
    meta = db[schema.META]
    head = await meta.find_one({"_id": "audit"})
    assert head is not None
    for spoiled, what in (
        ({**head, "n": 2}, "changed"),
        ({**head, "mac": 5}, "changed"),
        ({"_id": "audit"}, "foreign key"),
        ({**head, "kid": "other"}, "foreign key"),
    ):
        await meta.replace_one({"_id": "audit"}, spoiled)
        await audit.put("spool_a", [(4, change(4))])
        assert await wrong(audit) == (None, what)
        assert await meta.find_one({"_id": "audit"}) == spoiled
    await meta.delete_one({"_id": "audit"})
    await audit.put("spool_a", [(5, change(5))])
    assert await wrong(audit) == (None, "missing")
    assert await meta.find_one({"_id": "audit"}) is None


async def test_another_pepper_is_a_foreign_key(db: Database, clock: HandClock) -> None:
    await filled(db, clock, 2)
    assert await wrong(MongoAudit(db, b"other", clock)) == (1, "foreign key")


async def test_entries_expire_in_their_order(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 2)
    kept = MongoAudit(db, PEPPER, clock, days=10)
    await kept.put("spool_b", [(1, change(1))])
    clock.pass_(days=1)
    later = MongoAudit(db, PEPPER, clock, days=1)  # a shorter time does not overtake the longer one
    await later.put("spool_c", [(1, change(1))])
    await kept.put("spool_c", [(2, change(2))])
    ends = [each["expires_at"] async for each in db[schema.AUDIT].find({}).sort("_id", 1)]
    assert ends == [START + timedelta(days=10)] * 4 + [START + timedelta(days=11)]
    assert await wrong(kept) == (None, None)
    clock.pass_(days=9.5)
    await db[schema.AUDIT].delete_many({"expires_at": {"$lte": clock.now()}})  # as the server does
    report = await audit.verify()
    assert report.ok and (report.first, report.checked) == (5, 1) and "expired" in report.detail
    clock.pass_(days=1)
    await db[schema.AUDIT].delete_many({"expires_at": {"$lte": clock.now()}})
    report = await audit.verify()
    assert report.ok and report.first is None and "All 5" in report.detail
    await kept.put("spool_d", [(1, change(1))])
    [entry] = await kept.entries(ChangeFilter(), 5)
    assert entry.n == 6 and await wrong(kept) == (None, None)


async def test_a_long_chain_is_read_in_slices(db: Database, clock: HandClock) -> None:
    audit = MongoAudit(db, PEPPER, clock)
    for start in range(1, 1501, 500):
        await audit.put("spool_a", [(seq, change(seq)) for seq in range(start, start + 500)])
    assert (await audit.verify()).checked == 1500
    await db[schema.AUDIT].update_one({"_id": 1234}, {"$set": {"actor": "x"}})
    assert await wrong(audit) == (1234, "changed")


async def test_changes_are_found_by_all_filters(db: Database, clock: HandClock) -> None:
    audit = await filled(db, clock, 6)
    await audit.put("spool_b", [(1, change(9, actor="settings", action="key.create", target="key:x"))])

    async def found(**where: Any) -> list[int]:
        return [each.n for each in await audit.entries(ChangeFilter(**where), 10)]

    assert await found(actor="settings") == await found(action="key.create") == await found(target="key:x") == [7]
    moment = START + timedelta(seconds=3)
    assert await found(since=moment) == [7, 6, 5, 4, 3] and await found(until=moment) == [2, 1]
    assert [each.n for each in await audit.entries(ChangeFilter(), 2, before=6)] == [5, 4]


async def test_a_database_that_is_away_is_told(nowhere: Database, clock: HandClock) -> None:
    audit = MongoAudit(nowhere, PEPPER, clock)
    for call in (audit.put("spool_a", [(1, change(1))]), audit.verify(), audit.entries(ChangeFilter(), 1)):
        with pytest.raises(StoreUnavailable):
            await call


# Traffic.

SHAPE = TrafficShape(PEPPER)
CANARY = "canary prompt 1f7e about something private"


def record(number: int, **more: Any) -> Traffic:
    fields: dict[str, Any] = {
        "request_id": f"req_{number}",
        "at": START + timedelta(seconds=number),
        "org": "default",
        "key_id": "key_1",
        "route": "/v1/chat/completions",
        "model": "m",
        "status": 200,
        "turns": [("user", f"{CANARY} {number}", 0)],
        "answer": CANARY[::-1],
        "finish": "stop",
    }
    return SHAPE.record(**{**fields, **more})


@pytest.fixture
def traffic(db: Database) -> MongoTraffic:
    return MongoTraffic(db, 30, Vault((new_key(),)))


async def test_records_come_back_once_and_expire(db: Database, traffic: MongoTraffic) -> None:
    given = [(seq, record(seq, error_code="x" if seq == 2 else None)) for seq in range(1, 4)]
    await traffic.put("spool_a", given)
    await traffic.put("spool_a", given)
    found, more = await traffic.newest(TrafficFilter(), 10)
    assert found == [each for _, each in reversed(given)] and more is None and traffic.refused == 0
    document = await db[schema.TRAFFIC].find_one({"_id": "spool_a-1"})
    assert document is not None and document["expires_at"] == record(1).at + timedelta(days=30)
    assert "sealed" not in document and "error_code" not in document  # what is not there takes no room
    assert await traffic.of("req_2") == [given[1][1]] and await traffic.of("req_9") == []


async def test_pages_of_records_miss_none(traffic: MongoTraffic) -> None:
    same = START + timedelta(minutes=1)
    await traffic.put("spool_a", [(seq, record(seq, at=same)) for seq in range(1, 8)])
    await traffic.put("spool_b", [(seq, record(seq, key_id="key_2", org="o")) for seq in range(1, 4)])
    seen: list[Traffic] = []
    place = None
    while True:
        page, place = await traffic.newest(TrafficFilter(), 3, place)
        seen += page
        if place is None:
            break
    assert len(seen) == 10 and len({(each.request_id, each.key_id) for each in seen}) == 10
    for where in (TrafficFilter(key_id="key_2"), TrafficFilter(org="o"), TrafficFilter(until=same)):
        assert len((await traffic.newest(where, 10))[0]) == 3
    assert len((await traffic.newest(TrafficFilter(since=same), 10))[0]) == 7
    assert len((await traffic.newest(TrafficFilter(request_id="req_1"), 10))[0]) == 2


async def raw_holds(db: Database, text: str) -> list[str]:
    """Collections whose documents hold the text, as the bytes are stored."""
    found = []
    for name in schema.COLLECTIONS:
        documents: list[Any] = await db.get_collection(name, RAW).find({}).to_list()
        if any(text.encode() in each.raw for each in documents):
            found.append(name)
    return found


async def test_no_text_is_stored_unless_it_is_wanted_and_then_sealed(
    db: Database, clock: HandClock, traffic: MongoTraffic
) -> None:
    await traffic.put("spool_a", [(1, record(1)), (2, record(2, seal=traffic.seal))])
    await filled(db, clock, 2)
    for text in (CANARY, "something private", CANARY[::-1]):
        assert await raw_holds(db, text) == []
    assert await raw_holds(db, "key_1")  # the search does find what is there
    [kept] = await traffic.of("req_2")
    assert kept.sealed is not None
    opened = traffic.open(kept.sealed)
    assert opened == {"messages": [{"role": "user", "text": f"{CANARY} 2", "images": 0}], "answer": CANARY[::-1]}
    assert MongoTraffic(db, 30, Vault((new_key(),))).open(kept.sealed) is None
    assert [each.sealed for each in await traffic.of("req_1")] == [None]


async def test_the_largest_record_can_be_stored(traffic: MongoTraffic) -> None:
    turns = [("user", '"' * 2_000_000, 0)] + [("user", "", 0)] * 100_000
    await traffic.put("spool_a", [(1, record(1, turns=turns, seal=traffic.seal, model="m" * 10**7))])
    assert traffic.refused == 0 and len((await traffic.of("req_1"))[0].messages) == 201


def test_records_survive_the_way_over_a_spool() -> None:
    for each in (record(1), change(1)):
        assert msgspec.json.decode(msgspec.json.encode(each), type=Traffic | Change) == each
