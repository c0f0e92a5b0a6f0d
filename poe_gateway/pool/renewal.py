"""The calendar of daily resets: which local day's grant is in force, and when the next one comes. Pure.

A day's reset happens at ``hour`` local wall time. Where the clock skips that hour (spring), it happens at the first
instant after the gap; where the hour comes twice (autumn), at its first coming: exactly one per local day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from poe_gateway.pool.policy import DailyReset


@lru_cache(maxsize=512)
def reset_instant(day: date, zone: str, hour: int) -> datetime:
    """The instant (UTC) of the reset of one local day."""
    wall = datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(zone))  # fold=0: the first of two
    return wall.astimezone(UTC)


def reset_day(now: datetime, reset: DailyReset) -> str:
    """ISO date of the local day whose reset is the newest at or before ``now``."""
    today = now.astimezone(ZoneInfo(reset.zone)).date()
    # A zone may have skipped today's wall hour: the instant decides, not the wall clock.
    for day in (today + timedelta(days=1), today):
        if reset_instant(day, reset.zone, reset.hour) <= now:
            return day.isoformat()
    return (today - timedelta(days=1)).isoformat()


def next_reset(now: datetime, reset: DailyReset) -> datetime:
    """The first reset instant after ``now`` (UTC)."""
    day = date.fromisoformat(reset_day(now, reset)) + timedelta(days=1)
    return reset_instant(day, reset.zone, reset.hour)
