"""A short run of the torture; the long one is ``python -m tests.torture``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import Plan, Torture

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "plan",
    [
        Plan(seconds=12, every=1.5, lifetime=3.0, longest=6.0),
        Plan(seconds=10, every=1.5, lifetime=3.0, longest=2.0, processes=3, accounts=1, each=1, whole=5, callers=6),
    ],
    ids=["a pool", "one account for one request"],
)
async def test_killed_and_stopped_gateways_never_use_a_slot_too_many(
    plan: Plan, tmp_path: Path, mongo_uri: str, db_name: str
) -> None:
    told = await Torture(plan, tmp_path, mongo_uri, db_name).run()
    assert told.site["violations"] == []
    assert told.kills + told.stops > 0
    assert told.answered > 0
    assert told.all_back_after is not None, "slots were lost"
    assert told.site["now"] == 0
