"""Whose fault was it? Asked before an outcome may change an account. Pure, in the memory of one process, bounded.

Rules, in one place:
- One body, and one request, changes at most one account. Further accounts that refuse it are suspects: nothing happens
  to them until another body fails there in its own right.
- Failures for a moment that one request meets at one account, tried there once more, are one failure.
- A withheld challenge or dead credential keeps the account from being chosen for a minute (a *hold*).
- A body that succeeds is innocent: the challenges and dead credentials that it met elsewhere are true. It may change
  an account again, by another request.
- A body that three accounts refused (two, when both answered with a challenge) is quarantined, longer each time, and
  has one try after that. What it brought about is no evidence against anyone.
- Rate limits, upstream errors and faults of the network speak against a body only while no other body meets them.
- Many accounts and many bodies failing together is an incident (``incidents``): no account changes.

``now`` is a monotonic second and never falls.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

import msgspec
from msgspec.structs import replace

from poe_gateway.pool.account import Scope
from poe_gateway.pool.incidents import Finding, Incidents
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Cancelled,
    Challenged,
    NetworkFault,
    Outcome,
    RateLimited,
    Rejected,
    Succeeded,
    Transient,
    Unauthorized,
)
from poe_gateway.pool.verdict import (
    QUARANTINED,
    RATE_LIMITED,
    REQUEST,
    GuardPolicy,
    Incident,
    IncidentPolicy,
    Refusal,
    Report,
    Verdict,
)

__all__ = [
    "QUARANTINED",
    "RATE_LIMITED",
    "Guard",
    "GuardPolicy",
    "Incident",
    "IncidentPolicy",
    "Refusal",
    "Report",
    "Verdict",
]

_GRAVE = (Challenged, Unauthorized)
"""End an account until its operator acts: believed only with care, but no request goes out meanwhile."""
_SOFT = (RateLimited, Transient, NetworkFault)
"""Come from overload and outages too, whatever the body."""
_MESSAGES = {
    QUARANTINED: "Several accounts refused this very request; it is set aside for a while.",
    RATE_LIMITED: "The upstream limits the rate of every account tried with this request.",
    "upstream_down": "The upstream does not work at the moment, whichever account asks.",
    "upstream_changed": "The upstream changed the way it answers; the gateway does not understand it at the moment.",
}
_DEFAULT = GuardPolicy()
_FINE = Verdict(applies=True, scope=Scope.ACCOUNT)
_HARMLESS = Verdict(applies=True, scope=REQUEST)


class Guard:
    """The court of one process. ``judge`` once per attempt that ended; ``admits`` once per request."""

    def __init__(self, policy: GuardPolicy = _DEFAULT) -> None:
        self._policy = policy
        self._incidents = Incidents(policy.incidents)
        self._bodies: OrderedDict[str, _Body] = OrderedDict()
        """Bodies that failed, the one that failed last at the end."""
        self._spent: OrderedDict[str, str] = OrderedDict()
        """Request -> the account that it changed."""
        self._suspects: OrderedDict[str, dict[str, _Suspicion]] = OrderedDict()
        """Account -> body -> the report that was withheld."""
        self._held: OrderedDict[str, float] = OrderedDict()
        """Account -> end of its hold; all holds last equally long, so the first in the row ends first."""
        self._now = 0.0

    def _convicted(self, fingerprint: str, now: float) -> _Body | None:
        """The body, when it was convicted and that is not forgotten yet."""
        body = self._bodies.get(fingerprint) if fingerprint else None
        return body if body is not None and body.convictions and body.forget_at > now else None

    def judge(self, report: Report, now: float) -> Verdict:
        """Whether the outcome may change its account, and what else follows."""
        self._now = now
        outcome = report.outcome
        if isinstance(outcome, Succeeded):
            return self._succeeded(report, now)
        if isinstance(outcome, Cancelled) or (isinstance(outcome, Rejected) and outcome.model is None):
            self._incidents.answered(report, now)
            self._end_retry(report.body)
            return _HARMLESS
        finding = self._incidents.failed(report, now)
        if finding.incident is not None:
            return self._belongs(report, finding, finding.incident)
        if isinstance(outcome, AdapterDrift):
            self._end_retry(report.body)
            return Verdict(applies=True, scope=Scope.ADAPTER)
        verdict = self._charge(report, now)
        if report.again and verdict.applies and isinstance(outcome, Transient):
            verdict = replace(verdict, applies=False, withheld="again")
        if verdict.applies and finding.failure is not None:
            finding.failure.applied = True
        if not verdict.stop and self._incidents.open_for(report.offer, report.model) is not None:
            return replace(verdict, stop=True)
        return verdict

    def admits(self, offers: frozenset[str], model: str, fingerprint: str, now: float) -> Refusal | None:
        """None when the request may ask for a slot. Of an incident and of a quarantine it may be the one probe."""
        self._now = now
        body = self._convicted(fingerprint, now)
        if body is not None and (refusal := _barred(body, now)) is not None:
            return refusal
        shut = self._incidents.admit(offers, model, fingerprint, now)
        if shut is not None:
            incident, wait = shut
            return _refusal(incident.code, wait)
        if body is not None:
            body.retry_until = now + self._policy.retry_claim
        return None

    def peek(self, offers: frozenset[str], model: str, fingerprint: str, now: float) -> Refusal | None:
        """What ``admits`` would say to one that is no probe. Claims nothing."""
        body = self._convicted(fingerprint, now)
        if body is not None and (refusal := _barred(body, now)) is not None:
            return refusal
        shut = self.shut(offers, model, fingerprint)
        if offers and shut == offers:
            incident = self._incidents.open_for(min(shut), model)
            code = incident.code if incident is not None else "upstream_down"
            return _refusal(code, self._policy.incidents.probe_gap)
        return None

    def withdraw(self, fingerprint: str) -> None:
        """The request that ``admits`` let pass did not go out: if it was the one probe, another may be."""
        self._incidents.withdraw(fingerprint)
        self._end_retry(fingerprint)

    def held_until(self, account_id: str) -> float | None:
        """Until when the account is not to be chosen, so that it becomes clear who was at fault; None: it may be."""
        return self._held.get(account_id)

    def pardon(self, account_id: str) -> None:
        """The operator vouches for the account: what it was suspected of is forgotten."""
        self._suspects.pop(account_id, None)
        self._held.pop(account_id, None)

    def shut(self, offers: frozenset[str], model: str, fingerprint: str) -> frozenset[str]:
        """Offers that a request which was admitted must leave alone: an incident is open, and it is not the probe."""
        return self._incidents.shut(offers, model, fingerprint)

    def expire(self, now: float) -> tuple[str, ...]:
        """Accounts whose hold ended by time."""
        self._now = now
        ended: list[str] = []
        while self._held:
            account_id, until = next(iter(self._held.items()))
            if until > now:
                break
            del self._held[account_id]
            ended.append(account_id)
        return tuple(ended)

    def held(self) -> dict[str, float]:
        """Account -> monotonic second at which its hold ends."""
        return dict(self._held)

    def incidents(self) -> list[Incident]:
        """All open incidents."""
        return self._incidents.current()

    def quarantined(self) -> int:
        """Bodies that are refused at the moment, or rather at the moment last heard of."""
        return sum(body.until > self._now for body in self._bodies.values())

    def remembered(self) -> int:
        """Entries in memory."""
        accused = sum(len(bodies) for bodies in self._suspects.values())
        refusals = sum(len(body.refusals) for body in self._bodies.values())
        own = len(self._bodies) + len(self._spent) + len(self._suspects) + len(self._held)
        return own + accused + refusals + self._incidents.remembered()

    # The three kinds of judgement.

    def _succeeded(self, report: Report, now: float) -> Verdict:
        closed = self._incidents.succeeded(report, now)
        if not self._bodies and not self._suspects and not self._held:
            return _FINE if closed is None else replace(_FINE, incident=closed)
        self._suspects.pop(report.account_id, None)
        released = self._release(report.account_id)
        confirmed: list[Report] = []
        body = self._bodies.pop(report.body, None)
        for account_id in body.refusals if body is not None else ():
            suspicion = self._suspects.get(account_id, {}).get(report.body)
            if suspicion is not None and suspicion.grave and suspicion.at >= now - self._policy.window:
                confirmed.append(suspicion.report)
                del self._suspects[account_id]
                released += self._release(account_id)
        return replace(_FINE, confirmed=tuple(confirmed), released=released, incident=closed)

    def _belongs(self, report: Report, finding: Finding, incident: Incident) -> Verdict:
        """The failure is part of an incident."""
        for name in finding.bodies:
            self._acquit(name, finding.lifted)
        self._end_retry(report.body)
        return Verdict(
            applies=False,
            scope=incident.scope,
            withheld="incident",
            lifted=finding.lifted,
            stop=not finding.over,
            incident=incident if finding.opened else None,
            absorbed=finding.absorbed,
        )

    def _charge(self, report: Report, now: float) -> Verdict:
        """A failure that stands alone: the account's, or the body's."""
        outcome, account_id = report.outcome, report.account_id
        body = self._recall(report.body, now)
        body.retry_until = 0.0
        if body.until > now:  # sent before its conviction
            return Verdict(applies=False, scope=REQUEST, withheld="quarantined", stop=True)
        soft = isinstance(outcome, _SOFT)
        # What found no way to the upstream cannot have given offence there.
        counts = not isinstance(outcome, NetworkFault) and not (soft and self._incidents.others_failing(report, now))
        refusal = _Refused(type(outcome), soft, counts, now)
        body.refused(account_id, refusal, self._policy.per_entry)
        if refusal.counts and self._is_guilty(body, now):
            return self._convict(report.body, body, now)
        scope = self._scope(report, now)
        if body.changed in (None, account_id) and self._spent.get(report.request_id, account_id) == account_id:
            body.changed = account_id
            self._spend(report.request_id, account_id)
            confirmed, released = self._believe(report, now)
            return Verdict(applies=True, scope=scope, confirmed=confirmed, released=released)
        self._suspect(report, now)
        hold = self._policy.hold if isinstance(outcome, _GRAVE) else 0.0
        if hold:
            self._held[account_id] = now + hold
            self._held.move_to_end(account_id)
        return Verdict(applies=False, scope=scope, withheld="one_request", hold=hold)

    def _scope(self, report: Report, now: float) -> Scope:
        outcome = report.outcome
        if isinstance(outcome, NetworkFault):
            return Scope.EGRESS
        if isinstance(outcome, RateLimited | Rejected) and outcome.model is not None:
            return Scope.ACCOUNT_MODEL
        if isinstance(outcome, Transient) and self._incidents.is_models_fault(report, now):
            return Scope.ACCOUNT_MODEL
        return Scope.ACCOUNT

    # Bodies.

    def _is_guilty(self, body: _Body, now: float) -> bool:
        if body.convictions:
            return True  # it had its one try
        return self._suffice(body, now - self._policy.window)

    def _suffice(self, body: _Body, since: float) -> bool:
        """Whether enough accounts refused the body since then."""
        against = [each for each in body.refusals.values() if each.counts and each.at >= since]
        challenges = sum(each.kind is Challenged for each in against)
        return challenges >= self._policy.challenges or len(against) >= self._policy.refusals

    def _convict(self, name: str, body: _Body, now: float) -> Verdict:
        policy = self._policy
        body.until = now + min(policy.quarantine_cap, policy.quarantine * 2 ** min(body.convictions, 30))
        body.convictions += 1
        body.forget_at = body.until + policy.quarantine_cap
        released: tuple[str, ...] = ()
        for account_id in body.refusals:
            released += self._unsuspect(account_id, name)
        return Verdict(applies=False, scope=REQUEST, withheld="quarantined", released=released, stop=True)

    def _acquit(self, name: str, lifted: tuple[tuple[str, str], ...]) -> None:
        """What the body met was an incident: it is as if it had not failed, but for refusals of another kind."""
        body = self._bodies.get(name)
        if body is None:
            return
        soft = [account_id for account_id, refused in body.refusals.items() if refused.soft]
        for account_id in soft:
            del body.refusals[account_id]
            suspicion = self._suspects.get(account_id, {}).get(name)
            if suspicion is not None and not suspicion.grave:
                self._unsuspect(account_id, name)
        undone = [request_id for account_id, request_id in lifted if account_id == body.changed]
        if undone and body.changed in soft:
            body.changed = None
            for request_id in undone:
                self._spent.pop(request_id, None)
        if not body.refusals:
            del self._bodies[name]
        elif not self._suffice(body, float("-inf")):
            body.convictions, body.until = 0, 0.0

    def _recall(self, name: str, now: float) -> _Body:
        """The memory of a body, made when it fails for the first time. Old memories go on the way."""
        while self._bodies and next(iter(self._bodies.values())).forget_at <= now:
            self._bodies.popitem(last=False)
        body = self._bodies.get(name)
        if body is None or body.forget_at <= now:
            if body is None and len(self._bodies) >= self._policy.bodies:
                self._bodies.popitem(last=False)
            body = self._bodies[name] = _Body()
        body.forget_at = max(body.forget_at, now + self._policy.window)
        self._bodies.move_to_end(name)
        return body

    def _end_retry(self, name: str) -> None:
        """The one try after a quarantine told nothing: another may follow."""
        body = self._bodies.get(name)
        if body is not None:
            body.retry_until = 0.0

    def _spend(self, request_id: str, account_id: str) -> None:
        self._spent[request_id] = account_id
        self._spent.move_to_end(request_id)
        if len(self._spent) > self._policy.bodies:
            self._spent.popitem(last=False)

    # Suspects.

    def _suspect(self, report: Report, now: float) -> None:
        bodies = self._suspects.setdefault(report.account_id, {})
        self._suspects.move_to_end(report.account_id)
        bodies.pop(report.body, None)
        bodies[report.body] = _Suspicion(report, now)
        if len(bodies) > self._policy.per_entry:
            del bodies[next(iter(bodies))]
        if len(self._suspects) > self._policy.bodies:
            self._suspects.popitem(last=False)

    def _believe(self, report: Report, now: float) -> tuple[tuple[Report, ...], tuple[str, ...]]:
        """An account failed in its own right. Suspicions of the same kind by others are confirmed by that.

        Only upstream errors add up; of the other kinds one is as good as many. (Confirmed, released.)
        """
        bodies = self._suspects.get(report.account_id)
        if bodies is None:
            return (), ()
        kind, confirmed = type(report.outcome), []
        for name, suspicion in list(bodies.items()):
            other = name != report.body and suspicion.report.request_id != report.request_id
            fresh = suspicion.at >= now - self._policy.window
            if other and fresh and kind is Transient and isinstance(suspicion.report.outcome, Transient):
                confirmed.append(suspicion.report)
            if not fresh or (other and type(suspicion.report.outcome) is kind):
                del bodies[name]
        if not bodies:
            del self._suspects[report.account_id]
        return tuple(confirmed), self._release(report.account_id) if isinstance(report.outcome, _GRAVE) else ()

    def _unsuspect(self, account_id: str, name: str) -> tuple[str, ...]:
        """What the body said against the account is void; its hold ends unless another body asks for it too."""
        bodies = self._suspects.get(account_id)
        if bodies is None or bodies.pop(name, None) is None:
            return ()
        if not bodies:
            del self._suspects[account_id]
        return () if any(each.grave for each in bodies.values()) else self._release(account_id)

    def _release(self, account_id: str) -> tuple[str, ...]:
        return () if self._held.pop(account_id, None) is None else (account_id,)


class _Refused(msgspec.Struct, frozen=True):
    """One account's refusal of a body."""

    kind: type[Outcome]
    soft: bool
    counts: bool
    """It speaks against the body."""
    at: float


