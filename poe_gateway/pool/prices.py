"""What a request costs in points, learned from what earlier ones cost. Pure.

Prices are learned per offer and model from the newest samples. Every figure is a median or a quantile, so that one
absurd sample among many moves nothing. Prices grow with the prompt where the samples show it; else they are constant.
When the site changes a price, the samples from before the change are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter

import msgspec

WINDOW = 64
"""Newest samples that are kept of a price."""
MAX_RUNGS = 4
_BLOCK = 8
"""Samples that are needed to tell a change of price, or how a price depends on the prompt."""
_CHANGE = 0.3
"""A median that moves by more than this part is a change of price."""
_SIGMAS = 3 * 1.4826
"""Three standard deviations, counted in median absolute deviations."""
_ERRORS = 4 * 1.4826 * 1.2533
"""Four standard errors of a median, counted in median absolute deviations over the root of the number."""
_CEILING = 4
"""Nothing is reserved beyond this many times the dearest sample, however long the prompt."""
_SPREAD = 200
"""Tokens by which prompts must differ before a price per token is believed."""
_EXPLAINED = 0.7
"""A line must leave at most this part of the scatter that a constant leaves."""


class Sample(msgspec.Struct, frozen=True):
    """One request: what it cost, and the estimated size of its prompt (0: not known)."""

    points: int
    tokens: int
    at: datetime


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A learned price in points per request."""

    typical: float
    """Median."""
    upper: int
    """Bound that few requests exceed, whatever their prompt."""
    per_1k_tokens: float | None = None
    """Points per 1,000 tokens of the prompt on top of ``base``; None: the prompt's size does not matter."""
    base: float
    margin: float
    """What a request may cost above what is expected of one with its prompt."""
    ceiling: int
    """Never reserve more."""
    samples: int
    since: datetime
    """The oldest sample that was used."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The site changed a price: medians on both sides, in points. ``at``: the first sample at the new price."""

    at: datetime
    before: float
    after: float

    @property
    def amount(self) -> float:
        """Change as a part of the old price: 0.5 is half as much again. The old price counts as one point at least."""
        return (self.after - self.before) / max(1.0, self.before)


def assess(samples: Iterable[Sample]) -> tuple[Price | None, Change | None]:
    """The price by the newest ``WINDOW`` samples, and the change that they show, if any. None without a sample."""
    newest = sorted(samples, key=_BY_TIME)[-WINDOW:]
    if not newest:
        return None, None
    cut = _newest_regime(newest)
    kept = newest[cut:]
    if not cut:
        return _price(kept), None
    before, after = (_median(sorted(each.points for each in part)) for part in (newest[:cut], kept))
    return _price(kept), Change(at=kept[0].at, before=before, after=after)


def estimate(samples: Iterable[Sample]) -> Price | None:
    """The price by the newest ``WINDOW`` samples, only those since the last change of price; None without a sample."""
    return assess(samples)[0]


def changed(samples: Iterable[Sample]) -> Change | None:
    """The newest change of price by more than 30 %, once eight samples show it."""
    return assess(samples)[1]


def expected(price: Price, tokens: int) -> int:
    """Points that a request with a prompt of ``tokens`` (0: not known) will probably cost."""
    if price.per_1k_tokens is None or not tokens:
        return min(price.ceiling, round(price.typical))
    return min(price.ceiling, max(0, round(price.base + price.per_1k_tokens * tokens / 1000)))


def at_most(price: Price, tokens: int) -> int:
    """Points to reserve for it: a bound that few requests exceed, at most four times the dearest sample."""
    per_1k = price.per_1k_tokens
    if per_1k is None or not tokens:
        return price.upper
    points = math.ceil(price.base + price.margin + per_1k * tokens / 1000)
    return 0 if points < 0 else points if points < price.ceiling else price.ceiling


def rungs(prices: Iterable[int], threshold: int) -> tuple[int, ...]:
    """The few prices that matter for best fit, ascending: from the dearest down, each less than half of the next.

    Prices up to ``threshold`` do not matter: an account in service has that many points anyway.
    """
    kept: list[int] = []
    for price in sorted(set(prices), reverse=True):
        if price <= threshold or len(kept) == MAX_RUNGS:
            break
        if not kept or 2 * price < kept[-1]:
            kept.append(price)
    return tuple(reversed(kept))


