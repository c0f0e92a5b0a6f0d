"""What one request is allowed, and what it has met so far: the value that the steps of its walk share."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.request import ChatRequest
from poe_gateway.dispatch.charging import Charge
from poe_gateway.dispatch.planning import Way
from poe_gateway.dispatch.sessions import SessionBinding
from poe_gateway.dispatch.trail import Trail
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.guard import Verdict
from poe_gateway.pool.lease import Want
from poe_gateway.routing.catalog import Plan
from poe_gateway.upstreams.base import UpstreamFailure


class WalkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one request, in seconds and attempts."""

    acquire_timeout: float = 30.0
    request_timeout: float = 300.0
    max_attempts: int = 3
    hold_back: float = 0.05
    """How long the first piece of a streamed answer waits while a failure can still be hidden."""
    retry_delay: float = 0.0
    """Where no other account is left, one that failed for a moment is tried again after so long, doubling up to ten
    times as long; 0: never."""


class Journey(msgspec.Struct, kw_only=True):
    """One leg of a request."""

    principal: Principal
    request: ChatRequest
    request_id: str
    plan: Plan
    ways: Mapping[str, Way]
    """By provider."""
    trail: Trail
    before: int
    """Attempts of earlier legs."""
    want: Want
    deadline: float
    impatient: bool
    """The deadline is the caller's own, before the gateway's."""
    decision: Decision
    charge: Charge | None = None
    session: str | None = None
    binding: SessionBinding | None = None
    opening: bytes | None = None
    """Of a conversation without a session that goes on."""
    attempts: int = 0
    """Of this request, earlier legs included."""
    momentary: set[str] = set()
    """Accounts whose failure may have been for a moment only."""
    again: set[str] = set()
    """Those of them that the request was, or may be, tried at once more."""
    tried: set[str] = set()
    last: UpstreamFailure | None = None
    verdict: Verdict | None = None
