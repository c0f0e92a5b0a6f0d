"""The learned reset clock: true windows, in every zone, through every change of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.pool.account import Balance, ResetClock
from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.renewal import next_reset, reset_instant, trusted
from poe_gateway.pool.reset_clock import next_renewal, observe, refresh_due, renewal_between
from tests.unit.builders import NOON, account

LA = DailyReset(zone="America/Los_Angeles", hour=0)
ZONES = ["America/Los_Angeles", "Australia/Lord_Howe", "UTC", "Europe/Berlin", "Asia/Kolkata"]
DAY = 86_400.0


def local(text: str, zone: str = "America/Los_Angeles") -> datetime:
    """A local wall time as an instant (UTC)."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def clock(low: float, high: float, seen: int = 2, at: datetime = NOON) -> ResetClock:
    return ResetClock(low=low, high=high, seen=seen, last_jump_at=at)


def holds(known: ResetClock, seconds: float) -> bool:
    """Whether a moment of the local day lies in the window."""
    return any(known.low < seconds + turn <= known.high for turn in (-DAY, 0.0, DAY))


HOUR = 3600.0
JUMPS: list[tuple[str, ResetClock | None, str, str, tuple[float, float, int] | None]] = [
    # name, known before, measured before the jump, measured after it, (low, high, seen)
    ("the first jump", None, "2026-06-01T05:00", "2026-06-01T07:30", (5 * HOUR, 7.5 * HOUR, 1)),
    ("over the configured hour", None, "2026-06-01T23:50", "2026-06-02T00:10", (-600, 600, 1)),
    ("ends at the hour itself", None, "2026-06-01T23:00", "2026-06-02T00:00", (23 * HOUR, 24 * HOUR, 1)),
    ("a second jump narrows", clock(5 * HOUR, 8 * HOUR, 1),
     "2026-06-03T06:00", "2026-06-03T09:00", (6 * HOUR, 8 * HOUR, 2)),
    ("a wider one changes nothing", clock(5 * HOUR, 6 * HOUR, 3),
     "2026-06-03T01:00", "2026-06-03T11:00", (5 * HOUR, 6 * HOUR, 4)),
    ("narrows over midnight", clock(-600, 600, 1), "2026-06-02T23:55", "2026-06-03T03:00", (-300, 600, 2)),
    ("narrows from the day's end", clock(23 * HOUR, 24 * HOUR, 1),
     "2026-06-02T23:30", "2026-06-03T00:30", (23.5 * HOUR, 24 * HOUR, 2)),
    ("a contradiction begins anew", clock(5 * HOUR, 6 * HOUR, 9),
     "2026-06-03T07:00", "2026-06-03T08:00", (7 * HOUR, 8 * HOUR, 1)),
    ("a whole day teaches nothing", None, "2026-06-01T05:00", "2026-06-02T05:00", None),
    ("nor does it harm", clock(5 * HOUR, 6 * HOUR, 9), "2026-06-01T05:00", "2026-06-05T05:00", (5 * HOUR, 6 * HOUR, 9)),
    ("meeting at both ends", clock(0, 14 * HOUR, 1), "2026-06-03T12:00", "2026-06-04T02:00", (0, 14 * HOUR, 2)),
    # Clocks are put forward at 2:00 on 8 March 2026 and back at 2:00 on 1 November 2026.
    ("forward", None, "2026-03-08T01:30", "2026-03-08T03:30", (1.5 * HOUR, 3.5 * HOUR, 1)),
    ("back", None, "2026-11-01T00:30", "2026-11-01T02:30", (-0.5 * HOUR, 3.5 * HOUR, 1)),
]  # fmt: skip


@pytest.mark.parametrize("name, before, last, at, expected", JUMPS, ids=[each[0] for each in JUMPS])
def test_jumps(
    name: str, before: ResetClock | None, last: str, at: str, expected: tuple[float, float, int] | None
) -> None:
    known = before and replace(before, last_jump_at=local("2026-01-01T00:00"))
    after = observe(known, local(last), local(at), LA)
    if expected is None:
        assert after is None
        return
    assert after is not None
    assert (after.low, after.high, after.seen) == expected


def test_a_jump_counts_once() -> None:
    first = observe(None, local("2026-06-01T05:00"), local("2026-06-01T06:00"), LA)
    assert observe(first, local("2026-06-01T05:00"), local("2026-06-01T06:00"), LA) == first


def test_the_configured_hour_is_where_counting_begins() -> None:
    after = observe(None, local("2026-06-01T05:00"), local("2026-06-01T06:00"), DailyReset(hour=4))
    assert after is not None and (after.low, after.high) == (HOUR, 2 * HOUR)


