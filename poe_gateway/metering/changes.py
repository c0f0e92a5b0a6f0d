"""What operators changed, on its way to the audit chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poe_gateway.clock import Clock
from poe_gateway.metering.rows import Change


class Changes:
    """``note`` takes a change for good: from then on it survives this process. Values never hold a secret."""

    def __init__(self, note: Callable[[Change], None], clock: Clock) -> None:
        self._note = note
        self._clock = clock

    def record(
        self,
        action: str,
        target: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        actor: str = "gateway",
        address: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """One change that has happened."""
        self._note(
            Change(
                at=self._clock.now(),
                actor=actor,
                address=address,
                action=action,
                target=target,
                before=before,
                after=after,
                request_id=request_id,
            )
        )
