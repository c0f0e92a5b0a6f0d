"""Backends that fail are left out for a while, and come back by themselves."""

from __future__ import annotations

import pytest

from poe_gateway.routing.health import MEMORY, BackendHealth


@pytest.mark.parametrize(
    ("window", "threshold", "outcomes", "expected"),
    [
        (10, 0.7, "", True),
        (10, 0.7, "--", True),
        (10, 0.7, "---", False),
        (10, 0.7, "--+", True),
        (10, 0.7, "-------+++", False),
        (10, 0.7, "------++++", True),
        (10, 0.7, "----------++++", True),
        (3, 0.7, "---+", True),
        (3, 0.6, "---+", False),
        (10, 1.0, "-----+", True),
        (10, 1.0, "-----", False),
        (2, 0.1, "-----", True),
        (0, 0.1, "-----", True),
    ],
)
def test_the_newest_outcomes_decide(window: int, threshold: float, outcomes: str, expected: bool) -> None:
    health = BackendHealth(window, threshold)
    for at, outcome in enumerate(outcomes):
        health.note("b", outcome == "+", float(at))
    assert health.healthy("b", float(len(outcomes))) is expected
    assert health.healthy("another", 0.0)


def test_samples_age_so_that_a_backend_is_tried_again() -> None:
    health = BackendHealth()
    for at in (0.0, 1.0, 2.0):
        health.note("b", False, at)
    assert not health.healthy("b", MEMORY - 0.001)
    assert health.healthy("b", MEMORY)
    assert health.standings(MEMORY)["b"].samples == 2


def test_terms_change_without_forgetting() -> None:
    health = BackendHealth(10, 0.7)
    for ok in (True, False, False, True, False):
        health.note("b", ok, 0.0)
    assert health.healthy("b", 1.0)
    health.terms(3, 0.6)
    assert not health.healthy("b", 1.0)
    assert health.standing("b", 1.0).error_rate == pytest.approx(2 / 3)
    health.terms(10, 0.6)
    assert health.standing("b", 1.0).samples == 3
    health.keep({"another"})
    assert health.standings(1.0) == {}
