"""What the journals of a torture say. Pure; all times are seconds of the one monotonic clock of the machine."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import msgspec

Span = tuple[float, float]


class Life(msgspec.Struct):
    """One worker: when it lived and was stopped, and what it wrote down."""

    ended: float = float("inf")
    stops: list[Span] = []
    words: list[tuple[float, str]] = []


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """``most`` open at once on any account, ``whole`` in all. The last three in seconds.

    ``lost``: the longest time for which more than a tenth of the slots was free (some always change hands) while a
    running process had work waiting, and no process was stopped; ``withheld``: the same with stopped processes, whose
    idle slots are withheld; ``starved``: the longest time for which a running process with waiting work got nothing
    while others did.
    """

    requests: int
    most: int
    whole: int
    lost: float
    withheld: float
    starved: float


def judge(events: list[tuple[float, str, int]], lives: list[Life], limit: int) -> Findings:
    """``events`` of the upstream in order; ``limit``: as many requests as may be open in all."""
    full = limit - limit // 10
    open_now: Counter[str] = Counter()
    total = most = whole = 0
    short: list[Span] = []
    since = events[0][0] if events else 0.0
    for at, account, by in events:
        open_now[account] += by
        before, total = total, total + by
        most, whole = max(most, open_now[account]), max(whole, total)
        if before >= full > total:
            since = at
        elif before < full <= total:
            short.append((since, at))
    waits = [span for life in lives for span in _waits(life)]
    stops = [stop for life in lives for stop in life.stops]
    wanted = [cut for span in short for wait in waits if (cut := _common(span, wait))]
    return Findings(
        requests=sum(1 for _, _, by in events if by > 0),
        most=most,
        whole=whole,
        lost=_longest(span for span in wanted if not any(_common(span, stop) for stop in stops)),
        withheld=_longest(wanted),
        starved=_starved(lives),
    )


def _waits(life: Life) -> list[Span]:
    """When somebody waited in the running process."""
    found: list[Span] = []
    since: float | None = None
    for at, word in life.words:
        if word == "waits":
            since = at
        elif word == "rests" and since is not None:
            found.append((since, at))
            since = None
    if since is not None:
        found.append((since, life.ended))
    for stop in life.stops:
        found = [part for span in found for part in _without(span, stop)]
    return found


def _starved(lives: list[Life]) -> float:
    gots = [[at for at, word in life.words if word == "got"] for life in lives]
    worst = 0.0
    for number, life in enumerate(lives):
        others = sorted(at for other, times in enumerate(gots) if other != number for at in times)
        for start, end in _waits(life):
            marks = [start, *gots[number][bisect_left(gots[number], start) : bisect_right(gots[number], end)], end]
            for gap in pairwise(marks):
                if gap[1] - gap[0] > worst and bisect_left(others, gap[1]) > bisect_right(others, gap[0]):
                    worst = gap[1] - gap[0]
    return worst


def _common(one: Span, other: Span) -> Span | None:
    start, end = max(one[0], other[0]), min(one[1], other[1])
    return (start, end) if start < end else None


def _without(span: Span, cut: Span) -> list[Span]:
    if _common(span, cut) is None:
        return [span]
    return [part for part in ((span[0], cut[0]), (cut[1], span[1])) if part[0] < part[1]]


def _longest(spans: Iterable[Span]) -> float:
    return max((end - start for start, end in spans), default=0.0)
