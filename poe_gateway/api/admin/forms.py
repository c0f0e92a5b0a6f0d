"""What the operator hands in. Unknown fields are refused: a mistyped cookie name must not be lost in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    StringConstraints,
    Tag,
)

from poe_gateway.accounts.bulk import AccountFilter
from poe_gateway.accounts.terms import DEFAULTS, KEEP_PERCENT, MAX_INFLIGHT, MAX_LABELS, PRIORITY, WEIGHT, Terms
from poe_gateway.api.deps import FORM
from poe_gateway.money import amount_of
from poe_gateway.pool.account import State

POE = "poe_web"
"""Provider of the short form."""
_SHORT, _GENERAL = FORM + "poe", FORM + "account"


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only printable characters, in one line")
    return text


Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"),
]
Secret = Annotated[SecretStr, Field(max_length=16_384)]
Label = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,62}$"),
]
Labels = Annotated[frozenset[Label], Field(max_length=MAX_LABELS)]
Status = Literal["active", "cooldown", "depleted", "invalid", "paused"]
DecimalText = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[0-9]{1,10}(\.[0-9]{1,8})?$")]
Currency = Annotated[str, StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z]{3}$")]
Note = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]
KeyName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_one_line)
]
"""Of a key or an organisation: stands in tables, reports and logs."""
Provider = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
"""ISO 8601 with its offset."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _merged(form: BaseModel, fields: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given; null is the default, a set becomes a sorted tuple."""
    given = {name: getattr(form, name) for name in fields if name in form.model_fields_set}
    return {
        name: defaults[name] if value is None else tuple(sorted(value)) if isinstance(value, frozenset) else value
        for name, value in given.items()
    }


def _bounded(bounds: tuple[int, int], description: str) -> Any:
    low, high = bounds
    return Field(default=None, ge=low, le=high, strict=True, description=description)


class TermsForm(_Form):
    """On what terms the pool uses an account. What is left out stays as it is; null is the default."""

    priority: int | None = _bounded(PRIORITY, "accounts of a higher priority are used first; default 0")
    weight: int | None = _bounded(WEIGHT, "share of work under the `weighted` strategy; default 1")
    labels: Labels | None = Field(default=None, description="words by which keys choose accounts; replaced as a whole")
    keep_percent: int | None = _bounded(KEEP_PERCENT, "part of the points kept for the owner; default 0")
    max_inflight: int | None = _bounded(MAX_INFLIGHT, "requests at a time; null for the pool's default")
    vendor: Note | None = Field(default=None, description="where the account was bought")
    batch: Note | None = Field(default=None, description="with which others it was bought")
    purchase_price: DecimalText | None = Field(
        default=None, description="what it cost, as a decimal number in text", examples=["2.50"]
    )
    currency: Currency | None = Field(default=None, description="of the price; default USD")
    purchased_at: Moment | None = Field(default=None, description="ISO 8601 with its offset")
    expires_at: Moment | None = Field(
        default=None, description="the account's own end; beyond it the account is reported, not switched off"
    )

    def terms(self) -> Terms:
        """What was given."""
        given = _merged(self, TermsForm.model_fields, DEFAULTS)
        if (price := given.get("purchase_price")) is not None:
            given["purchase_price"] = amount_of(price, given.get("currency", "USD"))
        return Terms(**given)


class PoeAccountForm(TermsForm):
    """A Poe account by its browser cookies. An upsert replaces all of them."""

    email: Email = Field(examples=["user@example.com"])
    poe_p_b: Secret = Field(description="cookie p-b")
    poe_cf_clearance: Secret | None = Field(default=None, description="cookie cf_clearance; belongs to the user agent")
    p_lat: Secret | None = Field(default=None, description="cookie p-lat")
    poe_cf_bm: Secret | None = Field(default=None, description="cookie __cf_bm")
    user_agent: str | None = Field(
        default=None, max_length=1_024, description="of the browser that the cookies came from"
    )
    poe_revision: str | None = Field(default=None, max_length=256, description="site revision for this account only")
    formkey: Secret | None = Field(default=None, description="form key, when known")

    def credentials(self) -> dict[str, Any]:
        """The document for the adapter: the fields that were given."""
        given: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "email" or name in TermsForm.model_fields or value is None:
                continue
            given[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
        return given


class AccountForm(TermsForm):
    """An account of any provider; GET /admin/providers tells the credential fields."""

    provider: str = Field(max_length=64, examples=["openai_api"])
    name: str = Field(max_length=254, description="unique per provider, in any case")
    credentials: dict[str, Any] = Field(description="replaced as a whole", examples=[{"api_key": "..."}])


def _kind(body: Any) -> str:
    general = isinstance(body, dict) and not body.keys().isdisjoint(("provider", "credentials", "name"))
    return _GENERAL if general else _SHORT


UpsertForm = Annotated[
    Annotated[PoeAccountForm, Tag(_SHORT)] | Annotated[AccountForm, Tag(_GENERAL)], Discriminator(_kind)
]


class FilterForm(_Form):
    """Which accounts are meant; what is left out sets no bound."""

    labels: Labels = Field(default=frozenset(), description="all of these")
    provider: Provider | None = None
    status: list[Status] = Field(default=[], max_length=5, description="any of these, as of now")

    def chosen(self) -> AccountFilter:
        """For the desk."""
        return AccountFilter(labels=tuple(sorted(self.labels)), provider=self.provider, status=tuple(self.status))


class BulkForm(_Form):
    """New terms for many accounts."""

    filter: FilterForm = Field(description="an empty object means all accounts")
    set: TermsForm
    dry_run: bool = Field(default=False, strict=True, description="change nothing, tell what would be changed")


class RefreshForm(_Form):
    """Which account to measure: by id, or by e-mail (name) and provider."""

    id: str | None = Field(default=None, max_length=64)
    email: str | None = Field(default=None, max_length=254)
    provider: str = Field(default=POE, max_length=64)


class RefreshAllForm(_Form):
    """Which accounts to measure."""

    statuses: list[State] = Field(default=[State.ACTIVE, State.COOLDOWN, State.DEPLETED], min_length=1)
    concurrency: int = Field(default=5, ge=1, le=50, description="accounts at a time")


class TestForm(_Form):
    """How to test an account."""

    __test__ = False

    force: bool = Field(default=False, description="contact the account even if it met a bot challenge")
