"""How a caller's limits stand, as ``x-ratelimit-*`` headers on successes and refusals.

``x-ratelimit-limit-requests``, ``-remaining-requests``, ``-reset-requests`` and the same with ``tokens``: of the rate
that is nearest to its end, whoever it belongs to (key, organisation, gateway). A reset is a duration (``350ms``,
``12s``, ``6m0s``) until the rate is unused again if nothing more comes. Figures are those that this process knows:
exact at every refusal, at most a fraction of a second old otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from poe_gateway.limits.bucket import Ask, Standing

_COUNTED = (("requests", b"requests"), ("tokens", b"tokens"))


def limit_headers(standings: Iterable[tuple[Ask, Standing]]) -> list[tuple[bytes, bytes]]:
    """None for what has no rate."""
    nearest: dict[str, Standing] = {}
    for ask, standing in standings:
        if ask.bucket.kind == "rate":
            counted = ask.bucket.id.split("|")[3]
            known = nearest.get(counted)
            if known is None or standing.remaining * known.cap < known.remaining * standing.cap:
                nearest[counted] = standing
    headers: list[tuple[bytes, bytes]] = []
    for counted, word in _COUNTED:
        if (found := nearest.get(counted)) is not None:
            headers += [
                (b"x-ratelimit-limit-" + word, str(found.cap).encode()),
                (b"x-ratelimit-remaining-" + word, str(max(0, found.remaining)).encode()),
                (b"x-ratelimit-reset-" + word, duration(found.resets_in or 0.0).encode()),
            ]
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: ``350ms``, ``12s``, ``6m0s``, ``1h0m0s``."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    whole = math.ceil(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
