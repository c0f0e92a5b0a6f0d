"""The witness: what happens to accounts and requests, told to telemetry, to the history and to the decision log."""

from __future__ import annotations

from collections import OrderedDict

from poe_gateway.clock import Clock
from poe_gateway.explain.decisions import DecisionLog
from poe_gateway.explain.history import (
    AlertRaised,
    AttemptFailed,
    BalanceMeasured,
    HistoryLog,
    OperatorActed,
    changes,
)
from poe_gateway.pool.account import Account
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.guard import Incident
from poe_gateway.pool.prices import Change
from poe_gateway.pool.reconcile import Kind, Reconciliation
from poe_gateway.telemetry.events import AccountChanged, Alert
from poe_gateway.telemetry.hub import Telemetry

_QUIET = frozenset({"Succeeded", "Cancelled"})
_QUARANTINED = "quarantined"
"""Why the attempt that convicted a body, and those under way then, were charged to no account."""
_ONE_ALERT = 60.0
"""Seconds in which one body is told once: requests with it may run side by side. Below the shortest quarantine."""
_TOLD_BODIES = 256


class Witness:
    """One instance per process. ``process`` is asked for the present name of this process."""

    def __init__(
        self, *, telemetry: Telemetry, history: HistoryLog, decisions: DecisionLog, clock: Clock, process: str = ""
    ) -> None:
        self.process = process
        self._telemetry = telemetry
        self._history = history
        self._decisions = decisions
        self._clock = clock
        self._quarantined: OrderedDict[str, float] = OrderedDict()
        """Body -> when the operator was told of it."""

    def changed(self, old: Account, new: Account) -> None:
        """An account is in another state, whoever brought it about."""
        if new.health.state is not old.health.state or new.health.cause is not old.health.cause:
            self._telemetry.emit(
                AccountChanged(
                    account_id=new.id,
                    provider=new.provider,
                    old_state=old.health.state.value,
                    new_state=new.health.state.value,
                    cause=new.health.cause.value,
                    until=new.health.until,
                    evidence=new.health.evidence,
                )
            )

    def stepped(self, old: Account, new: Account) -> None:
        """This process itself changed an account."""
        if new.health != old.health or new.model_blocks != old.model_blocks:
            for entry in changes(old, new, self._clock.now(), self.process):
                self._history.note(entry)

    def judged(self, account_id: str, result: Reconciliation) -> None:
        """A balance was measured and held against the ledger."""
        self._history.note(
            BalanceMeasured(
                account_id=account_id,
                at=self._clock.now(),
                process=self.process,
                measured=result.measured,
                expected=result.expected,
                unexplained=result.amount if result.kind is Kind.FOREIGN_SPEND else 0,
                renewed=result.renewal,
            )
        )

    def alert(self, alert: Alert) -> None:
        """Something to look at."""
        self._telemetry.emit(alert)
        if alert.account_id is not None:
            self._history.note(
                AlertRaised(
                    account_id=alert.account_id,
                    at=self._clock.now(),
                    process=self.process,
                    alert=alert.kind,
                    message=_with_figures(alert),
                )
            )

    def incident(self, incident: Incident) -> None:
        """Many accounts began to fail for one reason outside of them, or that ended."""
        closed = incident.closed_at is not None
        where = {"offer": incident.offer, "model": incident.model, "scope": incident.scope.value}
        if closed:
            message = "the upstream answers again"
        else:
            message = "many accounts fail for one reason outside of them; no account is charged with it"
        self._telemetry.emit(
            Alert(
                kind="incident_closed" if closed else "incident_opened",
                message=message,
                fields={
                    **{name: value for name, value in where.items() if value is not None},
                    "code": incident.code,
                    "accounts": incident.accounts,
                    "requests": incident.bodies,
                    "kinds": dict(incident.kinds),
                },
            )
        )

    def price_changed(self, offer: str, model: str, change: Change) -> None:
        """The site asks another price."""
        self._telemetry.emit(
            Alert(
                kind="price_changed",
                message="a model costs another number of points than before",
                fields={"offer": offer, "model": model, "before": change.before, "after": change.after},
            )
        )

    def decided(self, decision: Decision) -> None:
        """A request is over."""
        self._decisions.note(decision)
        for attempt in decision.tries:
            if attempt.outcome not in _QUIET:
                self._history.note(
                    AttemptFailed(
                        account_id=attempt.account_id,
                        at=self._clock.now(),
                        process=self.process,
                        outcome=attempt.outcome,
                        detail=attempt.detail,
                        model=decision.model,
                        charged_to=attempt.charged_to,
                        withheld=attempt.withheld,
                        evidence=decision.request_id,
                    )
                )
        if self._is_convicted(decision):
            self._telemetry.emit(
                Alert(
                    kind="body_quarantined",
                    message="a request that several accounts refused is set aside",
                    fields={"request_id": decision.request_id, "fingerprint": decision.fingerprint},
                )
            )

    def _is_convicted(self, decision: Decision) -> bool:
        """Whether a quarantine of the request's body began with it, and was not told yet."""
        if not any(attempt.withheld == _QUARANTINED for attempt in decision.tries):
            return False
        now, body = self._clock.monotonic(), decision.fingerprint
        last = self._quarantined.pop(body, None)
        if last is not None and now - last < _ONE_ALERT:
            self._quarantined[body] = last
            return False
        self._quarantined[body] = now
        if len(self._quarantined) > _TOLD_BODIES:
            self._quarantined.popitem(last=False)
        return True

    def acted(self, account_id: str, verb: str, detail: str = "") -> None:
        """The operator did something with an account."""
        self._history.note(
            OperatorActed(account_id=account_id, at=self._clock.now(), process=self.process, verb=verb, detail=detail)
        )


def _with_figures(alert: Alert) -> str:
    """The alert with what it counts, since a history keeps sentences only."""
    figures = ", ".join(f"{name} {value:,}" for name, value in alert.fields.items() if isinstance(value, int))
    return f"{alert.message} ({figures})" if figures else alert.message
