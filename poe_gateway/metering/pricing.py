"""Price rules and what an attempt costs by them. Pure; Decimal in, integer amounts out, never a float.

Which rule holds: the most specific one of those in force. In this order, each step only where all before are equal:
a rule of the organisation before one of all; of the provider before one of all; of an exact model name before a glob
before one of all models; more literal characters before fewer; the later ``valid_from``; the later version.

What it costs: the upstream's own figure where it told one, else by the rule's prices. The markup comes on top of either
and is the only difference between ``raw`` and ``billed``. Each of both is rounded once, half to even, to 10**-8.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from poe_gateway.money import DECIMALS, LARGEST, POINTS, is_unit

Priced = Literal["upstream", "rule"]
_EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)
"""Wide enough that no product here is rounded before the end."""
_LONGEST_FIGURE = 64
_PER_MILLION = -6
_HUNDRED = Decimal(100)
_ZERO = Decimal(0)


class PriceRule(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a rule; never changed but for its end. ``org``, ``provider``, ``model`` None: all.

    A price that is None is not known; all of them None: the rule only carries a markup. Prices of 0 are known.
    """

    id: str
    version: int
    org: str | None = None
    provider: str | None = None
    model: str | None = None
    """Lower case; exact or a glob, on the public name or on ``provider:name``."""
    currency: str = "USD"
    input: Decimal | None = None
    """For a million tokens, as are ``output`` and ``cached``."""
    output: Decimal | None = None
    cached: Decimal | None = None
    """Of input tokens that the upstream had in its cache; None: as ``input``."""
    request: Decimal | None = None
    point: Decimal | None = None
    markup_percent: Decimal = _ZERO
    valid_from: datetime
    retired_at: datetime | None = None
    """From then on it does not hold."""
    created_at: datetime
    note: str = ""

    @property
    def name(self) -> str:
        """As rows of the ledger have it."""
        return f"{self.id}@{self.version}"

    def holds(self, at: datetime) -> bool:
        """Whether it is in force."""
        return self.valid_from <= at and (self.retired_at is None or at < self.retired_at)

    def matches(self, org: str | None, provider: str, model: str) -> bool:
        """Whether it is about these, at whatever time. Names of models in any case."""
        if (self.org is not None and self.org != org) or (self.provider is not None and self.provider != provider):
            return False
        if self.model is None:
            return True
        name = model.lower()
        return any(fnmatchcase(each, self.model) for each in (name, f"{provider.lower()}:{name}"))

    def specificity(self) -> tuple[bool, bool, int, int]:
        """What makes it win before time does: organisation, provider, 2 exact / 1 glob / 0 all, literal characters."""
        return (self.org is not None, self.provider is not None, *_reach(self.model))

    @property
    def priced(self) -> bool:
        """Whether it has a price at all."""
        return any(each is not None for each in (self.input, self.output, self.cached, self.request, self.point))


def _reach(model: str | None) -> tuple[int, int]:
    if model is None:
        return 0, 0
    if not any(each in model for each in "*?["):
        return 2, len(model)
    return 1, sum(each not in "*?[]" for each in model)


def ranked(
    rules: Iterable[PriceRule], org: str | None, provider: str, model: str, at: datetime | None = None
) -> list[PriceRule]:
    """The rules that match, the one that wins first; ``at`` None: whether in force or not."""
    found = [each for each in rules if each.matches(org, provider, model) and (at is None or each.holds(at))]
    found.sort(key=lambda each: (each.specificity(), each.valid_from, each.version), reverse=True)
    return found


def reason(rule: PriceRule) -> str:
    """What the rule is made for, in words: why it wins over a more general one."""
    exact, _ = _reach(rule.model)
    parts = [f"organisation {rule.org}"] if rule.org is not None else []
    parts += [f"provider {rule.provider}"] if rule.provider is not None else []
    parts.append(("every model", f"models like {rule.model}", f"exactly the model {rule.model}")[exact])
    return "made for " + ", ".join(parts)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was used. ``cached_tokens`` are part of ``prompt_tokens``."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    points: int | None = None
    """None: not known, and no price by points either."""
    told: tuple[str, str] | None = None
    """The upstream's own figure: decimal number and currency."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts as in ``money``. ``rule``: ``<id>@<version>`` where one was applied."""

    raw: int | None
    """What the upstream asks."""
    billed: int | None
    """With the markup."""
    unit: str
    source: Priced
    rule: str | None


def figure(told: tuple[str, str] | None) -> tuple[Decimal, str] | None:
    """An upstream's figure as number and currency; None when it is none: negative, no number, no currency."""
    if told is None:
        return None
    text, unit = told[0].strip(), told[1].strip().upper()
    if len(text) > _LONGEST_FIGURE or unit == POINTS.upper() or not is_unit(unit):
        return None
    try:
        value = _EXACT.create_decimal(text)
    except InvalidOperation:
        return None
    if not value.is_finite() or value < 0 or value.adjusted() > DECIMALS + 2:
        return None
    return value, unit


def price(rule: PriceRule | None, usage: Usage) -> Cost | None:
    """What an attempt costs; None when neither the upstream nor a rule says."""
    told = figure(usage.told)
    if told is not None:
        value, unit = told
        return Cost(
            raw=_amount(value),
            billed=_amount(value if rule is None else _marked_up(value, rule)),
            unit=unit,
            source="upstream",
            rule=None if rule is None else rule.name,
        )
    if rule is None:
        return None
    by_rule = _by_rule(rule, usage)
    if by_rule is None:
        return None
    return Cost(
        raw=_amount(by_rule),
        billed=_amount(_marked_up(by_rule, rule)),
        unit=rule.currency,
        source="rule",
        rule=rule.name,
    )


def _by_rule(rule: PriceRule, usage: Usage) -> Decimal | None:
    """Currency units before the markup. A price that is not known adds nothing, unless none at all is known."""
    cached = max(0, min(usage.cached_tokens, usage.prompt_tokens))
    total: Decimal | None = None
    for rate, count, scale in (
        (rule.input, max(0, usage.prompt_tokens) - cached, _PER_MILLION),
        (rule.input if rule.cached is None else rule.cached, cached, _PER_MILLION),
        (rule.output, max(0, usage.completion_tokens), _PER_MILLION),
        (rule.request, 1, 0),
        (None if usage.points is None else rule.point, max(0, usage.points or 0), 0),
    ):
        if rate is not None:
            part = _EXACT.scaleb(_EXACT.multiply(rate, Decimal(count)), scale)
            total = part if total is None else _EXACT.add(total, part)
    return total


def _marked_up(value: Decimal, rule: PriceRule) -> Decimal:
    return _EXACT.scaleb(_EXACT.multiply(value, _EXACT.add(_HUNDRED, rule.markup_percent)), -2)


def _amount(value: Decimal) -> int:
    """The amount, rounded once. What no ledger can hold counts as the largest that it can."""
    scaled = _EXACT.scaleb(value, DECIMALS)
    return LARGEST if scaled >= LARGEST else int(scaled.to_integral_value(ROUND_HALF_EVEN))
