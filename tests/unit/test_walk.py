"""The walk of a request through failing, busy and recovering accounts, and the record that it leaves."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from poe_gateway.chat.events import Measured
from poe_gateway.dispatch.continuity import SessionPolicy
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.errors import GatewayError, Overloaded, PointsExhausted, UpstreamDown, UpstreamFailed, UpstreamRefused
from poe_gateway.pool.account import Cause, State
from poe_gateway.pool.lease import Want
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    NetworkFault,
    RateLimited,
    Succeeded,
    Transient,
    Unauthorized,
)
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from tests.unit.builders import account
from tests.unit.walking import CALLER, Walk

BROKEN = UpstreamFailure(Transient("cut"), Fate.ACCEPTED)


def pool(number: int, **fields: object) -> list[object]:
    return [account(f"a{each}", **fields) for each in range(number)]


# Before the first byte.


async def test_an_answer_sent_as_a_whole_that_breaks_off_comes_from_another_account() -> None:
    walk = Walk(account("a", max_inflight=1), account("b", max_inflight=1))
    walk.upstream.rule = lambda name, request: ["half", BROKEN] if len(walk.upstream.asked) == 1 else ["whole"]
    assert await walk.ask() == "whole"
    assert sorted(walk.upstream.accounts) == ["a", "b"]
    [decision] = walk.decisions
    assert [each.outcome for each in decision.tries] == ["Transient", "Succeeded"]
    assert (decision.status, len(decision.choices)) == (200, 2)


async def test_a_failure_right_after_the_first_piece_of_a_stream_is_hidden() -> None:
    walk = Walk(account("a"), account("b"))
    walk.upstream.rule = lambda name, request: ["half", BROKEN] if len(walk.upstream.asked) == 1 else ["whole"]
    assert await walk.ask(stream=True) == "whole"


async def test_without_holding_back_the_same_failure_is_told() -> None:
    walk = Walk(account("a"), account("b"), walk=WalkPolicy(hold_back=0.0))
    walk.upstream.rule = lambda name, request: ["half", BROKEN]
    with pytest.raises(UpstreamFailed) as told:
        await walk.ask(stream=True)
    assert "broke off" in told.value.message
    assert len(walk.upstream.asked) == 1


async def test_what_is_held_back_is_bounded_and_a_later_failure_is_told_not_retried() -> None:
    walk = Walk(account("a"), account("b"))
    walk.upstream.rule = lambda name, request: ["x"] * 40 + [BROKEN]
    with pytest.raises(UpstreamFailed):
        await walk.ask(stream=True)
    assert len(walk.upstream.asked) == 1
    assert walk.decisions[0].error_code == "broke_off"


async def test_a_slow_stream_is_shown_after_the_time_of_holding_back() -> None:
    walk = Walk(account("a"), walk=WalkPolicy(hold_back=0.01))
    going = asyncio.Event()
    walk.upstream.rule = lambda name, request: ["one ", going, "two"]
    asked = asyncio.create_task(walk.ask(stream=True))
    while not walk.upstream.asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert not asked.done()
    going.set()
    assert await asked == "one two"


# One request may hurt one account.


@pytest.mark.parametrize(
    "outcome", [Transient("500"), RateLimited(), Unauthorized(), Challenged()], ids=lambda each: type(each).__name__
)
async def test_one_poison_prompt_leaves_all_but_one_account_in_service(outcome: object) -> None:
    walk = Walk(*pool(8))  # type: ignore[arg-type]
    walk.upstream.rule = lambda name, request: (
        [UpstreamFailure(outcome)] if "poison" in request.messages[0].text else ["ok"]  # type: ignore[arg-type]
    )
    for _ in range(20):
        with pytest.raises(GatewayError):
            await walk.ask("poison")
        assert await walk.ask(f"fine {walk.count}") == "ok"
        walk.later(1.0)
    out = [name for name, state in walk.states().items() if state != "active"]
    assert len(out) <= 1, walk.states()


async def test_a_body_that_every_account_refuses_is_quarantined_and_tried_again_later() -> None:
    walk = Walk(*pool(8))  # type: ignore[arg-type]
    walk.upstream.rule = lambda name, request: [UpstreamFailure(Unauthorized())]
    with pytest.raises(GatewayError):
        await walk.ask("poison")
    asked = len(walk.upstream.asked)
    with pytest.raises(UpstreamRefused) as refused:
        await walk.ask("poison")
    assert refused.value.code == "body_quarantined"
    assert refused.value.retry_after is not None
    assert len(walk.upstream.asked) == asked
    walk.upstream.rule = lambda name, request: ["ok"]
    walk.later(refused.value.retry_after + 1)
    assert await walk.ask("poison") == "ok"


async def test_two_challenges_in_one_request_set_both_accounts_aside_once_a_third_answers() -> None:
    walk = Walk(*pool(3))  # type: ignore[arg-type]
    walk.upstream.rule = lambda name, request: (
        [UpstreamFailure(Unauthorized())] if len(walk.upstream.asked) < 3 else ["ok"]
    )
    assert await walk.ask() == "ok"
    assert sorted(walk.states().values()) == ["active", "invalid", "invalid"]


async def test_a_second_challenged_account_is_not_asked_again_while_it_is_unclear_who_is_at_fault() -> None:
    walk = Walk(*pool(6), walk=WalkPolicy(max_attempts=2))  # type: ignore[arg-type]
    walk.upstream.rule = lambda name, request: [UpstreamFailure(Unauthorized())]
    with pytest.raises(GatewayError):
        await walk.ask("once")
    first, second = walk.upstream.accounts[:2]
    assert walk.states()[first] == "invalid"
    assert walk.states()[second] == "active"
    walk.upstream.rule = lambda name, request: ["ok"]
    for number in range(20):
        await walk.ask(f"other {number}")
    assert walk.upstream.accounts[2:].count(second) == 0
    walk.later(61)
    for number in range(20):
        await walk.ask(f"later {number}")
    assert walk.upstream.accounts.count(second) > 1


# The way, or the site.


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Transient("no answer", timeout=True), "upstream_down"),
        (NetworkFault("connect"), "upstream_down"),
        (AdapterDrift("new field"), "upstream_changed"),
        (Transient("500"), "upstream_down"),
    ],
    ids=["timeouts", "network", "drift", "5xx"],
)
async def test_one_bad_minute_of_the_way_rests_nobody_for_longer_than_seconds(outcome: object, code: str) -> None:
    walk = Walk(*pool(10))  # type: ignore[arg-type]
    bad = True
    walk.upstream.rule = lambda name, request: [UpstreamFailure(outcome, Fate.UNKNOWN)] if bad else ["ok"]  # type: ignore[arg-type]
    codes: list[str | None] = []
    for second in range(60):
        for number in range(4):
            with pytest.raises(GatewayError) as told:
                await walk.ask(f"{second} {number}")
            codes.append(told.value.code)
        walk.later(1.0)
    assert codes[-1] == code
    assert len(walk.incidents) == 1
    bad = False
    walk.later(6.0)
    for number in range(10):
        assert await walk.ask(f"after {number}") == "ok"
    assert set(walk.states().values()) == {"active"}
    assert [each.closed_at is not None for each in walk.incidents] == [False, True]
    # While it lasted only single requests went out.
    assert len(walk.upstream.asked) < 60


async def test_while_the_upstream_is_down_callers_are_told_at_once_with_a_time() -> None:
    walk = Walk(*pool(5))  # type: ignore[arg-type]
    walk.upstream.rule = lambda name, request: [UpstreamFailure(Transient(timeout=True), Fate.UNKNOWN)]
    for number in range(10):
        with pytest.raises(GatewayError) as told:
            await walk.ask(str(number))
    assert isinstance(told.value, UpstreamDown)
    assert (told.value.status, told.value.code) == (503, "upstream_down")
    assert told.value.retry_after is not None and told.value.retry_after <= 30


# Rests.


async def test_rests_grow_with_each_strike_and_end_with_a_success() -> None:
    walk = Walk(account("a"))
    rests: list[float] = []
    for _ in range(5):
        walk.upstream.rule = lambda name, request: [UpstreamFailure(RateLimited())]
        with pytest.raises(GatewayError):
            await walk.ask(f"{walk.count}")
        health = walk.broker.seats["a"].account.health
        assert health.state is State.COOLDOWN and health.until is not None
        rests.append((health.until - walk.clock.now()).total_seconds())
        walk.later(rests[-1] + 1)
        assert walk.broker.seats["a"].account.health.trial
    assert rests == [120, 240, 480, 960, 1800]
    walk.upstream.rule = lambda name, request: ["ok"]
    await walk.ask("well again")
    seat = walk.broker.seats["a"]
    assert (seat.account.strikes, seat.account.health.trial, seat.account.health.cause) == (0, False, Cause.HEALTHY)


async def test_after_a_rest_one_request_tries_and_the_load_grows_with_the_successes() -> None:
    walk = Walk(account("a", max_inflight=8))
    walk.upstream.rule = lambda name, request: [UpstreamFailure(RateLimited(retry_after=10))]
    with pytest.raises(GatewayError):
        await walk.ask("x")
    walk.later(11)
    seat = walk.broker.seats["a"]
    caps = [seat.cap]
    for number in range(4):
        want = Want(offers=frozenset({"mock"}), model="gpt", caller="k", evidence=f"r{number}", deadline=1e9)
        leases = [await walk.broker.lease(want) for _ in range(seat.cap)]
        blocked = asyncio.create_task(walk.broker.lease(replace(want, deadline=walk.clock.monotonic() + 9)))
        await asyncio.sleep(0)
        assert not blocked.done() or seat.cap == 8
        blocked.cancel()
        await asyncio.wait([blocked])
        walk.broker.settle(leases.pop(), Succeeded())
        for lease in leases:
            walk.broker.give_up(lease)
        caps.append(seat.cap)
    assert caps[:4] == [1, 2, 4, 8]


async def test_network_noise_costs_seconds_and_no_strike() -> None:
    walk = Walk(account("a"))
    walk.upstream.by_account["a"] = [[UpstreamFailure(NetworkFault("dns"))]]
    with pytest.raises(GatewayError):
        await walk.ask(timeout=1)
    seat = walk.broker.seats["a"]
    assert (seat.account.health.cause, seat.account.strikes) == (Cause.NETWORK, 0)
    walk.later(5.1)
    assert await walk.ask("again") == "ok"


# Prices.


async def test_an_account_is_never_sent_what_it_cannot_pay() -> None:
    poor = account("poor", balance=replace(account().balance, points=100))
    rich = account("rich", balance=replace(account().balance, points=5000))
    walk = Walk(poor, rich)
    walk.upstream.rule = lambda name, request: ["ok", Measured(points=400)]
    for number in range(6):
        await walk.ask(f"teach {number}", model="opus")
    walk.upstream.asked.clear()
    for number in range(8):
        try:
            await walk.ask(f"dear {number}", model="opus")
        except PointsExhausted as gone:
            assert gone.retry_after is not None
            break
    else:
        pytest.fail("nobody said that the points are gone")
    assert set(walk.upstream.accounts) == {"rich"}
    assert walk.broker.seats["rich"].account.balance.points is not None
    assert walk.broker.seats["rich"].account.balance.points >= 0
    assert walk.decisions[-1].choices[-1].passed_over == {"cannot_pay": 2}


async def test_running_requests_reserve_what_they_may_cost() -> None:
    walk = Walk(account("a", max_inflight=5, balance=replace(account().balance, points=1000)))
    for _ in range(5):
        walk.prices.observe("mock", "gpt", 400, 10, walk.clock.now())
    going = asyncio.Event()
    walk.upstream.rule = lambda name, request: [going, "ok", Measured(points=400)]
    tasks = [asyncio.create_task(walk.ask(f"{number}", timeout=1)) for number in range(4)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(walk.upstream.asked) == 2
    going.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers.count("ok") == 2
    assert walk.broker.seats["a"].account.balance.points == 200


# Preferences.


async def test_a_busy_sessions_account_is_borrowed_from_and_the_binding_stays() -> None:
    walk = Walk(account("a", max_inflight=1), account("b", max_inflight=1), policy=PoolPolicy(affinity_patience=0.01))
    await walk.ask("one", session="s")
    home = walk.upstream.accounts[-1]
    offers = frozenset({"mock"})
    busy = await walk.broker.lease(
        Want(offers=offers, model="gpt", caller="other", evidence="r", deadline=1e9, affinity=home)
    )
    await walk.ask("one", "ok", "two", session="s")
    assert walk.upstream.accounts[-1] != home
    assert walk.decisions[-1].session == "borrowed"
    binding = await walk.sessions.find(walk.sessions.key(CALLER.key_id, "s"))
    assert binding is not None and binding.account_id == home
    walk.broker.settle(busy, Succeeded())
    await walk.ask("one", "ok", "two", "ok", "three", session="s")
    assert walk.upstream.accounts[-1] == home


async def test_a_session_may_choose_anew_after_a_number_of_requests() -> None:
    walk = Walk(*pool(4), sessions=SessionPolicy(max_requests=5))  # type: ignore[arg-type]
    turns: list[str] = []
    for number in range(20):
        turns.append(f"turn {number}")
        turns.append(await walk.ask(*turns, session="s"))
    runs = [len(list(run)) for run in _runs(walk.upstream.accounts)]
    assert max(runs) <= 5 and len(set(walk.upstream.accounts)) > 1


async def test_flushing_lets_sessions_choose_anew() -> None:
    walk = Walk(*pool(3))  # type: ignore[arg-type]
    await walk.ask("one", session="s")
    home = walk.upstream.accounts[-1]
    assert await walk.sessions.flush(home) == 1
    assert await walk.sessions.find(walk.sessions.key(CALLER.key_id, "s")) is None


async def test_a_conversation_without_a_session_returns_to_its_account_while_that_is_free() -> None:
    walk = Walk(*pool(5))  # type: ignore[arg-type]
    walk.upstream.rule = lambda name, request: [f"answer of {name}"]
    first = await walk.ask("question")
    home = walk.upstream.accounts[-1]
    for number in range(6):
        await walk.ask(f"somebody else {number}")
    await walk.ask("question", first, "and then?")
    assert walk.upstream.accounts[-1] == home
    assert walk.decisions[-1].choices[0].how == "prefix"
    walk.broker.regrant({home: 0})
    await walk.ask("question", first, "and now?")
    assert walk.upstream.accounts[-1] != home


async def test_a_key_that_chooses_by_label_uses_no_other_account_and_the_record_says_how_many_it_may() -> None:
    gold = account("gold", labels=("tier:gold",))
    walk = Walk(gold, *pool(5))  # type: ignore[arg-type]
    caller = replace(CALLER, labels=("tier:gold",))
    for number in range(5):
        await walk.ask(f"{number}", caller=caller)
    assert set(walk.upstream.accounts) == {"gold"}
    assert walk.decisions[-1].choices[0].candidates == {"all": 6, "selected": 1, "in_service": 6, "open": 6}
    nobody = replace(CALLER, labels=("tier:none",))
    with pytest.raises(Overloaded) as refused:
        await walk.ask("x", caller=nobody)
    assert refused.value.code == "no_accounts"


# What lost its slot settles nothing.


async def test_a_lease_of_an_earlier_name_settles_points_and_no_health() -> None:
    walk = Walk(account("a"))
    want = Want(offers=frozenset({"mock"}), model="gpt", caller="k", evidence="r", deadline=1e9)
    lease = await walk.broker.lease(want)
    walk.broker.lose_grants()
    walk.broker.epoch = "proc_2"
    verdict = walk.broker.settle(lease, RateLimited(retry_after=600))
    assert verdict.withheld == "fenced"
    assert walk.states() == {"a": "active"}
    assert (lease.seat.used, walk.broker.whole.used) == (0, 0)


async def test_deadlines_that_cannot_be_met_are_refused_at_once() -> None:
    walk = Walk(account("a", max_inflight=1))
    want = Want(offers=frozenset({"mock"}), model="gpt", key="gpt", caller="k", evidence="r", deadline=1e9)
    for _ in range(10):
        lease = await walk.broker.lease(want)
        walk.clock.step(10)
        walk.broker.settle(lease, Succeeded())
    held = await walk.broker.lease(want)
    waiting = [asyncio.create_task(walk.broker.lease(want)) for _ in range(5)]
    await asyncio.sleep(0)
    soon = replace(want, deadline=walk.clock.monotonic() + 5)
    with pytest.raises(Overloaded) as refused:
        await walk.broker.lease(soon)
    assert refused.value.code == "deadline_unreachable"
    assert refused.value.retry_after is not None and refused.value.retry_after >= 50
    for task in waiting:
        task.cancel()
    walk.broker.give_up(held)
    await asyncio.wait(waiting)


def _runs(names: list[str]) -> list[list[str]]:
    runs: list[list[str]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


async def test_one_request_that_is_tried_again_at_one_account_is_one_failure() -> None:
    walk = Walk(account("a"), walk=WalkPolicy(retry_delay=0.001, max_attempts=3))
    walk.upstream.rule = lambda who, asked: [UpstreamFailure(Transient("empty"), Fate.NOT_SENT)]
    for number in (1, 2):
        with pytest.raises(UpstreamFailed):
            await walk.ask(f"question {number}")
        assert len(walk.upstream.asked) == 3 * number
        assert walk.broker.seats["a"].account.error_count == number
        assert walk.states() == {"a": "active"}
    assert [each.withheld for each in walk.decisions[0].tries] == ["", "again", "again"]
    with pytest.raises(UpstreamFailed):
        await walk.ask("question 3")
    assert walk.states() == {"a": "cooldown"}
