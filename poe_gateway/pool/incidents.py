"""Failures of many accounts together are charged to the way or to the site, never to the accounts. Pure.

An *incident* is opened when several accounts fail several bodies in a row, of an offer or of one model of an offer.
While it is open no such failure and no rate limit changes an account, and requests pass one at a time, as probes
(half-open). Any success closes it. One body alone never opens one: that may be the body's own fault (``guard``).

Everything is in the memory of one process, bounded, and constant in time per outcome but for the moment of opening.
``now`` is a monotonic second and never falls.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from poe_gateway.pool.outcome import RateLimited
from poe_gateway.pool.streaks import Failure, Lately, Streak, blame, kind_of
from poe_gateway.pool.verdict import Incident, IncidentPolicy, Report

_MODELS_FAILING = 8
"""Models of one account whose failures are remembered."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a failure means together with those of others."""

    incident: Incident | None = None
    """To which the failure belongs. None: it stands alone."""
    opened: bool = False
    """By this very failure."""
    over: bool = False
    """The incident is closed; the attempt began before that."""
    absorbed: tuple[Incident, ...] = ()
    """Narrower incidents, closed because a wider one was opened."""
    lifted: tuple[tuple[str, str], ...] = ()
    """(account, request) of the failures that changed accounts and belong to the incident now."""
    bodies: frozenset[str] = frozenset()
    """Whose failures belong to the incident now."""
    failure: Failure | None = None
    """Where the caller notes that the failure changed its account."""


_NOTHING = Finding()


