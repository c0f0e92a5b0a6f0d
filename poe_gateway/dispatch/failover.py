"""What to do when an attempt failed before the caller saw anything: try another account, or tell the caller. Pure."""

from __future__ import annotations

import msgspec

from poe_gateway.errors import (
    GatewayError,
    Overloaded,
    PointsExhausted,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Cancelled,
    Challenged,
    Depleted,
    Failure,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.base import Fate


class TryAnother(msgspec.Struct, frozen=True):
    """Another account may have the request."""


class Tell(msgspec.Struct, frozen=True):
    """The caller gets this error."""

    error: GatewayError


Step = TryAnother | Tell


def next_step(outcome: Failure, fate: Fate, attempt: int, max_attempts: int) -> Step:
    """Decide after attempt number ``attempt`` (from 1).

    A message of unknown fate is never sent again. A message that was accepted and whose answer then failed in a
    known way may go to another account: nothing of an answer reached the caller.
    """
    error = as_error(outcome, fate)
    if fate is Fate.UNKNOWN or attempt >= max_attempts:
        return Tell(error)
    if isinstance(outcome, Rejected):
        return TryAnother() if outcome.model is not None else Tell(error)
    if isinstance(outcome, Cancelled | AdapterDrift):
        return Tell(error)
    return TryAnother()


def as_error(outcome: Failure, fate: Fate = Fate.NOT_SENT) -> GatewayError:
    """The public face of a failure: no upstream text but what the adapter declared public."""
    if isinstance(outcome, Rejected):
        if outcome.status >= 500:  # nobody's request is at fault: the model does not do as it is told
            failed = UpstreamFailed(outcome.public, code=outcome.code, headers={"x-should-retry": "false"})
            failed.status = outcome.status
            return failed
        error = UpstreamRefused(outcome.public, code=outcome.code)
        error.status = outcome.status
        if outcome.status == 413:
            error.type, error.code = "request_too_large", outcome.code or "context_length_exceeded"
        elif outcome.status == 404:
            error.code = outcome.code or "model_not_found"
        return error
    if isinstance(outcome, RateLimited):
        return Overloaded(
            "The upstream limits the rate of every account tried.",
            code="upstream_rate_limited",
            retry_after=max(1.0, outcome.retry_after or 5.0),
        )
    if isinstance(outcome, Depleted):
        return PointsExhausted("The accounts tried have used up their points.")
    if isinstance(outcome, Transient):
        if outcome.timeout:
            return UpstreamTimeout()
        return UpstreamFailed("The upstream failed to answer.", code="upstream_failed")
    if isinstance(outcome, NetworkFault):
        return UpstreamFailed("The upstream could not be reached.", code="upstream_unreachable")
    if isinstance(outcome, AdapterDrift):
        return UpstreamFailed("The upstream answered in an unknown way.", code="upstream_changed")
    if isinstance(outcome, Unauthorized | Challenged):
        return UpstreamFailed("The upstream turned the account away.", code="account_unavailable")
    return UpstreamFailed("The request was cancelled.", code="cancelled")
