"""The rules of health as scenarios: state, news -> state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Balance, Cause, Intent, ModelBlock, State
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
from poe_gateway.pool.transitions import Measurement, Settled
from tests.unit.builders import NOON, POLICY, account, health

MIDNIGHT = datetime(2026, 6, 2, 7, 0, tzinfo=UTC)
"""The next reset: midnight in Los Angeles."""


def settled(outcome: Outcome, minutes: float = 0, credential_rev: int = 0) -> Settled:
    at = NOON + timedelta(minutes=minutes)
    return Settled(outcome=outcome, at=at, model="gpt", evidence="req_1", credential_rev=credential_rev)


def after(before: Account, *outcomes: Outcome) -> Account:
    for outcome in outcomes:
        before = transitions.apply(before, settled(outcome), POLICY)
    return before


SCENARIOS: list[tuple[str, Account, list[Outcome], State, Cause, float | None]] = [
    # name, before, outcomes, state, cause, minutes until it ends
    ("one failure is forgiven", account(), [Transient()], State.ACTIVE, Cause.HEALTHY, None),
    ("three failures rest", account(), [Transient()] * 3, State.COOLDOWN, Cause.ERRORS, 2),
    ("two time-outs rest", account(), [Transient(timeout=True)] * 2, State.COOLDOWN, Cause.TIMEOUTS, 2),
    (
        "a success pays one failure back",
        account(),
        [Transient(), Transient(), Succeeded(), Transient()],
        State.ACTIVE,
        Cause.HEALTHY,
        None,
    ),
    ("a rate limit rests at once", account(), [RateLimited()], State.COOLDOWN, Cause.RATE_LIMITED, 2),
    ("retry-after is honoured", account(), [RateLimited(retry_after=600)], State.COOLDOWN, Cause.RATE_LIMITED, 10),
    ("absurd retry-after is capped", account(), [RateLimited(retry_after=1e6)], State.COOLDOWN, Cause.RATE_LIMITED, 30),
    ("points gone until the reset", account(), [Depleted()], State.DEPLETED, Cause.POINTS_GONE, 12 * 60),
    ("dead credential", account(), [Unauthorized()], State.INVALID, Cause.UNAUTHORIZED, None),
    ("challenge", account(), [Challenged()], State.INVALID, Cause.CHALLENGED, None),
    (
        "nothing outranks a challenge",
        account(),
        [Challenged(), Unauthorized(), RateLimited(), Succeeded()],
        State.INVALID,
        Cause.CHALLENGED,
        None,
    ),
    (
        "a late challenge outranks a rest",
        account(),
        [RateLimited(), Challenged()],
        State.INVALID,
        Cause.CHALLENGED,
        None,
    ),
    (
        "success ends a rest for errors",
        account(health=health(State.COOLDOWN, Cause.ERRORS, 2)),
        [Succeeded()],
        State.ACTIVE,
        Cause.HEALTHY,
        None,
    ),
    (
        "success does not end a rate limit",
        account(health=health(State.COOLDOWN, Cause.RATE_LIMITED, 2)),
        [Succeeded()],
        State.COOLDOWN,
        Cause.RATE_LIMITED,
        2,
    ),
    (
        "a shorter rest does not shorten",
        account(),
        [RateLimited(retry_after=600), RateLimited(retry_after=1)],
        State.COOLDOWN,
        Cause.RATE_LIMITED,
        10,
    ),
    (
        "spent below the threshold",
        account(balance=Balance(points=30)),
        [Succeeded(points=11)],
        State.DEPLETED,
        Cause.BELOW_THRESHOLD,
        12 * 60,
    ),
    (
        "exactly the threshold serves",
        account(balance=Balance(points=30)),
        [Succeeded(points=10)],
        State.ACTIVE,
        Cause.HEALTHY,
        None,
    ),
]


@pytest.mark.parametrize("name, before, outcomes, state, cause, minutes", SCENARIOS, ids=[row[0] for row in SCENARIOS])
def test_outcomes(
    name: str, before: Account, outcomes: list[Outcome], state: State, cause: Cause, minutes: float | None
) -> None:
    result = after(before, *outcomes)
    until = None if minutes is None else NOON + timedelta(minutes=minutes)
    assert (result.health.state, result.health.cause, result.health.until) == (state, cause, until)


@pytest.mark.parametrize("outcome", [Rejected(), Cancelled(), AdapterDrift("new field")])
def test_what_never_punishes(outcome: Outcome) -> None:
    before = account(error_count=2)
    result = after(before, *[outcome] * 10)
    assert (result.health, result.error_count, result.balance) == (before.health, 2, before.balance)


def test_faults_of_old_credentials_say_nothing_about_new_ones() -> None:
    renewed = transitions.renewed_credentials(account(), NOON)
    assert renewed.credential_rev == 1
    assert transitions.apply(renewed, settled(Unauthorized(), credential_rev=0), POLICY).health.state is State.ACTIVE
    assert transitions.apply(renewed, settled(Unauthorized(), credential_rev=1), POLICY).health.state is State.INVALID


def test_a_model_limit_blocks_the_model_only() -> None:
    result = after(account(), RateLimited(retry_after=60, model="upstreams-own-name"))
    assert transitions.why_not(result, NOON, "upstreams-own-name") is None
    assert transitions.why_not(result, NOON, "gpt") == "model_blocked"
    assert transitions.why_not(result, NOON) is None
    later = transitions.as_of(result, NOON + timedelta(seconds=60), POLICY)
    assert later.model_blocks == ()


def test_rests_lapse_by_the_clock_alone() -> None:
    resting = after(account(), RateLimited(retry_after=60))
    just_before = transitions.as_of(resting, NOON + timedelta(seconds=59), POLICY)
    assert just_before.health.state is State.COOLDOWN
    assert transitions.as_of(resting, NOON + timedelta(seconds=60), POLICY).health.state is State.ACTIVE


def test_depleted_comes_back_at_the_reset_with_an_estimated_balance() -> None:
    empty = after(account(), Depleted())
    assert transitions.as_of(empty, MIDNIGHT - timedelta(seconds=1), POLICY).health.state is State.DEPLETED
    back = transitions.as_of(empty, MIDNIGHT, POLICY)
    assert (back.health.state, back.balance.points, back.balance.estimated) == (State.ACTIVE, 3000, True)
    assert back.reset_day == "2026-06-02"


def test_a_reset_never_lowers_a_measured_balance() -> None:
    rich = account(balance=Balance(points=9000, estimated=False, measured_at=NOON))
    assert transitions.as_of(rich, MIDNIGHT, POLICY).balance == rich.balance


def test_a_reset_leaves_invalid_alone() -> None:
    dead = account(health=health(State.INVALID, Cause.UNAUTHORIZED), balance=Balance(points=5), error_count=3)
    assert transitions.as_of(dead, MIDNIGHT + timedelta(days=3), POLICY) == dead


def test_a_check_that_revives_an_invalid_account_keeps_what_it_measured() -> None:
    dead = account(health=health(State.INVALID, Cause.UNAUTHORIZED))
    at = MIDNIGHT + timedelta(days=3)
    alive = transitions.apply(dead, Measurement(at=at, points=77), POLICY)
    alive = transitions.as_of(alive, at + timedelta(minutes=1), POLICY)
    assert (alive.health.state, alive.balance.points, alive.balance.estimated) == (State.ACTIVE, 77, False)


def test_a_measurement_never_revives_a_challenged_account() -> None:
    challenged = after(account(), Challenged())
    assert transitions.apply(challenged, Measurement(at=NOON, points=500), POLICY) == challenged


def test_a_known_later_grant_beats_the_configured_day() -> None:
    grant = NOON + timedelta(days=20)
    plan = account(balance=Balance(points=5, estimated=False, subscription_active=True, next_grant_at=grant))
    empty = after(plan, Depleted())
    assert empty.health.until == grant
    assert transitions.as_of(empty, MIDNIGHT, POLICY).health.state is State.DEPLETED
    assert transitions.as_of(empty, grant, POLICY).health.state is State.ACTIVE


def test_measured_below_the_threshold_is_depleted_and_above_it_active() -> None:
    low = transitions.apply(account(), Measurement(at=NOON, points=19), POLICY)
    assert (low.health.state, low.balance.estimated) == (State.DEPLETED, False)
    high = transitions.apply(low, Measurement(at=NOON, points=20), POLICY)
    assert high.health.state is State.ACTIVE


def test_unmetered_accounts_never_deplete_by_figures() -> None:
    assert after(account(metered=False, balance=Balance(points=0)), Succeeded(points=5)).health.state is State.ACTIVE


def test_intent_and_health_do_not_touch_each_other() -> None:
    resting = after(account(), RateLimited())
    paused = transitions.paused(resting)
    assert (paused.intent, paused.health) == (Intent.PAUSED, resting.health)
    assert transitions.resumed(paused) == resting
    assert transitions.why_not(transitions.paused(account()), NOON) == "paused"
    assert after(transitions.paused(account()), Unauthorized()).intent is Intent.PAUSED


def test_the_operator_clears_every_block_but_not_a_measured_empty_balance() -> None:
    challenged = replace(
        after(account(), Challenged()),
        model_blocks=(ModelBlock(model="m", cause=Cause.RATE_LIMITED, until=MIDNIGHT),),
    )
    fresh = transitions.cleared(challenged, NOON, POLICY)
    assert (fresh.health.state, fresh.model_blocks, fresh.error_count) == (State.ACTIVE, (), 0)
    empty = transitions.apply(account(), Measurement(at=NOON, points=3), POLICY)
    assert transitions.cleared(empty, NOON, POLICY).health.state is State.DEPLETED
    guessed = after(account(), Depleted())
    assert transitions.cleared(guessed, NOON, POLICY).health.state is State.ACTIVE


OUTCOMES = st.one_of(
    st.builds(Succeeded, points=st.none() | st.integers(0, 500)),
    st.builds(RateLimited, retry_after=st.none() | st.floats(0, 1e7), model=st.sampled_from([None, "gpt", "dear"])),
    st.builds(Transient, timeout=st.booleans()),
    st.sampled_from(
        [Depleted(), Unauthorized(), Challenged(), Cancelled(), NetworkFault(), AdapterDrift(), Rejected()]
    ),
)


@given(st.lists(st.tuples(OUTCOMES, st.floats(0, 3 * 24 * 60)), max_size=30))
def test_properties_of_any_history(history: list[tuple[Outcome, float]]) -> None:
    """Whatever happens: points are never negative, a challenge is for ever, as_of is idempotent, rests end."""
    current, at, challenged = account(), NOON, False
    for outcome, minutes in history:
        at += timedelta(minutes=minutes)
        news = Settled(outcome=outcome, at=at, model="gpt", evidence="r", credential_rev=0)
        current = transitions.apply(current, news, POLICY)
        challenged = challenged or isinstance(outcome, Challenged)
        assert (current.balance.points or 0) >= 0
        assert (current.health.cause is Cause.CHALLENGED) == challenged
        now = transitions.as_of(current, at, POLICY)
        assert transitions.as_of(now, at, POLICY) == now
    later = transitions.as_of(current, at + timedelta(days=2), POLICY)
    assert (transitions.why_not(later, at + timedelta(days=2)) is None) == (current.health.state is not State.INVALID)
