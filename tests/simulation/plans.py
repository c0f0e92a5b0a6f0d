"""Plans made to measure: what is drawn from a seed, with some of it set."""

from __future__ import annotations

from msgspec.structs import replace

from poe_gateway.pool.policy import Strategy
from poe_gateway.simulation.plan import Plan, PlannedKey, Trouble, draw


def crowded(seed: int, *troubles: Trouble, processes: int = 2, keys: tuple[PlannedKey, ...] = ()) -> Plan:
    """One account with one slot, long answers, and more callers than it can answer; half a day."""
    plan = draw(seed, processes=processes, accounts=1)
    account = replace(plan.accounts[0].account, max_inflight=1, labels=(), keep_percent=0)
    return replace(
        plan,
        days=0.5,
        typical=100.0,
        places=1,
        losses=0.0,
        policy=replace(plan.policy, request_timeout=600.0, strategy=Strategy.BALANCED, acquire_timeout=300.0),
        accounts=(
            replace(
                plan.accounts[0], per_minute=1000, points=10**6, models=("small", "medium", "large"), account=account
            ),
        ),
        keys=keys or (key("key_0", 3000.0),),
        troubles=troubles,
    )


def key(name: str, rate: float, weight: int = 1, burst: int = 1) -> PlannedKey:
    """Callers who wait for long and may use every account."""
    return PlannedKey(
        id=name,
        rate=rate,
        patience=1000.0,
        priority=0,
        weight=weight,
        labels=(),
        without=(),
        sessions=0,
        burst=burst,
    )


def freezes(often: int, seconds: float) -> tuple[Trouble, ...]:
    """The first two processes in turn."""
    return tuple(
        Trouble(at=3000.0 * (each + 1), kind="freeze", seconds=seconds, target=each % 2) for each in range(often)
    )