class Incidents:
    """What went well and what failed lately, by offer, by model and by account."""

    def __init__(self, policy: IncidentPolicy) -> None:
        self._policy = policy
        self._tracks: OrderedDict[tuple[str, str], _Track] = OrderedDict()
        self._notes: OrderedDict[str, _Notes] = OrderedDict()
        self._gates: dict[tuple[str, str], _Gate] = {}

    # Outcomes come in.

    def succeeded(self, report: Report, now: float) -> Incident | None:
        """A success ends every streak that it is part of. The incident that it closed, if any."""
        whole = self._track(report.offer, "")
        whole.models.saw(report.model, now)
        whole.faults.clear()
        whole.limits.clear()
        track = self._track(report.offer, report.model)
        track.accounts.saw(report.account_id, now)
        track.faults.clear()
        notes = self._note(report.account_id)
        notes.models.saw(report.model, now)
        if notes.failing:
            notes.failing.pop(report.model, None)
        if not self._gates:
            return None
        self._probed(report, now, failed=False)
        for key in ((report.offer, ""), (report.offer, report.model)):
            if key in self._gates:
                return self._close(key, now)
        return None

    def answered(self, report: Report, now: float) -> None:
        """Neither success nor failure of the upstream: a probe, if it was one, is over."""
        self._probed(report, now, failed=False)

    def failed(self, report: Report, now: float) -> Finding:
        """Judge one failure; outcomes that say nothing about way or site only end a probe."""
        kind = kind_of(report.outcome)
        self._probed(report, now, failed=kind is not None)
        if kind is None:
            return _NOTHING
        whole, track = self._track(report.offer, ""), self._track(report.offer, report.model)
        (whole.limited_bodies if kind == "limited" else whole.failing_bodies).saw(report.body, now)
        for each in ((report.offer, ""), (report.offer, report.model)):
            gate = self._gates.get(each)
            if gate is not None:
                return Finding(incident=gate.incident)
            last = self._tracks[each].closed
            if last is not None and report.began is not None and report.began < (last.closed_at or 0.0):
                return Finding(incident=last, over=True)
        failure = Failure(report, kind, now)
        if kind == "limited":
            whole.limits.add(failure)
            if whole.limits.reaches(self._policy.limit_accounts, self._policy.bodies):
                return self._open((report.offer, ""), whole.limits, now)
            return Finding(failure=failure)
        whole.faults.add(failure)
        track.faults.add(failure)
        return self._weigh(report, failure, now)

    def _weigh(self, report: Report, failure: Failure, now: float) -> Finding:
        """Enough accounts and bodies? Of the whole offer, or of this model while others are well?"""
        policy = self._policy
        accounts = max(2, min(policy.accounts, report.usable))
        whole, track = self._tracks[report.offer, ""], self._tracks[report.offer, report.model]
        others_well = whole.models.other_than(report.model, now - policy.window)
        if whole.faults.reaches(accounts, policy.bodies) and (len(whole.faults.models) > 1 or not others_well):
            return self._open((report.offer, ""), whole.faults, now)
        narrow = others_well and track.faults.reaches(accounts, policy.bodies)
        if narrow and len(self._gates) < policy.open_incidents:
            return self._open((report.offer, report.model), track.faults, now)
        return Finding(failure=failure)

    # Questions.

    def others_failing(self, report: Report, now: float) -> bool:
        """Whether other bodies failed in the same way lately: then this one proves nothing against its body."""
        whole = self._track(report.offer, "")
        bodies = whole.limited_bodies if isinstance(report.outcome, RateLimited) else whole.failing_bodies
        return bodies.other_than(report.body, now - self._policy.window)

    def is_models_fault(self, report: Report, now: float) -> bool:
        """Whether just this account fails just this model: both do well otherwise, and it is not one body only.

        Remembers the failure for the next time.
        """
        since = now - self._policy.window
        notes = self._note(report.account_id)
        bodies = notes.failing.get(report.model)
        if bodies is None:
            if len(notes.failing) >= _MODELS_FAILING:
                del notes.failing[next(iter(notes.failing))]
            bodies = notes.failing[report.model] = Lately()
        bodies.saw(report.body, now)
        return (
            bodies.other_than(report.body, since)
            and notes.models.other_than(report.model, since)
            and self._track(report.offer, report.model).accounts.other_than(report.account_id, since)
        )

    def open_for(self, offer: str, model: str) -> Incident | None:
        """The open incident that touches the model of the offer, the widest first."""
        gate = self._gates.get((offer, "")) or self._gates.get((offer, model))
        return gate.incident if gate is not None else None

    def current(self) -> list[Incident]:
        """All open incidents."""
        return [gate.incident for gate in self._gates.values()]

    # Half-open gates.

    def admit(self, offers: Iterable[str], model: str, body: str, now: float) -> tuple[Incident, float] | None:
        """None when the request may go to one of the offers, else an incident and the seconds to wait.

        A request that passes while a probe is due is that probe.
        """
        if not self._gates:
            return None
        passes = False
        refusal: tuple[Incident, float] | None = None
        for offer in offers:
            gates = [gate for gate in map(self._gates.get, ((offer, ""), (offer, model))) if gate is not None]
            wait = max([gate.wait(now) for gate in gates], default=0.0)
            if wait <= 0.0:
                passes = True
                for gate in gates:
                    gate.claim(body, now)
            elif refusal is None or wait < refusal[1]:
                refusal = gates[0].incident, wait
        return None if passes else refusal

    def withdraw(self, body: str) -> None:
        """The probe did not go out: the next request may be it."""
        for gate in self._gates.values():
            if gate.body == body:
                gate.body = None

    def shut(self, offers: Iterable[str], model: str, body: str) -> frozenset[str]:
        """Those of the offers to which the request must not go: an incident is open and it is not the probe."""
        if not self._gates:
            return frozenset()
        return frozenset(
            offer
            for offer in offers
            for gate in (self._gates.get((offer, "")), self._gates.get((offer, model)))
            if gate is not None and gate.body != body
        )

    def _probed(self, report: Report, now: float, *, failed: bool) -> None:
        for (offer, model), gate in self._gates.items():
            if gate.body == report.body:
                gate.report(now, failed=failed and offer == report.offer and model in ("", report.model))

    def _open(self, key: tuple[str, str], streak: Streak, now: float) -> Finding:
        offer, model = key
        absorbed = [each for each in self._gates if not model and each[0] == offer]
        failures = list(streak.failures)
        kinds = Counter(kind for _, kind in {(failure.account_id, failure.kind) for failure in failures})
        scope, code = blame(kinds)
        incident = Incident(
            offer=offer,
            model=model or None,
            scope=scope,
            code=code,
            opened_at=now,
            accounts=len(streak.accounts),
            bodies=len(streak.bodies),
            kinds=dict(kinds),
        )
        finding = Finding(
            incident=incident,
            opened=True,
            absorbed=tuple([self._close(each, now) for each in absorbed]),
            lifted=tuple(dict.fromkeys((each.account_id, each.request_id) for each in failures if each.applied)),
            bodies=frozenset(streak.bodies),
        )
        if not model:
            for (each, _), track in self._tracks.items():
                if each == offer:
                    track.faults.clear()
        self._gates[key] = _Gate(incident, self._policy, now)
        return finding

    def _close(self, key: tuple[str, str], now: float) -> Incident:
        closed = replace(self._gates.pop(key).incident, closed_at=now)
        self._track(*key).closed = closed
        return closed

    # Bounded memory.

    def _track(self, offer: str, model: str) -> _Track:
        track = self._tracks.get((offer, model))
        if track is None:
            if len(self._tracks) >= self._policy.tracks:
                self._tracks.popitem(last=False)
            track = self._tracks[offer, model] = _Track(self._policy)
        else:
            self._tracks.move_to_end((offer, model))
        return track

    def _note(self, account_id: str) -> _Notes:
        notes = self._notes.get(account_id)
        if notes is None:
            if len(self._notes) >= self._policy.accounts_noted:
                self._notes.popitem(last=False)
            notes = self._notes[account_id] = _Notes()
        else:
            self._notes.move_to_end(account_id)
        return notes

    def remembered(self) -> int:
        """Entries in memory."""
        failures = sum(len(track.faults.failures) + len(track.limits.failures) for track in self._tracks.values())
        failing = sum(len(notes.failing) for notes in self._notes.values())
        return len(self._tracks) + len(self._notes) + len(self._gates) + failures + failing


