"""What the operator hands in about keys and organisations, with the limits and budgets that both have."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Self

from msgspec.structs import replace
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from poe_gateway import money
from poe_gateway.api.admin.forms import KeyName, Labels, Moment, Provider
from poe_gateway.auth.addresses import network_of
from poe_gateway.auth.keys import DEFAULTS as KEY_DEFAULTS
from poe_gateway.auth.keys import KeyTerms
from poe_gateway.auth.orgs import DEFAULT, OrgTerms
from poe_gateway.limits.terms import Budget, BudgetPeriod, Rates

_MOST_REQUESTS, _MOST_TOKENS, _MOST_PARALLEL = 1_000_000_000, 1_000_000_000_000, 1_000_000
_LONGEST_OVERLAP = 30 * 86_400
"""Seconds."""
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _limit(most: int, what: str) -> Any:
    return Field(default=None, ge=-1, le=most, strict=True, description=f"{what}; null is the default, 0 unlimited")


class LimitsForm(_Form):
    """How fast. What is left out stays as it is."""

    requests_minute: int | None = _limit(_MOST_REQUESTS, "requests per minute")
    requests_hour: int | None = _limit(_MOST_REQUESTS, "requests per hour")
    requests_day: int | None = _limit(_MOST_REQUESTS, "requests per day")
    tokens_minute: int | None = _limit(_MOST_TOKENS, "tokens per minute")
    tokens_hour: int | None = _limit(_MOST_TOKENS, "tokens per hour")
    tokens_day: int | None = _limit(_MOST_TOKENS, "tokens per day")
    parallel: int | None = _limit(_MOST_PARALLEL, "requests at a time")

    def over(self, present: Rates) -> Rates:
        """The rates that hold then."""
        return replace(present, **{name: getattr(self, name) for name in self.model_fields_set})


def _digits(value: Any) -> Any:
    """An integer is as exact as text; what else JSON calls a number has been a float."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('a decimal number as text, like "0.25" or "5USD"')
    return str(value)


class BudgetForm(_Form):
    """How much in a period."""

    unit: str | None = Field(
        default=None, max_length=16, description="a currency of three letters, or points; may stand in the amount"
    )
    period: BudgetPeriod
    amount: Annotated[str, BeforeValidator(_digits), Field(max_length=64)] = Field(
        description="a decimal number as text, with its unit or without", examples=["5", "5USD", "3000points"]
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.budget()
        return self

    def budget(self) -> Budget:
        """The budget. Raises ValueError."""
        written = self.amount.strip()
        if written[-1:].isalpha():
            amount, unit = money.read(written)
            if self.unit is not None and self.unit != unit:
                raise ValueError(f"the amount is in {unit}, the budget in another unit")
            written = written.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
        elif self.unit is None:
            raise ValueError("the unit is missing: write 5USD, or name it in the field unit")
        elif not money.is_unit(self.unit):
            raise ValueError("the unit is a currency of three capital letters, or points")
        elif not _NUMBER.fullmatch(written):
            raise ValueError("the amount is a decimal number like 5 or 0.25")
        else:
            unit = self.unit
            amount = money.amount_of(written, unit)
        if amount <= 0:
            raise ValueError("a budget is more than 0; to stop a key, disable it")
        if money.decimal_of(amount, unit) != Decimal(written):
            raise ValueError("points are whole numbers, and money has eight decimals at most")
        return Budget(unit=unit, period=self.period, amount=amount)


def _each_once(budgets: list[BudgetForm]) -> list[BudgetForm]:
    seen = [(each.budget().unit, each.period) for each in budgets]
    for unit, period in seen:
        if seen.count((unit, period)) > 1:
            raise ValueError(f"two budgets in {unit} per {period}; one of them holds")
    return budgets


Budgets = Annotated[list[BudgetForm], Field(max_length=32), AfterValidator(_each_once)]
Glob = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$"),
]
Address = Annotated[str, Field(max_length=64), AfterValidator(network_of)]
Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]
OrgRef = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
_LIMITS = Field(default=None, description="rates of its own; null forgets them all")
_BUDGETS = Field(default=None, description="replaced as a whole; null or empty for none")
_NOTE = Field(default=None, description="for the operator; null for none")


