"""What an attempt that is over used, and what it cost. Pure."""

from __future__ import annotations

import msgspec

from poe_gateway.chat import estimate as counts
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.estimates import Estimate
from poe_gateway.metering.pricing import PriceRule, Usage, figure, price
from poe_gateway.metering.rows import CostSource
from poe_gateway.money import shown
from poe_gateway.pool.account import Account
from poe_gateway.pool.outcome import Cancelled, Outcome, Succeeded
from poe_gateway.upstreams.base import Fate


class Bill(msgspec.Struct, kw_only=True):
    """What a request cost so far. Amounts as in ``money``."""

    unit: str | None = None
    raw: int | None = None
    billed: int | None = None
    points: int | None = None

    def shown(self, amount: int | None) -> str | None:
        """One of the amounts as a decimal number in text."""
        return None if amount is None or self.unit is None else shown(amount, self.unit)

    def add(self, used: Used) -> None:
        """One more attempt. Of several currencies the last one is shown: they have no sum."""
        if used.billed is not None:
            if used.unit != self.unit:
                self.unit, self.raw, self.billed = used.unit, 0, 0
            self.raw = (self.raw or 0) + (used.raw or 0)
            self.billed = (self.billed or 0) + used.billed
        if used.points is not None:
            self.points = (self.points or 0) + used.points


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """By one attempt. Fields as in a row of the ledger."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    tokens_estimated: bool = False
    points: int | None = None
    points_estimated: bool = False
    unit: str | None = None
    raw: int | None = None
    billed: int | None = None
    source: CostSource | None = None
    rule: str | None = None


NOTHING = Used()


def is_paid(outcome: Outcome, fate: Fate | None, answer: Answer) -> bool:
    """Whether an attempt costs something.

    What was produced or counted is paid, whoever left; so is a message that the upstream probably has when the caller
    leaves. Of a message that failed and whose fate nobody knows the upstream's books will tell.
    """
    if isinstance(outcome, Succeeded) or not answer.empty or answer.counted or answer.discarded:
        return True
    return isinstance(outcome, Cancelled) and fate is not Fate.NOT_SENT


def used(answer: Answer, account: Account, rule: PriceRule | None, estimate: Estimate, points: int) -> Used:
    """What a paid attempt used. ``points``: what it probably cost where the upstream does not tell."""
    expected = estimate.expected
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    guessed = prompt is None or completion is None
    if prompt is None:
        prompt = answer.prompt_reckoned
    if prompt is None:
        prompt = expected.prompt_tokens
    if completion is None:
        completion = answer.completion_reckoned
    if completion is None:
        completion = counts.tokens(answer.length)
    cached = min(answer.cached_tokens or 0, prompt)
    spent = answer.points
    if spent is None and account.metered:
        spent = points * answer.rounds
    told = answer.cost if figure(answer.cost) is not None else None
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, points=spent, told=told)
    cost = price(rule, usage)
    source: CostSource | None = None
    if cost is None and (usual := estimate.told.get(account.provider)) is not None:
        # It tells its price at the end; this answer had none.
        cost, source = price(rule, Usage(told=usual)), "estimate"
    elif cost is not None:
        source = "estimate" if guessed and cost.source == "rule" else cost.source
    return Used(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        tokens_estimated=guessed and bool(prompt or completion),
        points=spent,
        points_estimated=answer.points is None and spent is not None,
        unit=None if cost is None else cost.unit,
        raw=None if cost is None else cost.raw,
        billed=None if cost is None else cost.billed,
        source=source,
        rule=None if cost is None else cost.rule,
    )
