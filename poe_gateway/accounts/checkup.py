"""The operator's test of one account: a real round trip, told in words."""

from __future__ import annotations

import msgspec

from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.visits import VisitFailed, Visitor, in_words
from poe_gateway.clock import Clock
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, State
from poe_gateway.pool.outcome import Succeeded
from poe_gateway.upstreams.base import AccountRef, Upstream

_EVIDENCE = "operator-test"


class TestReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a test of an account went, in words."""

    __test__ = False

    ok: bool
    account: Account
    """As it is after the test."""
    step: str
    """The last step reached: ``round trip`` or ``balance``."""
    message: str
    outcome: str
    """Class name of the outcome."""
    detail: str = ""
    """The adapter's own short note, without secrets."""
    seconds: float = 0.0


async def check_up(
    visitor: Visitor, care: AccountCare, clock: Clock, account_id: str, *, force: bool = False
) -> TestReport:
    """One real, cheap round trip, and the balance where it can be read; a failure is told, not raised.

    A challenged account is contacted only with ``force``; it stays set aside even if it answers.
    Raises SetAside, Unreadable, AccountNotFound, StoreUnavailable.
    """
    before = await visitor.account(account_id)
    measures = visitor.upstream_of(before).capabilities.balance
    step, started = "round trip", clock.monotonic()
    try:
        said = await visitor.visit(
            account_id,
            _probe,
            evidence=_EVIDENCE,
            forced=force,
            news=lambda _: None if measures else _answered(before, clock),
        )
        if measures:
            step = "balance"
            await care.measure(account_id, evidence=_EVIDENCE, forced=force)
    except VisitFailed as failed:
        outcome, ok = type(failed.outcome).__name__, False
        message, detail = in_words(failed.outcome), getattr(failed.outcome, "detail", "")
    else:
        outcome, ok, detail = Succeeded.__name__, True, said or ""
        message = "The account answers."
    after = await visitor.account(account_id)
    if ok and after.health.state is State.INVALID:
        message = "The account answers, but stays set aside until its cooldown is cleared by hand."
    return TestReport(
        ok=ok,
        account=after,
        step=step,
        message=message,
        outcome=outcome,
        detail=detail,
        seconds=clock.monotonic() - started,
    )


async def _probe(upstream: Upstream, ref: AccountRef) -> str:
    return await upstream.probe(ref)


def _answered(before: Account, clock: Clock) -> transitions.News:
    """News of an answer where no balance can be read: it ends what was derived from refusals."""
    if before.health.state is State.INVALID:
        return transitions.Measurement(at=clock.now(), points=None, evidence=_EVIDENCE)
    return transitions.Settled(
        outcome=Succeeded(),
        at=clock.now(),
        model="",
        evidence=_EVIDENCE,
        credential_rev=before.credential_rev,
    )
