"""What the operator may decide about the pool, as one frozen value; the settings object never comes down here."""

from __future__ import annotations

import msgspec


class DailyReset(msgspec.Struct, frozen=True, kw_only=True):
    """Free points are granted once per local day at ``hour`` o'clock in ``zone`` (IANA name)."""

    zone: str = "America/Los_Angeles"
    hour: int = 0
    points: int = 3000


class PoolPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and thresholds. Durations in seconds."""

    max_inflight: int = 2
    global_inflight: int = 200
    depleted_threshold: int = 20
    cooldown: float = 120.0
    error_limit: int = 3
    """This many failures in a row (less the successes) put an account to rest."""
    timeout_limit: int = 2
    """The same for failures that were time-outs."""
    retry_after_cap: float = 1800.0
    """An upstream's own waiting time is believed up to this: absurd values must not hide an account for days."""
    depleted_rest: float = 6 * 3600.0
    """How long a depleted account rests when neither a grant nor a daily reset is known."""
    model_block: float = 3600.0
    """How long an account is not used for a model that it may not use."""
    reset: DailyReset = DailyReset()
    acquire_timeout: float = 30.0
    queue_limit: int = 1000
    grant_lifetime: float = 20.0
    """A dead process's slots are usable again within this time."""
    affinity_patience: float = 5.0
    """How long a session waits for its own healthy but busy account before it moves on."""
