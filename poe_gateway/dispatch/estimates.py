"""What a request may cost at most, before it is made: by the operator's prices and by what was learned of the model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from poe_gateway.chat.request import ChatRequest
from poe_gateway.dispatch.answer import Answer
from poe_gateway.errors import Forbidden
from poe_gateway.metering.learned import Expected, Learned
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.metering.pricing import Cost, PriceRule, Usage, price
from poe_gateway.money import POINTS
from poe_gateway.pool.account import Account
from poe_gateway.pool.lease import Want
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.routing.catalog import Plan

_UNKNOWN_SHARE = 10
"""Of a budget: while nothing is known about a price, one request may hold a tenth of the budget, so that not more than
ten run at a time and none can pass it unless it costs more than a tenth of the whole budget."""


class Quote(NamedTuple):
    """What a request may cost at one provider, as in ``money``."""

    unit: str
    amount: int


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request."""

    prompt: int
    """Tokens of the prompt, by its length."""
    expected: Expected
    """Of all offers together."""
    told: Mapping[str, tuple[str, str]]
    """By provider: what it has asked lately by its own account, and the currency. Only of those that tell."""
    quotes: Mapping[str, Quote]
    """By provider, where a price is known."""
    unknown: bool
    """Of some provider nothing, or not enough, is known yet."""
    unpriced: bool
    """Of some provider it is known that it will tell nothing, and no rule has a price."""
    points: int
    """At the dearest offer whose price in points is known."""
    points_unknown: bool

    @property
    def tokens(self) -> int:
        """Of prompt and answer."""
        return self.expected.prompt_tokens + self.expected.completion_tokens

    def reserve(self, unit: str, cap: int, *, refuse_unpriced: bool = False) -> int:
        """How much of a budget to reserve. Raises Forbidden."""
        tenth = max(1, cap // _UNKNOWN_SHARE)
        if unit == POINTS:
            return tenth if self.points_unknown and not self.points else self.points
        units = sorted({quote.unit for quote in self.quotes.values()})
        if any(each != unit for each in units):
            # Wherever it is answered, its cost must count.
            told = ", ".join(units)
            raise Forbidden(
                f"The budget is kept in {unit}, the model is priced in {told}.", code="currency_mismatch", param="model"
            )
        if self.unpriced and refuse_unpriced:
            raise Forbidden("The model has no price, and this key has a budget.", code="model_unpriced", param="model")
        dearest = max((quote.amount for quote in self.quotes.values()), default=0)
        return max(tenth, dearest) if self.unknown else dearest


class Estimator:
    """Of this process."""

    def __init__(self, prices: PriceList, learned: Learned, points: PriceBook) -> None:
        self._prices = prices
        self._learned = learned
        self._points = points
        self._pointless: set[str] = set()
        """Offers whose accounts spend no points."""

    def estimate(self, org: str, request: ChatRequest, plan: Plan, want: Want, tokens: int, at: datetime) -> Estimate:
        """``tokens``: of the prompt, by its length."""
        longest = _longest(request)
        expected = self._learned.estimate(sorted(plan.offers), plan.key, prompt_estimate=tokens, max_tokens=longest)
        points_unknown = any(
            offer not in self._pointless and self._points.price(offer, plan.key) is None for offer in plan.offers
        )
        told: dict[str, tuple[str, str]] = {}
        quotes: dict[str, Quote] = {}
        unknown = unpriced = False
        for provider, its in plan.providers.items():
            own = expected
            if len(plan.providers) > 1:
                own = self._learned.estimate(sorted(its), plan.key, prompt_estimate=tokens, max_tokens=longest)
            if (figure := _told(own)) is not None:
                told[provider] = figure
            rule = self.rule(org, provider, plan, at)
            usage = Usage(
                prompt_tokens=own.prompt_tokens,
                completion_tokens=own.completion_tokens,
                points=None if points_unknown and not want.need else want.need,
                # What others ask for the model is better than knowing nothing.
                told=figure or (None if own.priced == "untold" else _told(expected)),
            )
            cost = price(rule, usage)
            by_rule = cost if usage.told is None else price(rule, replace(usage, told=None))
            if (quote := _dearer(cost, by_rule)) is not None:
                quotes[provider] = quote
            by_points = rule is not None and rule.point is not None and points_unknown and not want.need
            if cost is None and own.priced == "untold" and not by_points:
                unpriced = True
            elif cost is None or (cost.source == "rule" and by_points):
                unknown = True
        return Estimate(
            prompt=tokens,
            expected=expected,
            told=told,
            quotes=quotes,
            unknown=unknown,
            unpriced=unpriced,
            points=want.need,
            points_unknown=points_unknown,
        )

    def rule(self, org: str, provider: str, plan: Plan, at: datetime) -> PriceRule | None:
        """The price rule that holds."""
        return self._prices.rule(org, provider, plan.model, at)

    def observe(self, account: Account, plan: Plan, estimate: Estimate, answer: Answer) -> None:
        """A request succeeded: what it really used teaches the next estimates."""
        if account.metered or answer.points is not None:
            self._pointless.discard(account.offer)
        else:
            self._pointless.add(account.offer)
        self._learned.observe(
            account.offer,
            plan.key,
            prompt_estimate=estimate.prompt,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=answer.cost,
        )


def _dearer(cost: Cost | None, by_rule: Cost | None) -> Quote | None:
    """Who leaves before the upstream tells its price pays by the rule."""
    if cost is None or cost.billed is None:
        return None
    amount = cost.billed
    if by_rule is not None and by_rule.unit == cost.unit:
        amount = max(amount, by_rule.billed or 0)
    return Quote(cost.unit, amount)


def _told(expected: Expected) -> tuple[str, str] | None:
    return None if expected.told is None else (str(expected.told), expected.currency)


def _longest(request: ChatRequest) -> int | None:
    """The caller's own bound of the answer, in tokens; vectors have none."""
    if request.operation == "embed":
        return 0
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.parameters.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
