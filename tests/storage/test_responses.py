"""The store of kept responses: MongoDB and its twin in memory, and the shelf on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.events import TextDelta
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.conversations.kept import Kept, KeptStore
from poe_gateway.conversations.memory import MemoryKept
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.errors import NotFound, StoreUnavailable
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document
from poe_gateway.storage.responses import MongoKept
from poe_gateway.vault import Vault, new_key
from tests.support.responses import asked, head_of, reply_of

FIRST = Kept(id="resp_1", key_id="key_a", org="org_1", weight=3, sealed=b"\x00\xff1", kid="k1")
SECOND = replace(FIRST, id="resp_2", path=("resp_1",), weight=6, sealed=b"2")
THIRD = replace(FIRST, id="resp_3", path=("resp_1", "resp_2"), weight=9, sealed=b"3")
OTHER = replace(SECOND, id="resp_4", sealed=b"4")
ANN = Principal(key_id="key_ann", name="ann")
TTL = 60.0
Pass = Callable[[float], Awaitable[None]]


class Sky(SystemClock):
    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.ahead)


@pytest.fixture(params=["memory", "mongo", "standalone"])
def made(request: pytest.FixtureRequest) -> tuple[KeptStore, Pass]:
    """A store, and a way to let time pass for what it holds."""
    if request.param == "memory":
        sky = Sky()

        async def ahead(seconds: float) -> None:
            sky.ahead += seconds

        return MemoryKept(sky), ahead
    db: Database = request.getfixturevalue("db" if request.param == "mongo" else "standalone_db")

    async def back(seconds: float) -> None:
        """The database's clock cannot be moved: its dates are."""
        moved = {"$subtract": ["$expires_at", round(seconds * 1000)]}
        await db[schema.RESPONSES].update_many({}, [{"$set": {"expires_at": moved}}])

    return MongoKept(db), back


async def test_what_was_put_is_fetched(made: tuple[KeptStore, Pass]) -> None:
    store, _ = made
    for kept in (FIRST, SECOND, THIRD):
        await store.put(kept, TTL)
    assert await store.fetch("key_a", ["resp_1"]) == {"resp_1": FIRST}
    assert await store.fetch("key_a", THIRD.path) == {"resp_1": FIRST, "resp_2": SECOND}
    assert await store.fetch("key_a", ["resp_9"]) == await store.fetch("key_a", []) == {}
    assert await store.fetch("key_b", ["resp_1", "resp_2", "resp_3"]) == {}


async def test_nobody_deletes_another_key_s(made: tuple[KeptStore, Pass]) -> None:
    store, _ = made
    await store.put(FIRST, TTL)
    assert not await store.drop("key_b", "resp_1")
    assert not await store.drop("key_a", "resp_9")
    assert await store.drop("key_a", "resp_1")
    assert not await store.drop("key_a", "resp_1")
    assert await store.fetch("key_a", ["resp_1"]) == {}


async def test_a_deleted_one_stays_for_what_goes_on_from_it(made: tuple[KeptStore, Pass]) -> None:
    store, _ = made
    for kept in (FIRST, SECOND, THIRD, OTHER):
        await store.put(kept, TTL)
    everything = [kept.id for kept in (FIRST, SECOND, THIRD, OTHER)]
    assert await store.drop("key_a", "resp_1")
    assert await store.drop("key_a", "resp_2")
    assert not await store.drop("key_a", "resp_2")
    there = await store.fetch("key_a", everything)
    assert {name: kept.deleted for name, kept in there.items()} == {
        "resp_1": True,
        "resp_2": True,
        "resp_3": False,
        "resp_4": False,
    }
    assert there["resp_1"].sealed == FIRST.sealed
    assert await store.drop("key_a", "resp_3")
    assert set(await store.fetch("key_a", everything)) == {"resp_1", "resp_4"}, "another goes on from the first"
    assert await store.drop("key_a", "resp_4")
    assert await store.fetch("key_a", everything) == {}


async def test_a_conversation_that_is_deleted_at_once_leaves_nothing(made: tuple[KeptStore, Pass]) -> None:
    store, _ = made
    everything = [kept.id for kept in (FIRST, SECOND, THIRD, OTHER)]
    for _ in range(5):
        for kept in (FIRST, SECOND, THIRD, OTHER):
            await store.put(kept, TTL)
        assert all(await asyncio.gather(*[store.drop("key_a", each) for each in everything]))
        assert await store.fetch("key_a", everything) == {}


async def test_nothing_is_deleted_but_what_was_asked_for(made: tuple[KeptStore, Pass]) -> None:
    store, _ = made
    for kept in (FIRST, SECOND, THIRD):
        await store.put(kept, TTL)
    assert await store.drop("key_a", "resp_3")
    assert await store.fetch("key_a", ["resp_1", "resp_2"]) == {"resp_1": FIRST, "resp_2": SECOND}


async def test_a_deletion_that_broke_off_is_finished_by_the_next_one(db: Database) -> None:
    store = MongoKept(db)
    await store.put(FIRST, TTL)
    await db[schema.RESPONSES].update_one({"_id": "resp_1"}, {"$set": {"deleted": True}})
    assert not await store.drop("key_a", "resp_1")
    assert await db[schema.RESPONSES].find_one() is None


