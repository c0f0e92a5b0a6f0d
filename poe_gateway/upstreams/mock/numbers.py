"""A number that a JSON schema allows, taken from a text where one fits. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,6})?")
_MOST_TRIED = 20
_LARGEST = 2**53
_NEARLY = 1e-9


def number_for(schema: dict[str, Any], text: str, *, whole: bool) -> int | float | None:
    """The first number of ``text`` that ``schema`` allows, else one near to 1; None where none is found."""
    bounds = [_real(schema.get(name)) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")]
    step = _real(schema.get("multipleOf"))
    step = step if step is not None and step > 0 else None
    low, high, above, below = bounds

    def fits(number: float) -> bool:
        return (
            (not whole or number == math.floor(number))
            and (low is None or number >= low)
            and (high is None or number <= high)
            and (above is None or number > above)
            and (below is None or number < below)
            and (step is None or abs(math.remainder(number, step)) < _NEARLY)
        )

    told = [float(found) for found in _NUMBER.findall(text)[:_MOST_TRIED]]
    edges = [each for each in bounds if each is not None]
    tried = (each for start in (*told, 1.0, *edges, sum(edges) / 2) for each in _near(start, step, told=start in told))
    number = next(filter(fits, tried), None)
    if number is None:
        return None
    return int(number) if number == math.floor(number) else number


def _near(start: float, step: float | None, *, told: bool) -> Iterator[float]:
    """The number itself and, if nobody said it, its neighbours."""
    yield start
    if told:
        return
    yield from (math.ceil(start), math.floor(start), start + 1, start - 1, math.floor(start) + 1, math.ceil(start) - 1)
    if step is not None:
        yield from (math.ceil(start / step) * step, math.floor(start / step) * step)
        yield from ((math.floor(start / step) + 1) * step, (math.ceil(start / step) - 1) * step)


def _real(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) <= _LARGEST else None
