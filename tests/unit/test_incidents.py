"""Failures of many accounts together: when they are one incident, whose it is, and how it ends."""

from __future__ import annotations

import pytest
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
    Succeeded,
    Transient,
)
from poe_gateway.pool.verdict import Incident, IncidentPolicy, Report

TIMEOUT = Transient(timeout=True)
FAILED = Transient()
DRIFT = AdapterDrift()
NETWORK = NetworkFault()
LIMITED = RateLimited()
OK = Succeeded()

Step = tuple[float, str, str, str, Outcome]
"""Second, account, body, model, outcome."""


def report(account: str, body: str, outcome: Outcome, model: str = "gpt", usable: int = 9, **fields: object) -> Report:
    return Report(
        account_id=account,
        offer="poe",
        model=model,
        request_id=f"req_{body}",
        fingerprint=body,
        outcome=outcome,
        usable=usable,
        **fields,  # type: ignore[arg-type]
    )


def tell(incidents: Incidents, steps: list[Step], usable: int = 9) -> list[Incident]:
    """What was opened, in order."""
    opened = []
    for now, account, body, model, outcome in steps:
        told = report(account, body, outcome, model, usable)
        if isinstance(outcome, Succeeded):
            incidents.succeeded(told, now)
            continue
        finding = incidents.failed(told, now)
        if finding.failure is not None:
            finding.failure.applied = True
        if finding.opened and finding.incident is not None:
            opened.append(finding.incident)
    return opened


def three(outcome: Outcome, model: str = "gpt") -> list[Step]:
    """Three accounts, three bodies."""
    return [(each, f"a{each}", f"b{each}", model, outcome) for each in (1, 2, 3)]


OPENED: list[tuple[str, list[Step], int, Scope, str, str | None]] = [
    ("time-outs", three(TIMEOUT), 9, Scope.EGRESS, "upstream_down", None),
    ("network", three(NETWORK), 9, Scope.EGRESS, "upstream_down", None),
    ("errors of the server", three(FAILED), 9, Scope.ADAPTER, "upstream_down", None),
    ("drift", three(DRIFT), 9, Scope.ADAPTER, "upstream_changed", None),
    ("limits of the address", three(LIMITED), 9, Scope.EGRESS, "upstream_down", None),
    ("a pool of two", three(TIMEOUT)[:2], 2, Scope.EGRESS, "upstream_down", None),
    (
        "two bodies are enough",
        [*three(FAILED)[:2], (3, "a3", "b1", "gpt", FAILED)],
        9,
        Scope.ADAPTER,
        "upstream_down",
        None,
    ),
    (
        "a pool of two of which one rests already",
        [(1, "a1", "b1", "gpt", TIMEOUT), (2, "a2", "b2", "gpt", TIMEOUT)],
        1,
        Scope.EGRESS,
        "upstream_down",
        None,
    ),
    (
        "the majority decides",
        [(1, "a1", "b1", "gpt", DRIFT), (2, "a2", "b2", "gpt", DRIFT), (3, "a3", "b3", "gpt", TIMEOUT)],
        9,
        Scope.ADAPTER,
        "upstream_changed",
        None,
    ),
    (
        "each account has one voice",
        [(0, "a1", "b0", "gpt", TIMEOUT)] * 5 + [(1, "a2", "b1", "gpt", FAILED), (2, "a3", "b2", "gpt", FAILED)],
        9,
        Scope.ADAPTER,
        "upstream_down",
        None,
    ),
    (
        "one model while others do well",
        [(0, "a9", "b9", "claude", OK), *three(FAILED)],
        9,
        Scope.ADAPTER,
        "upstream_down",
        "gpt",
    ),
    (
        "one model while others do well in between",
        [three(FAILED)[0], (1.5, "a1", "b9", "claude", OK), *three(FAILED)[1:]],
        9,
        Scope.ADAPTER,
        "upstream_down",
        "gpt",
    ),
    (
        "several models, though one did well before",
        [(0, "a9", "b9", "claude", OK), *three(FAILED)[:2], (3, "a3", "b3", "claude", FAILED)],
        9,
        Scope.ADAPTER,
        "upstream_down",
        None,
    ),
    (
        "several models, though another did well before",
        [(0, "a9", "b9", "o3", OK), *three(FAILED)[:2], (3, "a3", "b3", "claude", FAILED)],
        9,
        Scope.ADAPTER,
        "upstream_down",
        None,
    ),
    (
        "what did well long ago is no witness",
        [(-500, "a9", "b9", "claude", OK), *three(FAILED)],
        9,
        Scope.ADAPTER,
        "upstream_down",
        None,
    ),
]


