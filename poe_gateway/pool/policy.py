"""What the operator may decide about the pool, as one frozen value; the settings object never comes down here."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from poe_gateway.pool.account import Account


class Strategy(StrEnum):
    """In which order open accounts are taken. Priority of the account goes before all of them."""

    BALANCED = "balanced"
    """Fewest requests in flight, then those that cannot pay for dearer models, then turns."""
    SPEND_FIRST = "spend_first"
    """Use it or lose it: the account whose points are renewed soonest."""
    FILL_FIRST = "fill_first"
    """The oldest account up to its limit, then the next."""
    ROUND_ROBIN = "round_robin"
    """Strict turns, whatever the load."""
    WEIGHTED = "weighted"
    """Turns in proportion to weight times slots, in an idle pool too."""
    SINGLE = "single"
    """One account for everything; the next one only when it leaves service."""


class DailyReset(msgspec.Struct, frozen=True, kw_only=True):
    """Free points are granted once per local day at ``hour`` o'clock in ``zone`` (IANA name)."""

    zone: str = "America/Los_Angeles"
    hour: int = 0
    points: int = 3000


class Rest(msgspec.Struct, frozen=True):
    """How long an account rests: ``base`` seconds the first time, twice as long each further time, up to ``cap``."""

    base: float
    cap: float

    def seconds(self, strikes: int) -> float:
        """The rest after ``strikes`` earlier ones in a row."""
        return float(min(self.cap, self.base * 2 ** min(strikes, 30)))


class PoolPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and thresholds. Durations in seconds."""

    max_inflight: int = 2
    global_inflight: int = 200
    depleted_threshold: int = 20
    cooldown: float = 120.0
    """The first rest after errors, time-outs or a rate limit without a time; see ``cooldown_cap``."""
    cooldown_cap: float = 1800.0
    """Rests double with every strike, up to this."""
    network_rest: float = 5.0
    """After a failure of our own network. Costs no strike."""
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
    request_timeout: float = 300.0
    """The longest that a request may last: a process that froze keeps its slots no longer than this."""
    affinity_patience: float = 5.0
    """How long a session waits for its own healthy but busy account before it borrows another."""
    strategy: Strategy = Strategy.BALANCED
    model_strategies: tuple[tuple[str, Strategy], ...] = ()
    """Pairs (pattern of the model's public name, strategy); the first that fits wins over ``strategy``."""

    def strategy_for(self, model: str) -> Strategy:
        """The strategy for a model (public name, any case)."""
        name = model.lower()
        for pattern, strategy in self.model_strategies:
            if fnmatchcase(name, pattern.lower()):
                return strategy
        return self.strategy

    def limit_of(self, account: Account) -> int:
        """Requests at a time on the account, over all processes: its own limit, or the pool's default."""
        return account.max_inflight or self.max_inflight

    @property
    def rest(self) -> Rest:
        """Of an account that failed."""
        return Rest(self.cooldown, max(self.cooldown, self.cooldown_cap))
