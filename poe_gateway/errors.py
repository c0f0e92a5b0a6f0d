"""Errors that a caller may see.

Each class says once which HTTP status, type and code it stands for; ``api.errors`` is the only renderer.
``message`` is public: never put a secret, a host name or an upstream's raw body into it.
"""

from __future__ import annotations

from collections.abc import Mapping


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
        if code is not None:
            self.code = code
        super().__init__(self.message)


class InvalidRequest(GatewayError):
    """The request is not valid."""

    status, type, code = 400, "invalid_request_error", None


class AuthenticationFailed(GatewayError):
    """Missing or invalid API key."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class PointsExhausted(GatewayError):
    """Every account that serves this model has used up its points."""

    status, type, code = 402, "insufficient_credits", "all_depleted"


class NotFound(GatewayError):
    """There is nothing at this address."""

    status, type, code = 404, "invalid_request_error", None


class ModelNotFound(NotFound):
    """The model does not exist or no account serves it."""

    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    """This address does not answer to that method."""

    status, type, code = 405, "invalid_request_error", None


class Conflict(GatewayError):
    """The request conflicts with the present state."""

    status, type, code = 409, "invalid_request_error", None


class SessionLost(Conflict):
    """The account of this session is not available. Create a new session_id and retry."""

    code = "session_lost"


class RequestTooLarge(GatewayError):
    """The request is too large."""

    status, type, code = 413, "request_too_large", "context_length_exceeded"


class Unprocessable(GatewayError):
    """The request is well formed but cannot be processed."""

    status, type, code = 422, "invalid_request_error", None


class UpstreamFailed(GatewayError):
    """The upstream could not answer."""

    status, type, code = 502, "provider_error", "upstream_error"


class UpstreamRefused(GatewayError):
    """The upstream refused the request."""

    status, type, code = 400, "invalid_request_error", "upstream_rejected"


class Overloaded(GatewayError):
    """No account is free at the moment."""

    status, type, code = 503, "overloaded_error", "saturated"


class Unavailable(GatewayError):
    """The gateway is not ready."""

    status, type, code = 503, "overloaded_error", "not_ready"


class UpstreamTimeout(GatewayError):
    """The upstream did not answer in time."""

    status, type, code = 504, "provider_timeout_error", "upstream_timeout"