@given(
    st.sampled_from(ZONES),
    st.integers(0, 23),
    st.integers(0, 86_399),
    st.dates(date(2026, 1, 1), date(2027, 12, 31)),
    st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 40_000)), min_size=1, max_size=8),
)
def test_the_true_moment_is_never_left_out(
    zone: str, hour: int, true: int, first: date, gaps: list[tuple[int, int]]
) -> None:
    """An account that is renewed at one wall time, measured at random moments around it, day after day."""
    reset = DailyReset(zone=zone, hour=hour)
    known: ResetClock | None = None
    for number, (before, after) in enumerate(gaps):
        day = first + timedelta(days=number)
        wall = datetime(day.year, day.month, day.day, hour) + timedelta(seconds=true)
        jump = wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        if jump.astimezone(ZoneInfo(zone)).replace(tzinfo=None) != wall:
            continue  # the clock skipped this time on that day
        known = observe(known, jump - timedelta(seconds=before), jump + timedelta(seconds=after), reset)
        assert known is not None
        assert -DAY < known.low < known.high <= DAY and known.high > 0
        assert known.high - known.low < DAY
        assert holds(known, true)
        assert known.seen <= number + 1


@given(
    st.sampled_from(ZONES),
    st.floats(-80_000, 80_000),
    st.floats(1, 14_400),
    st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
)
def test_the_next_renewal_is_ahead_and_within_a_day(zone: str, low: float, width: float, now: datetime) -> None:
    high = low + width
    known = clock(low, high) if high > 0 else clock(low + DAY, high + DAY)
    if known.high > DAY:
        known = clock(known.low - DAY, known.high - DAY)
    reset = DailyReset(zone=zone, hour=5)
    renewal = next_renewal(account(reset_clock=known), now, reset)
    assert renewal is not None
    assert now < renewal <= now + timedelta(hours=25, seconds=1)
    wall = renewal.astimezone(ZoneInfo(zone))
    at = (wall.hour - 5) * HOUR + wall.minute * 60 + wall.second + wall.microsecond / 1e6
    # Where the clock was put forward on that day, the renewal may come later by as much.
    assert min((at - known.high) % DAY, (known.high - at) % DAY) < 1e-3 or (at - known.high) % DAY <= HOUR + 1e-3


GRANT = NOON + timedelta(days=9)
RENEWALS = [
    ("the configured hour", {}, local("2026-06-02T00:00")),
    ("one jump proves nothing", {"reset_clock": clock(HOUR, 2 * HOUR, 1)}, local("2026-06-02T00:00")),
    ("two jumps do", {"reset_clock": clock(HOUR, 2 * HOUR)}, local("2026-06-02T02:00")),
    ("a wide window is no clock", {"reset_clock": clock(HOUR, 6 * HOUR)}, local("2026-06-02T00:00")),
    ("later today", {"reset_clock": clock(13 * HOUR, 14 * HOUR)}, local("2026-06-01T14:00")),
    ("over the hour", {"reset_clock": clock(-600, 600)}, local("2026-06-02T00:10")),
    (
        "a subscription's own grant",
        {"balance": Balance(points=5, subscription_active=True, next_grant_at=GRANT)},
        GRANT,
    ),
    ("a grant beside daily points", {"balance": Balance(points=5, next_grant_at=GRANT)}, local("2026-06-02T00:00")),
    ("only a grant", {"renews_daily": False, "balance": Balance(points=5, next_grant_at=GRANT)}, GRANT),
    ("a grant of the past", {"renews_daily": False, "balance": Balance(points=5, next_grant_at=NOON)}, None),
    ("nothing", {"renews_daily": False}, None),
]


@pytest.mark.parametrize("name, fields, expected", RENEWALS, ids=[each[0] for each in RENEWALS])
def test_next_renewal(name: str, fields: dict[str, object], expected: datetime | None) -> None:
    assert next_renewal(account(**fields), NOON, LA) == expected


@pytest.mark.parametrize("zone", ZONES)
def test_a_learned_hour_comes_once_a_day_over_a_year(zone: str) -> None:
    reset = DailyReset(zone=zone, hour=3)
    known = account(reset_clock=clock(20 * HOUR, 21.25 * HOUR))  # 0:15 of the next day
    moment, days = datetime(2026, 1, 1, 12, tzinfo=UTC), []
    for _ in range(365):
        following = next_renewal(known, moment, reset)
        assert following is not None and timedelta(0) < following - moment < timedelta(hours=26)
        moment = following
        wall = moment.astimezone(ZoneInfo(zone))
        assert (wall.hour, wall.minute) == (0, 15)
        days.append(wall.date())
    assert days == [days[0] + timedelta(days=n) for n in range(365)]


def measured(minutes: float, **fields: object) -> Balance:
    """Measured so many minutes before noon."""
    return Balance(points=100, measured_at=NOON - timedelta(minutes=minutes), **fields)  # type: ignore[arg-type]


