"""Real processes on a real MongoDB, killed and stopped while callers keep them busy: the limits hold at the upstream.

Short runs of ``torture``; the long ones are made by hand.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from poe_gateway.storage.client import Client
from tests.storage.torture import Plan, Torture, prepare
from tests.storage.torture_judge import Findings, Life, judge


async def tortured(uri: str, name: str, folder: Path, plan: Plan) -> Findings:
    await prepare(uri, name, plan.accounts)
    return await asyncio.to_thread(Torture(plan, uri, name, folder).run)


async def test_limits_hold_at_the_upstream(mongo_uri: str, client: Client, db_name: str, tmp_path: Path) -> None:
    plan = Plan(seconds=9, accounts=3, each=2, all=5, lifetime=1.2, pause=0.4, seed=7)
    found = await tortured(mongo_uri, db_name, tmp_path, plan)
    assert (found.most, found.whole) == (2, 5), "held, and reached"
    assert found.requests > 50


async def test_limits_hold_without_change_streams(standalone_mongo_uri: str, db_name: str, tmp_path: Path) -> None:
    """Fewer slots than processes."""
    plan = Plan(seconds=5, processes=3, accounts=1, each=1, all=1, lifetime=1.0, pause=0.4, seed=3)
    found = await tortured(standalone_mongo_uri, db_name, tmp_path, plan)
    assert (found.most, found.whole) == (1, 1)


def test_the_judge_counts_what_is_open() -> None:
    events = [(0.0, "a", 1), (1.0, "b", 1), (1.5, "a", 1), (2.0, "a", -1), (3.0, "a", 1), (9.0, "b", -1)]
    found = judge(events, [], 3)
    assert (found.most, found.whole, found.requests) == (2, 3, 4)


@pytest.mark.parametrize(
    ("stops", "lost", "withheld"), [([], 4.0, 4.0), ([(3.0, 3.5)], 0.0, 4.0), ([(8.0, 9.0)], 4.0, 4.0)]
)
def test_the_judge_finds_lost_slots(stops: list[tuple[float, float]], lost: float, withheld: float) -> None:
    """One slot: free from 2 to 6, waited for from 1 to 7."""
    events = [(0.0, "a", 1), (2.0, "a", -1), (6.0, "a", 1)]
    waiting = Life(words=[(1.0, "waits"), (6.0, "got"), (7.0, "rests")])
    found = judge(events, [waiting, Life(stops=stops)], 1)
    assert (found.lost, found.withheld) == (lost, withheld)


def test_the_judge_finds_the_starving() -> None:
    hungry = Life(words=[(1.0, "waits"), (2.0, "got"), (9.0, "got"), (9.0, "rests")])
    assert judge([], [hungry, Life(words=[(4.0, "got")])], 1).starved == 7.0
    assert judge([], [hungry, Life(words=[(9.5, "got")])], 1).starved == 0.0, "nobody else got anything"
    stopped = Life(words=hungry.words, stops=[(3.0, 8.0)])
    assert judge([], [stopped, Life(words=[(4.0, "got"), (2.5, "got")])], 1).starved == 1.0