class _Track:
    """One offer, or one model of it."""

    __slots__ = ("accounts", "closed", "failing_bodies", "faults", "limited_bodies", "limits", "models")

    def __init__(self, policy: IncidentPolicy) -> None:
        self.faults = Streak(policy.window, policy.failures)
        self.limits = Streak(policy.limit_window, policy.failures)
        self.accounts = Lately()
        """That succeeded."""
        self.models = Lately()
        """That succeeded."""
        self.failing_bodies = Lately()
        self.limited_bodies = Lately()
        self.closed: Incident | None = None
        """The last incident."""


class _Notes:
    """One account: models that succeeded, and bodies that failed by model."""

    __slots__ = ("failing", "models")

    def __init__(self) -> None:
        self.models = Lately()
        self.failing: dict[str, Lately] = {}


class _Gate:
    """Lets one probe through at a time while an incident is open."""

    __slots__ = ("_gap", "_next", "_policy", "_until", "body", "incident")

    def __init__(self, incident: Incident, policy: IncidentPolicy, now: float) -> None:
        self.incident = incident
        self.body: str | None = None
        """Of the probe that is under way."""
        self._policy = policy
        self._gap = policy.probe_gap
        self._next = now + self._gap
        self._until = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next probe may go; 0: now."""
        if self.body is not None and now < self._until:
            return min(self._gap, self._until - now)
        return max(0.0, self._next - now)

    def claim(self, body: str, now: float) -> None:
        self.body = body
        self._until = now + self._policy.probe_claim

    def report(self, now: float, *, failed: bool) -> None:
        self.body = None
        if failed:
            self._gap = min(self._policy.probe_gap_cap, 2 * self._gap)
        self._next = now + self._gap
