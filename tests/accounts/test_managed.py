"""Accounts of the routing file's backends: made once, renewed when something changed, removed when they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from poe_gateway.errors import GatewayError, InvalidRequest, Unprocessable
from poe_gateway.outbound.allowed import read_allowed
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool.account import Cause, Health, Intent, State
from poe_gateway.routing.table import EMPTY
from tests.accounts.backends import MODEL, BackendsHouse, table
from tests.support.private_addresses import PRIVATE_URLS, UNREADABLE_URLS
from tests.upstreams.provider import Provider

KEY = "sk-canary-of-a-backend-1"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def house(session: aiohttp.ClientSession) -> BackendsHouse:
    house = BackendsHouse(session)
    house.variables["LLM_KEY"] = KEY
    return house


def llm(provider: Provider, **more: Any) -> dict[str, Any]:
    return {"provider": "openai_api", "base_url": provider.url, "api_key_env": "LLM_KEY", **more}


async def test_a_backend_gets_an_account_that_names_its_key(house: BackendsHouse, provider: Provider) -> None:
    wanted = table(Llm=llm(provider, max_inflight=3))
    assert await house.managed.sync(wanted) == ()
    account = house.accounts()["backend:llm"]
    assert account.labels == ("backend:llm",) and account.max_inflight == 3 and account.provider == "openai_api"
    assert wanted.backends["Llm"].choosing == account.labels
    assert house.broker.account(account.id) is not None and house.catalog.knows(MODEL)
    assert provider.seen[-1][1]["Authorization"] == f"Bearer {KEY}"
    (sealed,) = house.book.sealed.values()
    assert house.vault.open(sealed) == {"base_url": provider.url, "api_key_env": "LLM_KEY"}
    assert KEY not in str(account) and KEY not in str(house.noted)


async def test_nothing_happens_as_long_as_nothing_changes(house: BackendsHouse, provider: Provider) -> None:
    wanted = table(llm=llm(provider))
    await house.managed.sync(wanted)
    account, asked, noted = house.accounts()["backend:llm"], len(provider.seen), len(house.noted)
    assert await house.managed.sync(wanted) == () and await house.managed.retire(wanted) == 0
    assert house.accounts() == {"backend:llm": account}
    assert (len(provider.seen), len(house.noted)) == (asked, noted)


@pytest.mark.parametrize("what", ["key", "limit", "title"])
async def test_a_change_renews_the_account_and_keeps_the_operators_word(
    house: BackendsHouse, provider: Provider, what: str
) -> None:
    await house.managed.sync(table(llm=llm(provider)))
    before = house.accounts()["backend:llm"]
    await house.desk.pause(before.id)
    house.edit(before.id, lambda each: replace(each, health=Health(state=State.INVALID, cause=Cause.UNAUTHORIZED)))
    if what == "key":
        house.variables["LLM_KEY"] = "sk-another-key"
    changed = {"limit": {"max_inflight": 7}, "title": {"title": "ours"}}.get(what, {})
    await house.managed.sync(table(llm=llm(provider, **changed)))
    after = house.accounts()["backend:llm"]
    assert after.id == before.id and after.credential_rev == before.credential_rev + 1
    assert after.health.state is State.ACTIVE and after.intent is Intent.PAUSED
    ref = await house.keychain.ref(after)
    assert ref.credentials["api_key"] == house.variables["LLM_KEY"]


async def test_a_missing_key_makes_no_account_until_it_is_there(house: BackendsHouse, provider: Provider) -> None:
    wanted = table(llm=llm(provider))
    del house.variables["LLM_KEY"]
    assert await house.managed.sync(wanted) == () and house.accounts() == {}
    assert house.managed.problems(wanted) == ()
    house.variables["LLM_KEY"] = KEY
    await house.managed.sync(wanted)
    assert "backend:llm" in house.accounts()
    del house.variables["LLM_KEY"]
    await house.managed.sync(wanted)
    assert await house.managed.retire(wanted) == 0, "its backend is still there"


async def test_an_account_whose_key_could_not_be_read_is_renewed_when_it_can(
    house: BackendsHouse, provider: Provider
) -> None:
    wanted = table(llm=llm(provider))
    await house.managed.sync(wanted)
    account = house.accounts()["backend:llm"]
    house.edit(account.id, lambda each: replace(each, health=Health(state=State.INVALID, cause=Cause.VAULT)))
    await house.managed.sync(wanted)
    assert house.accounts()["backend:llm"].health.state is State.ACTIVE


async def test_accounts_whose_backends_are_gone_go_and_no_others(house: BackendsHouse, provider: Provider) -> None:
    mine = await house.add("mine")
    await house.managed.sync(table(a=llm(provider), b=llm(provider)))
    assert sorted(house.accounts()) == ["backend:a", "backend:b", "mine"]
    assert await house.managed.retire(table(b=llm(provider))) == 1
    assert sorted(house.accounts()) == ["backend:b", "mine"]
    assert await house.managed.retire(EMPTY) == 1
    assert list(house.accounts()) == ["mine"] and house.now(mine.id).intent is Intent.ENABLED
    assert [change.action for change in house.noted].count("account.delete") == 2


async def test_processes_that_start_together_make_it_once(
    house: BackendsHouse, session: aiohttp.ClientSession, provider: Provider
) -> None:
    house.hub.latency = 0.01
    others = [BackendsHouse(session, house) for _ in range(3)]
    for other in others:
        other.variables["LLM_KEY"] = KEY
    wanted = table(llm=llm(provider), second=llm(provider))
    ticking = asyncio.create_task(_ticking(house))
    await asyncio.gather(*(each.managed.sync(wanted) for each in [house, *others]))
    ticking.cancel()
    assert sorted(house.accounts()) == ["backend:llm", "backend:second"]
    assert sum(len(each.noted) for each in [house, *others]) == 2
    for each in [house, *others]:
        assert {seat.account.credential_rev for seat in each.broker.seats.values()} == {
            account.credential_rev for account in house.accounts().values()
        }
        assert len(each.broker.seats) == 2 and each.catalog.knows(MODEL)


async def _ticking(house: BackendsHouse) -> None:
    while True:
        await asyncio.sleep(0.01)
        house.clock.pass_(seconds=0.01)


async def test_an_account_made_by_hand_is_not_taken_over(house: BackendsHouse, provider: Provider) -> None:
    stranger = await house.add("other")
    house.edit(stranger.id, lambda each: replace(each, name="backend:llm", provider="openai_api"))
    told = await house.managed.sync(table(llm=llm(provider)))
    assert len(told) == 1 and "made by hand" in told[0]
    assert house.accounts()["backend:llm"].id == stranger.id


async def test_a_provider_that_is_away_is_told_and_does_not_stand_in_the_way(
    house: BackendsHouse, provider: Provider
) -> None:
    await provider.stop()
    told = await house.managed.sync(table(llm=llm(provider)))
    assert len(told) == 1 and "list of models cannot be read" in told[0]
    assert "backend:llm" in house.accounts()


async def test_mistakes_that_only_the_adapter_sees(house: BackendsHouse, provider: Provider) -> None:
    house.variables["LLM_KEY"] = "two words"
    (told,) = house.managed.problems(table(llm=llm(provider)))
    assert told.startswith("backends.llm.api_key:") and "two words" not in told
    anthropic = {"provider": "anthropic", "api_key_env": "LLM_KEY"}
    (told,) = house.managed.problems(table(claude=anthropic))
    assert told == "backends.claude: this gateway has no adapter for provider 'anthropic'"


@pytest.mark.parametrize(
    ("name", "credentials", "param"),
    [
        ("backend:x", {"api_key": "sk-1", "base_url": "https://a.example"}, "name"),
        ("Backend:X", {"api_key": "sk-1", "base_url": "https://a.example"}, "name"),
        ("x", {"api_key_env": "HOME", "base_url": "https://a.example"}, "api_key_env"),
        ("x", {"api_key_file": "/etc/passwd", "base_url": "https://a.example"}, "api_key_file"),
    ],
)
async def test_what_is_only_for_the_routing_file_is_refused_at_run_time(
    house: BackendsHouse, name: str, credentials: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.desk.upsert("openai_api", name, credentials)
    assert refused.value.param == param and house.accounts() == {}


@pytest.mark.parametrize("url", PRIVATE_URLS + UNREADABLE_URLS[1:], ids=ascii)
async def test_no_spelling_of_a_private_address_is_taken_at_run_time(session: aiohttp.ClientSession, url: str) -> None:
    house = BackendsHouse(session, guard=Guard())
    with pytest.raises(GatewayError) as refused:
        await house.desk.upsert("openai_api", "x", {"api_key": "sk-1", "base_url": url})
    assert refused.value.status in (400, 422) and refused.value.param == "base_url"
    assert house.accounts() == {}


async def test_what_is_allowed_is_taken_at_run_time(session: aiohttp.ClientSession, provider: Provider) -> None:
    guard = Guard()
    house = BackendsHouse(session, guard=guard)
    credentials = {"api_key": "sk-1", "base_url": provider.url}
    with pytest.raises(Unprocessable, match="OUTBOUND_ALLOW"):
        await house.desk.upsert("openai_api", "x", credentials)
    guard.allow(read_allowed(["127.0.0.1"]))
    await house.desk.upsert("openai_api", "x", credentials)
    house.variables["LLM_KEY"] = KEY
    guard.allow(read_allowed([]))
    await house.managed.sync(table(llm=llm(provider)))
    assert sorted(house.accounts()) == ["backend:llm", "x"], "the operator's own file may lead anywhere"