OPEN = clock(11 * HOUR, 13 * HOUR)
SOON = clock(12 * HOUR + 300, 13 * HOUR)
DUE = [
    ("never measured", {"balance": Balance()}, 0),
    ("window open, not measured in it", {"balance": measured(61), "reset_clock": OPEN}, 0),
    ("window open, measured as it opened", {"balance": measured(59), "reset_clock": clock(11 * HOUR, 14 * HOUR)}, 2),
    ("window half over", {"balance": measured(59), "reset_clock": OPEN}, 0),
    ("narrow window half over", {"balance": measured(6), "reset_clock": clock(12 * HOUR - 400, 12 * HOUR + 400)}, 2),
    ("measured when it was half over", {"balance": measured(0), "reset_clock": OPEN}, 2),
    ("window over", {"balance": measured(5), "reset_clock": clock(11 * HOUR, 12 * HOUR)}, 0),
    ("after one jump the window is known too", {"balance": measured(61), "reset_clock": replace(OPEN, seen=1)}, 0),
    ("window long past, not measured since", {"balance": measured(300), "reset_clock": clock(8 * HOUR, 9 * HOUR)}, 0),
    ("window opens soon", {"balance": measured(30), "reset_clock": SOON}, 1),
    ("window opens soon, just measured", {"balance": measured(4), "reset_clock": SOON}, 2),
    ("configured hour over, not measured since", {"balance": measured(13 * 60)}, 0),
    ("configured hour over, measured since", {"balance": measured(11 * 60)}, 2),
    ("grant has come", {"renews_daily": False, "balance": measured(60, next_grant_at=NOON - timedelta(minutes=1))}, 0),
    ("grant comes", {"renews_daily": False, "balance": measured(60, next_grant_at=NOON + timedelta(minutes=9))}, 1),
    ("grant far off", {"renews_daily": False, "balance": measured(60, next_grant_at=NOON + timedelta(days=1))}, 2),
    ("no renewal known", {"renews_daily": False, "balance": measured(60)}, 2),
]


@pytest.mark.parametrize("name, fields, rank", DUE, ids=[each[0] for each in DUE])
def test_refresh_due(name: str, fields: dict[str, object], rank: int) -> None:
    assert refresh_due(account(**fields), NOON, LA) == rank


def test_measured_as_it_is_due_the_clock_becomes_narrow() -> None:
    """The duty looks every five minutes and measures what is due first: each day halves the window."""
    true = 9 * HOUR + 1234
    one = account(balance=Balance(points=0, measured_at=NOON))
    moment = NOON
    for _ in range(8 * 288):
        moment += timedelta(minutes=5)
        last = one.balance.measured_at
        assert last is not None
        rank = refresh_due(one, moment, LA)
        if rank == 2 and moment - last < timedelta(hours=3):
            continue
        jump = next_reset(last, LA, true)
        known = observe(one.reset_clock, last, moment, LA) if jump <= moment else one.reset_clock
        one = replace(one, balance=replace(one.balance, measured_at=moment), reset_clock=known)
    assert one.reset_clock is not None and trusted(one.reset_clock)
    assert one.reset_clock.low < true <= one.reset_clock.high
    assert one.reset_clock.high - one.reset_clock.low <= 1200


BETWEEN = [
    ("over the configured hour", {}, "2026-06-01T23:59", "2026-06-02T00:01", True),
    ("within the day", {}, "2026-06-01T00:01", "2026-06-01T23:59", False),
    ("several days", {}, "2026-06-01T10:00", "2026-06-04T10:00", True),
    ("before the own hour", {"reset_clock": OPEN}, "2026-06-01T23:00", "2026-06-02T10:59", False),
    ("within the own window", {"reset_clock": OPEN}, "2026-06-01T11:30", "2026-06-01T12:00", True),
    ("after it", {"reset_clock": OPEN}, "2026-06-01T13:30", "2026-06-01T23:00", False),
    ("no renewal", {"renews_daily": False}, "2026-06-01T10:00", "2026-06-04T10:00", False),
    (
        "a named grant",
        {"renews_daily": False, "balance": Balance(points=1, next_grant_at=local("2026-06-02T10:00"))},
        "2026-06-01T10:00",
        "2026-06-04T10:00",
        True,
    ),
]


@pytest.mark.parametrize("name, fields, last, at, expected", BETWEEN, ids=[each[0] for each in BETWEEN])
def test_renewal_between(name: str, fields: dict[str, object], last: str, at: str, expected: bool) -> None:
    assert renewal_between(account(**fields), local(last), local(at), LA) is expected


def test_the_windows_agree_with_the_calendar() -> None:
    assert next_renewal(account(), NOON, LA) == reset_instant(date(2026, 6, 2), LA.zone, 0)


@given(
    st.sampled_from(ZONES),
    st.integers(0, 23),
    st.floats(-86_399, 86_400),
    st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
)
def test_windows_that_open_before_the_hour_are_found(zone: str, hour: int, low: float, now: datetime) -> None:
    """Measured a moment ago or not at all since the window opened: never both due, never neither over a day."""
    reset = DailyReset(zone=zone, hour=hour)
    narrow = clock(low, low + 60)
    stale = account(balance=Balance(measured_at=now - timedelta(hours=26)), reset_clock=narrow)
    fresh = account(balance=Balance(measured_at=now), reset_clock=narrow)
    assert refresh_due(stale, now, reset) == 0
    assert refresh_due(fresh, now, reset) == 2