@pytest.mark.parametrize("what, steps, usable, scope, code, model", OPENED, ids=[case[0] for case in OPENED])
def test_opened(what: str, steps: list[Step], usable: int, scope: Scope, code: str, model: str | None) -> None:
    incidents = Incidents(IncidentPolicy())
    opened = tell(incidents, steps, usable)
    assert [(each.scope, each.code, each.model) for each in opened] == [(scope, code, model)]
    assert incidents.current() == opened
    assert opened[0].opened_at == steps[-1][0]


NOT_OPENED: list[tuple[str, list[Step], int]] = [
    ("two accounts of many", three(TIMEOUT)[:2], 9),
    ("one body alone", [(each, f"a{each}", "b", "gpt", TIMEOUT) for each in range(9)], 9),
    ("one account alone", [(each, "a", f"b{each}", "gpt", TIMEOUT) for each in range(9)], 1),
    ("a success in between", [*three(FAILED)[:2], (2.5, "a9", "b9", "gpt", OK), three(FAILED)[2]], 9),
    ("too far apart", [(each * 70.0, f"a{each}", f"b{each}", "gpt", FAILED) for each in range(9)], 9),
    ("limits too far apart", [(each * 6.0, f"a{each}", f"b{each}", "gpt", LIMITED) for each in range(9)], 9),
    ("two accounts at their limits", three(LIMITED)[:2], 2),
    ("limits with a success", [*three(LIMITED)[:2], (2.5, "a9", "b9", "gpt", OK), three(LIMITED)[2]], 9),
    (
        "the model did well in between, and others do",
        [(0, "a9", "b9", "claude", OK), *three(FAILED)[:2], (2.5, "a9", "b9", "gpt", OK), three(FAILED)[2]],
        9,
    ),
    ("limits of a model", three(RateLimited(model="gpt")), 9),
    ("challenges", three(Challenged()), 9),
]


@pytest.mark.parametrize("what, steps, usable", NOT_OPENED, ids=[case[0] for case in NOT_OPENED])
def test_not_opened(what: str, steps: list[Step], usable: int) -> None:
    incidents = Incidents(IncidentPolicy())
    assert tell(incidents, steps, usable) == []
    assert incidents.current() == []


def open_one(outcome: Outcome = FAILED, model: str = "gpt") -> Incidents:
    """An incident of the whole offer, opened at second 3."""
    incidents = Incidents(IncidentPolicy())
    assert len(tell(incidents, three(outcome, model))) == 1
    return incidents


def test_what_was_done_to_accounts_before_is_lifted() -> None:
    incidents = Incidents(IncidentPolicy())
    tell(incidents, [(0, "a9", "b9", "gpt", FAILED), (0.5, "a8", "b8", "gpt", OK), *three(FAILED)[:2]])
    finding = incidents.failed(report("a3", "b1", FAILED), 3)
    assert finding.lifted == (("a1", "req_b1"), ("a2", "req_b2"))
    assert finding.bodies == {"b1", "b2"}


def test_failures_that_changed_nothing_are_not_lifted() -> None:
    incidents = Incidents(IncidentPolicy())
    for _, account, body, _, outcome in three(FAILED)[:2]:
        incidents.failed(report(account, body, outcome), 1)
    finding = incidents.failed(report("a3", "b3", FAILED), 2)
    assert finding.opened
    assert finding.lifted == ()


def test_an_incident_is_told_once_and_closed_once_by_any_success() -> None:
    incidents = open_one()
    again = incidents.failed(report("a4", "b4", TIMEOUT), 4)
    assert again.incident is not None
    assert not again.opened
    closed = incidents.succeeded(report("a5", "b5", OK, "claude"), 60)
    assert closed is not None
    assert closed.closed_at == 60
    assert incidents.succeeded(report("a5", "b6", OK, "claude"), 61) is None
    assert incidents.current() == []


def test_evidence_of_before_does_not_open_the_next_one() -> None:
    incidents = open_one()
    incidents.succeeded(report("a5", "b5", OK, "claude"), 4)
    assert tell(incidents, [(5, "a7", "b7", "gpt", FAILED), (6, "a8", "b8", "gpt", FAILED)]) == []


