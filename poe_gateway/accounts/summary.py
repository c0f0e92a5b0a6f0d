"""The pool in numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import msgspec

from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Intent, State


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The pool in numbers, as of now."""

    total: int
    ready: int
    """Accounts that may serve."""
    paused: int
    by_state: dict[str, int]
    by_provider: dict[str, dict[str, int]]
    by_cause: dict[str, int]
    """Causes of the accounts that are not active."""
    points: dict[str, int]
    """Points left by provider, measured or estimated."""
    estimated: int
    """Accounts that spend points and whose figure nobody measured."""


def summarise(accounts: Iterable[Account], now: datetime) -> Summary:
    """Counts over accounts that are as of ``now``."""
    states: Counter[str] = Counter({state.value: 0 for state in State})
    causes: Counter[str] = Counter()
    points: Counter[str] = Counter()
    providers: dict[str, Counter[str]] = {}
    total = ready = paused = estimated = 0
    for account in accounts:
        state = account.health.state.value
        total += 1
        ready += transitions.why_not(account, now) is None
        paused += account.intent is Intent.PAUSED
        states[state] += 1
        providers.setdefault(account.provider, Counter())[state] += 1
        points[account.provider] += account.balance.points or 0
        estimated += account.metered and account.balance.estimated
        if account.health.state is not State.ACTIVE:
            causes[account.health.cause.value] += 1
    return Summary(
        total=total,
        ready=ready,
        paused=paused,
        by_state=dict(states),
        by_provider={name: dict(counts) for name, counts in sorted(providers.items())},
        by_cause=dict(causes),
        points=dict(points),
        estimated=estimated,
    )
