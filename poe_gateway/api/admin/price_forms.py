"""What the operator hands in about prices. Decimal numbers never pass through a float on the way in."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from poe_gateway.api.admin.forms import Currency, Moment, Provider
from poe_gateway.errors import InvalidRequest
from poe_gateway.metering.pricelist import PriceDraft

_DEAREST, _PLACES = Decimal(1_000_000_000), 12
_LARGEST_MARKUP = Decimal(100_000)
_TOKENS = 1_000_000_000_000
_PER_1K = Decimal(1_000)
_DIGITS = 28
"""Of a number: arithmetic with more would round."""
_WRITTEN = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?|[+-]?(?i:nan|snan|inf|infinity)")
_EXACTLY = 'a decimal number, best as text: "0.15"'


def _decimal(value: Any) -> Any:
    if value is None or isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a decimal number, as text or as a number")
    if isinstance(value, str) and not _WRITTEN.fullmatch(value.strip()):
        raise ValueError("not a decimal number")
    return Decimal(value)


def _fits(value: Decimal) -> Decimal:
    if not value.is_finite():
        raise ValueError("not a finite number")
    if len(value.as_tuple().digits) > _DIGITS:
        raise ValueError(f"at most {_DIGITS} digits")
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_PLACES:
        raise ValueError(f"at most {_PLACES} decimals")
    return value


_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]})
_READ = (BeforeValidator(_decimal), AfterValidator(_fits))
Exact = Annotated[Decimal, *_READ, _SCHEMA]
Rate = Annotated[Exact, Field(ge=0, le=_DEAREST)]
Glob = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$"),
]
OrgRef = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=0, le=_TOKENS, strict=True)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class PriceForm(_Form):
    """A new version of the rule of a scope. A price that is left out is not known."""

    org: OrgRef | None = Field(default=None, description="id or name of an organisation; null for all")
    provider: Provider | None = Field(default=None, description="null for all")
    model: Glob | None = Field(
        default=None, description="name or glob, in any case, of `model` or `provider:model`; null for all"
    )
    currency: Currency = "USD"
    input: Rate | None = Field(default=None, description=f"per million tokens; {_EXACTLY}")
    output: Rate | None = Field(default=None, description="per million tokens")
    cached: Rate | None = Field(default=None, description="per million cached input tokens; null: as input")
    input_per_1k: Rate | None = Field(default=None, description="instead of input: per thousand tokens")
    output_per_1k: Rate | None = Field(default=None, description="instead of output: per thousand tokens")
    cached_per_1k: Rate | None = Field(default=None, description="instead of cached: per thousand tokens")
    request: Rate | None = Field(default=None, description="per request")
    point: Rate | None = Field(default=None, description="per point")
    markup_percent: Annotated[Exact, Field(ge=-100, le=_LARGEST_MARKUP)] | None = Field(
        default=None, description="on top of the upstream's figure and of these prices; default 0"
    )
    markup_pct: Annotated[Exact, Field(ge=-100, le=_LARGEST_MARKUP)] | None = Field(
        default=None, description="another word for markup_percent"
    )
    valid_from: Moment | None = Field(default=None, description="null: at once")
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = ""

    def draft(self, org: str | None) -> PriceDraft:
        """What was given. Raises InvalidRequest when something was given twice, or nothing that a rule could do."""
        rates: dict[str, Any] = {"request": self.request, "point": self.point}
        for name in ("input", "output", "cached"):
            rates[name] = _one(self, name, f"{name}_per_1k", _PER_1K)
        markup = _one(self, "markup_percent", "markup_pct", Decimal(1))
        if markup is None and all(each is None for each in rates.values()):
            raise InvalidRequest("The rule has neither a price nor a markup.", param="input", code="empty_rule")
        return PriceDraft(
            org=org,
            provider=self.provider,
            model=self.model,
            currency=self.currency,
            markup_percent=Decimal(0) if markup is None else markup,
            valid_from=self.valid_from,
            note=self.note,
            **rates,
        )


def _one(form: BaseModel, name: str, other: str, factor: Decimal) -> Decimal | None:
    first: Decimal | None = getattr(form, name)
    second: Decimal | None = getattr(form, other)
    if first is not None and second is not None:
        raise InvalidRequest(f"Give {name} or {other}, not both.", param=other, code="given_twice")
    return first if second is None else second * factor


class QuestionForm(_Form):
    """What would this cost?"""

    org: OrgRef | None = Field(default=None, description="id or name of the caller's organisation")
    provider: Provider
    model: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="public name")
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cached_tokens: Count = 0
    points: Count | None = None
    raw_cost: Rate | None = Field(default=None, description="the upstream's own figure, if it tells one")
    raw_currency: Currency = "USD"
    at: Moment | None = Field(default=None, description="null: now")


F = TypeVar("F", bound=BaseModel)


def exactly(form: type[F]) -> Callable[[Request], Awaitable[F]]:
    """Reads the body as that form with every number as the digits that were sent, never as a float."""

    async def read(request: Request) -> F:
        try:
            body = json.loads(await request.body(), parse_float=Decimal, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise _invalid([{"type": "json_invalid", "loc": (), "msg": "The body is no JSON."}]) from None
        try:
            return form.model_validate(body)
        except ValidationError as error:
            raise _invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None

    return read


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _invalid(found: Any) -> RequestValidationError:
    return RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found])


def documented(form: type[BaseModel]) -> dict[str, Any]:
    """What the framework cannot see: that the body is this form."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": form.model_json_schema()}}},
    }
