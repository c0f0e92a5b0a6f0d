"""The witness: what happens to accounts and requests, told to telemetry, to the history and to the decision log."""

from __future__ import annotations

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
                    message=alert.message,
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
        if decision.error_code == "body_quarantined" and decision.tries:
            self._telemetry.emit(
                Alert(
                    kind="body_quarantined",
                    message="a request that several accounts refused is set aside",
                    fields={"request_id": decision.request_id, "fingerprint": decision.fingerprint},
                )
            )

    def acted(self, account_id: str, verb: str) -> None:
        """The operator did something with an account."""
        self._history.note(OperatorActed(account_id=account_id, at=self._clock.now(), process=self.process, verb=verb))
