"""What is reported to the guard and what it answers: values only."""

from __future__ import annotations

import msgspec

from poe_gateway.pool.account import Scope
from poe_gateway.pool.outcome import Outcome

QUARANTINED = "body_quarantined"
"""Code of the refusal of a body that accounts have refused."""
RATE_LIMITED = "upstream_rate_limited"
"""Of a body whose every refusal was a limit of rate: it is at rest like any other, but not at fault."""
REQUEST = "request"
"""The scope of what no account, way or site is to blame for."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended, with what is needed to say whose fault it was."""

    account_id: str
    offer: str
    model: str
    """Key of the planned model."""
    request_id: str
    fingerprint: str
    """Digest of the body; empty: the request stands for it."""
    outcome: Outcome
    usable: int
    """Accounts of the offer that are in service in this process."""
    credential_rev: int = 0
    """Which credentials were used; for whoever applies the report later."""
    began: float | None = None
    """Second at which the attempt began, None: not known. What began before an incident closed belongs to it."""
    again: bool = False
    """The request failed at this account before, for a moment, and was tried there once more."""

    @property
    def body(self) -> str:
        """The name under which the body is remembered."""
        return self.fingerprint or self.request_id


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Something that no account is to blame for."""

    offer: str
    model: str | None = None
    """None: all models of the offer."""
    scope: Scope
    code: str
    """``upstream_down`` or ``upstream_changed``."""
    opened_at: float
    closed_at: float | None = None
    accounts: int
    """Distinct accounts that failed before it was opened."""
    bodies: int
    kinds: dict[str, int]
    """``timeout``, ``network``, ``server``, ``drift``, ``limited`` -> accounts that failed so."""


class IncidentPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When many failures are one incident. Seconds and counts."""

    window: float = 120.0
    """Failures and successes older than this say nothing."""
    accounts: int = 3
    """Distinct accounts that must have failed; 2 in a pool of two."""
    bodies: int = 2
    limit_window: float = 10.0
    """So close together come the rate limits of an address, not of accounts."""
    limit_accounts: int = 3
    probe_gap: float = 1.0
    """Between two probes at first; doubles with each that fails, up to ``probe_gap_cap``."""
    probe_gap_cap: float = 5.0
    probe_claim: float = 30.0
    """A probe that reports nothing for so long makes room for the next."""
    failures: int = 256
    """Remembered per streak."""
    tracks: int = 1024
    """Offers and models remembered."""
    accounts_noted: int = 16384
    open_incidents: int = 64


class GuardPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the guard. Seconds and counts."""

    window: float = 600.0
    """Refusals and suspicions are remembered for this time."""
    refusals: int = 3
    """Accounts that must have refused a body."""
    challenges: int = 2
    """The same, when they answered with challenges."""
    hold: float = 60.0
    quarantine: float = 120.0
    """The first time; doubles with each conviction, up to ``quarantine_cap``."""
    quarantine_cap: float = 1800.0
    retry_claim: float = 30.0
    """The one try after a quarantine makes room for another when it reports nothing for so long."""
    bodies: int = 4096
    """Failing bodies, requests and suspected accounts remembered, each."""
    per_entry: int = 16
    """Accounts remembered per body, and bodies per account."""
    incidents: IncidentPolicy = IncidentPolicy()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What may follow from an outcome."""

    applies: bool
    """The outcome may change the account's state (health, error count)."""
    scope: str
    """A ``Scope``, or ``request``."""
    withheld: str = ""
    """Why it may not: ``one_request``, ``again``, ``incident`` or ``quarantined``."""
    hold: float = 0.0
    """Seconds during which the account is not chosen although its state is unchanged."""
    confirmed: tuple[Report, ...] = ()
    """Withheld reports of before that are believed now: apply them too."""
    released: tuple[str, ...] = ()
    """Accounts whose hold is over, for whatever reason."""
    lifted: tuple[tuple[str, str], ...] = ()
    """(account, request): what the request did to the account is to be undone, where it still stands."""
    stop: bool = False
    """No further attempt for this request, on this offer at least."""
    incident: Incident | None = None
    """Opened or closed by this report."""
    absorbed: tuple[Incident, ...] = ()
    """Closed because a wider one was opened by this report."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not even given a slot. ``retry_after`` in seconds."""

    code: str
    """``body_quarantined``, ``upstream_rate_limited``, ``upstream_down`` or ``upstream_changed``."""
    retry_after: float
    message: str