def test_the_incident_of_a_model_is_closed_by_that_model_only() -> None:
    incidents = Incidents(IncidentPolicy())
    tell(incidents, [(0, "a9", "b9", "claude", OK), *three(FAILED)])
    assert incidents.succeeded(report("a9", "b9", OK, "claude"), 4) is None
    assert incidents.open_for("poe", "claude") is None
    assert incidents.open_for("poe", "gpt") is not None
    assert incidents.admit({"poe"}, "claude", "b", 4) is None
    assert incidents.admit({"poe"}, "gpt", "b", 3.5) is not None
    assert incidents.succeeded(report("a1", "b1", OK), 5) is not None


def test_a_wider_incident_takes_the_place_of_narrower_ones() -> None:
    incidents = Incidents(IncidentPolicy())
    tell(incidents, [(0, "a9", "b9", "claude", OK), *three(FAILED)])
    narrow = incidents.current()
    finding = incidents.failed(report("a4", "b4", FAILED, "claude"), 4)
    assert finding.incident is not None
    assert finding.opened
    assert finding.incident.model is None
    assert [each.model for each in finding.absorbed] == [each.model for each in narrow] == ["gpt"]
    assert finding.absorbed[0].closed_at == 4
    assert incidents.current() == [finding.incident]


@pytest.mark.parametrize(
    "began, over",
    [(2.0, True), (59.0, True), (61.0, False), (None, False)],
)
def test_what_began_before_the_end_of_an_incident_belongs_to_it(began: float | None, over: bool) -> None:
    """Requests that hang from before come to their time-outs minutes later."""
    incidents = open_one(TIMEOUT)
    incidents.succeeded(report("a5", "b5", OK), 60)
    finding = incidents.failed(report("a7", "b7", TIMEOUT, began=began), 200)
    assert (finding.over, finding.incident is not None) == (over, over)


# Half-open.


def elsewhere(body: str, outcome: Outcome) -> Report:
    return replace(report("x", body, outcome), offer="api")


def admitted(incidents: Incidents, body: str, now: float) -> bool:
    return incidents.admit({"poe"}, "gpt", body, now) is None


def test_probes_go_one_at_a_time_and_more_rarely_with_each_failure() -> None:
    incidents = open_one()
    told = []
    now = 3.0
    for _ in range(5):
        before = now
        while not admitted(incidents, "probe", now):
            now += 0.25
        assert not admitted(incidents, "other", now + 9)
        told.append(now - before)
        incidents.failed(report("a1", "probe", FAILED), now)
    assert told == [1, 2, 4, 5, 5]


def test_the_wait_that_is_told_is_when_the_next_probe_may_go() -> None:
    incidents = open_one()
    refusal = incidents.admit({"poe"}, "gpt", "probe", 3.25)
    assert refusal is not None
    assert refusal[1] == 0.75
    assert admitted(incidents, "probe", 4.0)


def test_a_probe_that_never_reports_makes_room() -> None:
    incidents = open_one()
    assert admitted(incidents, "lost", 5)
    assert not admitted(incidents, "next", 34.9)
    assert admitted(incidents, "next", 35)


def test_a_probe_that_was_cancelled_makes_room_and_says_nothing() -> None:
    incidents = open_one()
    assert admitted(incidents, "gone", 5)
    incidents.answered(report("a1", "gone", Cancelled()), 6)
    assert not admitted(incidents, "next", 6.5)
    assert admitted(incidents, "next", 7)


def test_failures_of_others_do_not_end_the_probe() -> None:
    incidents = open_one()
    assert admitted(incidents, "probe", 5)
    incidents.failed(report("a1", "straggler", FAILED), 6)
    assert not admitted(incidents, "next", 20)


def test_another_offer_that_works_takes_the_request() -> None:
    incidents = open_one()
    both = frozenset({"poe", "api"})
    assert incidents.admit(both, "gpt", "b", 3.5) is None
    assert incidents.shut(both, "gpt", "b") == {"poe"}
    # A probe is due: this request may go to either.
    assert incidents.admit(both, "gpt", "c", 4) is None
    assert incidents.shut(both, "gpt", "c") == frozenset()
    # It went to the other one: the next may probe.
    incidents.succeeded(elsewhere("c", OK), 5)
    assert incidents.open_for("poe", "gpt") is not None
    assert admitted(incidents, "d", 6)


