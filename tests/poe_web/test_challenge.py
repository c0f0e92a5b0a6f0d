"""After a bot challenge not one more request goes out for the account, and the pool hears of it once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from poe_gateway.chat.events import TextDelta
from poe_gateway.pool.outcome import Challenged, NetworkFault
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web import PoeWeb
from tests.poe_web.kit import adapter, ask, ref, request, tuned

KINDS = ["challenge", "challenge:title", "challenge:503"]


async def _everything_refuses(poe: PoeWeb, account: Any) -> None:
    """All verbs of the adapter fail without a request, and without accusing the account again."""
    before = account.stats.requests
    for verb in (poe.read_balance, poe.list_models, poe.prewarm, poe.probe):
        with pytest.raises(UpstreamFailure) as caught:
            await verb(ref(account))
        assert isinstance(caught.value.outcome, NetworkFault)
    again = await ask(poe, ref(account), "again")
    assert isinstance(again.outcome, NetworkFault) and again.failure is not None
    assert again.failure.fate is Fate.NOT_SENT
    await asyncio.sleep(0.3)
    assert account.stats.requests == before
    assert account.stats.after_challenge == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["page", "SubscriptionsMutation", "SendMessageMutation"])
async def test_a_challenge_ends_all_requests(poe: PoeWeb, emulator: Any, where: str, kind: str) -> None:
    account = emulator.accounts[0]
    account.fail(kind, where=where)
    said = await ask(poe, ref(account), "hello")
    assert isinstance(said.outcome, Challenged)
    await _everything_refuses(poe, account)
    await poe.close()
    assert account.stats.after_challenge == []


async def test_a_challenge_at_the_push_channel(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("challenge", where="socket")
    assert isinstance((await ask(poe, ref(account), "hello")).outcome, Challenged)
    await _everything_refuses(poe, account)


async def test_messages_in_flight_end_at_once(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator) as poe:
        running = asyncio.create_task(ask(poe, ref(account), "long [[chunks:500]] [[delay:0.02]]"))
        while not account.running:
            await asyncio.sleep(0.01)
        account.fail("challenge", where="SettingsPageQuery")
        with pytest.raises(UpstreamFailure) as met:
            await poe.read_balance(ref(account))
        assert isinstance(met.value.outcome, Challenged)
        said = await asyncio.wait_for(running, 60)
        assert isinstance(said.outcome, NetworkFault)
        await _everything_refuses(poe, account)
    assert account.stats.after_challenge == []
    assert not any(channel.sockets for channel in account.channels.values())


async def test_no_cancelling_and_no_deleting_after_a_challenge(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator) as poe:
        answer = poe.chat(ref(account), "GPT-4o-Mini", request("long [[chunks:500]] [[delay:0.02]]"), None)
        async for event in answer:
            if isinstance(event, TextDelta):
                break
        account.fail("challenge", where="SettingsPageQuery")
        with pytest.raises(UpstreamFailure):
            await poe.read_balance(ref(account))
        await answer.aclose()
    assert account.stats.after_challenge == []


async def test_a_challenge_while_cancelling_stops_there(emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("challenge", where="cancelViewerActiveJobs_cancelViewerActiveJobs_Mutation")
    async with adapter(emulator) as poe:
        answer = poe.chat(ref(account), "GPT-4o-Mini", request("long [[chunks:500]] [[delay:0.02]]"), None)
        async for event in answer:
            if isinstance(event, TextDelta):
                break
        await answer.aclose()
    assert account.stats.after_challenge == []


async def test_a_challenge_that_nobody_asked_for_is_told_by_the_next_request(emulator: Any) -> None:
    """The socket is reopened behind a message's back: what met the challenge is no request of the pool's."""
    account = emulator.accounts[0]
    async with adapter(emulator) as poe:
        task = asyncio.create_task(ask(poe, ref(account), "long [[chunks:500]] [[delay:0.02]]"))
        while not account.running:
            await asyncio.sleep(0.01)
        account.fail("challenge", where="socket")
        account.drop_sockets()
        assert isinstance((await asyncio.wait_for(task, 60)).outcome, NetworkFault)
        assert isinstance((await ask(poe, ref(account), "hello")).outcome, Challenged)
        await _everything_refuses(poe, account)
    assert account.stats.after_challenge == []


async def test_the_message_that_met_it_tells_and_not_its_neighbours(emulator: Any) -> None:
    """What a filter took offence at is that one message: the others prove nothing against the account."""
    account = emulator.accounts[0]
    async with adapter(emulator) as poe:
        running = asyncio.create_task(ask(poe, ref(account), "long [[chunks:500]] [[delay:0.02]]"))
        while not account.running:
            await asyncio.sleep(0.01)
        assert isinstance((await ask(poe, ref(account), "[[fault:filtered]]")).outcome, Challenged)
        neighbour = await asyncio.wait_for(running, 60)
        assert isinstance(neighbour.outcome, NetworkFault) and neighbour.failure is not None
        assert neighbour.failure.fate is Fate.ACCEPTED


async def test_an_account_that_the_pool_chooses_after_a_while_speaks_to_the_site_again(emulator: Any) -> None:
    """A visit is no choice: it does not go out before a message did, or before its own, longer time."""
    account = emulator.accounts[0]
    async with adapter(emulator, options=tuned(challenge_settle=0.0)) as poe:
        assert isinstance((await ask(poe, ref(account), "[[fault:filtered]]")).outcome, Challenged)
        before = account.stats.requests
        with pytest.raises(UpstreamFailure) as caught:
            await poe.read_balance(ref(account))
        assert isinstance(caught.value.outcome, NetworkFault) and account.stats.requests == before
        assert (await ask(poe, ref(account), "hello")).finished
        assert (await poe.read_balance(ref(account))).points is not None
    async with adapter(emulator, options=tuned(challenge_rest=0.0)) as poe:
        assert isinstance((await ask(poe, ref(account), "[[fault:filtered]]")).outcome, Challenged)
        assert (await poe.read_balance(ref(account))).points is not None


@pytest.mark.parametrize("way", ["forget", "new credentials"])
async def test_the_operator_brings_it_back_at_once(poe: PoeWeb, emulator: Any, way: str) -> None:
    account = emulator.accounts[0]
    account.fail("challenge", where="page")
    assert isinstance((await ask(poe, ref(account), "hello")).outcome, Challenged)
    account.clear_challenge()
    assert isinstance((await ask(poe, ref(account), "hello")).outcome, NetworkFault)
    if way == "forget":
        await poe.forget(account.email)
    said = await ask(poe, ref(account, rev=int(way != "forget")), "hello")
    assert said.finished


async def test_other_accounts_go_on(poe: PoeWeb, emulator: Any) -> None:
    first, second = emulator.accounts[0], emulator.add_account("second@example.test")
    first.fail("challenge", where="page")
    one, two = await asyncio.gather(ask(poe, ref(first), "hello"), ask(poe, ref(second), "hello"))
    assert isinstance(one.outcome, Challenged) and two.finished


async def test_the_accounts_own_user_agent_is_on_every_request(emulator: Any) -> None:
    """The emulated site challenges any request whose user agent is not the one of its cf_clearance."""
    account = emulator.add_account("own@example.test", cf_clearance="clear", user_agent="Mozilla/5.0 (Own) Agent/9")
    async with adapter(emulator) as poe:
        assert (await ask(poe, ref(account), "hello [[drop:1]] [[chunks:9]] [[delay:0.02]]")).finished
        await poe.read_balance(ref(account))
        await poe.list_models(ref(account))
    assert emulator.stats.challenges_served == 0


async def test_a_clearance_without_its_user_agent_meets_a_challenge(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.add_account("own@example.test", cf_clearance="clear", user_agent="Mozilla/5.0 (Own) Agent/9")
    said = await ask(poe, ref(account, drop=("user_agent",)), "hello")
    assert isinstance(said.outcome, Challenged)
    assert "warning" in poe.describe(ref(account, drop=("user_agent",)).credentials).details


async def test_requests_made_at_the_same_time_wait_for_the_first_answer(poe: PoeWeb, emulator: Any) -> None:
    """The first answer may be the challenge that forbids the others: messages, a deletion, a balance."""
    account = emulator.add_account("busy@example.test", concurrency=8)
    assert (await ask(poe, ref(account), "one")).finished
    account.challenge()
    answers = await asyncio.gather(
        *(ask(poe, ref(account), f"two {n}") for n in range(6)), poe.read_balance(ref(account)), return_exceptions=True
    )
    # When the deletion met it, the next request tells.
    answers.append(await ask(poe, ref(account), "three"))
    told = Counter(type(getattr(each, "outcome", None)) for each in answers)
    assert told == {Challenged: 1, NetworkFault: 7}
    assert account.stats.after_challenge == []


async def test_a_request_that_hangs_does_not_hold_up_the_account(emulator: Any) -> None:
    account = emulator.add_account("slow@example.test", concurrency=8)
    async with adapter(emulator, options=tuned(turn_wait=0.1)) as poe:
        await poe.prewarm(ref(account))
        slow = asyncio.create_task(ask(poe, ref(account), "slow [[hold:4]]"))
        await asyncio.sleep(0.05)
        assert (await ask(poe, ref(account), "quick")).finished
        assert not slow.done()
        assert (await slow).finished
