"""Short runs of the proofs.

The long ones are ``python -m tests.money`` (budgets under kills) and ``tests.money.outage``, ``tests.money.deaths``,
``tests.money.twins``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from tests.money import outage
from tests.money.budget import Plan, run
from tests.money.deaths import left_behind
from tests.money.house import House
from tests.money.outage import own_mongod
from tests.money.site import MODEL
from tests.money.twins import parallel, sdk_twins, twins

pytestmark = pytest.mark.slow


async def test_no_budget_is_passed_and_none_leaks_while_gateways_are_killed(
    tmp_path: Path, mongo_uri: str, db_name: str
) -> None:
    rounds = await run(Plan(rounds=2, calls=300), tmp_path, mongo_uri, db_name)
    assert [each.wrong for each in rounds] == [[], []]
    assert all(each.answered > 0 and each.refused.get("budget_exceeded", 0) > 0 for each in rounds), rounds
    assert sum(each.kills for each in rounds) == 4


async def test_a_limit_of_a_thousand_lets_a_thousand_through_over_four_processes(
    tmp_path: Path, mongo_uri: str, db_name: str
) -> None:
    async with House(tmp_path, mongo_uri, db_name) as house:
        _, text = await house.key("limited", limits={"requests_hour": 1000})
        told: Counter[int] = Counter()
        headers = {"Authorization": f"Bearer {text}"}
        limits, turns = httpx.Limits(max_connections=100), asyncio.Semaphore(100)
        async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, timeout=60) as client:

            async def call(number: int) -> None:
                # Uneven on purpose: half of all go to one gateway.
                gateway = house.gateways[0 if number % 2 else number % len(house.gateways)]
                body = {"model": MODEL, "messages": [{"role": "user", "content": f"[[tab:limit]] {number}"}]}
                async with turns:  # the client's own line of those that wait for a connection is slow
                    answer = await client.post(f"{gateway.base_url}/v1/chat/completions", json=body)
                told[answer.status_code] += 1
                if answer.status_code == 429:
                    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
                    assert 1 <= int(answer.headers["retry-after"]) <= 3600
                else:
                    assert answer.status_code == 200, answer.text

            await asyncio.gather(*(call(number) for number in range(1600)))
        assert told == {200: 1000, 429: 600}
        assert (await house.figures())["calls"]["limit"] == 1000


async def test_an_outage_of_the_database_loses_nothing_and_what_died_in_it_is_shipped(tmp_path: Path) -> None:
    async with (
        own_mongod() as mongo,
        House(tmp_path, mongo.uri, "money", processes=2, GRANT_LIFETIME_SECONDS="20") as house,
    ):
        plan = outage.Plan(seconds=10.0, before=2.0, after=1.0, callers=1)
        told = await outage.run(plan, house, mongo, "money")
        assert told.wrong == []
        assert told.whole > 0 and told.orphans == 0, told
        assert told.meanwhile["free"].get("answered"), "known keys without limits go on"
        left = await left_behind(house, mongo, "money", gently=False)
        assert left.wrong == []


async def test_twins_run_once_and_no_more_run_at_a_time_than_a_limit_says_while_gateways_are_killed(
    tmp_path: Path, mongo_uri: str, db_name: str
) -> None:
    async with (
        AsyncMongoClient[dict[str, Any]](mongo_uri, tz_aware=True) as client,
        House(tmp_path, mongo_uri, db_name) as house,
    ):
        db = client[db_name]
        plain, streamed, trouble = await asyncio.gather(
            twins(house, db, "twins", stream=False),
            twins(house, db, "twins-stream", stream=True),
            sdk_twins(house, "twins-sdk"),
        )
        assert (plain.wrong, streamed.wrong, trouble) == ([], [], [])
        told = await parallel(house, db, "parallel", calls=100)
        assert told.wrong == [], told
        assert told.kills == 2
