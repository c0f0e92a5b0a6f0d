"""Errors that a caller may see.

Each class says once which HTTP status, type and code it stands for; ``api.errors`` is the only renderer.
``message`` is public: never put a secret, a host name or an upstream's raw body into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class StoreUnavailable(Exception):
    """The database did not answer; nothing is known about the call's fate."""


class GatewayError(Exception):
    """The gateway failed unexpectedly."""

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.param = param
        self.retry_after = retry_after
        """Seconds until a repeat can succeed, or None when waiting does not help."""
        self.headers = dict(headers or {})
        self.attempts = 0
        """Accounts that were tried before."""
        self.standings: Sequence[Any] = ()
        """How the caller's limits stand: pairs of ``limits.bucket`` Ask and Standing, where it is known."""
        self.unsettled = False
        """The upstream may have the message: it is not sent anywhere else."""
        self.limited_by: str | None = None
        """Kind of the caller's own limit that refused: ``rate``, ``parallel``, ``budget``."""
        if code is not None:
            self.code = code
        super().__init__(self.message)


class InvalidRequest(GatewayError):
    """The request is not valid."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None


class AuthenticationFailed(GatewayError):
    """Missing or invalid API key."""

    status = 401
    type = "authentication_error"
    code: str | None = "invalid_api_key"


class PointsExhausted(GatewayError):
    """Every account that serves this model has used up its points."""

    status = 402
    type = "insufficient_credits"
    code: str | None = "all_depleted"


class Forbidden(GatewayError):
    """This key may not do that."""

    status = 403
    type = "permission_error"
    code: str | None = "forbidden"


class NotFound(GatewayError):
    """There is nothing at this address."""

    status = 404
    type = "invalid_request_error"
    code: str | None = None


class ModelNotFound(NotFound):
    """The model does not exist or no account serves it."""

    code = "model_not_found"


class ModelUnsupported(NotFound):
    """No account in service may use this model."""

    code = "model_unsupported"


class MethodNotAllowed(GatewayError):
    """This address does not answer to that method."""

    status = 405
    type = "invalid_request_error"
    code: str | None = None


class Conflict(GatewayError):
    """The request conflicts with the present state."""

    status = 409
    type = "invalid_request_error"
    code: str | None = None


class SessionLost(Conflict):
    """The account of this session is not available. Create a new session_id and retry."""

    code = "session_lost"


class RequestTooLarge(GatewayError):
    """The request is too large."""

    status = 413
    type = "request_too_large"
    code: str | None = "context_length_exceeded"


class Unprocessable(GatewayError):
    """The request is well formed but cannot be processed."""

    status = 422
    type = "invalid_request_error"
    code: str | None = None


class RateLimitExceeded(GatewayError):
    """Too many requests."""

    status = 429
    type = "rate_limit_error"
    code: str | None = "rate_limit_exceeded"


class BudgetExceeded(GatewayError):
    """The budget is used up."""

    status = 429
    type = "insufficient_quota"
    code: str | None = "budget_exceeded"


class UpstreamFailed(GatewayError):
    """The upstream could not answer."""

    status = 502
    type = "provider_error"
    code: str | None = "upstream_error"


class UpstreamRefused(GatewayError):
    """The upstream refused the request."""

    status = 400
    type = "invalid_request_error"
    code: str | None = "upstream_rejected"


class Overloaded(GatewayError):
    """No account is free at the moment."""

    status = 503
    type = "overloaded_error"
    code: str | None = "saturated"


class UpstreamDown(GatewayError):
    """The upstream does not work at the moment, whichever account asks."""

    status = 503
    type = "provider_error"
    code: str | None = "upstream_down"


class Unavailable(GatewayError):
    """The gateway is not ready."""

    status = 503
    type = "overloaded_error"
    code: str | None = "not_ready"


class UpstreamTimeout(GatewayError):
    """The upstream did not answer in time."""

    status = 504
    type = "provider_timeout_error"
    code: str | None = "upstream_timeout"