def _plain(form: BaseModel, names: set[str], present: Rates, defaults: dict[str, Any]) -> dict[str, Any]:
    """The given fields as terms; null is the default, a set becomes a sorted tuple."""
    terms: dict[str, Any] = {}
    for name in form.model_fields_set & names:
        value = getattr(form, name)
        if name == "limits":
            terms["rates"] = value.over(present) if value is not None else Rates()
        elif value is None:
            terms[name] = defaults[name]
        elif name == "budgets":
            order = ("day", "month", "total")
            budgets = [each.budget() for each in value]
            terms[name] = tuple(sorted(budgets, key=lambda each: (each.unit, order.index(each.period))))
        else:
            terms[name] = tuple(sorted(value)) if isinstance(value, frozenset) else value
    return terms


class KeyTermsForm(_Form):
    """What a key may do, in which order it is served, and by which accounts. What is left out stays as it is; null is
    the default."""

    org: OrgRef | None = Field(default=None, description="id or name of its organisation")
    expires_at: Moment | None = Field(default=None, description="from then on it does not work; null for never")
    models: Annotated[frozenset[Glob], Field(max_length=256)] | None = Field(
        default=None, description="globs of model names that it may use, in any case; empty for all"
    )
    addresses: Annotated[frozenset[Address], Field(max_length=256)] | None = Field(
        default=None, description="networks (192.0.2.0/24) or single addresses it may be used from; empty for all"
    )
    limits: LimitsForm | None = _LIMITS
    budgets: Budgets | None = _BUDGETS
    note: Note | None = _NOTE
    priority: int | None = Field(
        default=None, ge=-100, le=100, strict=True, description="requests of a higher priority wait less; default 0"
    )
    weight: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        strict=True,
        description="turns in the queue against other keys of the priority; default 1",
    )
    providers: Annotated[frozenset[Provider], Field(max_length=16)] | None = Field(
        default=None, description="only accounts of these providers; empty for all"
    )
    labels: Labels | None = Field(default=None, description="only accounts that carry all of these")
    without: Labels | None = Field(default=None, description="only accounts that carry none of these")

    def terms(self, present: Rates | None = None) -> KeyTerms:
        """What was given; limits on top of the ``present`` ones."""
        names = set(type(self).model_fields) - {"key"}
        return KeyTerms(**_plain(self, names, present or Rates(), KEY_DEFAULTS))


class KeyForm(KeyTermsForm):
    """A new service key."""

    name: KeyName
    key: SecretStr | None = Field(
        default=None,
        min_length=16,
        max_length=512,
        description="text of a key that callers have already; left out: a new one is made",
    )


class KeyPatchForm(KeyTermsForm):
    """What changes of a service key."""

    name: KeyName = Field(default_factory=str)


class RotateForm(_Form):
    """How a key gets another text."""

    overlap_seconds: int = Field(
        default=0, ge=0, le=_LONGEST_OVERLAP, description="how long the text before works on; 0: it stops at once"
    )


class OrgTermsForm(_Form):
    """What an organisation may use, over all its keys. What is left out stays as it is; null is the default."""

    limits: LimitsForm | None = _LIMITS
    budgets: Budgets | None = _BUDGETS
    keep_text: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="keep its requests' text, sealed, for the auditor; default false"
    )
    note: Note | None = _NOTE

    def terms(self, present: Rates | None = None) -> OrgTerms:
        """What was given; limits on top of the ``present`` ones."""
        defaults = {"budgets": DEFAULT.budgets, "keep_text": DEFAULT.keep_text, "note": DEFAULT.note}
        return OrgTerms(**_plain(self, set(type(self).model_fields), present or Rates(), defaults))


def _no_id(name: str) -> str:
    if name.startswith("org_"):
        raise ValueError("a name must not look like an id")
    return name


OrgName = Annotated[KeyName, AfterValidator(_no_id)]
"""Where an organisation is meant, its id or its name is taken."""


class OrgForm(OrgTermsForm):
    """A new organisation."""

    name: OrgName


class OrgPatchForm(OrgTermsForm):
    """What changes of an organisation."""

    name: OrgName = Field(default_factory=str)
