"""Whose fault it was: the blast radius of one body, holds, quarantine, and two small simulations with the rules of
health."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Scope, State
from poe_gateway.pool.guard import Guard, GuardPolicy, IncidentPolicy, Refusal, Report, Verdict
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Cancelled,
    Challenged,
    Depleted,
    NetworkFault,
    Outcome,
    RateLimited,
    Rejected,
    Succeeded,
    Transient,
    Unauthorized,
)
from tests.unit.builders import NOON, POLICY, account

OK = Succeeded()
TIMEOUT = Transient(timeout=True)
NO_ACCESS = Rejected(model="gpt")
PUNISHING: list[Outcome] = [
    RateLimited(),
    RateLimited(model="gpt"),
    Depleted(),
    Unauthorized(),
    Challenged(),
    Transient(),
    TIMEOUT,
    NetworkFault(),
    NO_ACCESS,
]
POE = frozenset({"poe"})


def name(outcome: Outcome) -> str:
    return type(outcome).__name__


def report(account_id: str, body: str, outcome: Outcome, request: str = "", **fields: object) -> Report:
    return Report(
        account_id=account_id,
        offer="poe",
        model=str(fields.pop("model", "gpt")),
        request_id=request or f"req_{body}",
        fingerprint=body,
        outcome=outcome,
        usable=9,
        **fields,  # type: ignore[arg-type]
    )


def judge(guard: Guard, *told: tuple[float, str, str, Outcome]) -> Verdict:
    """The last verdict of several (second, account, body, outcome)."""
    for now, account_id, body, outcome in told:
        verdict = guard.judge(report(account_id, body, outcome), now)
    return verdict


# One failure.


@pytest.mark.parametrize(
    "outcome, scope",
    [
        (OK, "account"),
        (Cancelled(), "request"),
        (Rejected(), "request"),
        (NO_ACCESS, "account+model"),
        (RateLimited(), "account"),
        (RateLimited(model="gpt"), "account+model"),
        (Depleted(), "account"),
        (Unauthorized(), "account"),
        (Challenged(), "account"),
        (Transient(), "account"),
        (NetworkFault(), "egress"),
        (AdapterDrift(), "adapter"),
    ],
)
def test_the_first_outcome_applies_at_once(outcome: Outcome, scope: str) -> None:
    assert Guard().judge(report("a1", "b", outcome), 1) == Verdict(applies=True, scope=scope)


def test_one_model_of_one_account() -> None:
    guard = Guard()
    guard.judge(report("a1", "w1", OK, model="claude"), 0)
    guard.judge(report("a2", "w2", OK), 0)
    assert judge(guard, (1, "a1", "b1", Transient())).scope == Scope.ACCOUNT
    assert judge(guard, (2, "a1", "b2", Transient())).scope == Scope.ACCOUNT_MODEL


# The blast radius.


@pytest.mark.parametrize("second", PUNISHING, ids=name)
@pytest.mark.parametrize("first", PUNISHING, ids=name)
def test_a_second_account_is_not_changed(first: Outcome, second: Outcome) -> None:
    guard = Guard()
    assert judge(guard, (1, "a1", "b", first)).applies
    verdict = judge(guard, (2, "a2", "b", second))
    assert not verdict.applies
    assert verdict.withheld == (
        "quarantined" if isinstance(first, Challenged) and isinstance(second, Challenged) else "one_request"
    )


@pytest.mark.parametrize("outcome", PUNISHING, ids=name)
def test_the_same_account_may_be_changed_again(outcome: Outcome) -> None:
    guard = Guard()
    assert judge(guard, (1, "a1", "b", outcome), (2, "a1", "b", outcome)).applies


@pytest.mark.parametrize("outcome", PUNISHING, ids=name)
def test_another_body_changes_the_second_account_in_its_own_right(outcome: Outcome) -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", outcome), (2, "a2", "b1", outcome))
    assert judge(guard, (3, "a2", "b2", outcome)).applies


def test_another_body_that_spent_its_change_confirms_nothing() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", Unauthorized()), (2, "a2", "b1", Unauthorized()), (3, "a3", "b2", Unauthorized()))
    assert judge(guard, (4, "a2", "b2", Unauthorized())).withheld == "one_request"


def test_one_request_with_two_bodies_changes_one_account() -> None:
    """What is sent on may differ from attempt to attempt."""
    guard = Guard()
    assert guard.judge(report("a1", "b1", Unauthorized(), "req"), 1).applies
    assert not guard.judge(report("a2", "b2", Unauthorized(), "req"), 2).applies


def test_without_a_fingerprint_the_request_stands_for_the_body() -> None:
    guard = Guard()
    assert guard.judge(report("a1", "", Unauthorized(), "req_1"), 1).applies
    assert guard.judge(report("a2", "", Unauthorized(), "req_2"), 2).applies
    assert not guard.judge(report("a3", "", Unauthorized(), "req_2"), 3).applies


def test_drift_changes_nothing_and_is_no_refusal() -> None:
    guard = Guard()
    verdicts = [judge(guard, (each, f"a{each}", "b", AdapterDrift())) for each in range(6)]
    assert all(verdict.applies and verdict.scope == "adapter" and not verdict.stop for verdict in verdicts)


def test_upstream_errors_that_were_withheld_count_once_another_body_met_them() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", TIMEOUT), (2, "a2", "b1", TIMEOUT))
    verdict = judge(guard, (3, "a2", "b2", TIMEOUT))
    assert verdict.applies
    assert verdict.confirmed == (report("a2", "b1", TIMEOUT),)
    assert judge(guard, (4, "a2", "b3", TIMEOUT)).confirmed == ()


@pytest.mark.parametrize(
    "suspicion, later, seconds",
    [(TIMEOUT, RateLimited(), 1), (RateLimited(), RateLimited(), 1), (TIMEOUT, TIMEOUT, 601)],
)
def test_of_other_kinds_or_too_late_nothing_is_confirmed(suspicion: Outcome, later: Outcome, seconds: float) -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", TIMEOUT), (2, "a2", "b1", suspicion))
    verdict = judge(guard, (2 + seconds, "a2", "b2", later))
    assert (verdict.applies, verdict.confirmed) == (True, ())


def test_one_request_is_not_two_witnesses() -> None:
    guard = Guard()
    guard.judge(report("a1", "b1", TIMEOUT, "req_1"), 1)
    guard.judge(report("a2", "b1", TIMEOUT, "req_2"), 2)
    verdict = guard.judge(report("a2", "b2", TIMEOUT, "req_2"), 3)
    assert (verdict.applies, verdict.confirmed) == (True, ())


failures = st.sampled_from([*PUNISHING, AdapterDrift()])
outcomes = st.one_of(failures, st.sampled_from([OK, Cancelled(), Rejected()]))
moments = st.floats(0, 40)
"""Between two reports: over the whole window at most 15 of them."""


def changed(told: list[tuple[float, int, int, Outcome]], guard: Guard) -> list[str]:
    """Accounts that one body changed for the worse: (pause, account, request, outcome)."""
    now, accounts = 0.0, []
    for pause, number, request, outcome in told:
        now += pause
        verdict = guard.judge(report(f"a{number}", "b", outcome, f"req_{request}"), now)
        if verdict.applies and any(isinstance(outcome, type(each)) for each in PUNISHING) and outcome != Rejected():
            accounts.append(f"a{number}")
    return accounts


def reports(of: st.SearchStrategy[Outcome], requests: int) -> st.SearchStrategy[list[tuple[float, int, int, Outcome]]]:
    return st.lists(st.tuples(moments, st.integers(1, 5), st.integers(1, requests), of), max_size=15)


@given(reports(failures, requests=9))
def test_one_body_that_only_fails_changes_one_account(told: list[tuple[float, int, int, Outcome]]) -> None:
    assert len(set(changed(told, Guard()))) <= 1


@given(reports(outcomes, requests=1))
def test_one_request_changes_one_account_whatever_happens(told: list[tuple[float, int, int, Outcome]]) -> None:
    assert len(set(changed(told, Guard()))) <= 1


@given(reports(outcomes, requests=9))
def test_one_body_changes_one_account_between_two_successes(told: list[tuple[float, int, int, Outcome]]) -> None:
    successes = sum(isinstance(outcome, Succeeded) for *_, outcome in told)
    assert len(set(changed(told, Guard()))) <= 1 + successes


# An innocent body.


@pytest.mark.parametrize("outcome", PUNISHING, ids=name)
def test_a_success_elsewhere_confirms_what_ends_an_account(outcome: Outcome) -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", TIMEOUT), (2, "a2", "b", outcome))
    verdict = judge(guard, (3, "a3", "b", OK))
    grave = isinstance(outcome, Challenged | Unauthorized)
    assert verdict.confirmed == ((report("a2", "b", outcome),) if grave else ())
    assert verdict.released == (("a2",) if grave else ())
    assert guard.held() == {}
    assert judge(guard, (4, "a4", "b", OK)).confirmed == ()


def test_what_is_confirmed_knows_its_credentials() -> None:
    guard = Guard()
    guard.judge(report("a1", "b", Unauthorized(), credential_rev=1), 1)
    guard.judge(report("a2", "b", Unauthorized(), credential_rev=7), 2)
    (confirmed,) = judge(guard, (3, "a3", "b", OK)).confirmed
    assert (confirmed.account_id, confirmed.credential_rev) == ("a2", 7)


def test_a_success_on_the_suspect_itself_clears_it() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", Unauthorized()), (2, "a2", "b1", Unauthorized()))
    assert judge(guard, (3, "a2", "b2", OK)).released == ("a2",)
    assert judge(guard, (4, "a3", "b1", OK)).confirmed == ()


def test_a_suspicion_of_long_ago_is_not_confirmed() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", Unauthorized()), (2, "a2", "b", Unauthorized()), (500, "a1", "b", Unauthorized()))
    assert judge(guard, (700, "a3", "b", OK)).confirmed == ()


def test_a_body_that_succeeded_may_change_an_account_again() -> None:
    """Else a monitor that always sends the same words would see one fault and never another."""
    guard = Guard()
    guard.judge(report("a1", "b", RateLimited(), "req_1"), 1)
    guard.judge(report("a2", "b", OK, "req_1"), 2)
    assert not guard.judge(report("a3", "b", RateLimited(), "req_1"), 3).applies
    guard.judge(report("a2", "b", OK, "req_1"), 4)
    assert guard.judge(report("a3", "b", RateLimited(), "req_2"), 5).applies


def test_memory_of_a_failing_body_ends() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", Depleted()))
    assert not judge(guard, (599, "a2", "b", Depleted())).applies
    assert guard.judge(report("a3", "b", Depleted(), "req_later"), 1300).applies


# Holds.


@pytest.mark.parametrize("outcome", PUNISHING, ids=name)
def test_a_withheld_challenge_holds_the_account(outcome: Outcome) -> None:
    guard = Guard()
    verdict = judge(guard, (1, "a1", "b", TIMEOUT), (2, "a2", "b", outcome))
    grave = isinstance(outcome, Challenged | Unauthorized)
    assert verdict.hold == (60 if grave else 0)
    assert guard.held() == ({"a2": 62} if grave else {})


def test_a_hold_ends_by_time_and_leaves_nothing() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", TIMEOUT), (2, "a2", "b", Challenged()))
    assert guard.expire(61.9) == ()
    assert guard.expire(62) == ("a2",)
    assert guard.expire(63) == ()
    assert guard.held() == {}


def test_a_hold_that_is_renewed_ends_later() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", TIMEOUT), (2, "a2", "b", Challenged()))
    judge(guard, (3, "a1", "c", TIMEOUT), (4, "a3", "c", Unauthorized()), (5, "a2", "c", Unauthorized()))
    assert guard.expire(64) == ("a3",)
    assert guard.expire(65) == ("a2",)


def test_a_hold_ends_by_what_another_body_meets() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", TIMEOUT), (2, "a2", "b", Challenged()))
    assert judge(guard, (3, "a2", "c", Transient())).released == ()
    assert judge(guard, (4, "a2", "d", Challenged())).released == ("a2",)
    assert guard.expire(100) == ()


# Quarantine.


HARD = [
    outcome for outcome in PUNISHING if not isinstance(outcome, RateLimited | Transient | NetworkFault | Challenged)
]


@pytest.mark.parametrize("outcome", [*HARD, RateLimited(), Transient(), TIMEOUT], ids=name)
def test_three_accounts_convict_a_body(outcome: Outcome) -> None:
    guard = Guard()
    second = judge(guard, (1, "a1", "b", outcome), (2, "a2", "b", outcome))
    assert not second.stop
    third = judge(guard, (3, "a3", "b", outcome))
    assert (third.applies, third.withheld, third.stop, third.scope) == (False, "quarantined", True, "request")
    assert guard.quarantined() == 1
    assert guard.held() == {}
    assert third.released == (("a2",) if isinstance(outcome, Unauthorized) else ())


def test_two_challenges_convict_a_body() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", TIMEOUT), (2, "a2", "b", Challenged()))
    verdict = judge(guard, (3, "a3", "b", Challenged()))
    assert (verdict.withheld, verdict.released, verdict.hold) == ("quarantined", ("a2",), 0)


NOT_GUILTY: list[tuple[str, list[tuple[float, str, str, Outcome]]]] = [
    ("the same account", [(each, "a1", "b", Unauthorized()) for each in range(5)]),
    (
        "a success in between",
        [(1, "a1", "b", Depleted()), (2, "a2", "b", Depleted()), (3, "a4", "b", OK), (4, "a3", "b", Depleted())],
    ),
    ("too far apart", [(each * 400.0, f"a{each}", "b", Depleted()) for each in range(5)]),
    ("its own fault", [(each, f"a{each}", "b", Rejected()) for each in range(5)]),
    (
        "others meet limits too",
        [(0, "a9", "c", RateLimited()), *[(20.0 * each, f"a{each}", "b", RateLimited()) for each in range(1, 5)]],
    ),
    (
        "others meet errors too, and successes",
        [
            (0, "a9", "c", TIMEOUT),
            *[step for each in range(1, 5) for step in ((each, f"a{each}", "b", TIMEOUT), (each, "a9", "d", OK))],
        ],
    ),
]


@pytest.mark.parametrize("what, told", NOT_GUILTY, ids=[case[0] for case in NOT_GUILTY])
def test_not_convicted(what: str, told: list[tuple[float, str, str, Outcome]]) -> None:
    guard = Guard()
    verdict = judge(guard, *told)
    assert not verdict.stop
    assert guard.quarantined() == 0


def test_a_conviction_voids_what_the_body_said_but_not_what_others_said() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b", Depleted()), (2, "a2", "b", Unauthorized()))
    judge(guard, (3, "a1", "c", Depleted()), (4, "a2", "c", Unauthorized()))
    assert judge(guard, (5, "a3", "b", Unauthorized())).released == ()
    assert guard.held() == {"a2": 64}
    assert judge(guard, (6, "a3", "c", Unauthorized())).released == ("a2",)


def test_reports_of_a_convicted_body_that_were_on_their_way_change_nothing() -> None:
    guard = Guard()
    judge(guard, *[(each, f"a{each}", "b", Depleted()) for each in (1, 2, 3)])
    for account_id in ("a1", "a4"):
        verdict = judge(guard, (4, account_id, "b", Unauthorized()))
        assert (verdict.applies, verdict.withheld, verdict.stop, verdict.hold) == (False, "quarantined", True, 0)


def convicted() -> Guard:
    """At second 3."""
    guard = Guard()
    judge(guard, *[(each, f"a{each}", "b", Depleted()) for each in (1, 2, 3)])
    return guard


def test_a_body_that_met_limits_of_rate_only_is_told_to_come_back_and_not_that_it_was_refused() -> None:
    guard = Guard()
    judge(guard, *[(each, f"a{each}", "b", RateLimited()) for each in (1, 2, 3)])
    refusal = guard.admits(POE, "gpt", "b", 3.5)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after) == ("upstream_rate_limited", 120)
    judge(guard, (4, "a4", "b", Depleted()))
    refusal = guard.admits(POE, "gpt", "b", 123.5)
    assert refusal is None, "its one try"


def test_a_quarantined_body_is_refused_for_its_time_and_others_are_not() -> None:
    guard = convicted()
    refusal = guard.admits(POE, "gpt", "b", 3.5)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after) == ("body_quarantined", 120)
    assert guard.admits(POE, "gpt", "c", 3.5) is None
    assert guard.admits(POE, "gpt", "b", 122.9) is not None


def test_after_a_quarantine_there_is_one_try() -> None:
    guard = convicted()
    assert guard.admits(POE, "gpt", "b", 123) is None
    assert guard.admits(POE, "gpt", "b", 124) is not None
    assert guard.admits(POE, "gpt", "b", 153) is None  # the first never reported


def test_the_try_that_succeeds_clears_the_body() -> None:
    guard = convicted()
    assert guard.admits(POE, "gpt", "b", 123) is None
    assert judge(guard, (125, "a4", "b", OK)).applies
    assert guard.admits(POE, "gpt", "b", 126) is None
    assert guard.admits(POE, "gpt", "b", 126) is None


@pytest.mark.parametrize("outcome", [Cancelled(), Rejected(), AdapterDrift()], ids=name)
def test_the_try_that_tells_nothing_is_followed_by_another(outcome: Outcome) -> None:
    guard = convicted()
    assert guard.admits(POE, "gpt", "b", 123) is None
    judge(guard, (124, "a4", "b", outcome))
    assert guard.admits(POE, "gpt", "b", 125) is None


def test_each_further_conviction_needs_one_refusal_and_lasts_twice_as_long() -> None:
    guard, now, lengths = convicted(), 123.0, []
    for each in range(6):
        assert guard.admits(POE, "gpt", "b", now) is None
        verdict = judge(guard, (now, f"a{each}", "b", Depleted()))
        assert (verdict.applies, verdict.withheld) == (False, "quarantined")
        refusal = guard.admits(POE, "gpt", "b", now)
        assert isinstance(refusal, Refusal)
        lengths.append(refusal.retry_after)
        now += refusal.retry_after
    assert lengths == [240, 480, 960, 1800, 1800, 1800]


def test_a_conviction_is_forgotten_in_the_end() -> None:
    guard = convicted()
    assert guard.judge(report("a5", "b", Depleted(), "req_later"), 123 + 1801).applies


def test_the_try_that_fails_like_others_is_no_new_conviction() -> None:
    guard = convicted()
    judge(guard, (122, "a9", "c", TIMEOUT))
    assert guard.admits(POE, "gpt", "b", 123) is None
    assert judge(guard, (124, "a1", "b", TIMEOUT)).withheld == ""
    assert guard.admits(POE, "gpt", "b", 125) is None


def test_a_forgotten_body_is_like_any_other() -> None:
    guard = convicted()
    assert guard.admits(POE, "gpt", "b", 123 + 1801) is None
    assert guard.admits(POE, "gpt", "b", 123 + 1801) is None


# Incidents.


def incident(outcome: Outcome = TIMEOUT) -> Guard:
    """Open at second 3."""
    guard = Guard()
    verdict = judge(guard, *[(each, f"a{each}", f"b{each}", outcome) for each in (1, 2, 3)])
    assert verdict.incident is not None
    return guard


@pytest.mark.parametrize(
    "outcome, scope",
    [(TIMEOUT, "egress"), (NetworkFault(), "egress"), (RateLimited(), "egress"), (Transient(), "adapter")],
)
def test_the_failure_that_opens_an_incident_undoes_those_before(outcome: Outcome, scope: str) -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", outcome), (2, "a2", "b2", outcome))
    verdict = judge(guard, (3, "a3", "b3", outcome))
    assert (verdict.applies, verdict.withheld, verdict.stop, verdict.scope) == (False, "incident", True, scope)
    assert verdict.lifted == (("a1", "req_b1"), ("a2", "req_b2"))
    assert verdict.incident is not None
    assert guard.incidents() == [verdict.incident]


def test_while_it_is_open_no_such_failure_changes_an_account() -> None:
    guard = incident()
    for each, outcome in enumerate([TIMEOUT, Transient(), NetworkFault(), AdapterDrift(), RateLimited()]):
        verdict = judge(guard, (4 + each, f"a{each}", f"c{each}", outcome))
        assert (verdict.applies, verdict.withheld, verdict.stop, verdict.incident) == (False, "incident", True, None)


@pytest.mark.parametrize("outcome", HARD, ids=name)
def test_while_it_is_open_what_an_account_itself_did_is_still_charged(outcome: Outcome) -> None:
    verdict = judge(incident(), (4, "a7", "c", outcome))
    assert verdict.applies
    assert verdict.stop


def test_requests_are_refused_and_let_through_one_by_one() -> None:
    guard = incident()
    refusal = guard.admits(POE, "gpt", "c", 3.5)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after) == ("upstream_down", 1)
    assert guard.admits(POE, "gpt", "c", 4) is None
    assert guard.admits(POE, "gpt", "d", 4) is not None
    verdict = judge(guard, (5, "a5", "c", OK))
    assert verdict.incident is not None
    assert verdict.incident.closed_at == 5
    assert guard.admits(POE, "gpt", "d", 5) is None
    assert guard.incidents() == []


def test_drift_is_told_as_a_change_of_the_site() -> None:
    refusal = incident(AdapterDrift()).admits(POE, "gpt", "c", 3.5)
    assert refusal is not None
    assert refusal.code == "upstream_changed"


def test_the_try_of_a_quarantined_body_is_not_spent_on_an_incident() -> None:
    guard = convicted()
    judge(guard, *[(120 + each, f"a{each}", f"c{each}", TIMEOUT) for each in (1, 2, 3)])
    refusal = guard.admits(POE, "gpt", "b", 123.5)
    assert refusal is not None
    assert refusal.code == "upstream_down"
    judge(guard, (124, "a5", "d", OK))
    assert guard.admits(POE, "gpt", "b", 124) is None


def test_an_incident_acquits_the_bodies_that_met_it() -> None:
    """The first victim of an outage fails on three accounts before anyone else fails at all."""
    guard = Guard()
    assert judge(guard, *[(each, f"a{each}", "b1", Transient()) for each in (1, 2, 3)]).withheld == "quarantined"
    verdict = judge(guard, (4, "a4", "b2", Transient()))
    assert verdict.incident is not None
    assert verdict.lifted == (("a1", "req_b1"),)
    assert guard.quarantined() == 0
    judge(guard, (60, "a9", "c", OK))
    assert guard.admits(POE, "gpt", "b1", 60) is None
    assert judge(guard, (61, "a7", "b1", Depleted())).applies  # what it did was undone: it has its change again


def test_an_incident_gives_the_change_back_that_it_undoes() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", TIMEOUT), (1, "a9", "b1", Unauthorized()))
    judge(guard, (2, "a2", "b2", TIMEOUT), (3, "a3", "b3", TIMEOUT), (4, "a8", "c", OK))
    assert judge(guard, (5, "a5", "b1", Depleted())).applies


def test_an_incident_does_not_give_back_what_stands() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", Unauthorized()), (1, "a1", "b1", TIMEOUT))
    judge(guard, (2, "a2", "b2", TIMEOUT), (3, "a3", "b3", TIMEOUT), (4, "a8", "c", OK))
    assert not judge(guard, (5, "a5", "b1", Depleted())).applies


def test_an_incident_voids_suspicions() -> None:
    guard = Guard()
    judge(guard, (1, "a1", "b1", TIMEOUT), (1, "a2", "b1", TIMEOUT))
    judge(guard, (2, "a3", "b2", TIMEOUT), (4, "a8", "c", OK))
    verdict = judge(guard, (5, "a2", "b3", TIMEOUT))
    assert (verdict.applies, verdict.confirmed) == (True, ())


def test_a_try_that_met_an_incident_is_given_back() -> None:
    guard = convicted()
    assert guard.admits(POE, "gpt", "b", 123) is None
    judge(guard, *[(123 + each, f"a{each}", f"c{each}", TIMEOUT) for each in (1, 2, 3)])
    assert judge(guard, (127, "a4", "b", TIMEOUT)).withheld == "incident"
    judge(guard, (128, "a5", "d", OK))
    assert guard.admits(POE, "gpt", "b", 129) is None


def test_an_incident_acquits_nobody_of_other_deeds() -> None:
    guard = Guard()
    judge(guard, (0, "a8", "b1", Depleted()), (0, "a9", "b1", Unauthorized()))
    judge(guard, *[(each, f"a{each}", f"b{each}", TIMEOUT) for each in (1, 2, 3)])
    assert guard.quarantined() == 0  # the time-out was the third refusal
    assert judge(guard, (5, "a7", "b1", Depleted())).withheld == "quarantined"


def test_what_began_before_the_end_of_an_incident_changes_nothing() -> None:
    guard = incident()
    judge(guard, (60, "a9", "c", OK))
    verdict = guard.judge(report("a5", "d", TIMEOUT, began=10.0), 200)
    assert (verdict.applies, verdict.withheld, verdict.stop) == (False, "incident", False)
    assert guard.judge(report("a5", "e", TIMEOUT, began=100.0), 201).applies


# Bounds.


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), outcomes), max_size=200))
def test_memory_is_bounded(told: list[tuple[int, int, Outcome]]) -> None:
    small = IncidentPolicy(failures=4, tracks=4, accounts_noted=4)
    guard = Guard(GuardPolicy(bodies=5, per_entry=2, incidents=small))
    for now, (number, body, outcome) in enumerate(told):
        guard.judge(report(f"a{number}", f"b{body}", outcome), float(now))
        guard.expire(float(now))
        own = 5 + 5 + 5 + 40 + 5 * 2 + 5 * 2  # of holds there is one per account at most
        assert guard.remembered() <= own + 4 + 4 + 1 + 4 * 8 + 4 * 8


def test_suspects_are_bounded() -> None:
    guard = Guard(GuardPolicy(bodies=5, per_entry=2, incidents=IncidentPolicy(tracks=2)))
    for each in range(50):
        judge(guard, (1, "a", f"b{each}", Depleted()), (1, f"s{each}", f"b{each}", Depleted()))
    assert guard.remembered() <= 5 + 5 + 5 + 5 + 5 * 2 + 2


def test_the_accusers_of_one_account_are_bounded() -> None:
    guard = Guard(GuardPolicy(bodies=100, per_entry=2, incidents=IncidentPolicy(tracks=2)))
    for each in range(100):
        judge(guard, (1, f"a{each}", f"b{each}", Depleted()), (1, "s", f"b{each}", Depleted()))
    assert guard.remembered() <= 100 + 100 + 1 + 2 + 100 * 2 + 2


def test_old_memories_go() -> None:
    guard = Guard()
    for each in range(300):
        judge(guard, (each * 60.0, f"a{each}", f"b{each}", Depleted()))
    assert guard.remembered() < 2 * 300


# Little simulations: the guard together with the rules of health.


class Pool:
    """Accounts that take turns, as the broker would use them."""

    def __init__(self, size: int) -> None:
        self.guard = Guard()
        self.accounts: dict[str, Account] = {f"a{each}": account(f"a{each}") for each in range(size)}
        self.held: set[str] = set()
        self.refused = 0
        self.opened = 0
        self.rng = random.Random(size)

    def in_service(self, now: float) -> list[str]:
        at = NOON + timedelta(seconds=now)
        for key, each in self.accounts.items():
            self.accounts[key] = transitions.as_of(each, at, POLICY)
        self.held.difference_update(self.guard.expire(now))
        return [
            key for key, each in self.accounts.items() if transitions.why_not(each, at) is None and key not in self.held
        ]

    def request(self, body: str, number: int, now: float, outcome: Outcome, attempts: int = 3) -> None:
        """One request whose every attempt ends with ``outcome``."""
        if self.guard.admits(POE, "gpt", body, now) is not None:
            self.refused += 1
            return
        tried: set[str] = set()
        for _ in range(attempts):
            usable = self.in_service(now)
            free = [each for each in usable if each not in tried]
            if not free:
                return
            chosen = self.rng.choice(free)
            tried.add(chosen)
            told = Report(
                account_id=chosen,
                offer="poe",
                model="gpt",
                request_id=f"req_{number}",
                fingerprint=body,
                outcome=outcome,
                usable=len(usable),
            )
            verdict = self.guard.judge(told, now)
            self.follow(told, verdict, now)
            if verdict.stop or isinstance(outcome, Succeeded):
                return

    def follow(self, told: Report, verdict: Verdict, now: float) -> None:
        """What the broker does with a verdict."""
        at = NOON + timedelta(seconds=now)
        self.opened += verdict.incident is not None and verdict.incident.closed_at is None
        for each in (*((told,) if verdict.applies else ()), *verdict.confirmed):
            news = transitions.Settled(
                outcome=each.outcome, at=at, model=each.model, evidence=each.request_id, credential_rev=0
            )
            self.accounts[each.account_id] = transitions.apply(self.accounts[each.account_id], news, POLICY)
        for account_id, request_id in verdict.lifted:
            self.accounts[account_id] = transitions.lifted(self.accounts[account_id], at, request_id)
        if verdict.hold:
            self.held.add(told.account_id)
        self.held.difference_update(verdict.released)

    def out_of_service(self, now: float) -> int:
        return len(self.accounts) - len(self.in_service(now))


def hurt(each: Account) -> bool:
    return each.health.state is not State.ACTIVE or bool(each.model_blocks)


@pytest.mark.parametrize("outcome", PUNISHING, ids=name)
def test_one_poison_prompt_leaves_all_but_one_account_in_service(outcome: Outcome) -> None:
    """A caller repeats for an hour what every account refuses, while others are served."""
    pool = Pool(10)
    for second in range(3600):
        pool.request("poison", second, float(second), outcome)
        pool.request(f"well {second}", 10_000 + second, float(second), OK)
        assert sum(hurt(each) for each in pool.accounts.values()) <= 1
    # What found no way to the upstream convicts no body.
    assert (pool.refused > 3000) is not isinstance(outcome, NetworkFault)
    assert pool.out_of_service(3601 + 60) <= 1


@pytest.mark.parametrize("outcome", [TIMEOUT, Transient(), NetworkFault(), RateLimited()], ids=name)
@pytest.mark.parametrize("size", [3, 10, 50])
def test_one_bad_egress_leaves_no_account_at_rest(size: int, outcome: Outcome) -> None:
    """Everything fails for a minute, ten requests a second, each once as time-outs are."""
    pool = Pool(size)
    for tenth in range(1200):
        failing = 300 <= tenth < 900
        pool.request(f"body {tenth}", tenth, tenth / 10, outcome if failing else OK, attempts=1)
    assert pool.opened >= 1
    assert pool.out_of_service(120.0) == 0
    assert pool.guard.incidents() == []


def test_many_dead_credentials_are_found_one_request_at_a_time() -> None:
    """A pool half of which died overnight is left with the other half, whoever asks what."""
    pool = Pool(10)
    dead = {f"a{each}" for each in range(5)}
    for number in range(60):
        now, body = float(number), f"body {number}"
        tried: set[str] = set()
        for _ in range(3):
            chosen = pool.rng.choice([each for each in pool.in_service(now) if each not in tried])
            tried.add(chosen)
            told = report(chosen, body, Unauthorized() if chosen in dead else OK)
            verdict = pool.guard.judge(told, now)
            pool.follow(told, verdict, now)
            if chosen not in dead or verdict.stop:
                break
    states = {key for key, each in pool.accounts.items() if each.health.state is State.INVALID}
    assert states == dead
    assert pool.held == set()
