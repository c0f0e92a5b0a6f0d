"""The operations beside sending: lists, pages, older verbs of the legacy generation, bookkeeping."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tests.poe_emulator import PoeEmulator
from tests.poe_emulator.connections import Connection
from tests.poe_emulator.probe import Probe, nonce


@pytest.fixture
async def emu() -> AsyncIterator[PoeEmulator]:
    async with PoeEmulator(accounts=1, profile="both") as emulator:
        yield emulator


@pytest.fixture
async def probe(emu: PoeEmulator) -> AsyncIterator[Probe]:
    async with Probe(emu, emu.accounts[0]) as client:
        yield client


async def test_chats_are_listed_newest_first_and_by_bot(probe: Probe) -> None:
    async with probe.online() as listener:
        ids = []
        for bot in ("gpt4_o_mini", "GPT-5", "gpt4_o_mini"):
            ids.append((await probe.send(f"for {bot}", bot=bot))["chat"]["chatId"])
            await listener.answer(ids[-1])
        _, answer = await probe.gql("ChatHistoryListPaginationQuery", {"count": 2, "cursor": None})
        chats = answer["data"]["chats"]
        assert [edge["node"]["chatId"] for edge in chats["edges"]] == [ids[2], ids[1]]
        assert chats["pageInfo"]["hasNextPage"]
        assert chats["edges"][0]["node"]["title"] == "for gpt4_o_mini"
        variables = {"count": 9, "cursor": None, "handle": "GPT-4o-Mini"}
        _, answer = await probe.gql("ChatHistoryFilteredListPaginationQuery", variables)
        found = [edge["node"]["chatId"] for edge in answer["data"]["filteredChats"]["edges"]]
        assert found == [ids[2], ids[0]]
        await probe.gql("DeleteUserMessagesMutation", {})
    assert probe.account.stats.chats_deleted == 3


async def test_a_break_starts_the_conversation_anew(probe: Probe) -> None:
    async with probe.online() as listener:
        chat_id = (await probe.send("before"))["chat"]["chatId"]
        await listener.answer(chat_id)
        variables = {"chatId": chat_id, "clientNonce": nonce()}
        assert (await probe.gql("SendChatBreakMutation", variables))[1]["data"]
        assert (await probe.gql("SendChatBreakMutation", variables))[1]["data"] is None
        await probe.send("[[recall]]", chat_id)
        assert (await listener.answer(chat_id))[-1]["text"] == "recall: [[recall]]"


async def test_an_answer_is_made_again_or_stopped_by_its_id(emu: PoeEmulator) -> None:
    async with Probe(emu, emu.accounts[0], "legacy") as probe, probe.online() as listener:
        chat_id = (await probe.send("once more"))["chat"]["chatId"]
        message_id = (await listener.answer(chat_id))[-1]["messageId"]
        _, answer = await probe.gql("RegenerateMessageMutation", {"messageId": message_id})
        assert answer["data"]
        second = (await listener.answer(chat_id))[-1]
        assert (second["text"], second["messageId"] != message_id) == ("echo: once more", True)
        await probe.send("long [[chunks:300]] [[delay:0.02]]", chat_id)
        while (event := await listener.event())["payload"]["subscription_name"] != "messageAdded":
            pass
        assert event["payload"]["data"]["messageAdded"]["author"] == "human"
        running = next(iter(emu.accounts[0].running))
        stop = {"messageId": running, "textLength": 0}
        assert (await probe.gql("StopMessage_messageCancel_Mutation", stop))[1]["data"]
        assert (await listener.answer(chat_id))[-1]["state"] == "cancelled"
    assert emu.stats.reasons() == []


async def test_what_can_be_explored(probe: Probe) -> None:
    await probe.fetch_channel()
    _, answer = await probe.gql("ExploreBotsIndexPageQuery", {"categoryName": "defaultCategory"})
    names = [entry["categoryName"] for entry in answer["data"]["exploreBotsCategoryObjects"]]
    assert "Community" in names
    variables = {"categoryName": "Community", "count": 5, "cursor": None}
    _, answer = await probe.gql("ExploreBotsListPaginationQuery", variables)
    assert len(answer["data"]["exploreBotsConnection"]["edges"]) == 5
    query = {"query": "claude", "entityType": "bot", "count": 50, "cursor": None}
    _, answer = await probe.gql("SearchResultsListPaginationQuery", query)
    handles = [edge["node"]["handle"] for edge in answer["data"]["searchEntityConnection"]["edges"]]
    assert handles
    assert all("Claude" in handle for handle in handles)


async def test_the_first_letter_of_a_name_may_be_either(probe: Probe) -> None:
    await probe.fetch_channel()
    document = {
        "queryName": "SettingsPageQuery",
        "variables": {},
        "extensions": {"hash": "7ad44151c552ceef568fb790cf1e3c12c72540c0139a853c1b751fb8c89a4a22"},
    }
    changes: dict[str, str | None] = {"poe-queryname": "SettingsPageQuery"}
    status, answer = await probe.gql("SettingsPageQuery", {}, document=document, changes=changes)
    assert (status, answer["data"]["viewer"]["uid"]) == (200, probe.account.uid)
    assert probe.emu.stats.odd_names == {}


@pytest.mark.parametrize("spelling", ["old", "new"])
async def test_points_in_one_spelling(emu: PoeEmulator, spelling: str) -> None:
    account = emu.add_account(balance=100, addon=11, points_spelling=spelling, plan="Premium")
    async with Probe(emu, account) as probe, probe.online() as listener:
        chat_id = (await probe.send("dear [[cost:105]]"))["chat"]["chatId"]
        await listener.answer(chat_id)
        await emu.idle()
        _, answer = await probe.gql("SettingsPageQuery", {})
        points = answer["data"]["viewer"]["messagePointInfo"]
        left = points.get("messagePointBalance", 0) + points.get("addonPointBalance", 0)
        assert left == 6
        assert ("messagePointBalance" in points) is (spelling == "old")
        _, answer = await probe.gql("PointsHistoryPageColumnViewerPaginationQuery", {"limit": 20, "cursor": None})
        history = answer["data"]["viewer"]["pointsHistoryConnection"]["edges"]
        assert [edge["node"]["pointCost"] for edge in history] == [105]


async def test_the_busiest_moment_and_repeated_texts_are_counted(emu: PoeEmulator) -> None:
    other = emu.add_account()
    async with (
        Probe(emu, emu.accounts[0]) as first,
        Probe(emu, other) as second,
        first.online(),
        second.online(),
    ):
        for probe in (first, first, second):
            await probe.send("same [[first:0.2]]")
        assert emu.stats.max_concurrent == 3
        assert [account.stats.max_concurrent for account in emu.accounts] == [2, 1]
        assert emu.stats.duplicate_texts == 2
        assert [account.stats.duplicate_texts for account in emu.accounts] == [1, 0]
        await emu.idle()
    assert emu.site.running == 0


async def test_an_answer_goes_on_without_its_caller_but_is_not_attended(emu: PoeEmulator) -> None:
    account = emu.accounts[0]
    async with Probe(emu, account) as living, living.online():
        async with Probe(emu, account) as gone, gone.online():
            await gone.send("[[first:9]]")
        await living.send("[[first:9]]")
        for stats in (emu.stats, account.stats):
            assert (stats.max_concurrent, stats.max_attended) == (2, 1)
        await living.send("[[first:9]]")
        for stats in (emu.stats, account.stats):
            assert (stats.max_concurrent, stats.max_attended) == (3, 2)
    assert len(account.running) == 3


async def test_an_answer_is_attended_while_its_caller_has_one_connection_left(emu: PoeEmulator) -> None:
    account = emu.accounts[0]
    async with Probe(emu, account) as first, Probe(emu, account) as second, second.online():
        async with first.online() as listener:
            await first.send("[[first:9]]")
            account.drop_sockets()
            assert await listener.event() == {}
        assert not any(channel.name == first.channel["channel"] for channel in account.open_channels())
        await second.send("[[first:9]]")
        assert (account.stats.max_attended, emu.stats.max_attended) == (2, 2)


async def test_the_end_of_a_connection_is_seen_before_the_event_loop_hears_of_it() -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1")
    async with server:
        client = socket.create_connection(server.sockets[0].getsockname())
        writer = await accepted.get()
        connection = Connection(writer)
        assert connection.is_held()
        client.close()
        until = time.monotonic() + 5
        while connection.is_held() and time.monotonic() < until:  # the kernel's turn only: nothing is awaited
            pass
        assert not connection.is_held()
        assert not writer.transport.is_closing()
        writer.close()