def _price(samples: Sequence[Sample]) -> Price:
    points = sorted(each.points for each in samples)
    typical = _median(points)
    ceiling = _CEILING * points[-1]
    margin = _margin([value - typical for value in points])
    upper = min(ceiling, math.ceil(typical + margin))
    line = _line(samples)
    since = min(each.at for each in samples)
    if line is None:
        return Price(
            typical=typical,
            upper=upper,
            base=typical,
            margin=margin,
            ceiling=ceiling,
            samples=len(samples),
            since=since,
        )
    base, slope = line
    rest = sorted(each.points - base - slope * each.tokens for each in samples if each.tokens)
    return Price(
        typical=typical,
        upper=upper,
        per_1k_tokens=1000 * slope,
        base=base,
        margin=_margin(rest),
        ceiling=ceiling,
        samples=len(samples),
        since=since,
    )


def _margin(residuals: Sequence[float]) -> float:
    """How far above zero a residual may lie: three robust deviations, at least the 90th percentile. Sorted input."""
    return max(0.0, _SIGMAS * _deviation(residuals), _quantile(residuals, 0.9))


def _line(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """(base, points per token) by Theil's method, None where a constant does as well.

    Slopes are taken between samples half the sample apart in size: as robust as between all pairs, at a sixtieth of
    the work.
    """
    sized = sorted((each for each in samples if each.tokens), key=_BY_SIZE)
    count = len(sized)
    if count < _BLOCK:
        return None
    least, most = sized[count // 10].tokens, sized[-1 - count // 10].tokens
    if most - least < _SPREAD or most < 2 * least:
        return None
    apart = count - count // 2
    pairs = [(low, high) for low, high in zip(sized, sized[apart:], strict=False) if high.tokens > low.tokens]
    if len(pairs) < _BLOCK // 2:
        return None
    slope = _median(sorted((high.points - low.points) / (high.tokens - low.tokens) for low, high in pairs))
    if slope <= 0:
        return None
    bases = sorted(each.points - slope * each.tokens for each in sized)
    if _deviation(bases) > _EXPLAINED * _deviation(sorted(each.points for each in sized)):
        return None
    return _median(bases), slope


def _newest_regime(samples: Sequence[Sample]) -> int:
    """Where the newest price begins: the index of its first sample, 0 when all samples show one price.

    Of the cuts that separate two clearly different medians, the one that leaves the least scatter on both sides.
    """
    count = len(samples)
    if count < 3 * _BLOCK:
        return 0
    levels = _levels(samples)
    best, least = 0, math.inf
    for cut in range(count - _BLOCK, 2 * _BLOCK - 1, -_BLOCK):
        head, tail = sorted(levels[:cut]), sorted(levels[cut:])
        if _differ(head, tail):
            scatter = _scatter(head) + _scatter(tail)
            if scatter < least:
                best, least = cut, scatter
    return best


def _levels(samples: Sequence[Sample]) -> list[float]:
    """The samples' prices in points, with the part taken out that their prompts explain."""
    line = _line(samples)
    if line is None:
        return [float(each.points) for each in samples]
    base, slope = line
    usual = _median(sorted(each.points for each in samples))
    return [
        each.points * usual / max(1.0, base + slope * each.tokens) if each.tokens else float(each.points)
        for each in samples
    ]


def _differ(head: Sequence[float], tail: Sequence[float]) -> bool:
    """Whether two sorted halves have different prices: by more than 30 %, and more than their own scatter explains."""
    before, after = _median(head), _median(tail)
    # Where prices scatter, the median of a few samples does too.
    error = _ERRORS * _deviation(head) / math.sqrt(len(tail))
    if abs(after - before) <= max(_CHANGE * max(before, 1.0), error):
        return False
    # Cuts are blocks apart: up to a block less one of the head may belong to the new price already.
    return _outside(after, head, len(head) // _BLOCK) and _outside(before, tail, len(tail) // _BLOCK)


def _outside(value: float, ordered: Sequence[float], spare: int) -> bool:
    """Whether all of a sorted list but for ``spare`` at either end lies on one side of the value."""
    return not ordered[spare] <= value <= ordered[-1 - spare]


def _scatter(ordered: Sequence[float]) -> float:
    middle = _median(ordered)
    return sum(abs(value - middle) for value in ordered)


def _deviation(ordered: Sequence[float]) -> float:
    """Median absolute deviation."""
    middle = _median(ordered)
    return _median(sorted(abs(value - middle) for value in ordered))


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _quantile(ordered: Sequence[float], part: float) -> float:
    """By nearest rank."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


_BY_TIME = attrgetter("at")
_BY_SIZE = attrgetter("tokens")
