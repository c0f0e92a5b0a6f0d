"""Form keys and revisions against the emulated site."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from poe_gateway.pool.outcome import AdapterDrift, Unauthorized
from poe_gateway.upstreams.poe_web import PoeWeb
from poe_gateway.upstreams.poe_web.outcomes import Answer
from poe_gateway.upstreams.poe_web.site import Site
from tests.poe_emulator import PoeEmulator
from tests.poe_web.kit import adapter, ask, ref


@pytest.mark.parametrize("scope", ["account", "shared"])
@pytest.mark.parametrize("form", ["plain", "seeded"])
async def test_the_key_is_derived_from_either_form(form: str, scope: str) -> None:
    async with PoeEmulator(accounts=2, formkey_form=form, formkey_scope=scope) as emulator, adapter(emulator) as poe:
        for account in emulator.accounts:
            assert (await ask(poe, ref(account), "hello")).finished
        assert emulator.stats.reasons() == []


async def test_a_page_of_megabytes_does_not_hold_up_the_loop() -> None:
    async with PoeEmulator(accounts=1, page_bytes=8_000_000) as emulator, adapter(emulator) as poe:
        task = asyncio.create_task(ask(poe, ref(emulator.accounts[0]), "hello"))
        worst = 0.0
        while not task.done():
            before = time.thread_time()  # the work of this thread: what else the machine does is none of it
            await asyncio.sleep(0.005)
            worst = max(worst, time.thread_time() - before)
        assert (await task).finished
    assert worst < 0.6, "parsing that page in place takes longer"


async def test_a_rotated_key_is_derived_again_once(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    assert (await ask(poe, ref(account), "one")).finished
    emulator.rotate_formkey(account)
    answers = await asyncio.gather(*(ask(poe, ref(account), f"two {n}") for n in range(2)))
    assert all(said.finished for said in answers)
    assert account.stats.pages == 2
    assert account.stats.duplicate_texts == 0


async def test_a_key_from_the_operator_saves_the_page(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, default_revision=emulator.options.revision) as poe:
        assert (await ask(poe, ref(account, formkey=account.formkey), "hello")).finished
    assert account.stats.pages == 0 and account.stats.settings_reads == 1


async def test_a_stale_key_from_the_operator_is_replaced(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, default_revision=emulator.options.revision) as poe:
        assert (await ask(poe, ref(account, formkey="x" * 32), "hello")).finished
    assert account.stats.pages == 1


async def test_a_key_is_derived_from_a_page_read_after_its_refusal(poe: PoeWeb, emulator: Any) -> None:
    """Not from one that another question was put to shortly before."""
    account = emulator.accounts[0]
    assert (await ask(poe, ref(account), "one [[server-error]]")).failure is not None
    emulator.rotate_formkey(account)
    assert (await ask(poe, ref(account), "two")).finished


async def test_a_site_that_refuses_fresh_keys_refuses_the_account(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator) as poe:
        account.fail("http:400", where="SubscriptionsMutation", times=None)
        said = await ask(poe, ref(account), "hello")
    assert isinstance(said.outcome, Unauthorized)
    assert account.stats.pages == 2, "the page is refreshed once"


async def test_many_callers_derive_one_key(emulator: Any) -> None:
    account = emulator.add_account("many@example.test", concurrency=20)
    async with adapter(emulator) as poe:
        await asyncio.gather(*(ask(poe, ref(account), f"n{n}") for n in range(8)))
    assert account.stats.pages == 1


# ---------------------------------------------------------------- revision


@pytest.mark.parametrize("place", ["link", "old-link", "html"])
async def test_the_revision_is_found_wherever_the_page_shows_it(place: str) -> None:
    async with PoeEmulator(accounts=1, revision_in=place) as emulator, adapter(emulator) as poe:
        assert (await ask(poe, ref(emulator.accounts[0]), "hello")).finished


async def test_the_accounts_own_revision_goes_first(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, default_revision="0" * 40, auto_fetch_revision=False) as poe:
        assert (await ask(poe, ref(account, poe_revision=emulator.options.revision), "hello")).finished
        said = await ask(poe, ref(emulator.add_account("other@example.test")), "hello")
    assert isinstance(said.outcome, Unauthorized)


async def test_an_outdated_default_gives_way_to_the_page(emulator: Any) -> None:
    async with adapter(emulator, default_revision="0" * 40) as poe:
        assert (await ask(poe, ref(emulator.accounts[0]), "hello")).finished


@pytest.mark.parametrize("status", [400, 401, 403, None])
async def test_however_an_outdated_default_is_refused(
    emulator: Any, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """What the site does with an old revision is not known; ``None`` = "Server Error". One refusal serves all."""
    real, refused = Site._post, []

    async def post(site: Site, operation: str, variables: Any, keys: Any, *, once: bool) -> Answer:
        if keys.revision == "0" * 40:
            refused.append(operation)
            return Answer(status or 200, {}, b"" if status else b'{"data":null,"errors":[{"message":"Server Error"}]}')
        return await real(site, operation, variables, keys, once=once)

    monkeypatch.setattr(Site, "_post", post)
    accounts = [emulator.accounts[0], *(emulator.add_account(f"own{n}@example.test") for n in range(3))]
    async with adapter(emulator, default_revision="0" * 40) as poe:
        for account in accounts:
            # A form key from the operator: only the revision is wrong.
            assert (await ask(poe, ref(account, formkey=account.formkey), "hello")).finished
    assert refused == ["subscribe"], "the others are not even refused"
    assert emulator.stats.reasons() == []


async def test_a_401_of_a_live_session_without_news_is_final(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    assert (await ask(poe, ref(account), "one")).finished
    account.fail("http:401", where="SendMessageMutation", times=None)
    said = await ask(poe, ref(account), "two")
    assert isinstance(said.outcome, Unauthorized)
    assert account.stats.pages == 2, "the page was asked, and had nothing new to say"


async def test_a_new_build_is_noticed(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    assert (await ask(poe, ref(account), "one")).finished
    emulator.rotate_revision()
    assert (await ask(poe, ref(account), "two")).finished


async def test_the_revision_is_fetched_once_for_all(emulator: Any) -> None:
    accounts = [emulator.add_account(f"own{n}@example.test") for n in range(5)]
    async with adapter(emulator) as poe:
        answers = await asyncio.gather(*(ask(poe, ref(a, formkey=a.formkey), "hello") for a in accounts))
    assert all(said.finished for said in answers)
    assert sum(account.stats.pages for account in accounts) == 1


async def test_without_any_revision_nothing_is_sent(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, auto_fetch_revision=False) as poe:
        said = await ask(poe, ref(account, formkey=account.formkey), "hello")
    assert isinstance(said.outcome, AdapterDrift) and "revision" in said.outcome.detail
