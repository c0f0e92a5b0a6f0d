"""What a request will cost, before it is made: learned from what earlier ones of the offer and model did. Pure.

Of each kind the last 64 figures are kept. What is expected is met by about 95 of 100 requests; while there are few
figures it is the highest of them, and never less than what is assumed of a model that nobody used yet.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

import msgspec

from poe_gateway.metering.pricing import figure

Told = Literal["unknown", "told", "untold"]
ASSUMED_OUTPUT = 1_024
"""Tokens of an answer before anything is known."""
_EVEN = 1_000
"""A ratio of one: ratios are in thousandths."""
_STEEPEST = 20_000
"""Thousandths; what is beyond (an upstream that counts otherwise) is cut."""
_MEANINGFUL = 64
"""Estimated tokens of a prompt from which its ratio says something about others: below, fixed parts outweigh it."""
_KEPT = 64
_FEW = 16
_SILENT = 3
"""Answers without a figure after which an upstream counts as one that tells none."""
_MODELS = 4_096

T = TypeVar("T", int, Decimal)


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may use: by the dearest of its offers, each field for itself."""

    prompt_tokens: int
    completion_tokens: int
    told: Decimal | None
    """What the upstream will ask by its own account, in ``currency``."""
    currency: str
    """Empty where nothing is told."""
    priced: Told
    """``unknown``: of some offer it is not known yet whether it tells; else ``untold``: some offer tells nothing."""


class _Recent(Generic[T]):
    """The last figures, in both orders: by age and by size."""

    __slots__ = ("_ages", "_sizes", "high")

    def __init__(self) -> None:
        self._ages: deque[T] = deque()
        self._sizes: list[Any] = []
        self.high: T | None = None
        """The highest of few, else the one that 95 of 100 do not pass."""

    def add(self, value: T) -> None:
        if len(self._ages) == _KEPT:
            del self._sizes[bisect_left(self._sizes, self._ages.popleft())]
        self._ages.append(value)
        insort(self._sizes, value)
        count = len(self._sizes)
        self.high = self._sizes[-1 if count < _FEW else (count * 95 + 99) // 100 - 1]

    @property
    def few(self) -> bool:
        return len(self._ages) < _FEW


class _Model:
    """Of one model at one offer."""

    __slots__ = ("_costs", "_outputs", "_ratios", "currency", "output", "ratio", "silent")

    def __init__(self) -> None:
        self._outputs: _Recent[int] = _Recent()
        self._ratios: _Recent[int] = _Recent()
        self._costs: _Recent[Decimal] = _Recent()
        self.output = ASSUMED_OUTPUT
        self.ratio = _EVEN
        self.currency = ""
        self.silent = 0

    @property
    def cost(self) -> Decimal | None:
        return self._costs.high

    @property
    def priced(self) -> Told:
        if self._costs.high is not None:
            return "told"
        return "untold" if self.silent >= _SILENT else "unknown"

    def saw_output(self, tokens: int) -> None:
        self._outputs.add(tokens)
        self.output = _at_least(self._outputs, ASSUMED_OUTPUT)

    def saw_prompt(self, estimate: int, tokens: int) -> None:
        if estimate >= _MEANINGFUL and tokens > 0:
            self._ratios.add(min(_STEEPEST, -(-tokens * _EVEN // estimate)))
            self.ratio = _at_least(self._ratios, _EVEN)

    def saw_cost(self, cost: tuple[str, str] | None) -> None:
        told = figure(cost)
        if told is None:
            self.silent += 1
            return
        value, currency = told
        if currency != self.currency:
            # Figures of two currencies have no order.
            self._costs, self.currency = _Recent(), currency
        self._costs.add(value)


def _at_least(recent: _Recent[int], assumed: int) -> int:
    high = assumed if recent.high is None else recent.high
    return max(high, assumed) if recent.few else high


class Learned:
    """Of one process, in memory: nothing is stored, and after a start all is assumed again.

    ``models``: pairs of offer and model that are kept; the one that was not observed for longest goes first.
    """

    def __init__(self, models: int = _MODELS) -> None:
        self._most = models
        self._models: OrderedDict[tuple[str, str], _Model] = OrderedDict()

    def __len__(self) -> int:
        return len(self._models)

    def estimate(
        self, offers: Iterable[str], model_key: str, *, prompt_estimate: int, max_tokens: int | None
    ) -> Expected:
        """What the request will use at the dearest of the offers. ``max_tokens`` bounds the answer.

        Figures in several currencies are not compared: the first one's currency counts.
        """
        output = ratio = 0
        told: Decimal | None = None
        currency = ""
        priced: Told = "told"
        known = self._models
        for offer in offers:
            model = known.get((offer, model_key))
            if model is None:
                output, ratio, priced = max(output, ASSUMED_OUTPUT), max(ratio, _EVEN), "unknown"
                continue
            output, ratio = max(output, model.output), max(ratio, model.ratio)
            cost = model.cost
            if cost is None:
                priced = "unknown" if "unknown" in (priced, model.priced) else "untold"
            elif told is None or (currency == model.currency and cost > told):
                told, currency = cost, model.currency
        if not ratio:
            output, ratio, priced = ASSUMED_OUTPUT, _EVEN, "unknown"
        return Expected(
            prompt_tokens=-(-prompt_estimate * ratio // _EVEN),
            completion_tokens=output if max_tokens is None else min(output, max_tokens),
            told=told,
            currency=currency,
            priced=priced,
        )

    def observe(
        self,
        offer: str,
        model_key: str,
        *,
        prompt_estimate: int,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        cost: tuple[str, str] | None,
    ) -> None:
        """What a request that succeeded really used; None where the upstream did not say."""
        key = (offer, model_key)
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = _Model()
            if len(self._models) > self._most:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        if prompt_tokens is not None:
            model.saw_prompt(prompt_estimate, prompt_tokens)
        if completion_tokens is not None and completion_tokens >= 0:
            model.saw_output(completion_tokens)
        model.saw_cost(cost)
