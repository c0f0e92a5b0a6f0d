"""The reset calendar: exactly one reset per local day, in every zone and through every change of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.renewal import next_reset, reset_day, reset_instant

ZONES = ["America/Los_Angeles", "UTC", "Asia/Shanghai", "Australia/Lord_Howe", "America/Santiago", "Europe/Berlin"]


@pytest.mark.parametrize(
    "day, hour, expected",
    [
        (date(2026, 3, 7), 0, datetime(2026, 3, 7, 8, tzinfo=UTC)),
        (date(2026, 3, 8), 0, datetime(2026, 3, 8, 8, tzinfo=UTC)),
        (date(2026, 3, 8), 2, datetime(2026, 3, 8, 10, tzinfo=UTC)),  # 2:00 does not exist: first instant after it
        (date(2026, 3, 9), 0, datetime(2026, 3, 9, 7, tzinfo=UTC)),
        (date(2026, 11, 1), 1, datetime(2026, 11, 1, 8, tzinfo=UTC)),  # 1:00 comes twice: the first time
        (date(2026, 11, 2), 0, datetime(2026, 11, 2, 8, tzinfo=UTC)),
    ],
)
def test_los_angeles_around_both_changes(day: date, hour: int, expected: datetime) -> None:
    assert reset_instant(day, "America/Los_Angeles", hour) == expected


@given(
    st.sampled_from(ZONES),
    st.integers(0, 23),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
)
def test_the_day_in_force_and_the_next_reset_agree(zone: str, hour: int, now: datetime) -> None:
    reset = DailyReset(zone=zone, hour=hour)
    day = date.fromisoformat(reset_day(now, reset))
    assert reset_instant(day, zone, hour) <= now < next_reset(now, reset)
    assert next_reset(now, reset) == reset_instant(day + timedelta(days=1), zone, hour)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hour", [0, 1, 2, 3, 23])
def test_one_reset_per_local_day_over_two_years(zone: str, hour: int) -> None:
    reset = DailyReset(zone=zone, hour=hour)
    moment, days = datetime(2026, 1, 1, 12, tzinfo=UTC), []
    for _ in range(730):
        moment = next_reset(moment, reset)
        days.append(reset_day(moment, reset))
        assert reset_day(moment - timedelta(seconds=1), reset) != days[-1]
    first = date.fromisoformat(days[0])
    assert days == [(first + timedelta(days=n)).isoformat() for n in range(730)]
    assert ZoneInfo(zone)
