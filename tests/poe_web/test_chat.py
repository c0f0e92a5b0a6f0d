"""Whole exchanges with the emulated site."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from poe_gateway.chat.events import TextDelta, TextReplaced
from poe_gateway.chat.request import Message, TextPart
from poe_gateway.pool.outcome import RateLimited, Transient
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.poe_web import PoeWeb
from tests.poe_emulator import PoeEmulator
from tests.poe_web.kit import adapter, ask, ref, request, tuned, user


async def test_an_answer_arrives_in_pieces_with_its_price(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    said = await ask(poe, ref(account), "hello there")
    assert said.finished and said.text == "echo: hello there"
    assert said.points == 20
    assert said.bound == {"chatId": said.bound["chatId"], "chatCode": said.bound["chatCode"], "bot": "gpt4_o_mini"}
    assert emulator.stats.reasons() == []


async def test_nothing_but_what_is_needed_is_called(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await ask(poe, ref(account), "hello")
    await poe.close()
    assert emulator.stats.telemetry == 0
    assert account.stats.socket_cookies == []
    assert account.stats.gql == {"SubscriptionsMutation": 1, "SendMessageMutation": 1, "DeleteChat": 1}
    assert (account.stats.pages, account.stats.settings_reads, account.stats.sockets_opened) == (1, 0, 1)


async def test_the_sites_own_cookie_goes_back_to_it(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    for _ in range(3):
        await ask(poe, ref(account), "hello", session="kept, so that no deletion overlaps")
    assert account.stats.cf_bm_stale == account.stats.cf_bm_missing == 0
    assert account.stats.cf_bm_fresh >= 3


async def test_replaced_text_is_given_anew(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), "hello [[replace]]")
    assert any(isinstance(event, TextReplaced) for event in said.events)
    assert said.finished and said.text == "echo: hello [[replace]]"


async def test_status_lines_of_tools_are_no_text(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), "hello [[status-lines:3]] [[break]]")
    assert said.finished and said.text.startswith("echo: hello")


@pytest.mark.parametrize(
    "marker", ["[[early]]", "[[batch:4]]", "[[followups:3]]", "[[quiet]]", "[[early]] [[batch:9]]"]
)
async def test_events_may_come_early_together_or_late(poe: PoeWeb, emulator: Any, marker: str) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), f"hello {marker}")
    assert said.finished and said.text == f"echo: hello {marker}" and said.points == 20


async def test_a_price_that_is_not_told_is_not_waited_for_long(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), "hello [[no-job]]")
    assert said.finished and said.points is None


async def test_concurrent_chats_of_one_account_stay_apart(emulator: Any) -> None:
    account = emulator.add_account("many@example.test", concurrency=20)
    async with adapter(emulator) as poe:
        texts = [f"number {n} [[chunks:8]]" + (" [[early]]" if n % 2 else "") for n in range(12)]
        answers = await asyncio.gather(*(ask(poe, ref(account), text) for text in texts))
    assert [said.text for said in answers] == [f"echo: {text}" for text in texts]
    assert (account.stats.sockets_opened, account.stats.gql["SubscriptionsMutation"], account.stats.pages) == (1, 1, 1)


async def test_accounts_stay_apart(emulator: Any) -> None:
    accounts = [
        emulator.add_account(f"own{n}@example.test", cf_clearance=f"clear{n}", user_agent=f"Mozilla/5.0 ({n})")
        for n in range(4)
    ]
    async with adapter(emulator) as poe:
        answers = await asyncio.gather(*(ask(poe, ref(account), account.email) for account in accounts))
    assert [said.text for said in answers] == [f"echo: {account.email}" for account in accounts]
    assert emulator.stats.reasons() == []


# ---------------------------------------------------------------- conversations


async def test_a_bound_chat_gets_only_the_new_turn(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    first = await ask(poe, ref(account), "one", session="s")
    second = await ask(poe, ref(account), "two [[recall]]", bound=first.bound, session="s")
    assert second.text == "recall: one | two [[recall]]"
    assert second.bound == first.bound
    assert account.stats.chats_created == 1 and account.stats.chats_deleted == 0


async def test_a_chat_known_only_by_number_is_continued(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    first = await ask(poe, ref(account), "one", session="s")
    bound = {"chatId": str(first.bound["chatId"])}
    second = await ask(poe, ref(account), "two [[lost]]", bound=bound, session="s")
    assert second.finished and second.text == "echo: two [[lost]]"


async def test_late_events_do_not_reach_the_next_turn(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    first = await ask(poe, ref(account), "one [[late-title]] [[followups:4]] [[no-job]]", session="s")
    for turn in ("two [[late-title]]", "three [[late-title]] [[followups:2]]", "four"):
        said = await ask(poe, ref(account), turn, bound=first.bound, session="s")
        assert said.finished and said.text == f"echo: {turn}"


async def test_a_history_is_folded_into_one_query(poe: PoeWeb, emulator: Any) -> None:
    turns = (
        Message("system", (TextPart("Be brief."),)),
        user("one"),
        Message("assistant", (TextPart("ONE"),)),
        user("two"),
    )
    said = await ask(poe, ref(emulator.accounts[0]), request(*turns))
    assert said.text == "echo: Be brief.\n\nUser: one\n\nAssistant: ONE\n\nUser: two"


async def test_one_chat_carries_one_message_at_a_time(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    first = await ask(poe, ref(account), "one", session="s")
    slow, second = await asyncio.gather(
        ask(poe, ref(account), "slow [[chunks:30]]", bound=first.bound, session="s"),
        ask(poe, ref(account), "other", bound=first.bound, session="s"),
    )
    assert slow.finished
    assert isinstance(second.outcome, RateLimited) and second.fate is Fate.NOT_SENT


# ---------------------------------------------------------------- chats that nobody continues


async def test_only_chats_without_session_are_deleted(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await ask(poe, ref(account), "kept", session="s")
    await ask(poe, ref(account), "dropped")
    await poe.close()
    assert (account.stats.chats_created, account.stats.chats_deleted, len(account.chats)) == (2, 1, 1)
    assert "DeleteUserMessagesMutation" not in account.stats.gql


async def test_more_deletions_than_the_bound_are_left_alone(emulator: Any) -> None:
    account = emulator.add_account("busy@example.test", concurrency=20)
    async with adapter(emulator, options=tuned(deletions=2)) as poe:
        account.fail("hang:0.3", where="DeleteChat", times=2)
        await asyncio.gather(*(ask(poe, ref(account), f"n{n} [[no-job]] [[chunks:1]]") for n in range(6)))
    assert account.stats.chats_deleted < 6


# ---------------------------------------------------------------- leaving early


async def test_leaving_early_cancels_upstream(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    answer = poe.chat(ref(account), "GPT-4o-Mini", request("long [[chunks:500]] [[delay:0.02]]"), None)
    async for event in answer:
        if isinstance(event, TextDelta):
            break
    await answer.aclose()
    assert account.stats.answers_cancelled == 1 and not account.running
    await poe.close()
    assert account.stats.chats_deleted == 1


async def test_cancelling_by_message_is_the_fallback(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("server-error", where="cancelViewerActiveJobs_cancelViewerActiveJobs_Mutation")
    answer = poe.chat(ref(account), "GPT-4o-Mini", request("long [[chunks:500]] [[delay:0.02]]"), None)
    async for event in answer:
        if isinstance(event, TextDelta):
            break
    await answer.aclose()
    assert account.stats.gql["StopMessage_messageCancel_Mutation"] == 1 and not account.running


async def test_leaving_before_the_site_has_answered_cancels_as_well(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await poe.prewarm(ref(account))
    task = asyncio.create_task(ask(poe, ref(account), "x [[hold:0.5]] [[chunks:500]] [[delay:0.02]]"))
    while not account.running:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await poe.close()
    assert account.stats.answers_cancelled == 1 and account.stats.chats_deleted == 1 and not account.running


async def test_a_session_goes_on_after_a_cancelled_turn(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    first = await ask(poe, ref(account), "one", session="s")
    answer = poe.chat(ref(account), "GPT-4o", request("long [[chunks:500]] [[delay:0.02]]", session="s"), first.bound)
    async for event in answer:
        if isinstance(event, TextDelta):
            break
    await answer.aclose()
    said = await ask(poe, ref(account), "two", bound=first.bound, session="s")
    assert said.finished and said.text == "echo: two"


async def test_an_answer_stopped_on_the_site_is_a_failure(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    task = asyncio.create_task(ask(poe, ref(account), "long [[chunks:500]] [[delay:0.02]]"))
    while not account.running:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    next(iter(account.running.values())).cancel()
    said = await task
    assert isinstance(said.outcome, Transient) and said.fate is Fate.ACCEPTED


# ---------------------------------------------------------------- catalogue and balance


async def test_balance_in_both_spellings(emulator: Any) -> None:
    account = emulator.add_account("rich@example.test", balance=700, addon=50)
    async with adapter(emulator) as poe:
        reading = await poe.read_balance(ref(account))
        assert reading.points == 750 and reading.next_grant_at is not None
        assert "750 points" in await poe.probe(ref(account))
    assert account.stats.sockets_opened == 0


async def test_the_catalogue_has_handles_and_upstream_names(poe: PoeWeb, emulator: Any) -> None:
    models = {model.id: model for model in await poe.list_models(ref(emulator.accounts[0]))}
    assert models["GPT-4o-Mini"].upstream == "gpt4_o_mini"
    assert models["Claude-Sonnet-4.5"].upstream == "claude-sonnet-4.5"
    assert "Locked-Bot" not in models


async def test_prewarming_opens_everything(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await poe.prewarm(ref(account))
    assert account.stats.sockets_opened == 1 and account.stats.gql == {"SubscriptionsMutation": 1}


async def test_an_adapter_of_the_current_generation_is_taken_by_a_site_of_both() -> None:
    async with PoeEmulator(accounts=1, profile="both") as emulator, adapter(emulator) as poe:
        assert (await ask(poe, ref(emulator.accounts[0]), "hello")).finished
