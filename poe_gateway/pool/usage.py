"""Use of points by hour, and how much of it to expect. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

_HOUR = timedelta(hours=1)
_OLDEST = 10
"""Half-lives after which an hour does not count any more."""


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one UTC hour used of one model of one offer."""

    hour: datetime
    offer: str
    model: str
    requests: int
    points: int


class Rate(msgspec.Struct, frozen=True):
    """Use per hour."""

    requests: float
    points: float


def ewma(rows: Iterable[UsageRow], now: datetime, *, half_life_hours: float = 6.0) -> dict[tuple[str, str], Rate]:
    """Use per hour by (offer, model): newer hours count more, hours without use count as such.

    The mean begins with the oldest row at most ten half-lives back: before it nobody counted.
    """
    counted = [row for row in rows if now - _HOUR * (_OLDEST * half_life_hours) <= row.hour <= now]
    if not counted:
        return {}
    weights: dict[datetime, float] = {}
    weighed = 0.0
    hour = min(row.hour for row in counted)
    while hour <= now:
        part = min(1.0, (now - hour) / _HOUR)  # the present hour is not over yet
        weights[hour] = 0.5 ** (max(0.0, (now - hour) / _HOUR - 1.0) / half_life_hours)
        weighed += weights[hour] * part
        hour += _HOUR
    weighed = max(weighed, 1 / 60)  # in the first minute of all nothing is known about an hour
    sums: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in counted:
        weight = weights.get(row.hour, 0.0)
        total = sums[row.offer, row.model]
        total[0] += weight * row.requests
        total[1] += weight * row.points
    return {key: Rate(requests / weighed, points / weighed) for key, (requests, points) in sums.items()}
