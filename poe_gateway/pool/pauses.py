"""How often the keeper looks, and for how long it believes: one value, so that a simulation of days can be slower."""

from __future__ import annotations

import msgspec


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """The first group in parts of the grant lifetime, the second in seconds. Raises ValueError for a wrong order."""

    renew: float = 0.2
    """Between two renewals of the registration."""
    retry: float = 0.05
    """After a call that failed."""
    reclaim: float = 0.1
    """Between two looks for dead processes."""
    grace: float = 0.4
    """After the database was away: how long the others have to renew before their lapses are judged."""
    trust: float = 0.6
    """Grants are used for this long after the last renewal was sent."""
    fence: float = 0.75
    """After this what runs on them is stopped, where others may take them over without seeing this process."""
    lapse: float = 0.8
    """The database lets the registration lapse after this."""

    round: float = 0.25
    """Between two looks at what others want; a doorbell shortens it."""
    need: float = 0.05
    """Between attempts to borrow while requests wait."""
    patient: float = 2.0
    """Longest pause between attempts to get a fair share that others still use."""
    idle: float = 2.0
    """How long a borrowed slot may lie idle before it goes back."""
    promise: float = 2.0
    """How long a slot in use is promised to a process that asked for it."""

    def __post_init__(self) -> None:
        if not 0 < self.retry <= self.renew < self.trust < self.fence < self.lapse < 1:
            raise ValueError("pauses must be in the order retry, renew, trust, fence, lapse, all below one lifetime")
