"""What the operator is told of a body that accounts refuse: once for each quarantine, however its request ended."""

from __future__ import annotations

from poe_gateway.explain.decisions import DecisionLog
from poe_gateway.explain.entry_words import entry_in_words
from poe_gateway.explain.history import BalanceMeasured, HistoryLog
from poe_gateway.explain.witness import Witness
from poe_gateway.pool.decision import Decision, Try
from poe_gateway.telemetry.events import Alert
from poe_gateway.telemetry.hub import Recorder, Telemetry
from tests.accounts.support import HandClock
from tests.support.explain import NOON, MemoryHistory, decision


class Watch:
    """A witness, and what it told."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.told = Recorder()
        self.history = HistoryLog(MemoryHistory())
        self.witness = Witness(
            telemetry=Telemetry(self.told),
            history=self.history,
            decisions=DecisionLog(None),
            clock=self.clock,
        )

    def decided(self, record: Decision) -> list[str]:
        """The fingerprints of the quarantines that were told so far."""
        self.witness.decided(record)
        return [str(each.fields["fingerprint"]) for each in self.told.of(Alert) if each.kind == "body_quarantined"]


def refused(number: int, body: str, *withheld: str) -> Decision:
    """A request that accounts answered with a challenge; it ended as such requests end."""
    tries = [
        Try(number=each, account_id=f"acct_{each}", outcome="Challenged", withheld=why)
        for each, why in enumerate(withheld, 1)
    ]
    return decision(number, tries=tries, fingerprint=body, status=502, error_code="account_unavailable")


def test_the_request_that_convicts_its_body_is_told() -> None:
    watch = Watch()
    assert watch.decided(refused(1, "poison", "", "quarantined")) == ["poison"]


def test_what_is_no_conviction_is_not_told() -> None:
    watch = Watch()
    assert watch.decided(refused(1, "bad luck", "", "one_request")) == []
    assert watch.decided(decision(2, tries=[], fingerprint="poison", error_code="body_quarantined")) == []
    assert watch.decided(decision(3)) == []


def test_requests_side_by_side_are_told_once_and_the_next_quarantine_again() -> None:
    watch = Watch()
    watch.decided(refused(1, "poison", "", "quarantined"))
    watch.clock.pass_(seconds=59.0)
    assert watch.decided(refused(2, "poison", "quarantined")) == ["poison"]
    assert watch.decided(refused(3, "venom", "quarantined")) == ["poison", "venom"]
    watch.clock.pass_(seconds=1.0)
    assert watch.decided(refused(4, "poison", "quarantined")) == ["poison", "venom", "poison"]


async def test_an_alert_about_an_account_comes_into_its_history_with_its_figures() -> None:
    watch = Watch()
    alert = Alert(kind="foreign_spend", message="points are gone", account_id="acct_1", fields={"points": 1200})
    watch.witness.alert(alert)
    [entry] = await watch.history.of("acct_1", 10)
    assert entry_in_words(entry) == "Alert (foreign_spend): points are gone (points 1,200)"
    watch.witness.alert(Alert(kind="clock_skew", message="of no account"))
    assert watch.told.of(Alert)[0] == alert and len(watch.told.of(Alert)) == 2


def test_what_was_missing_before_is_not_told_as_a_fall_of_now() -> None:
    entry = BalanceMeasured(account_id="acct_1", at=NOON, measured=2960, expected=2960, unexplained=20)
    told = "Measured 2,960 points, 2,960 were expected; 20 fewer in all than this pool's doing explains."
    assert entry_in_words(entry) == told
