"""What the operator hands in. Unknown fields are refused: a mistyped cookie name must not be lost in silence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretStr, StringConstraints, Tag

from poe_gateway.api.deps import FORM
from poe_gateway.pool.account import State

POE = "poe_web"
"""Provider of the short form."""
_SHORT, _GENERAL = FORM + "poe", FORM + "account"

Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"),
]
Secret = Annotated[SecretStr, Field(max_length=16_384)]
Limit = Annotated[int, Field(ge=1, le=10_000, description="requests at a time; null for the pool's default")]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class PoeAccountForm(_Form):
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
    max_inflight: Limit | None = None

    def credentials(self) -> dict[str, Any]:
        """The document for the adapter: the fields that were given."""
        given: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in ("email", "max_inflight") or value is None:
                continue
            given[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
        return given


class AccountForm(_Form):
    """An account of any provider; GET /admin/providers tells the credential fields."""

    provider: str = Field(max_length=64, examples=["openai_api"])
    name: str = Field(max_length=254, description="unique per provider, in any case")
    credentials: dict[str, Any] = Field(description="replaced as a whole", examples=[{"api_key": "..."}])
    max_inflight: Limit | None = None


def _kind(body: Any) -> str:
    general = isinstance(body, dict) and not body.keys().isdisjoint(("provider", "credentials", "name"))
    return _GENERAL if general else _SHORT


UpsertForm = Annotated[
    Annotated[PoeAccountForm, Tag(_SHORT)] | Annotated[AccountForm, Tag(_GENERAL)], Discriminator(_kind)
]


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


class KeyForm(_Form):
    """A new service key."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


Status = Literal["active", "cooldown", "depleted", "invalid", "paused"]