class Commands(CommandListener):
    """Counts what is sent."""

    def __init__(self) -> None:
        self.sent = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.sent += 1

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


async def test_a_long_conversation_goes_at_once(db: Database, mongo_uri: str) -> None:
    """One after another would take longer than a call may, and what had gone by then could not be asked for again."""
    store, commands = MongoKept(db), Commands()
    conversation = [f"resp_{number}" for number in range(40)]
    for number, name in enumerate(conversation):
        await store.put(replace(FIRST, id=name, path=tuple(conversation[:number])), TTL)
    for name in conversation[:-1]:
        await store.drop("key_a", name)
    assert await db[schema.RESPONSES].count_documents({}) == 40
    async with AsyncMongoClient[Document](mongo_uri, event_listeners=[commands]) as client:
        assert await MongoKept(client[db.name]).drop("key_a", conversation[-1])
    assert await db[schema.RESPONSES].count_documents({}) == 0
    assert commands.sent < 10


async def test_what_is_gone_on_from_stays(made: tuple[KeptStore, Pass]) -> None:
    store, passes = made
    await store.put(FIRST, TTL)
    await store.put(replace(SECOND, key_id="key_b"), TTL)
    await passes(50)
    await store.put(THIRD, TTL)
    await passes(20)
    assert set(await store.fetch("key_a", THIRD.path)) == {"resp_1"}
    assert await store.fetch("key_b", ["resp_2"]) == {}, "another key's is not kept alive"
    await passes(41)
    assert await store.fetch("key_a", ["resp_1", "resp_3"]) == {}
    assert not await store.drop("key_a", "resp_3")


async def test_a_shorter_stay_shortens_nobody_s(made: tuple[KeptStore, Pass]) -> None:
    store, passes = made
    await store.put(FIRST, TTL)
    await store.put(SECOND, 10.0)
    await passes(30)
    assert set(await store.fetch("key_a", ["resp_1", "resp_2"])) == {"resp_1"}


async def test_what_is_gone_is_not_made_by_what_goes_on_from_it(made: tuple[KeptStore, Pass]) -> None:
    store, _ = made
    await store.put(SECOND, TTL)
    assert await store.fetch("key_a", ["resp_1"]) == {}


def shelf_on(db: Database) -> Shelf:
    return Shelf(store=MongoKept(db), vault=Vault((new_key(),)), ids=Ids(5), ttl=TTL)


async def say(shelf: Shelf, response_id: str, answer: str, **body: Any) -> list[str]:
    """Ask, be answered, and have it kept; the texts that were sent on."""
    request = await shelf.recall(ANN, asked(store=True, **body))
    assert await shelf.keep(ANN, reply_of(head_of(request, response_id), [TextDelta(answer)]))
    return [message.text for message in request.messages]


async def test_a_conversation_goes_on_and_nothing_of_it_is_in_plain(db: Database) -> None:
    shelf = shelf_on(db)
    before = datetime.now(UTC) - timedelta(seconds=5)
    for number in range(6):
        previous = f"resp_{number - 1}" if number else None
        texts = await say(
            shelf, f"resp_{number}", f"answer-{number}", input=f"question-{number}", previous_response_id=previous
        )
        assert len(texts) == 2 * number + 1
    assert texts[0] == "question-0" and texts[-2:] == ["answer-4", "question-5"]
    documents = await db[schema.RESPONSES].find({}).to_list()
    for document in documents:
        names = {"_id", "key_id", "org", "path", "weight", "sealed", "kid", "created_at", "expires_at"}
        assert set(document) == names | ({"previous"} if document["path"] else set())
        assert before < document["created_at"] < document["expires_at"]
        plain = orjson.dumps({name: str(value) for name, value in document.items()})
        assert b"question" not in plain and b"answer" not in plain
    sizes = [len(document["sealed"]) for document in documents]
    assert max(sizes) < 2 * min(sizes), "a response holds its own items only"


async def test_a_document_under_another_name_is_not_there(db: Database) -> None:
    shelf = shelf_on(db)
    await say(shelf, "resp_1", "one")
    document = await db[schema.RESPONSES].find_one({"_id": "resp_1"})
    assert document is not None
    await db[schema.RESPONSES].insert_one({**document, "_id": "resp_2"})
    with pytest.raises(NotFound):
        await shelf.find(ANN, "resp_2")
    assert (await shelf.find(ANN, "resp_1")).response["id"] == "resp_1"


async def test_large_answers_are_kept(db: Database) -> None:
    shelf = shelf_on(db)
    await say(shelf, "resp_1", "x" * 10_000_000)
    texts = await say(shelf, "resp_2", "y", previous_response_id="resp_1")
    assert len(texts[1]) == 10_000_000


async def test_a_database_that_is_away_is_told_as_such(nowhere: Database) -> None:
    store = MongoKept(nowhere)
    for call in (store.put(SECOND, TTL), store.fetch("key_a", ["resp_1"]), store.drop("key_a", "resp_1")):
        with pytest.raises(StoreUnavailable):
            await call  # type: ignore[misc]
