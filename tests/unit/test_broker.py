"""The broker alone: grants are handed to it by the test, the store is memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from poe_gateway.errors import GatewayError, Overloaded, PointsExhausted, SessionLost
from poe_gateway.pool.account import Account, Balance, Cause, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.memory import MemoryAccounts, MemoryHub, filled
from poe_gateway.pool.outcome import Challenged, Depleted, RateLimited, Rejected, Succeeded, Unauthorized
from poe_gateway.pool.policy import PoolPolicy
from tests.unit.builders import NOON, StepClock, account, health


class Bench:
    """A broker that holds everything it may hold."""

    def __init__(self, *accounts: Account, policy: PoolPolicy | None = None, whole: int | None = None) -> None:
        self.clock = StepClock()
        self.policy = policy or PoolPolicy()
        self.hub: MemoryHub = filled(self.clock, accounts)
        self.changes: list[tuple[str, str]] = []
        self.broker = Broker(
            store=MemoryAccounts(self.hub),
            policy=self.policy,
            clock=self.clock,
            changed=lambda old, new: self.changes.append((old.health.state.value, new.health.state.value)),
        )
        self.broker.grants_valid = lambda: True
        self.broker.accept(accounts)
        self.broker.regrant(
            {each.id: each.max_inflight or self.policy.max_inflight for each in accounts},
            self.policy.global_inflight if whole is None else whole,
        )

    def want(self, caller: str = "key_a", seconds: float = 0.2, **fields: object) -> Want:
        defaults = {
            "offers": frozenset({"mock"}),
            "model": "gpt",
            "caller": caller,
            "evidence": "req_1",
            "deadline": self.clock.monotonic() + seconds,
        }
        return Want(**{**defaults, **fields})  # type: ignore[arg-type]

    async def lease(self, **fields: object) -> Lease:
        return await self.broker.lease(self.want(**fields))  # type: ignore[arg-type]


async def test_no_account_and_no_pool_goes_beyond_its_limit() -> None:
    bench = Bench(account("a"), account("b"), whole=3)
    leases = [await bench.lease() for _ in range(3)]
    assert bench.broker.whole.used == 3
    assert max(lease.seat.used for lease in leases) == 2
    with pytest.raises(Overloaded) as refused:
        await bench.lease(seconds=0.01)
    assert (refused.value.code, refused.value.status) == ("saturated", 503)
    assert refused.value.retry_after is not None
    bench.broker.settle(leases[0], Succeeded())
    assert await bench.lease()


async def test_settling_twice_returns_one_slot() -> None:
    bench = Bench(account("a"))
    lease = await bench.lease()
    bench.broker.settle(lease, Succeeded(points=10))
    bench.broker.settle(lease, Unauthorized())
    assert (bench.broker.whole.used, lease.seat.used) == (0, 0)
    assert bench.broker.seats["a"].account.balance.points == 990
    assert bench.broker.seats["a"].account.health.state is State.ACTIVE


async def test_a_waiting_request_is_served_as_soon_as_a_slot_comes_back() -> None:
    bench = Bench(account("a", max_inflight=1))
    first = await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5))
    await asyncio.sleep(0)
    assert len(bench.broker.line) == 1
    bench.broker.settle(first, Succeeded())
    second = await waiting
    assert second.queued and len(bench.broker.line) == 0


async def test_callers_take_turns() -> None:
    """Ten waiting requests of one caller do not make the other caller's one request wait for all of them."""
    bench = Bench(account("a", max_inflight=1))
    held = await bench.lease()
    order: list[str] = []

    async def one(caller: str) -> None:
        lease = await bench.lease(caller=caller, seconds=5)
        order.append(caller)
        await asyncio.sleep(0)
        bench.broker.settle(lease, Succeeded())

    tasks = [asyncio.create_task(one("greedy")) for _ in range(10)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(one("modest")) for _ in range(2)]
    await asyncio.sleep(0)
    bench.broker.settle(held, Succeeded())
    await asyncio.gather(*tasks)
    assert order[:4] == ["greedy", "modest", "greedy", "modest"]


