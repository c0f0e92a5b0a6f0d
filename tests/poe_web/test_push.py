"""Sockets that drop, lie silent, or tell that their channel is over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from poe_gateway.pool.outcome import Transient
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.poe_web import PoeWeb
from tests.poe_web.kit import adapter, ask, ref, tuned


@pytest.mark.parametrize(
    "marker", ["[[drop:2]]", "[[refetch:2]]", "[[silent:2]]", "[[lost]]", "[[drop:1]] [[batch:3]]"]
)
async def test_the_answer_arrives_whole(poe: PoeWeb, emulator: Any, marker: str) -> None:
    text = f"hello {marker} [[chunks:10]] [[delay:0.02]]"
    said = await ask(poe, ref(emulator.accounts[0]), text)
    assert said.finished and said.text == f"echo: {text}"
    assert emulator.accounts[0].stats.sends_accepted == 1


async def test_a_drop_is_resumed_on_the_same_channel(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, options=tuned(silence=5.0)) as poe:
        said = await ask(poe, ref(account), "hello [[drop:2]] [[chunks:10]] [[delay:0.02]]")
    assert said.finished
    assert account.stats.sockets_opened == 2 and account.stats.channels_issued == 1
    assert "ChatPageQuery" not in account.stats.gql


async def test_missed_messages_lead_to_a_new_channel_and_a_reread(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    emulator.options.replay_kept = 2
    task = asyncio.create_task(ask(poe, ref(account), "hello [[chunks:40]] [[delay:0.02]]"))
    while not account.running:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    for channel in account.channels.values():
        channel.keep = 0
        channel.forget()
    account.drop_sockets()
    said = await task
    assert said.finished and said.text.startswith("echo: hello")
    assert account.stats.channels_issued >= 2 and account.stats.gql["SubscriptionsMutation"] >= 2
    assert account.stats.gql["ChatPageQuery"] >= 1


async def test_a_new_channel_is_subscribed_before_it_is_read(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await ask(poe, ref(account), "hello [[refetch:2]] [[chunks:10]] [[delay:0.02]]")
    assert account.stats.channels_issued == 2
    assert account.stats.gql["SubscriptionsMutation"] == 2
    assert account.stats.settings_reads == 1, "a new channel costs no new page"


async def test_an_idle_drop_costs_nothing_until_the_next_message(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await ask(poe, ref(account), "one")
    account.drop_sockets()
    await asyncio.sleep(0.2)
    assert account.stats.sockets_opened == 1
    assert (await ask(poe, ref(account), "two")).finished
    assert account.stats.sockets_opened == 2


async def test_a_socket_that_is_not_needed_is_closed(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, options=tuned(socket_idle=0.2)) as poe:
        await ask(poe, ref(account), "one")
        async with asyncio.timeout(60):
            while any(channel.sockets for channel in account.channels.values()):
                await asyncio.sleep(0.02)
        assert (await ask(poe, ref(account), "two")).finished


async def test_text_heartbeats_do_no_harm(emulator: Any) -> None:
    async with adapter(emulator, options=tuned(socket_text_ping=0.02, socket_ping=0.1)) as poe:
        said = await ask(poe, ref(emulator.accounts[0]), "hello [[chunks:10]] [[delay:0.03]]")
    assert said.finished and emulator.accounts[0].stats.sockets_opened == 1


async def test_a_refused_socket_is_tried_with_a_new_channel(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("http:403", where="socket")
    assert (await ask(poe, ref(account), "hello")).finished
    assert account.stats.channels_issued == 2


async def test_a_socket_that_cannot_open_means_that_nothing_was_sent(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("http:502", where="socket", times=None)
    said = await ask(poe, ref(account), "hello")
    assert isinstance(said.outcome, Transient) and said.fate is Fate.NOT_SENT
    assert account.stats.sends_accepted == 0


async def test_without_any_socket_the_answer_is_read_from_the_chat(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await poe.prewarm(ref(account))
    account.fail("http:502", where="socket", times=None)
    said = await ask(poe, ref(account), "hello [[drop:1]] [[chunks:5]] [[delay:0.02]]")
    assert said.finished and said.text.startswith("echo: hello")


@pytest.mark.parametrize("marker", ["[[truncate]]", "[[truncate]] [[no-job]]"])
async def test_an_answer_that_stops_is_given_up(poe: PoeWeb, emulator: Any, marker: str) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), f"hello hello hello {marker}")
    assert isinstance(said.outcome, Transient) and said.fate is Fate.ACCEPTED
    assert said.text and not said.finished


async def test_an_empty_answer_is_a_failure(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), "hello [[empty]]")
    assert said.outcome == Transient("empty answer") and said.fate is Fate.ACCEPTED


async def test_a_channel_that_stays_the_same_is_read_anew_without_haste(
    poe: PoeWeb, emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site may hand out the same channel again although its events cannot be replayed."""
    account = emulator.accounts[0]
    await poe.prewarm(ref(account))
    channel = next(iter(account.channels.values()))
    monkeypatch.setattr(type(emulator.site), "issue_channel", lambda site, account: channel)
    task = asyncio.create_task(ask(poe, ref(account), "hello [[chunks:40]] [[delay:0.02]]"))
    await asyncio.sleep(0.2)
    channel.keep = 0
    channel.forget()
    account.drop_sockets()
    said = await task
    assert said.finished and said.text.startswith("echo: hello")
    assert account.stats.settings_reads < 20
