"""The money side of one request: what it may cost at most, what is reserved for it, what it did cost.

Down the walk: ``admit`` reserves rates and budgets from an estimate; ``open`` writes each attempt into the ledger
before the upstream hears of it; ``close`` writes its end and the truth; ``finish`` gives back what was reserved and
not spent. Only ``admit`` may wait, and only for a slice that this process does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from poe_gateway.auth.keys import Principal
from poe_gateway.chat import estimate
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.dispatch.answer import Answer
from poe_gateway.errors import BudgetExceeded, Forbidden, GatewayError, RateLimitExceeded, StoreUnavailable, Unavailable
from poe_gateway.limits.bucket import Ask, Standing
from poe_gateway.limits.limiter import Exceeded, Hold, Limiter
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.learned import Expected, Learned
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.metering.pricing import Usage, price
from poe_gateway.metering.rows import CostSource, Intent, Outcome, RowStatus
from poe_gateway.metering.spool import SpoolFailed
from poe_gateway.metering.store import orphan
from poe_gateway.money import POINTS, shown
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Cancelled, Succeeded
from poe_gateway.pool.outcome import Outcome as PoolOutcome
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.routing.catalog import Plan
from poe_gateway.upstreams.base import Fate

_UNKNOWN_SHARE = 10
"""Of a budget: while nothing is known about a price, one request may hold a tenth of the budget, so that not more than
ten run at a time and none can pass it unless it costs more than a tenth of the whole budget."""
_SOON = 1.0
"""Seconds after which a refusal is worth asking again that is due to reservations of requests under way."""


Standings = Sequence[tuple[Ask, Standing]]


class Bill(msgspec.Struct, kw_only=True):
    """What a request cost so far. Amounts as in ``money``."""

    unit: str | None = None
    raw: int | None = None
    billed: int | None = None
    points: int | None = None

    def shown(self, amount: int | None) -> str | None:
        """One of the amounts as a decimal number in text."""
        return None if amount is None or self.unit is None else shown(amount, self.unit)


class _Estimate(msgspec.Struct, frozen=True):
    """What a request may cost at most: by provider, and the dearest by unit."""

    tokens: int
    """Of the prompt, by its length."""
    expected: Expected
    by_provider: Mapping[str, tuple[str | None, int]]
    by_unit: Mapping[str, int]
    unknown: bool
    """Of some provider nothing is known yet."""
    unpriced: bool
    """Of some provider it is known that nothing will be told."""
    points: int
    points_unknown: bool


class Charge:
    """Of one request. ``open``/``close`` around every attempt, ``finish`` once at the end; none of them waits."""

    __slots__ = (
        "_charging",
        "_estimate",
        "_finished",
        "_hold",
        "_intent",
        "_plan",
        "_row",
        "_spent",
        "asks",
        "bill",
        "principal",
    )

    def __init__(
        self,
        charging: Charging,
        principal: Principal,
        plan: Plan,
        estimated: _Estimate,
        asks: Sequence[Ask],
        hold: Hold | None,
    ) -> None:
        self.principal = principal
        self.asks = asks
        self.bill = Bill()
        self._charging = charging
        self._plan = plan
        self._estimate = estimated
        self._hold = hold
        self._row: str | None = None
        self._intent: Intent | None = None
        self._spent: dict[str, int] = {}
        self._finished = False

    def standings(self) -> Standings:
        """How the limits stand that the request counts against."""
        return self._charging.standings(self.asks)

    def open(self, request: ChatRequest, request_id: str, lease: Lease, number: int, target: str) -> None:
        """An attempt is about to begin. Raises Unavailable when that cannot be written down: then it must not."""
        account, plan = lease.account, self._plan
        unit, cost = self._estimate.by_provider.get(account.provider, (None, 0))
        intent = Intent(
            request_id=request_id,
            attempt=number,
            at=self._charging.clock.now(),
            org=self.principal.org,
            key_id=self.principal.key_id,
            provider=account.provider,
            offer=account.offer,
            account_id=account.id,
            model=plan.model,
            target=target,
            stream=request.stream,
            unit=unit,
            cost=cost,
            points=self._estimate.points if account.metered else 0,
            charges={ask.bucket.id: ask.amount for ask in self.asks if ask.bucket.kind == "budget" and ask.amount},
        )
        try:
            self._row = self._charging.ledger.open(intent)
            self._intent = intent
        except SpoolFailed:
            raise Unavailable(
                "The ledger cannot be written at the moment.", code="ledger_unavailable", retry_after=5
            ) from None

    def close(
        self,
        request: ChatRequest,
        lease: Lease,
        outcome: PoolOutcome,
        fate: Fate | None,
        answer: Answer,
        seconds: float,
    ) -> None:
        """The attempt is over: what it cost is written and counted."""
        row, self._row = self._row, None
        if row is not None:
            self._charging.settle(self, row, request, lease, outcome, fate, answer, seconds)

    def finish(self) -> None:
        """The request is over: what is reserved and not spent is free again. Idempotent."""
        if self._finished:
            return
        self._finished = True
        if self._row is not None:
            self._charging.abandon(self, self._row)
            self._row = None
        if self._hold is not None:
            self._hold.settle(self._spent)

    def spend(self, bucket_id: str, amount: int) -> None:
        """Part of what is settled at the end."""
        self._spent[bucket_id] = self._spent.get(bucket_id, 0) + amount


class Charging:
    """Of this process. ``unpriced`` ``refuse``: no request under a money budget whose price nobody knows."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        limiter: Limiter,
        windows: Windows,
        prices: PriceList,
        learned: Learned,
        points: PriceBook,
        clock: Clock,
        unpriced: str = "allow",
        trouble: Callable[[str], None] = lambda what: None,
    ) -> None:
        """``trouble``: told what the operator should know."""
        self.ledger = ledger
        self.limiter = limiter
        self.clock = clock
        self._windows = windows
        self._prices = prices
        self._learned = learned
        self._points = points
        self._unpriced = unpriced
        self._trouble = trouble

    async def admit(self, principal: Principal, request: ChatRequest, plan: Plan, want: Want, tokens: int) -> Charge:
        """Reserve what the request may use. ``tokens``: estimate of its prompt.

        Raises RateLimitExceeded, BudgetExceeded, Forbidden, Unavailable.
        """
        now = self.clock.now()
        estimated = self._estimate(principal, request, plan, want, tokens, now)
        if not principal.scopes:
            return Charge(self, principal, plan, estimated, (), None)
        expected = estimated.expected
        asks = self._windows.asks(
            principal.scopes,
            now,
            tokens=expected.prompt_tokens + expected.completion_tokens,
            amount=lambda unit, cap: self._amount(estimated, unit, cap),
        )
        hold = self.limiter.take(asks)
        if hold is None:
            try:
                hold = await self.limiter.reserve(asks)
            except Exceeded as exceeded:
                raise self._refusal(exceeded, asks) from None
            except StoreUnavailable:
                raise Unavailable(
                    "The limits of this key cannot be checked at the moment.",
                    code="database_unavailable",
                    retry_after=5,
                ) from None
        return Charge(self, principal, plan, estimated, asks, hold)

    def _estimate(
        self, principal: Principal, request: ChatRequest, plan: Plan, want: Want, tokens: int, now: datetime
    ) -> _Estimate:
        expected = self._learned.estimate(
            plan.offers, plan.key, prompt_estimate=tokens, max_tokens=_longest(request.parameters)
        )
        usage = Usage(
            prompt_tokens=expected.prompt_tokens,
            completion_tokens=expected.completion_tokens,
            points=want.need or None,
            told=None if expected.told is None else (str(expected.told), expected.currency),
        )
        by_provider: dict[str, tuple[str | None, int]] = {}
        by_unit: dict[str, int] = {}
        priced = True
        for provider in {offer.partition(":")[0] for offer in plan.offers}:
            rule = self._prices.rule(principal.org, provider, plan.model, now)
            cost = price(rule, usage)
            by_point = rule is not None and rule.point is not None and not want.need
            if cost is None or cost.billed is None or by_point:
                priced = False
                by_provider[provider] = (None, 0)
                continue
            by_provider[provider] = (cost.unit, cost.billed)
            by_unit[cost.unit] = max(cost.billed, by_unit.get(cost.unit, 0))
        return _Estimate(
            tokens,
            expected,
            by_provider,
            by_unit,
            not priced and expected.priced == "unknown",
            not priced and expected.priced == "untold",
            want.need,
            any(self._points.price(offer, plan.key) is None for offer in plan.offers),
        )

    def _amount(self, estimated: _Estimate, unit: str, cap: int) -> int:
        """What to reserve of a budget. Raises Forbidden."""
        if unit == POINTS:
            known = not estimated.points_unknown or estimated.points
            return estimated.points if known else max(1, cap // _UNKNOWN_SHARE)
        if estimated.by_unit and unit not in estimated.by_unit:
            told = ", ".join(sorted(estimated.by_unit))
            raise Forbidden(
                f"The budget is kept in {unit}, the model is priced in {told}.", code="currency_mismatch", param="model"
            )
        if estimated.unpriced and self._unpriced == "refuse":
            raise Forbidden("The model has no price, and this key has a budget.", code="model_unpriced", param="model")
        if estimated.unknown:
            return max(1, cap // _UNKNOWN_SHARE, estimated.by_unit.get(unit, 0))
        return estimated.by_unit.get(unit, 0)

    def _refusal(self, exceeded: Exceeded, asks: Sequence[Ask]) -> GatewayError:
        key = exceeded.ask.bucket
        whose = _WHOSE.get(key.id.split("|")[1], "this key")
        error: GatewayError
        retry_after = exceeded.retry_after
        if key.kind == "budget":
            unit, period = key.id.split("|")[3:5]
            cap = f"{shown(exceeded.ask.cap, unit)} {unit}"
            spent = shown(exceeded.standing.spent, unit)
            held = shown(exceeded.standing.reserved, unit)
            window = "in all" if period == "total" else f"per {period}"
            text = f"The budget of {whose} is used up: {cap} {window}, {spent} spent"
            text += f", {held} reserved by requests under way." if exceeded.standing.reserved else "."
            retry_after = _SOON if exceeded.in_flight else retry_after
            error = BudgetExceeded(text, retry_after=retry_after)
        elif key.kind == "parallel":
            text = f"{whose.capitalize()} may have {exceeded.ask.cap} requests at a time, and has them."
            error = RateLimitExceeded(text, retry_after=retry_after or _SOON)
        else:
            counted, period = key.id.split("|")[3:5]
            text = f"Rate limit of {whose} reached: {exceeded.ask.cap} {counted} per {period}"
            if exceeded.ask.amount > exceeded.ask.cap:
                text += f", and this request alone needs {exceeded.ask.amount}."
                retry_after = None
            else:
                text += "."
            error = RateLimitExceeded(text, retry_after=retry_after)
        error.limited_by = key.kind
        error.standings = self.standings(asks)
        return error

    def standings(self, asks: Sequence[Ask]) -> Standings:
        """Each ask with how its bucket stands, as far as this process knows."""
        return list(zip(asks, self.limiter.standings(asks), strict=True)) if asks else []

    def abandon(self, charge: Charge, row: str) -> None:
        """Nobody saw the end of an attempt: it counts as reserved."""
        intent = charge._intent
        assert intent is not None  # noqa: S101 - a row has an intent
        for bucket_id, amount in intent.charges.items():
            charge.spend(bucket_id, amount)
        self._write(orphan(intent, row, self.clock.now()))

    def _write(self, outcome: Outcome) -> None:
        try:
            self.ledger.close(outcome)
        except SpoolFailed:
            # Far too many ends wait for the disk, or the process has left: the attempt stays open there, and is charged
            # as reserved when its spool is drained.
            self._trouble("the end of an attempt could not be written to the ledger; it will count as reserved")

    def settle(
        self,
        charge: Charge,
        row: str,
        request: ChatRequest,
        lease: Lease,
        outcome: PoolOutcome,
        fate: Fate | None,
        answer: Answer,
        seconds: float,
    ) -> None:
        """Price an attempt that is over and write it down."""
        account, plan, now = lease.account, charge._plan, self.clock.now()
        succeeded = isinstance(outcome, Succeeded)
        # What was produced is paid, whoever left. Of a message whose fate nobody knows the upstream's books will tell.
        used = succeeded or not answer.empty or (isinstance(outcome, Cancelled) and fate is not Fate.NOT_SENT)
        told_tokens = answer.prompt_tokens is not None and answer.completion_tokens is not None
        prompt = completion = cached = 0
        points: int | None = answer.points
        points_estimated = False
        bill = charge.bill
        raw: int | None = None
        billed: int | None = None
        unit: str | None = None
        source: CostSource | None = None
        rule_name: str | None = None
        if used or answer.cost is not None or points is not None:
            expected = charge._estimate.expected
            prompt = expected.prompt_tokens if answer.prompt_tokens is None else answer.prompt_tokens
            completion = (
                estimate.tokens(len(answer.text)) if answer.completion_tokens is None else answer.completion_tokens
            )
            cached = min(answer.cached_tokens or 0, prompt)
            if points is None and account.metered:
                points, points_estimated = lease.want.expected, True
            rule = self._prices.rule(charge.principal.org, account.provider, plan.model, now)
            cost = price(
                rule,
                Usage(
                    prompt_tokens=prompt,
                    completion_tokens=completion,
                    cached_tokens=cached,
                    points=points,
                    told=answer.cost,
                ),
            )
            if cost is None and charge._estimate.expected.told is not None and answer.cost is None:
                # The upstream tells its price at the end; this answer had none.
                expected_told = (str(expected.told), expected.currency)
                cost = price(rule, Usage(points=points, told=expected_told))
                source = "estimate"
            if cost is not None:
                raw, billed, unit = cost.raw, cost.billed, cost.unit
                source = source or ("estimate" if not told_tokens and cost.source == "rule" else cost.source)
                rule_name = cost.rule
        charges: dict[str, int] = {}
        for ask in charge.asks:
            if ask.bucket.kind == "budget":
                own = ask.bucket.id.split("|")[3]
                spent = (points or 0) if own == POINTS else (billed or 0) if own == unit else 0
                if spent or fate is Fate.UNKNOWN:  # the row names the budget that a later correction concerns
                    charges[ask.bucket.id] = spent
                    charge.spend(ask.bucket.id, spent)
            elif ask.bucket.kind == "rate" and ask.bucket.id.split("|")[3] == "tokens":
                charge.spend(ask.bucket.id, prompt + completion)
        status: RowStatus = "succeeded" if succeeded else "cancelled" if isinstance(outcome, Cancelled) else "failed"
        self._write(
            Outcome(
                row=row,
                at=now,
                status=status,
                outcome=type(outcome).__name__,
                fate=None if fate is None else fate.value,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=cached,
                tokens_estimated=bool(prompt or completion) and not told_tokens,
                points=points,
                points_estimated=points_estimated,
                unit=unit,
                raw_cost=raw,
                billed_cost=billed,
                cost_source=source,
                price_rule=rule_name,
                upstream_id=answer.upstream_id,
                seconds=seconds,
                charges=charges,
            )
        )
        if succeeded:
            self._learned.observe(
                account.offer,
                plan.key,
                prompt_estimate=charge._estimate.tokens,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                cost=answer.cost,
            )
        if billed is not None:
            bill.unit, bill.raw, bill.billed = unit, (bill.raw or 0) + (raw or 0), (bill.billed or 0) + billed
        if points is not None:
            bill.points = (bill.points or 0) + points


_WHOSE = {"key": "this key", "org": "the organisation", "global": "the gateway"}


def _longest(parameters: Mapping[str, object]) -> int | None:
    """The caller's own bound of the answer, in tokens."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = parameters.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
