"""Days and months of budgets in their zone, and what a request asks of which bucket."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from poe_gateway.limits.terms import Budget, BudgetPeriod, Rates, Scope
from poe_gateway.limits.windows import Windows, window


@pytest.mark.parametrize(
    ("zone", "period", "now", "label", "ends"),
    [
        ("UTC", "day", "2026-11-21T00:00:00", "2026-11-21", "2026-11-22T00:00:00"),
        ("UTC", "day", "2026-11-21T23:59:59", "2026-11-21", "2026-11-22T00:00:00"),
        ("UTC", "month", "2026-12-31T23:59:59", "2026-12", "2027-01-01T00:00:00"),
        ("UTC", "month", "2028-02-29T12:00:00", "2028-02", "2028-03-01T00:00:00"),
        ("America/Los_Angeles", "day", "2026-11-21T07:59:59", "2026-11-20", "2026-11-21T08:00:00"),
        # 25 and 23 hours long.
        ("America/Los_Angeles", "day", "2026-11-01T07:00:00", "2026-11-01", "2026-11-02T08:00:00"),
        ("America/Los_Angeles", "day", "2026-03-08T08:00:00", "2026-03-08", "2026-03-09T07:00:00"),
        # Midnight is skipped: the day begins at one.
        ("America/Santiago", "day", "2026-09-05T12:00:00", "2026-09-05", "2026-09-06T04:00:00"),
        ("America/Santiago", "day", "2026-09-06T04:00:00", "2026-09-06", "2026-09-07T03:00:00"),
        ("Pacific/Auckland", "month", "2026-10-31T10:59:59", "2026-10", "2026-10-31T11:00:00"),
        ("Pacific/Auckland", "month", "2026-10-31T11:00:00", "2026-11", "2026-11-30T11:00:00"),
        ("UTC", "total", "2026-11-21T00:00:00", "total", None),
    ],
)
def test_windows_of_budgets(zone: str, period: BudgetPeriod, now: str, label: str, ends: str | None) -> None:
    found = window(period, datetime.fromisoformat(now).replace(tzinfo=UTC), ZoneInfo(zone))
    assert found.label == label
    assert found.ends_at == (None if ends is None else datetime.fromisoformat(ends).replace(tzinfo=UTC))


def test_a_request_asks_for_everything_that_counts_it() -> None:
    scopes = (
        Scope(
            kind="key",
            id="key_a",
            rates=Rates(requests_minute=60, tokens_day=1000, requests_hour=0, requests_day=-1, parallel=3),
            budgets=(Budget(unit="USD", period="day", amount=500), Budget(unit="points", period="total", amount=70)),
        ),
        Scope(kind="global", id="", rates=Rates(requests_minute=600)),
    )
    now = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
    windows = Windows(ZoneInfo("UTC"))
    cost = {"USD": 12, "points": 3}
    asks = windows.asks(scopes, now, tokens=40, amount=lambda unit, cap: cost[unit])
    assert {ask.bucket.id: (ask.amount, ask.cap) for ask in asks} == {
        "rate|key|key_a|requests|minute": (1, 60),
        "rate|key|key_a|tokens|day": (40, 1000),
        "parallel|key|key_a": (1, 3),
        "budget|key|key_a|USD|day|2026-11-21": (12, 500),
        "budget|key|key_a|points|total|total": (3, 70),
        "rate|global||requests|minute": (1, 600),
    }
    # The cache ends with the day.
    next_day = datetime(2026, 11, 22, tzinfo=UTC)
    asks = windows.asks(scopes, next_day, tokens=1, amount=lambda unit, cap: 0)
    assert "budget|key|key_a|USD|day|2026-11-22" in {ask.bucket.id for ask in asks}


def test_caches_do_not_confuse_keys() -> None:
    windows = Windows(ZoneInfo("UTC"))
    now = datetime(2026, 11, 21, tzinfo=UTC)
    for number in range(3000):
        scopes = (Scope(kind="key", id=f"key_{number}", rates=Rates(parallel=1)),)
        (ask,) = windows.asks(scopes, now, tokens=0, amount=lambda unit, cap: 0)
        assert ask.bucket.id == f"parallel|key|key_{number}"
