"""Balances, warm connections, second chances, catalogues."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from poe_gateway.accounts.care import NotMeasurable
from poe_gateway.accounts.visits import VisitFailed
from poe_gateway.errors import UpstreamFailed
from poe_gateway.pool.account import Account, Balance, Cause, Health, Intent, State
from poe_gateway.upstreams.base import AccountRef, Capabilities, Reading
from poe_gateway.upstreams.mock import MockUpstream
from tests.accounts.support import House


def ill(cause: Cause, house: House, *, hours_ago: float = 0) -> Health:
    since = house.clock.now() - timedelta(hours=hours_ago)
    return Health(state=State.INVALID, cause=cause, since=since, evidence="req_1")


class Plain(MockUpstream):
    """A provider that tells no balance."""

    name = "plain"
    capabilities = Capabilities()


class Slow(MockUpstream):
    """Counts how many visits run at once, per account and in all."""

    name = "slow"

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__()
        self.seconds = seconds
        self.running: list[str] = []
        self.peak = self.peak_of_one = 0
        self.order: list[str] = []

    async def _dwell(self, account: AccountRef) -> None:
        self.running.append(account.id)
        self.order.append(account.name)
        self.peak = max(self.peak, len(self.running))
        self.peak_of_one = max(self.peak_of_one, self.running.count(account.id))
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running.remove(account.id)

    async def read_balance(self, account: AccountRef) -> Reading:
        await self._dwell(account)
        return Reading(points=100)

    async def prewarm(self, account: AccountRef) -> None:
        await self._dwell(account)


async def test_refresh_measures_and_lifts_depletion() -> None:
    house = House()
    account = await house.add("one", points=900)
    house.edit(account.id, lambda a: replace(a, health=Health(state=State.DEPLETED, cause=Cause.POINTS_GONE)))
    refreshed = await house.care.refresh(account.id)
    assert refreshed.balance.points == 900 and refreshed.health.state is State.ACTIVE
    await house.broker.journal.flush()
    assert house.hub.accounts[account.id].balance.points == 900


async def test_refresh_below_the_threshold_depletes() -> None:
    house = House()
    account = await house.add("one", points=5)
    assert (await house.care.refresh(account.id)).health.state is State.DEPLETED


async def test_refresh_failure_is_typed_and_is_news() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "unauthorized", "on": "balance", "times": None}])
    with pytest.raises(VisitFailed) as told:
        await house.care.refresh(account.id)
    assert told.value.status == 502 and told.value.code == "upstream_unauthorized"
    assert house.now(account.id).health.cause is Cause.UNAUTHORIZED


async def test_an_adapter_that_stumbles_does_not_harm_the_account() -> None:
    class Broken(MockUpstream):
        async def read_balance(self, account: AccountRef) -> Reading:
            raise KeyError("secret-value-in-an-error")

    house = House(upstreams={"broken": Broken()})
    account, _ = await house.desk.upsert("broken", "one", {})
    with pytest.raises(VisitFailed) as told:
        await house.care.refresh(account.id)
    assert told.value.code == "upstream_adapterdrift" and "secret" not in str(told.value)
    assert house.now(account.id).health.state is State.ACTIVE


async def test_what_cannot_be_measured_is_told() -> None:
    house = House(upstreams={"plain": Plain()})
    account, _ = await house.desk.upsert("plain", "one", {})
    with pytest.raises(NotMeasurable):
        await house.care.refresh(account.id)
    report = await house.desk.test(account.id)
    assert report.ok and report.step == "round trip" and report.account.last_success_at is not None


async def test_refresh_many_is_bounded_and_never_two_at_one_account() -> None:
    slow = Slow()
    house = House(upstreams={"slow": slow})
    accounts = [(await house.desk.upsert("slow", f"a{n}", {}))[0] for n in range(12)]
    ids = [account.id for account in accounts]
    tallies = await asyncio.gather(
        house.care.refresh_many(ids, concurrency=3), house.care.refresh_many(ids, concurrency=3)
    )
    assert [tally.succeeded for tally in tallies] == [12, 12]
    assert slow.peak <= 6 and slow.peak_of_one == 1
    assert not house.visitor._turns


async def test_refresh_many_tells_failures_and_skips_challenged_ones() -> None:
    house = House()
    good = await house.add("good")
    bad = await house.add("bad", faults=[{"kind": "drift", "on": "balance"}])
    challenged = await house.add("challenged")
    house.edit(challenged.id, lambda a: replace(a, health=ill(Cause.CHALLENGED, house)))
    ids = [good.id, bad.id, challenged.id, "acct_gone"]
    tally = await house.care.refresh_many(ids, concurrency=2)
    assert (tally.total, tally.succeeded, tally.skipped) == (4, 1, 1)
    assert tally.failures == {bad.id: "upstream_adapterdrift", "acct_gone": "account_not_found"}
    assert house.calls(challenged.id, "balance") == 0
    assert challenged.id not in house.care.measurable(list(State))


async def test_only_recently_used_accounts_are_refreshed() -> None:
    house = House()
    now = house.clock.now()
    used = {"fresh": 1, "old": 200, "paused": 1, "invalid": 1, "limited": 1, "just-read": 1}
    ids = {}
    for name, minutes in used.items():
        account = await house.add(name)
        ids[name] = account.id
        house.edit(account.id, lambda a, m=minutes: replace(a, last_used_at=now - timedelta(minutes=m)))
    await house.add("never")
    limited = Health(state=State.COOLDOWN, cause=Cause.RATE_LIMITED, until=now + timedelta(hours=1))
    house.edit(ids["paused"], lambda a: replace(a, intent=Intent.PAUSED))
    house.edit(ids["invalid"], lambda a: replace(a, health=ill(Cause.UNAUTHORIZED, house)))
    house.edit(ids["limited"], lambda a: replace(a, health=limited))
    house.edit(ids["just-read"], lambda a: replace(a, last_refresh_at=now))
    tally = await house.care.refresh_recent(
        since=now - timedelta(minutes=120), stale=now - timedelta(minutes=5), concurrency=5
    )
    assert tally.total == tally.succeeded == 1
    assert {name for name, key in ids.items() if house.calls(key, "balance")} == {"fresh"}


async def test_an_account_whose_grant_nobody_saw_is_measured_though_nobody_used_it() -> None:
    """It seems empty, so nobody uses it; unmeasured it would seem so for ever."""
    house = House()
    now = house.clock.now()
    for name, measured in (("unseen", 60), ("seen", 1)):
        account = await house.add(name)
        balance = Balance(
            points=5, measured_at=now - timedelta(minutes=measured), next_grant_at=now - timedelta(minutes=30)
        )
        house.edit(account.id, lambda a, b=balance: replace(a, balance=b, renews_daily=False))
    due = house.care.recently_used(now - timedelta(minutes=120), now - timedelta(minutes=5))
    names = [house.broker.seats[key].account.name for key in due]
    assert names == ["unseen"]


# Prewarming.


async def test_prewarm_opens_only_held_and_healthy_seats_richest_first_within_bounds() -> None:
    slow = Slow()
    house = House(upstreams={"slow": slow})
    for n in range(6):
        account, _ = await house.desk.upsert("slow", f"a{n}", {"points": 1})
        points = 100 * n
        house.edit(account.id, lambda a, p=points: replace(a, balance=replace(a.balance, points=p)))
        if n != 5:
            house.broker.regrant({account.id: 1})
    paused = next(a for a in house.hub.accounts.values() if a.name == "a4")
    await house.desk.pause(paused.id)
    tally = await house.care.prewarm(concurrency=2, seconds=1.0, limit=3)
    assert tally.succeeded == 3 and slow.peak == 2
    assert slow.order == ["a3", "a2", "a1"]


async def test_a_hanging_account_does_not_hold_prewarming_up() -> None:
    house = House(upstreams={"slow": Slow(seconds=60)})
    account, _ = await house.desk.upsert("slow", "one", {})
    house.broker.regrant({account.id: 1})
    tally = await house.care.prewarm(concurrency=1, seconds=0.02)
    assert tally.failures == {account.id: "upstream_transient"}
    assert house.now(account.id).health.state is State.ACTIVE and house.now(account.id).error_count == 1


# Second chances.


async def revalidate(house: House, account: Account) -> bool:
    before = house.calls(account.id, "balance")
    await house.care.revalidate(interval=3600)
    return house.calls(account.id, "balance") > before


async def test_invalid_accounts_are_tried_again_ever_more_rarely() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "unauthorized", "on": "balance", "times": None}])
    with pytest.raises(VisitFailed):
        await house.care.refresh(account.id)
    tries = []
    for hour in range(1, 101):
        house.clock.pass_(hours=1)
        if await revalidate(house, account):
            tries.append(hour)
    assert tries == [1, 2, 4, 8, 16, 32, 56, 80]


async def test_an_account_that_answers_again_comes_back() -> None:
    house = House()
    account = await house.add("one", points=800, faults=[{"kind": "unauthorized", "on": "balance"}])
    with pytest.raises(VisitFailed):
        await house.care.refresh(account.id)
    assert not await revalidate(house, account)
    house.clock.pass_(hours=1)
    assert await revalidate(house, account)
    assert house.now(account.id).health.state is State.ACTIVE and house.now(account.id).balance.points == 800


async def test_challenged_and_paused_accounts_get_no_second_chance() -> None:
    house = House()
    challenged, paused = await house.add("challenged"), await house.add("paused")
    house.edit(challenged.id, lambda a: replace(a, health=ill(Cause.CHALLENGED, house, hours_ago=100)))
    house.edit(
        paused.id,
        lambda a: replace(a, health=ill(Cause.UNAUTHORIZED, house, hours_ago=100), intent=Intent.PAUSED),
    )
    assert (await house.care.revalidate(interval=1)).total == 0


async def test_few_per_round_and_turn_by_turn_even_when_nothing_is_learnt() -> None:
    house = House()
    ids = []
    for n in range(5):
        account = await house.add(f"a{n}", faults=[{"kind": "drift", "on": "balance", "times": None}])
        ids.append(account.id)
        house.edit(account.id, lambda a: replace(a, health=ill(Cause.UNAUTHORIZED, house, hours_ago=2)))
    for _ in range(2):
        tally = await house.care.revalidate(interval=3600, limit=3)
        assert tally.total == 3
        house.clock.pass_(minutes=1)
    assert sorted(house.calls(key, "balance") for key in ids) == [1, 1, 1, 1, 2]


async def test_a_network_fault_ends_the_round() -> None:
    house = House()
    for n in range(3):
        account = await house.add(f"a{n}", faults=[{"kind": "network", "on": "balance"}])
        house.edit(account.id, lambda a: replace(a, health=ill(Cause.UNAUTHORIZED, house, hours_ago=2)))
    tally = await house.care.revalidate(interval=3600)
    assert len(tally.failures) == 1 and tally.skipped == 2


async def test_a_readable_credential_comes_back_and_needs_no_balance_for_it() -> None:
    house = House(upstreams={"plain": Plain()})
    account, _ = await house.desk.upsert("plain", "one", {})
    house.edit(account.id, lambda a: replace(a, health=ill(Cause.VAULT, house, hours_ago=2)))
    assert (await house.care.revalidate(interval=3600)).succeeded == 1
    assert house.now(account.id).health.state is State.ACTIVE


# Catalogues.


async def test_another_account_is_asked_when_the_first_cannot_tell() -> None:
    house = House()
    house.care.catalogues.load_soon = lambda offer: None  # type: ignore[method-assign]
    faults = [{"kind": "transient", "on": "models", "times": None}]
    for n in range(3):
        await house.add(f"a{n}", faults=faults if n < 2 else [])
    assert await house.care.catalogues.load("mock") == 4
    assert [model.id for model in house.catalog.models({"mock": 3})][:2] == ["mock-1", "mock-2"]


async def test_a_catalogue_that_nobody_can_tell_leaves_the_old_one() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "transient", "on": "models", "after": 1, "times": None}])
    with pytest.raises(UpstreamFailed):
        await house.care.catalogues.load("mock")
    assert house.catalog.has("mock")
    report = await house.care.catalogues.reload()
    assert report.errors == {"mock": "upstream_transient"} and not report.models
    await house.desk.pause(account.id)
    assert (await house.care.catalogues.reload()).errors == {"mock": "no_accounts"}


async def test_reload_reads_what_is_old_and_forgets_what_nobody_serves() -> None:
    house = House()
    account = await house.add("one")
    house.clock.pass_(hours=2)
    extra = await house.add("two", models=["mine"])
    report = await house.care.catalogues.reload(older_than=house.clock.now() - timedelta(hours=1))
    assert report.models == {"mock": 4}
    assert house.calls(account.id, "models") == 2 and house.calls(extra.id, "models") == 1
    await house.desk.delete(extra.id)
    await house.care.catalogues.reload()
    assert set(house.listings.listings) == {"mock"} and not house.catalog.has(extra.offer)


async def test_another_processs_catalogue_is_taken_over() -> None:
    house = House()
    await house.add("one")
    other = House(hub=house.hub, clock=house.clock)
    other.care.catalogues._listings = house.listings
    assert await other.care.catalogues.sync() and other.catalog.has("mock")
    assert not await other.care.catalogues.sync()
