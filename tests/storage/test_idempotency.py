"""The store of claims and answers: MongoDB and its twin in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from poe_gateway.clock import SystemClock
from poe_gateway.idempotency.book import Answer, AnswerStore, Book, Claim, Found
from poe_gateway.idempotency.memory import MemoryAnswers
from poe_gateway.idempotency.recording import LIMIT
from poe_gateway.storage import schema
from poe_gateway.storage.client import Client, Database
from poe_gateway.storage.idempotency import MongoAnswers
from poe_gateway.vault import Vault, new_key
from tests.api.test_idempotent import STREAM, Inner, Process, until

CLAIM = Claim(id="a" * 64, digest="d1", owner="p1:1", request_id="req_1")
TWIN = replace(CLAIM, owner="p2:1", request_id="req_2")
LEASE, TTL = 15.0, 60.0
Pass = Callable[[float], Awaitable[None]]


class Sky(SystemClock):
    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.ahead)


@pytest.fixture(params=["memory", "mongo", "standalone"])
def made(request: pytest.FixtureRequest) -> tuple[AnswerStore, Pass]:
    """A store, and a way to let time pass for what it holds."""
    if request.param == "memory":
        sky = Sky()

        async def ahead(seconds: float) -> None:
            sky.ahead += seconds

        return MemoryAnswers(sky), ahead
    db: Database = request.getfixturevalue("db" if request.param == "mongo" else "standalone_db")

    async def back(seconds: float) -> None:
        """The database's clock cannot be moved: its dates are."""
        for name in ("lease_until", "expires_at"):
            moved = {"$subtract": [f"${name}", round(seconds * 1000)]}
            await db[schema.IDEMPOTENCY].update_many({name: {"$exists": True}}, [{"$set": {name: moved}}])

    return MongoAnswers(db), back


async def test_the_first_claim_wins_and_is_freed_or_finished(made: tuple[AnswerStore, Pass]) -> None:
    store, _ = made
    assert await store.claim(CLAIM, LEASE, TTL) == Found(digest="d1", owner="p1:1")
    assert await store.claim(TWIN, LEASE, TTL) == Found(digest="d1", owner="p1:1")
    await store.free(TWIN)
    assert not await store.renew(TWIN, LEASE, TTL)
    assert not await store.finish(TWIN, 200, b"x", "kid", TTL)
    assert await store.renew(CLAIM, LEASE, TTL)
    await store.free(CLAIM)
    await store.free(CLAIM)
    assert not await store.renew(CLAIM, LEASE, TTL)
    assert (await store.claim(TWIN, LEASE, TTL)).owner == "p2:1"
    for _ in range(2):
        assert await store.finish(TWIN, 200, b"sealed", "kid", TTL)
    assert not await store.renew(TWIN, LEASE, TTL)
    await store.free(TWIN)
    assert await store.claim(CLAIM, LEASE, TTL) == Found(digest="d1", owner="p2:1", sealed=b"sealed")


async def test_of_many_at_once_one_wins(made: tuple[AnswerStore, Pass]) -> None:
    store, _ = made
    claims = [replace(CLAIM, owner=f"p{number}:1") for number in range(20)]
    found = await asyncio.gather(*[store.claim(claim, LEASE, TTL) for claim in claims])
    assert len({each.owner for each in found}) == 1


async def test_a_lapsed_claim_is_taken_over_by_the_same_request_only(made: tuple[AnswerStore, Pass]) -> None:
    store, passes = made
    await store.claim(CLAIM, LEASE, TTL)
    await passes(10)
    assert await store.renew(CLAIM, LEASE, TTL)
    await passes(10)
    assert (await store.claim(TWIN, LEASE, TTL)).owner == "p1:1"
    await passes(6)
    assert (await store.claim(replace(TWIN, digest="d2"), LEASE, TTL)) == Found(digest="d1", owner="p1:1")
    takers = [replace(TWIN, owner=f"p{number}:1") for number in range(2, 12)]
    found = await asyncio.gather(*[store.claim(claim, LEASE, TTL) for claim in takers])
    [owner] = {each.owner for each in found}
    assert owner != "p1:1"
    assert not await store.renew(CLAIM, LEASE, TTL)
    assert not await store.finish(CLAIM, 200, b"late", "kid", TTL)
    await store.free(CLAIM)
    assert (await store.claim(CLAIM, LEASE, TTL)).owner == owner


async def test_a_lapsed_claim_that_nobody_took_over_may_still_be_finished(made: tuple[AnswerStore, Pass]) -> None:
    store, passes = made
    await store.claim(CLAIM, LEASE, TTL)
    await passes(20)
    assert await store.finish(CLAIM, 200, b"late", "kid", TTL)
    assert (await store.claim(TWIN, LEASE, TTL)).sealed == b"late"


async def test_what_has_expired_counts_as_absent(made: tuple[AnswerStore, Pass]) -> None:
    store, passes = made
    await store.claim(CLAIM, LEASE, 1.0)
    await passes(10)
    assert (await store.claim(replace(TWIN, digest="d2"), LEASE, 1.0)).owner == "p1:1", "it runs longer than it is kept"
    await store.finish(CLAIM, 200, b"x", "kid", TTL)
    await passes(59)
    assert (await store.claim(TWIN, LEASE, TTL)).sealed == b"x"
    await passes(2)
    assert await store.claim(replace(TWIN, digest="d2"), LEASE, TTL) == Found(digest="d2", owner="p2:1")


async def test_the_largest_answer_fits_and_holds_nothing_in_plain(db: Database) -> None:
    book = Book(store=MongoAnswers(db), vault=Vault((new_key(),)), pepper=b"pepper", process="p1", ttl=TTL)
    claim = book.claim_of("key_1", "the-callers-own-key", "/v1/chat/completions", b'{"secret": "prompt"}', "req_1")
    assert await book.claim(claim) == "ours"
    pieces = tuple(b"%036d" % number for number in range(LIMIT // (36 + 64)))
    answer = Answer(request_id="req_1", status=200, headers=((b"x-a", b"\xe9"),), pieces=pieces)
    big = Answer(request_id="req_1", status=200, headers=(), pieces=(b"\x00" * LIMIT,))
    for each in (answer, big):
        assert await book.keep(claim, each)
        assert await book.claim(claim) == each
    [document] = await db[schema.IDEMPOTENCY].find({}).to_list()
    plain = orjson.dumps({name: str(value) for name, value in document.items() if name != "sealed"})
    for text in (b"callers-own", b"prompt", b"key_1"):
        assert text not in plain
    assert {"_id", "digest", "owner", "request_id", "state", "status", "sealed", "kid", "expires_at"} == set(document)


@pytest.mark.parametrize("streamed", [False, True])
async def test_fifty_twins_over_two_processes_run_once(client: Client, db: Database, streamed: bool) -> None:
    inner = Inner()
    if streamed:
        inner.streams(STREAM)
    inner.gate.clear()
    processes = [await Process(inner, MongoAnswers(db), process=name).started() for name in ("p1", "p2")]
    processes[1].route._keyring = processes[0].keyring
    twins = [asyncio.create_task(processes[number % 2].ask()) for number in range(50)]
    await until(lambda: len(inner.bodies) == 1)
    inner.gate.set()
    replies = await asyncio.gather(*twins)
    assert len(inner.calls) == 1
    assert len({reply.body for reply in replies}) == 1 and all(reply.complete for reply in replies)
    assert sum(not reply.replayed for reply in replies) == 1
    assert len({reply.headers.get("x-gateway-original-request-id") for reply in replies if reply.replayed}) == 1
