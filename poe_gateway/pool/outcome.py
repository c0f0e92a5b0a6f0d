"""How one attempt on one account ended: a closed union, decided by the adapter from status codes and typed fields.

``Rejected``, ``Cancelled``, ``NetworkFault`` and ``AdapterDrift`` never punish an account.
Free text in ``detail`` is for operators: short, without secrets, never shown to callers.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Succeeded(msgspec.Struct, frozen=True, tag=True):
    """A whole answer. ``points`` is the upstream's own figure of the price, None when not told."""

    points: int | None = None


class RateLimited(msgspec.Struct, frozen=True, tag=True):
    """Too fast, or too many at once on this account. ``retry_after`` in seconds where the upstream told it.

    ``model`` is set when only that model is limited.
    """

    retry_after: float | None = None
    model: str | None = None
    detail: str = ""


class Depleted(msgspec.Struct, frozen=True, tag=True):
    """The account's points are used up. ``until`` is the upstream's own next grant, where told."""

    until: datetime | None = None
    detail: str = ""


class Unauthorized(msgspec.Struct, frozen=True, tag=True):
    """The credential is dead (log-out, suspension, revoked key)."""

    detail: str = ""


class Challenged(msgspec.Struct, frozen=True, tag=True):
    """A bot challenge: the account is set aside at once and only the operator returns it."""

    detail: str = ""


class Transient(msgspec.Struct, frozen=True, tag=True):
    """The upstream failed on its own side (5xx, time-out, truncated or empty answer)."""

    detail: str = ""
    timeout: bool = False


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The caller's fault: too long, forbidden content, unsupported file. ``public`` may be shown to the caller.

    ``status`` is the HTTP status that the caller should see. ``model`` is set when this account may not use
    that model although others may (no_access): a block of account+model, and another account may be tried.
    """

    public: str = "The upstream refused the request."
    status: int = 400
    code: str | None = None
    model: str | None = None


class Cancelled(msgspec.Struct, frozen=True, tag=True):
    """The caller went away."""


class NetworkFault(msgspec.Struct, frozen=True, tag=True):
    """Our own network or the route to the upstream failed (DNS, connect, TLS)."""

    detail: str = ""


class AdapterDrift(msgspec.Struct, frozen=True, tag=True):
    """The site answered in a way that the adapter does not know: the site changed."""

    detail: str = ""


Outcome = (
    Succeeded
    | RateLimited
    | Depleted
    | Unauthorized
    | Challenged
    | Transient
    | Rejected
    | Cancelled
    | NetworkFault
    | AdapterDrift
)
Failure = (
    RateLimited | Depleted | Unauthorized | Challenged | Transient | Rejected | Cancelled | NetworkFault | AdapterDrift
)
