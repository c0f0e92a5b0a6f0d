"""The emulator accepts a right client and refuses each wrong thing, saying why."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.poe_emulator import Behaviour, PoeEmulator
from tests.poe_emulator.probe import Probe, nonce
from tests.poe_emulator.protocol import CURRENT_SUBSCRIPTIONS, LEGACY_SUBSCRIPTIONS, Generation, hash_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def emu() -> AsyncIterator[PoeEmulator]:
    async with PoeEmulator(accounts=1, profile="both") as emulator:
        yield emulator


@pytest.fixture
async def probe(emu: PoeEmulator) -> AsyncIterator[Probe]:
    async with Probe(emu, emu.accounts[0]) as client:
        yield client


def last_reason(emu: PoeEmulator) -> str:
    return emu.stats.rejections[-1].reason if emu.stats.rejections else ""


@pytest.mark.parametrize("generation", ["current", "legacy"])
async def test_a_right_client_is_served(emu: PoeEmulator, generation: Generation) -> None:
    account = emu.accounts[0]
    async with Probe(emu, account, generation) as client, client.online() as listener:
        edge = await client.send("hello")
        chat_id = edge["chat"]["chatId"]
        updates = await listener.answer(chat_id)
        assert updates[-1]["text"] == "echo: hello"
        assert updates[-1]["state"] == "complete"
        assert len(updates) > 2
        edge = await client.send("[[recall]]", chat_id)
        assert edge["chat"] is None
        assert (await listener.answer(chat_id))[-1]["text"] == "recall: hello | [[recall]]"
        status, answer = await client.gql("SettingsPageQuery", {})
        assert status == 200
        points = answer["data"]["viewer"]["messagePointInfo"]
        assert points["messagePointBalance"] == points["subscriptionPointBalance"] == 3000 - 40
        await client.gql("DeleteChat", {"chatId": chat_id})
    assert emu.stats.reasons() == []
    assert account.chats == {}
    assert account.stats.socket_cookies == []
    assert account.stats.max_concurrent == 1
    assert account.stats.points_spent == 40


WRONG_HEADERS: list[tuple[dict[str, str | None], int, str]] = [
    ({"Origin": None}, 400, "Origin"),
    ({"Origin": "https://example.test"}, 400, "Origin"),
    ({"Referer": "https://poe.com"}, 400, "Referer"),
    ({"Content_Type": "text/plain"}, 400, "Content-Type"),
    ({"Poe_Formkey": None}, 400, "Poe-Formkey missing"),
    ({"Poe_Formkey": "0" * 32}, 400, "Poe-Formkey is wrong"),
    ({"Poe_Tchannel": "poe-chan1"}, 400, "Poe-Tchannel"),
    ({"poe_tag_id": "0" * 32}, 400, "poe-tag-id"),
    ({"poe_tag_id": None}, 400, "poe-tag-id"),
    ({"poe_queryname": "SettingsPageQuery"}, 400, "poe-queryname"),
    ({"poegraphql": "0"}, 400, "poegraphql"),
    ({"Poe_Revision": "f" * 40}, 400, "Poe-Revision"),
    ({"Cookie": "p-b=unknown"}, 401, "p-b"),
    ({"Cookie": None}, 401, "p-b"),
    ({"User_Agent": "Python-client/1"}, 403, "user agent"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), WRONG_HEADERS)
async def test_wrong_headers_are_refused(
    emu: PoeEmulator, probe: Probe, changes: dict[str, str | None], status: int, reason: str
) -> None:
    await probe.fetch_channel()
    assert (await probe.gql("SettingsPageQuery", {}))[0] == 200
    assert (await probe.gql("SettingsPageQuery", {}, changes=changes))[0] == status
    assert reason in last_reason(emu)


async def test_the_generation_must_be_one_of_the_profile(probe: Probe) -> None:
    await probe.fetch_channel()
    probe.emu.options.profile = "legacy"
    assert (await probe.gql("SettingsPageQuery", {}))[0] == 400
    assert "current generation" in last_reason(probe.emu)


async def test_body_must_have_exactly_the_right_keys(probe: Probe) -> None:
    await probe.fetch_channel()
    document = {
        "queryName": "settingsPageQuery",
        "variables": {},
        "extensions": {"hash": "0" * 64},
        "more": 1,
    }
    assert (await probe.gql("SettingsPageQuery", {}, document=document))[0] == 400


async def test_an_unknown_hash_is_a_server_error(probe: Probe) -> None:
    await probe.fetch_channel()
    for digest in ("0" * 64, hash_of("SettingsPageQuery", "legacy")):
        status, answer = await probe.gql("SettingsPageQuery", {}, digest=digest)
        assert status == 200
        assert answer["data"] is None
        assert answer["errors"][0]["message"] == "Server Error"
    assert "unknown current hash" in last_reason(probe.emu)


WRONG_SENDS: list[tuple[dict[str, Any], str]] = [
    ({"messagePointsDisplayPrice": None}, "unknown: messagePointsDisplayPrice"),
    ({"clientNonce": "short"}, "clientNonce"),
    ({"chatNonce": "1"}, "chatNonce"),
    ({"shouldFetchChat": False}, "shouldFetchChat"),
    ({"sdid": ""}, "sdid"),
    ({"parameters": {"a": 1}}, "parameters"),
    ({"attachments": ["file0"]}, "fileHashJwts"),
    ({"attachments": ["file0"], "fileHashJwts": ["a.b.c"]}, "not issued"),
    ({"source": {"sourceType": "chat_input", "chatInputMetadata": {"useVoiceRecord": False}}}, "source"),
    ({"bot": "nobody"}, "no bot"),
    ({"chatId": 5, "shouldFetchChat": False}, "source"),
    ({"chatId": "5", "shouldFetchChat": False}, "chatId"),
]


@pytest.mark.parametrize(("changes", "reason"), WRONG_SENDS)
async def test_wrong_variables_of_a_send_are_a_server_error(probe: Probe, changes: dict[str, Any], reason: str) -> None:
    async with probe.online():
        variables = probe.send_variables("x") | changes
        _, answer = await probe.gql("SendMessageMutation", variables)
    assert answer["data"] is None
    assert reason in last_reason(probe.emu)
    assert probe.account.stats.sends_accepted == 0


async def test_a_nonce_is_good_once(probe: Probe) -> None:
    async with probe.online():
        once = nonce()
        await probe.send("x", clientNonce=once)
        _, answer = await probe.gql("SendMessageMutation", probe.send_variables("y", clientNonce=once))
    assert answer["data"] is None
    assert probe.account.stats.duplicate_nonces == 1


async def test_subscriptions_are_whole_and_of_the_generation(probe: Probe) -> None:
    await probe.fetch_channel()
    some = dict(list(CURRENT_SUBSCRIPTIONS.items())[:20])
    for entries in (some, LEGACY_SUBSCRIPTIONS, CURRENT_SUBSCRIPTIONS | {"messageAdded": "0" * 64}):
        _, answer = await probe.subscribe(entries)
        assert answer["data"] is None
    assert "hashes wrong: messageAdded" in last_reason(probe.emu)


async def test_without_subscriptions_nothing_is_delivered(probe: Probe) -> None:
    await probe.fetch_channel()
    async with probe.socket() as listener:
        await probe.send("x")
        assert await listener.events(0.2) == []
    assert probe.account.stats.unsubscribed_sends == 1


async def test_the_socket_wants_the_right_channel(probe: Probe) -> None:
    await probe.fetch_channel()
    wrong: list[dict[str, str]] = [
        {"channel": "other"},
        {"channelHash": "1"},
        {"boxName": "box"},
        {"origin": "https://example.test"},
    ]
    for changes in wrong:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with probe.socket(**changes):  # type: ignore[arg-type]
                pass
    async with probe.socket() as listener:
        await listener.ws.send_str('{"type":"ping"}')
        assert (await listener.event()) == {"type": "pong"}


async def test_replay_starts_at_min_seq_or_says_what_was_missed(probe: Probe) -> None:
    async with probe.online() as listener:
        chat_id = (await probe.send("first"))["chat"]["chatId"]
        await listener.event()
        seen = listener.min_seq
        await probe.emu.idle()
        async with probe.socket(min_seq=seen) as again:
            assert (await again.answer(chat_id))[-1]["text"] == "echo: first"
        for channel in probe.account.channels.values():
            channel.forget()
        async with probe.socket(min_seq=seen) as late:
            assert await late.event() == {"error": "missed_messages"}


async def test_sessions(emu: PoeEmulator, probe: Probe) -> None:
    response, _ = await probe.get("/", Cookie=None)
    assert (response.status, response.headers["Location"][:6]) == (307, "/login")
    assert "p-b=" in response.headers["Set-Cookie"]
    response, text = await probe.get("/login?redirect_url=%2F", Cookie=None)
    assert response.status == 200
    assert emu.options.revision in response.headers["Link"]
    assert '"tchannelData": null' in text
    assert (await probe.get("/api/settings", Cookie="p-b=x"))[0].status == 401
    probe.account.require_p_lat = True
    assert (await probe.get("/", Cookie=f"p-b={probe.account.p_b}"))[0].status == 307
    assert (await probe.get("/"))[0].status == 200
    await probe.fetch_channel()
    probe.account.alive = False
    assert (await probe.get("/"))[0].status == 307
    assert (await probe.gql("SettingsPageQuery", {}))[0] == 401
    emu.options.dead_gql = "null-viewer"
    assert (await probe.gql("SettingsPageQuery", {}))[1]["data"] == {"viewer": None}


async def test_a_clearance_belongs_to_one_agent(emu: PoeEmulator) -> None:
    account = emu.add_account(cf_clearance="abc", user_agent="Mozilla/5.0 (mine)")
    async with Probe(emu, account) as client:
        assert (await client.get("/"))[0].status == 200
        response, text = await client.get("/", User_Agent="Mozilla/5.0 (other)")
        assert (response.status, response.headers["cf-mitigated"]) == (403, "challenge")
        assert "Just a moment..." in text
        assert (await client.get("/"))[0].status == 200
    assert len(account.stats.after_challenge) == 1


@pytest.mark.parametrize(("kind", "status", "header"), [("", 403, True), ("title", 403, False), ("503", 503, False)])
async def test_a_challenge_lasts_until_cleared(probe: Probe, kind: str, status: int, header: bool) -> None:
    async with probe.online():
        marker = f"[[challenge:{kind}]]" if kind else "[[challenge]]"
        seen, _ = await probe.gql("SendMessageMutation", probe.send_variables(marker))
        assert seen == status
        response, text = await probe.get("/")
        assert response.status == status
        assert ("cf-mitigated" in response.headers) is header
        assert "challenge-error-text" in text
        assert len(probe.account.stats.after_challenge) == 1
        probe.account.clear_challenge()
        assert (await probe.get("/"))[0].status == 200
    assert probe.account.stats.sends_accepted == 0


async def test_a_rotated_formkey_is_refused(emu: PoeEmulator, probe: Probe) -> None:
    await probe.fetch_channel()
    emu.rotate_formkey(probe.account)
    assert (await probe.gql("SettingsPageQuery", {}))[0] == 400
    probe.formkey = probe.account.formkey
    assert (await probe.gql("SettingsPageQuery", {}))[0] == 200


async def test_limits_and_points(probe: Probe) -> None:
    account = probe.account
    account.concurrency = 1
    async with probe.online() as listener:
        first = await probe.send("slow [[first:0.2]]")
        assert (await probe.send("x"))["status"] == "concurrent_messages"
        await listener.answer(first["chat"]["chatId"])
        account.rate_limit = (1, 60.0)
        assert (await probe.send("x"))["status"] == "rate_limit_exceeded"
        account.rate_limit = None
        account.balance = 10
        edge = await probe.send("x")
        assert (edge["status"], edge["chat"]) == ("reached_limit", None)
        account.next_grant_at = probe.emu.site.now() - 1
        assert (await probe.send("x"))["status"] == "success"
        assert (await probe.send("x", bot="Locked-Bot"))["status"] == "no_access"
    assert account.stats.sends_accepted == 2
    assert account.stats.max_concurrent == 1


async def final_text(probe: Probe, query: str) -> tuple[list[dict[str, Any]], int]:
    async with probe.online() as listener:
        chat_id = (await probe.send(query))["chat"]["chatId"]
        return await listener.answer(chat_id), chat_id


async def test_answers_as_scripted(probe: Probe) -> None:
    updates, _ = await final_text(probe, "q [[replace]] [[chunks:6]]")
    assert updates[0]["text"].startswith("Let me think")
    assert updates[-1]["text"] == "echo: q [[replace]] [[chunks:6]]"
    updates, _ = await final_text(probe, "[[empty]]")
    assert (updates[-1]["text"], updates[-1]["state"]) == ("", "complete")
    updates, _ = await final_text(probe, "[[error:error_insufficient_fund]]")
    assert updates[-1]["state"] == "error_insufficient_fund"
    assert updates[-1]["messageStateText"]
    probe.account.script(Behaviour(answer="fixed"))
    updates, _ = await final_text(probe, "x")
    assert updates[-1]["text"] == "fixed"
    updates, _ = await final_text(probe, "x")
    assert updates[-1]["text"] == "echo: x"


async def test_extra_events(probe: Probe) -> None:
    async with probe.online() as listener:
        chat_id = (await probe.send("[[status-lines:2]] [[break]] [[followups:2]] [[batch:4]]"))["chat"]["chatId"]
        events = [event["payload"] for event in await listener.events(0.3)]
        added = [event["data"]["messageAdded"] for event in events if event["subscription_name"] == "messageAdded"]
        assert {"human", "pacarana", "chat_break", "gpt4_o_mini"} == {message["author"] for message in added}
        assert len(added[-1]["followupActions"]) == 2
        assert listener.frames < len(events)
        costs = [event["data"] for event in events if event["subscription_name"] == "jobCostUpdated"]
        assert costs[0]["jobCostUpdated"]["totalCostPoints"] == 20
        assert costs[0]["jobCostUpdated"]["trigger"]["message"]["chat"]["chatId"] == chat_id
        assert f"jobUpdated:{chat_id}" in [event["unique_id"] for event in events]


async def test_early_events_precede_the_mutations_answer(probe: Probe) -> None:
    async with probe.online() as listener:
        sending = asyncio.create_task(probe.send("[[early:0.2]]"))
        event = await listener.event()
        assert not sending.done()
        assert event["payload"]["unique_id"].startswith("messageAdded:")
        await sending


async def test_a_late_title_opens_the_next_turn(probe: Probe) -> None:
    async with probe.online() as listener:
        chat_id = (await probe.send("[[late-title]]"))["chat"]["chatId"]
        first = await listener.events(0.2)
        assert all("chatTitleUpdated" not in event["payload"]["unique_id"] for event in first)
        await probe.send("next", chat_id)
        assert (await listener.event())["payload"]["unique_id"] == f"chatTitleUpdated:{chat_id}"


async def test_cut_silent_and_refetched_channels(probe: Probe) -> None:
    async with probe.online() as listener:
        chat_id = (await probe.send("[[drop:2]]"))["chat"]["chatId"]
        while await listener.event():
            pass
        async with probe.socket(min_seq=listener.min_seq) as again:
            assert (await again.answer(chat_id))[-1]["state"] == "complete"
    async with probe.online() as listener:
        chat_id = (await probe.send("[[silent:2]]"))["chat"]["chatId"]
        heard = await listener.events(0.2)
        assert not any("echo: [[silent:2]]" in json.dumps(event) for event in heard)
        assert not listener.ws.closed
        async with probe.socket(min_seq=listener.min_seq) as again:
            assert (await again.answer(chat_id))[-1]["state"] == "complete"
    async with probe.online() as listener:
        await probe.send("[[refetch:2]]")
        heard = await listener.events(0.2)
        assert heard[-1] == {"message_type": "refetchChannel"}
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with probe.socket():
                pass


async def test_a_lost_answer_is_in_the_chat(probe: Probe) -> None:
    async with probe.online() as listener:
        chat = (await probe.send("[[lost]]"))["chat"]
        assert await listener.events(0.1) == []
        _, answer = await probe.gql("ChatPageQuery", {"chatCode": chat["chatCode"]})
        nodes = [edge["node"] for edge in answer["data"]["chatOfCode"]["messagesConnection"]["edges"]]
        assert [(node["author"], node["state"]) for node in nodes] == [
            ("human", "complete"),
            ("gpt4_o_mini", "complete"),
        ]
        cursor = str(nodes[1]["messageId"])
        _, answer = await probe.gql("ChatListPaginationQuery", {"count": 5, "cursor": cursor, "id": chat["id"]})
        assert len(answer["data"]["node"]["messagesConnection"]["edges"]) == 1


async def test_cancelling(probe: Probe) -> None:
    async with probe.online() as listener:
        chat_id = (await probe.send("[[chunks:100]] [[delay:0.02]]"))["chat"]["chatId"]
        await listener.event()
        job = "cancelViewerActiveJobs_cancelViewerActiveJobs_Mutation"
        status, _ = await probe.gql(job, {"chatId": chat_id})
        assert status == 200
        assert (await listener.answer(chat_id))[-1]["state"] == "cancelled"
    assert probe.account.running == {}
    assert probe.account.balance == 3000
    assert probe.account.stats.answers_cancelled == 1


async def test_faults_of_a_send(probe: Probe) -> None:
    async with probe.online():
        for marker, status in (("[[http:502]]", 502), ("[[server-error]]", 200), ("[[not-success]]", 200)):
            seen, answer = await probe.gql("SendMessageMutation", probe.send_variables(marker))
            assert seen == status
            assert status == 502 or answer["data"] is None
        assert probe.account.stats.sends_accepted == 0
        for marker in ("[[reset:before]]", "[[reset:after]]"):
            with pytest.raises(aiohttp.ClientConnectionError):
                await probe.gql("SendMessageMutation", probe.send_variables(marker))
        assert probe.account.stats.sends_accepted == 1
        assert (await probe.send("[[missing-chat]]"))["chat"] is None
        assert (await probe.send("[[status:too_many_tokens]]"))["status"] == "too_many_tokens"
        probe.account.fail("http:503", where="SettingsPageQuery", times=2)
        codes = [(await probe.gql("SettingsPageQuery", {}))[0] for _ in range(3)]
        assert codes == [503, 503, 200]


async def test_bots_come_in_pages(probe: Probe) -> None:
    await probe.fetch_channel()
    handles: list[str] = []
    cursor = None
    while True:
        variables = {
            "botSelectorFilter": "all",
            "cursor": cursor,
            "filterCanvasOnlyBots": False,
            "includeHomePageBotSelectorFragment": False,
            "limit": 10,
        }
        _, answer = await probe.gql("AvailableBotsSelectorModalPaginationQuery", variables)
        found = answer["data"]["viewer"]["availableBotsConnection"]
        handles += [edge["node"]["handle"] for edge in found["edges"]]
        cursor = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert len(handles) == len(set(handles)) == len(probe.emu.site.bots)
    _, answer = await probe.gql("HandleBotLandingPageQuery", {"botHandle": "GPT-4o-Mini"})
    assert answer["data"]["bot"]["nickname"] == "gpt4_o_mini"
    assert answer["data"]["viewer"]["shouldUseFinishUploadEndpoint"]


async def test_an_upload_is_used_by_its_token(emu: PoeEmulator, probe: Probe) -> None:
    async with probe.online() as listener:
        form = aiohttp.FormData()
        form.add_field("file", b"content", filename="note.txt", content_type="text/plain")
        headers = probe.headers(Poe_Formkey=probe.formkey)
        url = f"{emu.base_url}/api/finish_upload_POST"
        async with probe.http.post(url, data=form, headers=headers) as response:
            token = (await response.json())["fileHashJwt"]
        assert token.count(".") == 2
        edge = await probe.send("x", attachments=["file0"], fileHashJwts=[token])
        assert edge["message"]["node"]["attachments"] == [{"name": "note.txt"}]
        await listener.answer(edge["chat"]["chatId"])
    assert probe.account.stats.uploads == 1


async def test_the_guard_cookie_is_set_anew(probe: Probe) -> None:
    response, _ = await probe.get("/")
    probe.cookies["__cf_bm"] = response.cookies["__cf_bm"].value
    await probe.get("/")
    await probe.get("/")
    del probe.cookies["__cf_bm"]
    await probe.get("/")
    stats = probe.account.stats
    assert (stats.cf_bm_fresh, stats.cf_bm_stale, stats.cf_bm_missing) == (1, 1, 1)


async def test_control_over_http_in_a_process_of_its_own() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.poe_emulator", "--accounts", "2"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    started = json.loads(await process.stdout.readline())
    email = started["accounts"][0]["email"]
    base = f"{started['base_url']}/_control"
    try:
        async with aiohttp.ClientSession() as http:
            async with http.patch(f"{base}/accounts/{email}", json={"balance": 7}) as response:
                assert (await response.json())["balance"] == 7
            async with http.patch(f"{base}/accounts/{email}", json={"nonsense": 7}) as response:
                assert response.status == 400
            script = {"behaviour": {"answer": "hi"}, "times": None}
            async with http.post(f"{base}/accounts/{email}/script", json=script) as response:
                assert (await response.json())["answer"] == "hi"
            async with http.post(f"{base}/accounts/{email}/do", json={"action": "grant"}) as response:
                assert (await response.json())["balance"] == 3000
            async with http.post(f"{base}/accounts/nobody/do", json={"action": "grant"}) as response:
                assert response.status == 404
            async with http.get(f"{base}/stats") as response:
                assert set((await response.json())["accounts"]) == {a["email"] for a in started["accounts"]}
    finally:
        process.terminate()
        assert await process.wait() == 0