async def test_a_cancelled_waiter_leaves_the_line_and_costs_no_slot() -> None:
    bench = Bench(account("a", max_inflight=1))
    held = await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5))
    await asyncio.sleep(0)
    bench.broker.settle(held, Succeeded())  # granted in the same breath …
    waiting.cancel()  # … in which the caller leaves
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (bench.broker.whole.used, len(bench.broker.line)) == (0, 0)


async def test_the_line_is_bounded() -> None:
    bench = Bench(account("a", max_inflight=1), policy=PoolPolicy(queue_limit=1))
    await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=5))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await bench.lease(seconds=5)
    assert refused.value.code == "queue_full"
    waiting.cancel()


@pytest.mark.parametrize(
    "accounts, error, code, wait",
    [
        ([account("a", health=health(State.COOLDOWN, Cause.ERRORS, 2))], Overloaded, "all_cooling", 120),
        ([account("a", health=health(State.DEPLETED, Cause.POINTS_GONE, 60))], PointsExhausted, "all_depleted", 3600),
        ([account("a", health=health(State.INVALID, Cause.CHALLENGED))], Overloaded, "no_accounts", None),
        ([], Overloaded, "no_accounts", None),
        (
            [
                account("a", health=health(State.DEPLETED, Cause.POINTS_GONE, 60)),
                account("b", health=health(State.COOLDOWN, Cause.ERRORS, 2)),
            ],
            Overloaded,
            "all_cooling",
            120,
        ),
    ],
)
async def test_hopeless_requests_are_refused_at_once_and_say_when_to_come_back(
    accounts: list[Account], error: type[GatewayError], code: str, wait: float | None
) -> None:
    bench = Bench(*accounts)
    with pytest.raises(error) as refused:
        await bench.lease(seconds=30)
    assert (refused.value.code, refused.value.retry_after) == (code, wait)


async def test_a_rest_that_ends_before_the_deadline_is_waited_for() -> None:
    bench = Bench(account("a", health=health(State.COOLDOWN, Cause.ERRORS, 0.2)))
    waiting = asyncio.create_task(bench.lease(seconds=30))
    await asyncio.sleep(0)
    bench.clock.step(12)
    bench.broker.tick()
    assert (await waiting).account.id == "a"


async def test_those_in_line_are_told_when_hope_is_lost() -> None:
    bench = Bench(account("a", max_inflight=1))
    held = await bench.lease()
    waiting = asyncio.create_task(bench.lease(seconds=30))
    await asyncio.sleep(0)
    bench.broker.settle(held, Challenged())
    with pytest.raises(Overloaded) as refused:
        await waiting
    assert refused.value.code == "no_accounts"


async def test_a_challenged_account_is_out_at_once_and_the_store_learns_it() -> None:
    bench = Bench(account("a"), account("b"))
    first = await bench.lease()
    bench.broker.settle(first, Challenged("cf"))
    chosen = {(await bench.lease()).account.id for _ in range(2)}
    assert first.account.id not in chosen
    assert ("active", "invalid") in bench.changes
    assert bench.broker.journal.hurried(first.account.id)
    assert await bench.broker.journal.flush(only_urgent=True)
    stored = {each.id: each for each in await MemoryAccounts(bench.hub).load()}
    assert stored[first.account.id].health.cause is Cause.CHALLENGED


async def test_more_points_and_fewer_errors_are_preferred() -> None:
    bench = Bench(account("poor", balance=Balance(points=100)), account("rich", balance=Balance(points=2000)))
    assert (await bench.lease()).account.id == "rich"
    bench = Bench(account("shaky", error_count=2, balance=Balance(points=1030)), account("steady"))
    assert (await bench.lease()).account.id == "steady"


