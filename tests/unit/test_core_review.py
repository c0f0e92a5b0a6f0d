"""What a second look at the core found: waits beside free seats, times that were not honest, accounts lost for good."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from poe_gateway.dispatch.continuity import SessionPolicy
from poe_gateway.errors import Overloaded, PointsExhausted, UpstreamDown
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Balance, Cause, Health, ModelBlock, ResetClock, State
from poe_gateway.pool.index import SeatIndex
from poe_gateway.pool.lease import Want
from poe_gateway.pool.outcome import Cancelled, Depleted, RateLimited, Rejected, Succeeded, Transient, Unauthorized
from poe_gateway.pool.policy import PoolPolicy, Strategy
from poe_gateway.pool.prospects import Prospects
from poe_gateway.pool.seat import Seat
from poe_gateway.pool.selector import Selector
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from tests.unit.builders import NOON, POLICY, account, health
from tests.unit.test_broker import Bench
from tests.unit.test_broker_line import served, turns
from tests.unit.walking import Walk

HOUR = 3600.0


def points(number: int, **fields: object) -> Balance:
    """Measured at noon."""
    return Balance(points=number, measured=number, estimated=False, measured_at=NOON, **fields)  # type: ignore[arg-type]


def measured(bench: Bench, number: int) -> transitions.Measurement:
    return transitions.Measurement(at=bench.clock.now(), points=number)


def failed(outcome: RateLimited | Depleted | Transient) -> UpstreamFailure:
    return UpstreamFailure(outcome, Fate.NOT_SENT)


# Who waits beside a free seat.


async def test_a_balance_that_was_read_wakes_those_who_wait() -> None:
    bench = Bench(account("a", max_inflight=1), account("b", health=health(State.DEPLETED, Cause.POINTS_GONE, 60)))
    await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5))
    await turns()
    bench.broker.note("b", measured(bench, 900))
    assert await served(waiting)
    assert waiting.result().account.id == "b"


async def test_news_that_ends_the_last_hope_is_told_without_the_store() -> None:
    bench = Bench(account("a", max_inflight=1))
    await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5))
    await turns()
    bench.broker.step("a", lambda each: transitions.unreadable(each, bench.clock.now(), "no key"))
    with pytest.raises(Overloaded) as refused:
        await waiting
    assert refused.value.code == "no_accounts"


@pytest.mark.parametrize("strategy", [Strategy.BALANCED, Strategy.FILL_FIRST, Strategy.ROUND_ROBIN])
async def test_the_one_account_that_can_pay_is_found_among_many_that_cannot(strategy: Strategy) -> None:
    poor = [account(f"a{number:03}", balance=points(100)) for number in range(200)]
    bench = Bench(*poor, account("z", balance=points(5000), max_inflight=1), policy=PoolPolicy(strategy=strategy))
    held = await bench.lease(need=900)
    assert held.account.id == "z"
    waiting = asyncio.create_task(bench.lease(need=800, seconds=5))
    await turns()
    bench.broker.settle(held, Succeeded(points=1))
    assert await served(waiting)


async def test_a_process_that_holds_nothing_still_asks_for_slots() -> None:
    """However slow answers are: by its own slots alone the deadline could not be met, by those of others it may be."""
    bench = Bench(account("a", max_inflight=1))
    for _ in range(8):
        lease = await bench.lease()
        bench.clock.step(100)
        bench.broker.settle(lease, Succeeded())
    bench.broker.regrant({"a": 0})
    asked: list[bool] = []
    bench.broker.on_shortage = lambda: asked.append(True)
    waiting = asyncio.create_task(bench.lease(seconds=20))
    await turns()
    assert asked and not waiting.done()
    bench.broker.regrant({"a": 1})
    assert await served(waiting)


# Moments that are told.


async def test_of_one_account_the_last_gate_counts() -> None:
    resting = account("a", balance=points(100), health=health(State.COOLDOWN, Cause.ERRORS, 2))
    with pytest.raises(Overloaded) as refused:
        await Bench(resting).lease(need=500, seconds=30)
    assert refused.value.retry_after == 12 * HOUR


async def test_a_hold_has_an_end_that_is_told_and_waited_for() -> None:
    bench = Bench(account("a"), account("b"))
    for _ in range(2):
        lease = await bench.lease(evidence="req_9", fingerprint="body")
        bench.broker.settle(lease, Unauthorized())
    with pytest.raises(Overloaded) as refused:
        await bench.lease(seconds=30)
    assert (refused.value.code, refused.value.retry_after) == ("all_cooling", 60)
    waiting = asyncio.create_task(bench.lease(seconds=90))
    await turns()
    assert not waiting.done()
    bench.clock.step(61)
    bench.broker.tick()
    assert await served(waiting)


async def test_a_grant_of_the_past_is_no_reason_to_wait() -> None:
    bench = Bench(account("a", renews_daily=False, balance=points(100, next_grant_at=NOON - timedelta(hours=1))))
    bench.broker.settle(await bench.lease(need=500), Cancelled())  # the price is doubted once
    with pytest.raises(PointsExhausted) as refused:
        await bench.lease(need=500, seconds=5)
    assert refused.value.retry_after is None


@pytest.mark.parametrize("waits", [(7.0, 300.0), (300.0, 7.0)])
async def test_after_the_last_attempt_the_time_of_the_whole_pool_is_told(waits: tuple[float, float]) -> None:
    walk = Walk(account("a"), account("b"))
    asked = dict(zip("ab", waits, strict=True))
    walk.upstream.rule = lambda account_id, request: [failed(RateLimited(retry_after=asked[account_id]))]
    told: list[float | None] = []
    for question in ("first", "second"):
        with pytest.raises(Overloaded) as refused:
            await walk.ask(question, timeout=5.0)  # not long enough to wait for anybody
        told.append(refused.value.retry_after)
    assert told == [1, 7], "one body rests one account only: after the first question the other is in service"


async def test_an_absurd_time_of_an_upstream_is_not_told_to_callers() -> None:
    walk = Walk(account("a"))
    walk.upstream.by_account = {"a": [[failed(RateLimited(retry_after=1e9))]]}
    with pytest.raises(Overloaded) as refused:
        await walk.ask()
    assert (refused.value.code, refused.value.retry_after) == ("upstream_rate_limited", POLICY.retry_after_cap)


# Renewals of accounts in service.


async def test_an_account_in_service_is_renewed_at_its_own_hour() -> None:
    clock = ResetClock(low=HOUR, high=2 * HOUR, seen=2, last_jump_at=NOON - timedelta(hours=10))
    bench = Bench(account("a", balance=points(100), reset_clock=clock))
    with pytest.raises(PointsExhausted) as refused:
        await bench.lease(need=500)
    assert refused.value.retry_after == 14 * HOUR
    bench.clock.step(13 * HOUR)
    bench.broker.tick()
    bench.clock.step(HOUR)
    assert (await bench.lease(need=500)).account.balance.points == 3000


async def test_an_account_in_service_has_the_grant_that_was_named() -> None:
    due = NOON + timedelta(hours=1)
    bench = Bench(account("a", renews_daily=False, balance=points(100, next_grant_at=due, allotment=1000)))
    with pytest.raises(PointsExhausted) as refused:
        await bench.lease(need=500)
    assert refused.value.retry_after == HOUR
    bench.clock.step(HOUR)
    lease = await bench.lease(need=500)
    assert (lease.account.balance.points, lease.account.balance.estimated) == (1000, True)
    bench.broker.settle(lease, Succeeded(points=400))
    bench.clock.step(HOUR)
    spent = transitions.as_of(bench.broker.seats["a"].account, bench.clock.now(), bench.policy)
    assert spent.balance.points == 600, "the grant came once"


async def test_a_measured_balance_after_the_grant_stands() -> None:
    balance = points(100, next_grant_at=NOON - timedelta(hours=1), allotment=1000)
    assert transitions.as_of(account(balance=balance), NOON, POLICY).balance == balance


def test_what_a_broken_answer_cost_may_empty_an_account() -> None:
    news = transitions.Settled(
        outcome=Cancelled(), at=NOON, model="gpt", evidence="r", credential_rev=0, expected=995, accepted=True
    )
    after = transitions.apply(account(), news, POLICY)
    assert (after.balance.points, after.health.state) == (5, State.DEPLETED)


# Prices that nobody can pay.


async def test_a_price_that_nobody_can_ever_pay_is_doubted_by_one_request_at_a_time() -> None:
    bench = Bench(account("a"), account("b", balance=points(2000)))
    absurd = 10**6
    first = await bench.lease(need=absurd, key="gpt")
    assert first.account.id == "b", "the richest"
    with pytest.raises(PointsExhausted) as refused:
        await bench.lease(need=absurd, key="gpt")
    assert refused.value.retry_after is None
    bench.broker.settle(first, Succeeded(points=30))
    second = await bench.lease(need=absurd, key="gpt")
    bench.broker.settle(second, Depleted())
    for quiet in (600, 1200):
        bench.clock.step(quiet - 1)
        with pytest.raises(PointsExhausted):
            await bench.lease(need=absurd, key="gpt")
        bench.clock.step(1)
        again = await bench.lease(need=absurd, key="gpt")
        bench.broker.settle(again, Transient())


async def test_a_price_that_a_renewal_pays_is_believed() -> None:
    bench = Bench(account("a"))
    with pytest.raises(PointsExhausted) as refused:
        await bench.lease(need=2500)
    assert refused.value.retry_after == 12 * HOUR


# Incidents.


async def outage(*others: Account) -> Bench:
    """Three accounts of offer ``mock`` and the others; an incident is open on that offer."""
    bench = Bench(*[account(name) for name in "abc"], *others)
    leases = [
        await bench.lease(evidence=f"req_{name}", fingerprint=f"body_{name}", affinity=name, key="gpt")
        for name in "abc"
    ]
    for lease in leases:
        bench.broker.settle(lease, Transient())
    assert bench.broker.guard.incidents()
    return bench


async def test_a_probe_that_got_no_slot_bars_nobody() -> None:
    bench = await outage()
    bench.clock.step(2)
    bench.broker.regrant({}, 0)
    with pytest.raises(Overloaded):
        await bench.lease(seconds=0.01, key="gpt", fingerprint="unlucky")
    bench.broker.regrant({}, 10)
    probe = await bench.lease(key="gpt", fingerprint="next")
    bench.broker.settle(probe, Succeeded())
    assert not bench.broker.guard.incidents()


async def test_a_probe_whose_slot_was_given_up_bars_nobody() -> None:
    bench = await outage()
    bench.clock.step(2)
    bench.broker.give_up(await bench.lease(key="gpt", fingerprint="unlucky"))
    assert await bench.lease(key="gpt", fingerprint="next")


async def test_those_in_line_are_no_probes() -> None:
    bench = Bench(*[account(name, max_inflight=1) for name in "abc"])
    leases = [await bench.lease(evidence=name, fingerprint=name, key="gpt", affinity=name) for name in "abc"]
    waiting = [
        asyncio.create_task(bench.lease(seconds=5, key="gpt", fingerprint=f"patient {number}")) for number in range(9)
    ]
    await turns()
    for lease in leases:
        bench.broker.settle(lease, Transient())
    await turns()
    assert bench.broker.guard.incidents()
    errors = [task.exception() for task in waiting[2:]]
    assert all(isinstance(error, UpstreamDown) for error in errors), "two had a slot before it was opened"
    for task in waiting[:2]:
        bench.broker.settle(task.result(), Cancelled())


async def test_requests_in_line_leave_out_what_is_down_and_have_it_again_when_it_is_up() -> None:
    both = frozenset({"mock", "other"})
    bench = await outage(account("o", offer="other", max_inflight=1))
    held = await bench.lease(offers=both, key="gpt", fingerprint="one")
    assert held.account.id == "o"
    waiting = asyncio.create_task(bench.lease(offers=both, key="gpt", fingerprint="two", seconds=5))
    await turns()
    assert not waiting.done(), "three idle accounts, but all of them down"
    bench.clock.step(2)
    probe = await bench.lease(key="gpt", fingerprint="probe")
    bench.broker.settle(probe, Succeeded())
    assert await served(waiting)


async def test_a_strict_session_is_not_lost_by_an_incident() -> None:
    walk = Walk(*[account(name) for name in "abc"], account("o", offer="other"), sessions=SessionPolicy(strict=True))
    for turn in range(4):  # a session on each offer, whatever order they are taken in
        await walk.ask(f"first {turn}", session=f"s{turn}")
    for name in "abc":
        want = Want(
            offers=frozenset({"mock", "other"}),
            model="gpt",
            key="gpt",
            caller="key_1",
            evidence=f"req_{name}",
            fingerprint=f"body_{name}",
            affinity=name,
            deadline=2000.0,
        )
        walk.broker.settle(await walk.broker.lease(want), Transient())
    assert walk.broker.guard.incidents()
    told: set[str | None] = set()
    for turn in range(4):
        try:
            await walk.ask("second", session=f"s{turn}")
        except UpstreamDown as error:
            told.add(error.code)
    assert told == {"upstream_down"}


# Trials and blocks.


async def test_after_a_trial_that_was_granted_one_slot_the_load_grows_slowly() -> None:
    bench = Bench(account("a", max_inflight=8, health=Health(state=State.ACTIVE, cause=Cause.RENEWED, trial=True)))
    bench.broker.regrant({"a": 1})
    bench.broker.settle(await bench.lease(), Succeeded())
    bench.broker.regrant({"a": 8})
    assert bench.broker.seats["a"].cap == 2


async def test_a_block_goes_by_the_models_public_name() -> None:
    bench = Bench(account("a", balance=points(2000)), account("b"))
    bench.broker.settle(await bench.lease(model="GPT-4"), Rejected(model="chinchilla"))
    assert {(await bench.lease(model="GPT-4")).account.id for _ in range(2)} == {"b"}


def test_the_blocks_of_an_account_are_bounded() -> None:
    each = account()
    for number in range(200):
        news = transitions.Settled(
            outcome=Rejected(model="x"), at=NOON, model=f"made-up-{number}", evidence="r", credential_rev=0
        )
        each = transitions.apply(each, news, POLICY)
    assert [block.model for block in each.model_blocks] == [f"made-up-{number}" for number in range(136, 200)]


def test_a_success_of_the_model_ends_the_block_that_errors_brought() -> None:
    until = NOON + timedelta(minutes=2)
    blocks = tuple(ModelBlock(model=name, cause=Cause.ERRORS, until=until) for name in ("gpt", "other"))
    news = transitions.Settled(outcome=Succeeded(), at=NOON, model="gpt", evidence="r", credential_rev=0)
    after = transitions.apply(account(model_blocks=blocks), news, POLICY)
    assert [block.model for block in after.model_blocks] == ["other"]


# Cost.


async def test_what_is_spent_elsewhere_does_not_make_a_hopeless_request_look_at_all_accounts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(*[account(f"a{number}", balance=points(100)) for number in range(50)])
    looks: list[str] = []
    look = Prospects.why_not
    monkeypatch.setattr(
        Prospects, "why_not", lambda self, seat, *rest: (looks.append(seat.id), look(self, seat, *rest))[1]
    )
    for turn in range(20):
        with pytest.raises(PointsExhausted):
            await bench.lease(need=1000 + turn)
        bench.broker.settle(await bench.lease(), Succeeded(points=1))
    assert len(looks) < 3 * 50


async def test_an_account_that_can_pay_again_ends_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(account("a", balance=points(100)), account("b", balance=points(100)))
    with pytest.raises(PointsExhausted):
        await bench.lease(need=900)
    bench.broker.note("b", measured(bench, 950))
    assert (await bench.lease(need=900)).account.id == "b"


async def test_a_long_line_is_not_looked_through_for_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(account("a", max_inflight=1), account("b", balance=points(10_000), max_inflight=1))
    held = [await bench.lease(), await bench.lease()]
    waiting = [asyncio.create_task(bench.lease(seconds=5, need=100 + number)) for number in range(100)]
    await turns()
    asked: list[int] = []
    hopeful = Prospects.hopeful
    monkeypatch.setattr(Prospects, "hopeful", lambda self, want: (asked.append(want.need), hopeful(self, want))[1])
    bench.broker.settle(held[0], Succeeded())
    for task in waiting:
        task.cancel()
    assert len(asked) < 5


# Records.


async def test_a_request_that_leaves_the_line_has_a_record_of_its_wait() -> None:
    walk = Walk(account("a", max_inflight=1))
    release = asyncio.Event()
    walk.upstream.rule = lambda account_id, request: [release, "ok"]
    first = asyncio.create_task(walk.ask())
    await turns()
    second = asyncio.create_task(walk.ask("other"))
    await turns()
    walk.clock.step(3)
    second.cancel()
    await turns()
    record = walk.decisions[-1]
    assert (record.status, record.error_code) == (499, "client_gone")
    assert [(choice.how, choice.wait_seconds) for choice in record.choices] == [("client_gone", 3.0)]
    release.set()
    await first


async def test_what_nobody_foresaw_has_a_record_too() -> None:
    walk = Walk(account("a", provider="gone"))
    with pytest.raises(KeyError):
        await walk.ask()
    assert [(record.status, record.error_code) for record in walk.decisions] == [(500, "internal_error")]
    assert walk.broker.whole.used == 0


def test_many_keys_with_small_parts_of_a_pool_do_not_push_each_others_orders_out() -> None:
    """Making an order is a look at all accounts: 50 keys, each with its own label, must not make one per request."""
    index = SeatIndex()
    for number in range(100):
        seat = Seat(account(f"a{number:03}", labels=(f"team-{number % 50}",)), number)
        seat.allowed, seat.held = True, 1
        index.place(seat)
    looks = 0

    class Looked(Selector, frozen=True):
        def matches(self, account: Account) -> bool:
            nonlocal looks
            looks += 1
            return super().matches(account)

    selectors = [Looked(labels=(f"team-{number}",)) for number in range(50)]

    def ask() -> None:
        for selector in selectors:
            seat = index.best(
                ("mock",),
                strategy=Strategy.BALANCED,
                selector=selector,
                need=0,
                refuse=None,
                tried=(),
                score=lambda account: 0.0,
            )
            assert seat is not None

    ask()
    made = looks
    ask()
    assert looks == made
