"""The calendar of daily resets: which local day's grant is in force, and when the next one comes. Pure.

A day's reset happens at ``hour`` local wall time. Where the clock skips that hour (spring), it happens at the first
instant after the gap; where the hour comes twice (autumn), at its first coming: exactly one per local day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from poe_gateway.pool.account import ResetClock
from poe_gateway.pool.policy import DailyReset

_JUMPS = 2
_WIDEST = 4 * 3600.0


@lru_cache(maxsize=512)
def reset_instant(day: date, zone: str, hour: int, late: float = 0.0) -> datetime:
    """The instant (UTC) of the reset of one local day; ``late``: so many seconds after the hour, on the wall clock."""
    wall = datetime(day.year, day.month, day.day, hour) + timedelta(seconds=late)  # noqa: DTZ001 - a wall clock's time
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)  # fold=0: the first of two


def reset_day(now: datetime, reset: DailyReset, late: float = 0.0) -> str:
    """ISO date of the local day whose reset is the newest at or before ``now``.

    ``late``: of an account that is renewed so many seconds (up to a day) after the configured hour.
    """
    today = now.astimezone(ZoneInfo(reset.zone)).date()
    # A zone may have skipped today's wall hour: the instant decides, not the wall clock.
    for day in (today + timedelta(days=1), today, today - timedelta(days=1)):
        if reset_instant(day, reset.zone, reset.hour, late) <= now:
            return day.isoformat()
    return (today - timedelta(days=2)).isoformat()


def next_reset(now: datetime, reset: DailyReset, late: float = 0.0) -> datetime:
    """The first reset instant after ``now`` (UTC)."""
    day = date.fromisoformat(reset_day(now, reset, late)) + timedelta(days=1)
    return reset_instant(day, reset.zone, reset.hour, late)


def trusted(clock: ResetClock) -> bool:
    """Whether the account's own hour is known well enough to go by: twice seen, to a few hours."""
    return clock.seen >= _JUMPS and clock.high - clock.low <= _WIDEST