async def test_a_model_block_is_passed_over() -> None:
    bench = Bench(account("a", balance=Balance(points=2000)), account("b"))
    lease = await bench.lease()
    bench.broker.settle(lease, Rejected(model="gpt"))
    assert {(await bench.lease()).account.id for _ in range(2)} == {"b"}
    bench.clock.step(bench.policy.model_block + 1)
    assert (await bench.lease()).account.id == "a"


async def test_affinity_prefers_its_account_and_moves_on_when_it_is_ill() -> None:
    bench = Bench(account("a"), account("b", balance=Balance(points=9)))
    assert (await bench.lease(affinity="b")).account.id == "b"
    bench.broker.note("b", _settled(bench, RateLimited(retry_after=60)))
    assert (await bench.lease(affinity="b")).account.id == "a"
    with pytest.raises(SessionLost):
        await bench.lease(affinity="b", steadfast=True)


async def test_affinity_waits_for_its_busy_account() -> None:
    bench = Bench(account("a", max_inflight=1), account("b"))
    own = await bench.lease(affinity="a")
    waiting = asyncio.create_task(bench.lease(affinity="a", seconds=5))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.broker.settle(own, Succeeded())
    assert (await waiting).account.id == "a"


async def test_a_steadfast_session_is_told_when_its_account_falls_ill_while_it_waits() -> None:
    bench = Bench(account("a", max_inflight=1), account("b"))
    own = await bench.lease(affinity="a")
    waiting = asyncio.create_task(bench.lease(affinity="a", steadfast=True, seconds=5))
    await asyncio.sleep(0)
    bench.broker.settle(own, Unauthorized())
    with pytest.raises(SessionLost):
        await waiting


async def test_the_daily_reset_returns_depleted_accounts_to_service_without_any_job() -> None:
    bench = Bench(account("a"))
    bench.broker.settle(await bench.lease(), Depleted())
    with pytest.raises(PointsExhausted) as refused:
        await bench.lease()
    assert refused.value.retry_after == 12 * 3600
    bench.clock.step(12 * 3600)
    lease = await bench.lease()
    assert lease.account.balance.points == 3000


async def test_grants_that_may_not_be_used_serve_nobody() -> None:
    bench = Bench(account("a"))
    bench.broker.grants_valid = lambda: False
    with pytest.raises(Overloaded) as refused:
        await bench.lease(seconds=0.01)
    assert refused.value.code == "not_ready"


async def test_lost_grants_stop_what_runs_on_them() -> None:
    bench = Bench(account("a"))
    lease = await bench.lease()
    stopped: list[bool] = []
    lease.on_revoked = lambda: stopped.append(True)
    bench.broker.lose_grants()
    assert stopped == [True]
    assert (bench.broker.whole.held, lease.seat.held) == (0, 0)


async def test_stored_changes_of_others_do_not_undo_news_that_is_not_stored_yet() -> None:
    bench = Bench(account("a"))
    bench.broker.note("a", _settled(bench, Unauthorized()))
    foreign = account("a", rev=5, max_inflight=7)
    bench.broker.accept([foreign])
    mine = bench.broker.account("a")
    assert mine is not None
    assert (mine.max_inflight, mine.health.state) == (7, State.INVALID)


async def test_removed_accounts_serve_nobody_and_their_leases_end_well() -> None:
    bench = Bench(account("a"))
    lease = await bench.lease()
    bench.broker.remove(["a"])
    with pytest.raises(Overloaded):
        await bench.lease(seconds=0.01)
    bench.broker.settle(lease, Succeeded())
    assert bench.broker.whole.used == 0
    assert bench.broker.ready_accounts() == 0


def _settled(bench: Bench, outcome: object):  # type: ignore[no-untyped-def]
    from poe_gateway.pool.transitions import Settled

    return Settled(outcome=outcome, at=NOON + timedelta(0), model="gpt", evidence="r", credential_rev=0)  # type: ignore[arg-type]