def test_a_probe_that_fails_elsewhere_says_nothing_about_this_offer() -> None:
    incidents = open_one()
    assert incidents.admit({"poe", "api"}, "gpt", "probe", 4) is None
    incidents.failed(elsewhere("probe", FAILED), 5)
    assert not admitted(incidents, "next", 5.9)
    assert admitted(incidents, "next", 6)


def test_of_several_waits_the_shortest_is_told() -> None:
    incidents = open_one()
    for each in (1, 2, 3):
        incidents.failed(replace(elsewhere(f"c{each}", DRIFT), account_id=f"x{each}"), 3.5)
    for offers in (["poe", "api"], ["api", "poe"]):
        refusal = incidents.admit(offers, "gpt", "b", 3.75)
        assert refusal is not None
        assert (refusal[0].offer, refusal[1]) == ("poe", 0.25)


# One account, one model.


def narrow(steps: list[Step]) -> bool:
    """Whether the last failure is charged to account and model together."""
    incidents = Incidents(IncidentPolicy())
    *before, (now, account, body, model, outcome) = steps
    for step in before:
        told = report(step[1], step[2], step[4], step[3])
        if isinstance(step[4], Succeeded):
            incidents.succeeded(told, step[0])
        else:
            incidents.is_models_fault(told, step[0])
    return incidents.is_models_fault(report(account, body, outcome, model), now)


_WELL: list[Step] = [(0, "a1", "w1", "claude", OK), (0, "a2", "w2", "gpt", OK)]
_TWICE: list[Step] = [(1, "a1", "b1", "gpt", FAILED), (2, "a1", "b2", "gpt", FAILED)]
NARROW: list[tuple[str, list[Step], bool]] = [
    ("both do well otherwise", [*_WELL, *_TWICE], True),
    ("a third time by one of the bodies", [*_WELL, *_TWICE, (3, "a1", "b2", "gpt", FAILED)], True),
    ("one body only", [*_WELL, _TWICE[0], _TWICE[0]], False),
    ("nobody else does well with the model", [_WELL[0], *_TWICE], False),
    ("the account does nothing else well", [_WELL[1], *_TWICE], False),
    ("only this account did well with the model", [_WELL[0], (0, "a1", "w", "gpt", OK), *_TWICE], False),
    ("the account did well with it in between", [*_WELL, _TWICE[0], (1.5, "a1", "w", "gpt", OK), _TWICE[1]], False),
    ("witnesses of long ago", [(-300, *_WELL[0][1:]), (-300, *_WELL[1][1:]), *_TWICE], False),
]


@pytest.mark.parametrize("what, steps, expected", NARROW, ids=[case[0] for case in NARROW])
def test_account_and_model(what: str, steps: list[Step], expected: bool) -> None:
    assert narrow(steps) is expected


# Bounds.


def test_memory_is_bounded() -> None:
    policy = IncidentPolicy(failures=8, tracks=6, accounts_noted=10, open_incidents=2)
    incidents = Incidents(policy)
    for each in range(2000):
        told = report(f"a{each}", f"b{each}", OK if each % 7 == 0 else FAILED, f"m{each % 50}")
        if each % 7 == 0:
            incidents.succeeded(told, float(each))
        else:
            incidents.failed(told, float(each))
            incidents.is_models_fault(told, float(each))
        assert len(incidents.current()) <= 3
        assert incidents.remembered() <= 6 + 10 + 3 + 6 * 16 + 10 * 8


def test_open_incidents_of_models_are_bounded() -> None:
    incidents = Incidents(IncidentPolicy(open_incidents=2))
    for model in ("m1", "m2", "m3"):
        incidents.succeeded(report("a9", "b9", OK, "claude"), 0)
        tell(incidents, three(FAILED, model))
    assert [each.model for each in incidents.current()] == ["m1", "m2"]


def test_a_streak_is_bounded() -> None:
    incidents = Incidents(IncidentPolicy(failures=8))
    for each in range(100):
        incidents.failed(report(f"a{each}", "b", FAILED), 1.0)
    assert incidents.remembered() == 2 + 2 * 8


def test_one_account_remembers_a_few_models() -> None:
    incidents = Incidents(IncidentPolicy())
    for each in range(500):
        incidents.is_models_fault(report("a", f"b{each}", FAILED, f"m{each}"), 1.0)
    assert incidents.remembered() < 20


def test_a_finding_of_its_own_belongs_to_nothing() -> None:
    assert Incidents(IncidentPolicy()).failed(report("a", "b", Challenged()), 1) == Finding()
