"""The operator's verbs on accounts."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from poe_gateway.accounts.bulk import SHOWN, AccountFilter, BulkChange
from poe_gateway.accounts.memory import MemoryBook
from poe_gateway.accounts.terms import Terms
from poe_gateway.accounts.visits import AccountNotFound, SetAside, Unreadable
from poe_gateway.errors import InvalidRequest
from poe_gateway.pool.account import Account, Cause, Health, Intent, State
from poe_gateway.pool.memory import MemoryHub
from poe_gateway.pool.outcome import Challenged, Transient
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.pool.transitions import Settled
from poe_gateway.vault import Vault, new_key
from tests.accounts.support import HandClock, House

CANARY = "canary-9f2c-secret-value"


async def test_a_new_account_is_active_sealed_and_known_to_the_pool() -> None:
    house = House()
    account, created = await house.desk.upsert("mock", "One", {"points": 50})
    assert created and account.health.state is State.ACTIVE and account.offer == "mock" and account.metered
    sealed = house.book.sealed[account.id, account.credential_rev]
    assert house.vault.open(sealed) == {"points": 50}
    assert house.broker.account(account.id) == account


async def test_upsert_is_idempotent_by_name_in_any_case_and_replaces_the_whole_document() -> None:
    house = House()
    first, _ = await house.desk.upsert("mock", "One", {"points": 50, "price": 2}, terms=Terms(max_inflight=3))
    second, created = await house.desk.upsert("mock", " oNE ", {"price": 5})
    assert not created and second.id == first.id and len(house.hub.accounts) == 1
    assert house.vault.open(house.book.sealed[second.id, second.credential_rev]) == {"price": 5}
    assert second.credential_rev > first.credential_rev
    assert second.max_inflight == 3 and not second.metered
    third, _ = await house.desk.upsert("mock", "one", {}, terms=Terms(max_inflight=None))
    assert third.max_inflight is None and house.resized == 1


async def test_upsert_keeps_the_terms_that_it_does_not_give() -> None:
    house = House()
    terms = Terms(priority=5, weight=3, labels=("eu", "paid"), keep_percent=20, max_inflight=4)
    account, _ = await house.desk.upsert("mock", "one", {}, terms=terms)
    assert terms.on(account) == account and house.resized == 0, "a new account takes nothing from anybody"
    again, _ = await house.desk.upsert("mock", "one", {"points": 1}, terms=Terms(weight=9))
    assert Terms(priority=5, weight=9, labels=("eu", "paid"), keep_percent=20, max_inflight=4).on(again) == again
    assert again.credential_rev > account.credential_rev and house.resized == 0
    await house.desk.upsert("mock", "one", {}, terms=Terms(max_inflight=4))
    assert house.resized == 0, "the same limit as before"


async def test_new_terms_are_stored_in_force_and_touch_nothing_else() -> None:
    house = House()
    account = await house.add("one", points=50)
    house.edit(account.id, lambda a: replace(a, health=Health(state=State.INVALID, cause=Cause.CHALLENGED), strikes=2))
    before = house.now(account.id)
    house.clock.pass_(seconds=5)
    after = await house.desk.set_terms(account.id, Terms(priority=-7, labels=("eu",)))
    assert after == replace(before, priority=-7, labels=("eu",), updated_at=house.clock.now(), rev=before.rev + 1)
    assert house.hub.accounts[account.id] == house.now(account.id) == after
    assert house.resized == 0
    house.clock.pass_(seconds=5)
    assert await house.desk.set_terms(account.id, Terms(priority=-7, labels=("eu",))) == after, "twice is once"
    assert (await house.desk.set_terms(account.id, Terms(max_inflight=9))).max_inflight == 9
    assert house.resized == 1
    with pytest.raises(AccountNotFound):
        await house.desk.set_terms("acct_nobody", Terms(weight=2))


async def test_new_terms_are_followed_by_other_processes() -> None:
    house = House()
    account = await house.add("one")
    other = House(hub=house.hub, clock=house.clock, book=house.book, vault=house.vault)
    other.broker.accept(await other.store.load())
    await house.desk.set_terms(account.id, Terms(priority=4, labels=("eu",), keep_percent=10))
    other.broker.accept((await other.store.changes()).stored)
    seen = other.now(account.id)
    assert (seen.priority, seen.labels, seen.keep_percent) == (4, ("eu",), 10)


async def test_many_accounts_get_new_terms_at_once() -> None:
    house = House()
    accounts = sorted([await house.add(f"a{n}") for n in range(6)], key=lambda account: account.id)
    for account in accounts[:4]:
        await house.desk.set_terms(account.id, Terms(labels=("eu", "trial")))
    await house.desk.pause(accounts[1].id)
    await house.desk.set_terms(accounts[0].id, Terms(priority=3))
    chosen = AccountFilter(labels=("eu",), provider="mock", status=("active",))
    stored = dict(house.hub.accounts)
    rehearsed = await house.desk.set_terms_of(chosen, Terms(priority=3), dry_run=True)
    ids = tuple(account.id for account in accounts[1:4])
    assert rehearsed == BulkChange(matched=4, changed=3, ids=ids)
    assert house.hub.accounts == stored, "nothing was changed"
    assert await house.desk.set_terms_of(chosen, Terms(priority=3)) == rehearsed
    assert [house.hub.accounts[account.id].priority for account in accounts] == [3, 3, 3, 3, 0, 0]
    assert [house.now(account.id).priority for account in accounts] == [3, 3, 3, 3, 0, 0]
    assert await house.desk.set_terms_of(chosen, Terms(priority=3)) == BulkChange(matched=4, changed=0, ids=())
    paused = await house.desk.set_terms_of(AccountFilter(status=("paused",)), Terms(weight=2))
    assert paused.ids == (accounts[1].id,)
    nobody = AccountFilter(labels=("eu", "nothing"))
    assert await house.desk.set_terms_of(nobody, Terms(weight=2)) == BulkChange(matched=0, changed=0, ids=())
    assert house.resized == 0


async def test_limits_of_many_are_told_once_and_few_ids_are_named() -> None:
    house = House()
    for n in range(1_203):
        house.hub.put(Account(id=f"acct_{n:04}", provider="mock", name=f"a{n}", offer="mock"))
    done = await house.desk.set_terms_of(AccountFilter(), Terms(max_inflight=3))
    assert (done.matched, done.changed, len(done.ids), house.resized) == (1_203, 1_203, SHOWN, 1)
    assert {account.max_inflight for account in house.hub.accounts.values()} == {3}


class Shrinking(MemoryBook):
    """While its pages are read, the first account is deleted: what follows moves up by one."""

    async def page(self, page: int, page_size: int, **filters: object) -> tuple[list[Account], int]:  # type: ignore[override]
        answer = await super().page(page, page_size, **filters)  # type: ignore[arg-type]
        if page == 1 and "acct_0000" in self._hub.accounts:
            self._hub.delete("acct_0000")
        return answer


async def test_an_account_that_goes_while_pages_are_read_hides_no_other() -> None:
    clock = HandClock()
    hub = MemoryHub(clock)
    house = House(clock=clock, hub=hub, book=Shrinking(hub))
    for n in range(1_001):
        hub.put(Account(id=f"acct_{n:04}", provider="mock", name=f"a{n}", offer="mock"))
    done = await house.desk.set_terms_of(AccountFilter(), Terms(weight=5))
    assert done.changed == 1_000 and {account.weight for account in hub.accounts.values()} == {5}


async def test_a_failure_in_the_middle_of_many_may_be_repeated() -> None:
    house = House()
    for n in range(250):
        house.hub.put(Account(id=f"acct_{n:04}", provider="mock", name=f"a{n}", offer="mock"))
    calls = 0
    change = house.store.change

    async def failing(steps: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable
        return await change(steps)  # type: ignore[arg-type]

    house.store.change = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreUnavailable):
        await house.desk.set_terms_of(AccountFilter(), Terms(max_inflight=3))
    assert house.resized == 1, "what was changed counts"
    done = await house.desk.set_terms_of(AccountFilter(), Terms(max_inflight=3))
    assert (done.matched, done.changed) == (250, 150)


async def test_many_upserts_of_one_name_at_once_make_one_account() -> None:
    house = House()
    answers = await asyncio.gather(*(house.desk.upsert("mock", "one", {"price": n}) for n in range(10)))
    assert sum(created for _, created in answers) == 1
    assert {account.id for account, _ in answers} == set(house.hub.accounts)


async def test_new_credentials_end_invalidity_but_not_a_pause() -> None:
    house = House()
    account = await house.add("one")
    await house.desk.pause(account.id)
    house.edit(account.id, lambda a: replace(a, health=Health(state=State.INVALID, cause=Cause.CHALLENGED)))
    renewed, _ = await house.desk.upsert("mock", "one", {})
    assert renewed.health.state is State.ACTIVE and renewed.intent is Intent.PAUSED


@pytest.mark.parametrize(
    ("provider", "credentials", "param"),
    [("nobody", {}, "provider"), ("mock", {"pionts": CANARY}, "pionts"), ("mock", {"points": CANARY}, "points")],
)
async def test_bad_credentials_are_told_by_field_and_never_by_value(
    provider: str, credentials: dict[str, object], param: str
) -> None:
    house = House()
    with pytest.raises(InvalidRequest) as told:
        await house.desk.upsert(provider, "one", credentials)
    assert told.value.param == param and told.value.status == 400
    assert CANARY not in told.value.message
    assert not house.hub.accounts


async def test_nothing_changes_while_the_store_is_away() -> None:
    house = House()
    account = await house.add("one")
    house.hub.away = True
    for verb in (house.desk.pause, house.desk.delete):
        with pytest.raises(StoreUnavailable):
            await verb(account.id)
    assert house.now(account.id).intent is Intent.ENABLED


async def test_the_first_real_account_ends_the_demonstration() -> None:
    house = House()
    demos = [(await house.desk.upsert("mock", f"demo-{n}", {}, demo=True))[0] for n in range(2)]
    assert len(house.hub.accounts) == 2
    real = await house.add("real")
    assert set(house.hub.accounts) == set(house.broker.seats) == {real.id}
    assert sorted(house.forgotten) == sorted(each.id for each in demos)


async def test_catalogue_of_a_new_offer_is_read_once() -> None:
    house = House()
    accounts = [(await house.desk.upsert("mock", f"a{n}", {}))[0] for n in range(5)]
    await house.settle()
    assert house.catalog.has("mock") and "mock" in house.listings.listings
    assert sum(house.calls(account.id, "models") for account in accounts) == 1


async def test_delete_removes_credentials_sessions_and_seat() -> None:
    house = House()
    account = await house.add("one")
    await house.desk.delete(account.id)
    assert not house.hub.accounts and not house.book.sealed and not house.broker.seats
    assert house.forgotten == [account.id]
    with pytest.raises(AccountNotFound):
        await house.desk.delete(account.id)


async def test_pause_and_resume_are_stored_when_they_are_answered() -> None:
    house = House()
    account = await house.add("one")
    assert (await house.desk.pause(account.id)).intent is Intent.PAUSED
    assert house.hub.accounts[account.id].intent is Intent.PAUSED
    assert house.broker.ready_accounts() == 0
    assert (await house.desk.resume(account.id)).intent is Intent.ENABLED
    assert house.broker.ready_accounts() == 1
    with pytest.raises(AccountNotFound):
        await house.desk.pause("acct_nobody")


def challenge(house: House, account_id: str) -> None:
    rev = house.now(account_id).credential_rev
    house.broker.note(
        account_id,
        Settled(outcome=Challenged(), at=house.clock.now(), model="m", evidence="req_1", credential_rev=rev),
    )


async def test_clear_cooldown_ends_a_challenge_even_one_that_is_not_stored_yet() -> None:
    house = House()
    account = await house.add("one")
    challenge(house, account.id)
    house.clock.pass_(seconds=1)
    cleared = await house.desk.clear_cooldown(account.id)
    assert cleared.health.state is State.ACTIVE and cleared.health.cause is Cause.OPERATOR
    await house.broker.journal.flush()
    assert house.hub.accounts[account.id].health.state is State.ACTIVE


async def test_a_challenge_after_the_operators_word_stays() -> None:
    house, other = House(), None
    other = House(hub=house.hub, clock=house.clock, book=house.book, vault=house.vault)
    account = await house.add("one")
    other.broker.accept(await other.store.load())
    challenge(house, account.id)
    await house.broker.journal.flush()
    house.clock.pass_(seconds=1)
    await house.desk.clear_cooldown(account.id)
    house.clock.pass_(seconds=1)
    other.broker.accept(await other.store.load())
    challenge(other, account.id)
    await other.broker.journal.flush()
    await house.broker.journal.flush()  # the word of the operator is written a second time
    assert house.hub.accounts[account.id].health.cause is Cause.CHALLENGED


async def test_pages_are_as_of_now_and_in_order() -> None:
    house = House()
    for n in range(25):
        await house.desk.upsert("mock", f"a{n:02}@example.com", {"points": n})
        house.clock.pass_(seconds=1)
    accounts, total = await house.desk.page(page=2, page_size=20)
    assert total == 25 and [account.name[:3] for account in accounts] == [f"a{n}" for n in range(20, 25)]
    resting = accounts[0]
    until = house.clock.now()
    house.edit(resting.id, lambda a: replace(a, health=Health(state=State.COOLDOWN, cause=Cause.ERRORS, until=until)))
    active, total = await house.desk.page(page=1, page_size=200, status=["active"], text="A20@")
    assert total == 1 and active[0].health.state is State.ACTIVE
    assert (await house.desk.page(page=1, page_size=5, status=["paused"]))[1] == 0


async def test_summary_counts() -> None:
    house = House()
    first = await house.add("one", points=500)
    await house.add("two")
    await house.care.refresh(first.id)
    challenge(house, first.id)
    summary = house.desk.summary()
    assert (summary.total, summary.ready, summary.paused) == (2, 1, 0)
    assert summary.by_state == {"active": 1, "cooldown": 0, "depleted": 0, "invalid": 1}
    assert summary.points == {"mock": 500} and summary.by_cause == {"challenged": 1}


# Tests of accounts.


async def test_a_test_measures_and_says_so() -> None:
    house = House()
    account = await house.add("one", points=70)
    report = await house.desk.test(account.id)
    assert report.ok and report.step == "balance" and report.outcome == "Succeeded"
    assert report.account.balance.points == 70 and not report.account.balance.estimated
    assert report.account.last_used_at is None


async def test_a_failed_test_is_told_in_words_and_is_news_for_the_pool() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "unauthorized", "on": "probe"}])
    report = await house.desk.test(account.id)
    assert not report.ok and report.step == "round trip" and report.outcome == "Unauthorized"
    assert "credentials" in report.message
    assert report.account.health.state is State.INVALID
    again = await house.desk.test(account.id)
    assert again.ok and again.account.health.state is State.ACTIVE


async def test_a_challenged_account_is_contacted_only_by_force_and_stays_set_aside() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "challenged", "on": "probe"}])
    assert not (await house.desk.test(account.id)).ok
    for act in (house.desk.test, house.care.refresh):
        with pytest.raises(SetAside):
            await act(account.id)
    assert house.calls(account.id, "probe") == 1 and house.calls(account.id, "balance") == 0
    report = await house.desk.test(account.id, force=True)
    assert report.ok and report.account.health.cause is Cause.CHALLENGED
    assert "by hand" in report.message


async def test_credentials_of_another_key_are_told_and_set_the_account_aside() -> None:
    house = House()
    account = await house.add("one")
    stranger = House(hub=house.hub, clock=house.clock, book=house.book, vault=Vault((new_key(),)))
    stranger.broker.accept(await stranger.store.load())
    with pytest.raises(Unreadable):
        await stranger.desk.test(account.id)
    assert stranger.now(account.id).health.cause is Cause.VAULT
    assert stranger.calls(account.id, "probe") == 0


async def test_a_fault_of_old_credentials_says_nothing_about_new_ones() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "slow_start", "on": "probe", "seconds": 0.05}])
    running = asyncio.create_task(house.desk.test(account.id))
    await asyncio.sleep(0.01)
    await house.desk.upsert("mock", "one", {"points": 5000})
    await running
    assert house.now(account.id).health.state is State.ACTIVE
    assert house.now(account.id).error_count == 0


async def test_an_account_of_another_process_is_fetched() -> None:
    house = House()
    account = await house.add("one")
    other = House(hub=house.hub, clock=house.clock, book=house.book, vault=house.vault)
    assert (await other.desk.get(account.id)).name == "one"
    assert (await other.desk.find("mock", "ONE")).id == account.id
    with pytest.raises(AccountNotFound):
        await other.desk.get("acct_nobody")


async def test_transient_is_not_a_use() -> None:
    house = House()
    account = await house.add("one", faults=[{"kind": "transient", "on": "balance"}])
    report = await house.desk.test(account.id)
    assert report.outcome == Transient.__name__ and report.step == "balance"
    assert report.account.error_count == 1 and report.account.last_used_at is None


class Slow(MemoryBook):
    """While an answer of ``get`` is on its way, ``house`` deletes the account; once, when ``deletes`` is set."""

    house: House
    deletes = False

    async def get(self, account_id: str) -> Account | None:
        found = await super().get(account_id)
        if found is not None and self.deletes:
            self.deletes = False
            await self.house.desk.delete(account_id)
        return found


async def test_an_account_that_is_deleted_while_it_is_looked_up_does_not_come_back() -> None:
    clock = HandClock()
    hub = MemoryHub(clock)
    book = Slow(hub)
    here = House(clock=clock, hub=hub, book=book)
    account = await here.add("one")
    there = House(clock=clock, hub=hub, book=book, vault=here.vault)  # does not follow the account yet
    book.house, book.deletes = there, True
    with pytest.raises(AccountNotFound):
        await there.visitor.visit(account.id, lambda upstream, ref: upstream.probe(ref), evidence="test")
    assert there.broker.account(account.id) is None and not there.broker.seats
    assert there.calls(account.id, "probe") == 0


async def test_a_look_takes_no_account_into_the_pool() -> None:
    house = House()
    account = await house.add("one")
    other = House(hub=house.hub, clock=house.clock, book=house.book, vault=house.vault)
    assert (await other.desk.get(account.id)).id == account.id
    assert not other.broker.seats
    assert (await other.desk.test(account.id)).ok and other.broker.account(account.id) is not None
