"""Small builders for pool values, shared by the unit tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from poe_gateway.pool.account import Account, Balance, Cause, Health, State
from poe_gateway.pool.policy import PoolPolicy

NOON = datetime(2026, 6, 1, 19, 0, tzinfo=UTC)
"""Noon in Los Angeles."""
POLICY = PoolPolicy()


def account(account_id: str = "acc_1", **fields: Any) -> Account:
    """A metered account in service with 1,000 measured points."""
    defaults: dict[str, Any] = {
        "id": account_id,
        "provider": "mock",
        "name": account_id,
        "offer": "mock",
        "metered": True,
        "renews_daily": True,
        "reset_day": "2026-06-01",
        "balance": Balance(points=1000, estimated=False, measured_at=NOON),
        "health": Health(state=State.ACTIVE, cause=Cause.HEALTHY),
        "created_at": NOON,
    }
    return Account(**{**defaults, **fields})


def health(state: State, cause: Cause, minutes: float | None = None) -> Health:
    """A state that lasts ``minutes`` from noon on."""
    until = None if minutes is None else NOON + timedelta(minutes=minutes)
    return Health(state=state, cause=cause, since=NOON, until=until, evidence="req_0")


class StepClock:
    """Both clocks, moved by hand."""

    def __init__(self, now: datetime = NOON) -> None:
        self.current = now
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.current

    def monotonic(self) -> float:
        return self.seconds

    def step(self, seconds: float) -> None:
        self.current += timedelta(seconds=seconds)
        self.seconds += seconds
