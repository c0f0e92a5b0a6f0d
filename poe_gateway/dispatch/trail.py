"""What the legs of one request have in common: attempts, patience, the charge, the record."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from poe_gateway.dispatch.charging import Charge
from poe_gateway.errors import GatewayError
from poe_gateway.pool.decision import Decision


class Trail(msgspec.Struct, kw_only=True):
    """Of one request over all its legs. Made by the router; each leg's walk goes on with it.

    A leg whose end is not the request's end leaves charge and record open; ``finish`` closes them when nothing follows.
    """

    onward: Callable[[GatewayError], bool] = lambda error: False
    """Whether anything follows this failure: another leg, or an answer of an earlier one that was kept."""
    goes_on: bool = False
    """Whatever the present leg answers, another follows it."""
    asked_for: str = ""
    """The model's name as the caller wrote it."""
    granted: bool = False
    """The key may use the name of the routing table that led here, and so whatever that leads to."""
    deadline: float | None = None
    """On the monotonic clock, of the whole request."""
    profile: str = ""
    """Names of the profiles that had a say, in order: ``a -> b``."""
    label: str = ""
    """What the classifier said."""
    escalations: int = 0
    attempts: int = 0
    charge: Charge | None = None
    decision: Decision | None = None
    told: bool = False
    """The record is complete and was handed out."""

    def finish(self) -> None:
        """Nothing follows: what is reserved and not spent is free again. Idempotent."""
        if self.charge is not None:
            self.charge.finish()
