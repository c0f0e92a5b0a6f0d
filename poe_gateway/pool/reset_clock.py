"""When an account's points are renewed, learned from the jumps of its balance. Pure.

A jump that was seen between two measurements lies in a window of the local day, on the wall clock, so that a change of
the clocks moves nothing. Windows of several days are intersected: each jump tells a little more. What contradicts
begins anew, for an upstream may change its hour.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from poe_gateway.pool.account import EPOCH, Account, ResetClock
from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.renewal import next_reset, reset_day, reset_instant, trusted

_DAY = 86_400.0
_SOON = timedelta(minutes=10)
"""Before a renewal: how early its account is measured, so that the jump is caught between two measurements."""

_NARROW = 900.0
"""Seconds; a window that is narrower is not halved any more."""


def observe(clock: ResetClock | None, last: datetime, at: datetime, reset: DailyReset) -> ResetClock | None:
    """What is known after a jump between ``last`` (not there yet) and ``at`` (there).

    Two measurements a day or more apart teach nothing, nor does a jump that is known already. None: nothing is known.
    """
    if clock is not None and at <= clock.last_jump_at:
        return clock
    window = _window(last, at, reset)
    if window is None:
        return clock
    low, high = window
    if clock is None:
        return _clock(low, high, 1, at)
    pieces = [
        (max(low, clock.low + turn), min(high, clock.high + turn))
        for turn in (-2 * _DAY, -_DAY, 0.0, _DAY, 2 * _DAY)
        if max(low, clock.low + turn) < min(high, clock.high + turn)
    ]
    if not pieces:
        return _clock(low, high, 1, at)
    if len(pieces) > 1:
        # Two long windows meet at both ends: which end it was is not known, so the shorter window stands.
        pieces = [min((clock.low, clock.high), (low, high), key=_length)]
    return _clock(*pieces[0], clock.seen + 1, at)


def next_renewal(account: Account, now: datetime, reset: DailyReset) -> datetime | None:
    """When the account's points are renewed next, as far as is known; None: nothing says that they are.

    The learned clock when it can be trusted (its late end: by then they are there), else the grant that the upstream
    named for a subscription, else the configured hour, else any grant that was named.
    """
    clock = account.reset_clock
    if clock is not None and trusted(clock):
        return next_reset(now, reset, clock.high)
    granted = account.balance.next_grant_at
    named = granted if granted is not None and granted > now else None
    if account.renews_daily and not (named is not None and account.balance.subscription_active):
        return next_reset(now, reset)
    return named


def refresh_due(account: Account, now: datetime, reset: DailyReset) -> int:
    """The account's place in a round of measurements; lower goes first.

    0: a renewal may have come that nobody measured yet, or its window is half over. 1: one comes within minutes, and a
    measurement right before it narrows the window. 2: the rest.
    """
    measured = account.balance.measured_at or EPOCH
    newest, opens = _marks(account, now, reset)
    if newest is not None and measured < newest:
        return 0
    if opens is not None and opens - now <= _SOON and measured < opens - _SOON:
        return 1
    return 2


def _marks(account: Account, now: datetime, reset: DailyReset) -> tuple[datetime | None, datetime | None]:
    """The newest moment of a renewal's window after which a measurement tells something; when the next window opens.

    A window has three such moments: it opens, it is half over (to find the half with the jump), it ends.
    """
    clock = account.reset_clock
    if clock is not None:
        middle = (clock.low + clock.high) / 2
        moments = (clock.low, clock.high) if clock.high - clock.low < _NARROW else (clock.low, middle, clock.high)
        return max(_newest(now, reset, late) for late in moments), next_reset(now, reset, clock.low)
    if account.renews_daily:
        return _newest(now, reset, 0.0), next_reset(now, reset)
    granted = account.balance.next_grant_at
    if granted is None:
        return None, None
    return (granted, None) if granted <= now else (None, granted)


def renewal_between(account: Account, last: datetime, at: datetime, reset: DailyReset) -> bool:
    """Whether a renewal is believed to have come after ``last`` and by ``at``."""
    clock, granted = account.reset_clock, account.balance.next_grant_at
    if granted is not None and last < granted <= at:
        return True
    if clock is not None and trusted(clock):
        return last < _newest(at, reset, clock.low) + timedelta(seconds=clock.high - clock.low)
    return account.renews_daily and next_reset(last, reset) <= at


def _newest(now: datetime, reset: DailyReset, late: float) -> datetime:
    """The newest reset at or before ``now``."""
    return reset_instant(date.fromisoformat(reset_day(now, reset, late)), reset.zone, reset.hour, late)


def _window(last: datetime, at: datetime, reset: DailyReset) -> tuple[float, float] | None:
    """Wall-clock seconds after the reset hour between two instants, none left out; None when it is the whole day."""
    zone = ZoneInfo(reset.zone)
    before, after = last.astimezone(zone), at.astimezone(zone)
    elapsed = (at - last).total_seconds()
    # Seconds by which the wall clock was put forward in between. Where it was put back, it showed some times twice:
    # the window begins as much earlier.
    forward = ((after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())).total_seconds()
    start = (before.hour - reset.hour) * 3600.0 + before.minute * 60 + before.second + before.microsecond / 1e6
    low, high = start + min(0.0, forward), start + elapsed + max(0.0, forward)
    return (low, high) if 0 < high - low < _DAY else None


def _clock(low: float, high: float, seen: int, at: datetime) -> ResetClock:
    """With the window moved by whole days, so that 0 < high <= 86400."""
    turn = -((-high) // _DAY) * _DAY - _DAY
    return ResetClock(low=low - turn, high=high - turn, seen=seen, last_jump_at=at)


def _length(window: tuple[float, float]) -> float:
    return window[1] - window[0]
