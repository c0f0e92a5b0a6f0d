"""The court: what an outcome may do to accounts, once the guard has said who is at fault.

Between an attempt's end and the change of an account stands a judgement: the fault may be the request's, the way's or
the site's, it may confirm what was suspected of other accounts, or undo what was done to them. Synchronous.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from poe_gateway.clock import Clock
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Scope
from poe_gateway.pool.guard import Guard, Incident, Report, Verdict
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Challenged, Outcome, Succeeded, Unauthorized
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.roster import Roster
from poe_gateway.pool.store import AccountStore

FENCED = Verdict(applies=False, scope=Scope.ACCOUNT, withheld="fenced")
"""Of a lease whose slot belongs to another process by now."""


class Court(Roster):
    """The roster, changed by outcomes as far as the guard allows. ``epoch``: the name under which slots are held."""

    def __init__(
        self,
        *,
        store: AccountStore,
        policy: PoolPolicy,
        clock: Clock,
        changed: Callable[[Account, Account], None],
        guard: Guard | None,
    ) -> None:
        super().__init__(store=store, policy=policy, clock=clock, changed=changed)
        self.guard = guard or Guard()
        self.epoch = ""
        self.on_incident: Callable[[Incident], None] = lambda incident: None
        """Told when many accounts began to fail for one reason outside of them, and when that ended."""

    def fenced(self, lease: Lease) -> bool:
        """Whether this process lost the slot while the lease was open."""
        return lease.revoked or lease.epoch != self.epoch

    def judge(self, lease: Lease, outcome: Outcome, *, accepted: bool, again: bool = False) -> Verdict:
        """Say who is at fault and change what must be changed. ``again``: see ``Report``.

        A lease whose slot was lost settles nothing but points and what takes an account out of service.
        """
        want = lease.want
        if self.fenced(lease):
            verdict = replace(FENCED, applies=isinstance(outcome, Succeeded | Challenged | Unauthorized))
            self._note_outcome(lease, outcome, withheld=not verdict.applies, accepted=accepted)
        else:
            verdict = self.guard.judge(
                Report(
                    account_id=lease.account.id,
                    offer=lease.account.offer,
                    model=want.key,
                    request_id=want.evidence,
                    fingerprint=want.fingerprint,
                    outcome=outcome,
                    usable=self._allowed[lease.account.offer],
                    credential_rev=lease.account.credential_rev,
                    began=lease.taken,
                    again=again,
                ),
                self._clock.monotonic(),
            )
            model_only = verdict.scope == Scope.ACCOUNT_MODEL
            self._note_outcome(lease, outcome, withheld=not verdict.applies, accepted=accepted, model_only=model_only)
            self._carry_out(verdict)
        return verdict

    def ends(self, want: Want, verdict: Verdict) -> bool:
        """Whether the request must not be tried on another account."""
        if not verdict.stop:
            return False
        return verdict.withheld == "quarantined" or not want.offers - self.guard.shut(
            want.offers, want.key, want.fingerprint
        )

    def _note_outcome(
        self, lease: Lease, outcome: Outcome, *, withheld: bool, accepted: bool, model_only: bool = False
    ) -> None:
        self.note(
            lease.account.id,
            transitions.Settled(
                outcome=outcome,
                at=self._clock.now(),
                model=lease.model,
                evidence=lease.evidence,
                credential_rev=lease.account.credential_rev,
                began=lease.began,
                expected=lease.want.expected,
                key=lease.want.key,
                accepted=accepted,
                model_only=model_only,
                withheld=withheld,
            ),
        )

    def _carry_out(self, verdict: Verdict) -> None:
        """What the guard has concluded about other accounts too."""
        if verdict.hold or verdict.released or verdict.confirmed or verdict.lifted:
            self._conclude(verdict)
        for incident in verdict.absorbed:
            self.on_incident(incident)
        if verdict.incident is not None:
            self.on_incident(verdict.incident)
            self._incident(verdict.incident)

    def _incident(self, incident: Incident) -> None:
        """An incident was opened or closed."""

    def _conclude(self, verdict: Verdict) -> None:
        now = self._clock.now()
        for report in verdict.confirmed:
            self.note(
                report.account_id,
                transitions.Settled(
                    outcome=report.outcome,
                    at=now,
                    model=report.model,
                    evidence=report.request_id,
                    credential_rev=report.credential_rev,
                ),
            )
        for account_id, request_id in verdict.lifted:
            self.step(account_id, lambda each, request_id=request_id: transitions.lifted(each, now, request_id))  # type: ignore[misc]
        for account_id in (*self.guard.held(), *verdict.released):
            self.refresh(account_id)
        if verdict.released:
            self._moved()

    def pardon(self, account_id: str) -> None:
        """The operator vouches for the account: it is not held back any longer."""
        self.guard.pardon(account_id)
        self.refresh(account_id)
        self._moved()

    def held_until(self, account_id: str) -> float | None:
        return self.guard.held_until(account_id)