class _Body:
    """A body that failed, since its last success."""

    __slots__ = ("changed", "convictions", "forget_at", "refusals", "retry_until", "until")

    def __init__(self) -> None:
        self.changed: str | None = None
        """The account that it changed."""
        self.refusals: dict[str, _Refused] = {}
        self.convictions = 0
        self.until = 0.0
        """End of the quarantine."""
        self.retry_until = 0.0
        """The one try after it is under way until then at most."""
        self.forget_at = 0.0

    def refused(self, account_id: str, refusal: _Refused, limit: int) -> None:
        """Remember the newest by account, unless it weighs less than what is known; the oldest go."""
        known = self.refusals.pop(account_id, None)
        if known is not None and refusal.soft and not known.soft:
            refusal = known
        self.refusals[account_id] = refusal
        if len(self.refusals) > limit:
            del self.refusals[next(iter(self.refusals))]


class _Suspicion:
    """A report that was withheld."""

    __slots__ = ("at", "grave", "report")

    def __init__(self, report: Report, at: float) -> None:
        self.report = report
        self.at = at
        self.grave = isinstance(report.outcome, _GRAVE)


def _barred(body: _Body, now: float) -> Refusal | None:
    """The refusal of a convicted body, None when its next try has come."""
    wait = max(body.until, body.retry_until) - now
    if wait <= 0:
        return None
    limited = all(each.kind is RateLimited for each in body.refusals.values() if each.counts)
    return _refusal(RATE_LIMITED if limited else QUARANTINED, wait)


def _refusal(code: str, wait: float) -> Refusal:
    return Refusal(code, float(max(1, ceil(wait))), _MESSAGES[code])
