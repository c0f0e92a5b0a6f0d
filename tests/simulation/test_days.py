"""Simulated days: clean runs, the same from the same seed, and every planted bug is caught."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from msgspec.structs import replace

from poe_gateway.simulation.day import Day
from poe_gateway.simulation.plan import Plan, arrivals, draw
from poe_gateway.simulation.plants import PLANTS
from poe_gateway.simulation.report import Report, told
from tests.simulation.plans import crowded, freezes, key

ROOT = Path(__file__).resolve().parents[2]


def run(plan: Plan, plant: str | None = None) -> Report:
    return Day(plan, PLANTS[plant] if plant is not None else None).run()


def clean(report: Report) -> None:
    assert report.violation is None, told(report.violation, report.seed)


@pytest.mark.parametrize("seed", [3, 4, 6, 13])
def test_a_quarter_of_a_day_keeps_every_promise(seed: int) -> None:
    report = run(draw(seed, days=0.25))
    clean(report)
    assert report.served > 0


def test_frozen_processes_keep_their_slots_and_lose_none() -> None:
    report = run(crowded(1, *freezes(12, 900.0)))
    clean(report)
    assert report.troubles == {"freeze": 12}
    assert report.most_running == 1
    assert report.served > 100


def test_turns_are_fair_between_keys_of_different_weight() -> None:
    clean(run(crowded(1, keys=(key("many", 3000.0, burst=10), key("few", 600.0, weight=2)))))


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    plan = draw(5, days=0.1)
    assert draw(5, days=0.1) == plan
    first, second = run(plan), run(plan)
    assert first.digest == second.digest
    assert first == second
    assert run(draw(6, days=0.1)).digest != first.digest


def test_nothing_depends_on_the_order_of_sets() -> None:
    """Seed 5 has four processes, two offers, kills and freezes."""
    script = (
        "from poe_gateway.simulation.day import Day\n"
        "from poe_gateway.simulation.plan import draw\n"
        "print(Day(draw(5, days=0.2)).run().digest)\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(digests) == 1


def test_watching_changes_nothing() -> None:
    plan = draw(5, days=0.05)
    watched = Day(plan)
    events: deque[str] = deque()
    watched.watch(events)
    report = watched.run()
    assert report.digest == run(plan).digest
    assert len(events) == report.events


@pytest.mark.parametrize(
    ("plant", "plan", "promise"),
    [
        ("slot_off_by_one", draw(2), "slots of the pool"),
        ("slot_off_by_one", crowded(1), "slots of an account"),
        ("double_release", draw(3, days=0.5), "slots and leases agree"),
        ("lost_slot", draw(3, days=0.5), "slots and leases agree"),
        ("frozen_is_dead", crowded(3, *freezes(12, 900.0)), "slots of an account"),
        (
            "turn_not_charged",
            crowded(1, keys=(key("first", 3000.0), key("second", 3000.0))),
            "turns are fair",
        ),
        ("deaf_to_challenges", draw(4), "what is stored is known"),
    ],
)
def test_a_planted_bug_is_caught(plant: str, plan: Plan, promise: str) -> None:
    report = run(plan, plant)
    assert report.violation is not None
    assert report.violation.promise == promise


def test_a_broken_promise_is_told_with_seed_time_and_the_last_events() -> None:
    report = run(crowded(1), "slot_off_by_one")
    assert report.violation is not None
    text = told(report.violation, report.seed)
    assert "2 requests run on acc_000, its limit is 1" in text
    assert "seed 1, at 0+" in text
    assert 0 < len(report.violation.events) <= 30
    assert "begins, 2/1" in report.violation.events[-1]
    assert report.events < run(crowded(1)).events


def test_arrivals_come_in_order_and_as_often_as_planned() -> None:
    plan = replace(draw(1), keys=(key("key_0", 2000.0), key("key_1", 500.0, burst=5)))
    found = arrivals(plan)
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert [each.number for each in found] == list(range(len(found)))
    assert 2000 < len(found) < 3000
    by_day = sum(8 <= each.at / 3600 < 16 for each in found)
    assert by_day > len(found) / 2
