"""Every sign of trouble, what it is taken for, and what became of the message."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Depleted,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.poe_web import PoeWeb
from tests.poe_emulator import PoeEmulator
from tests.poe_web.kit import QUICK, adapter, ask, ref, tuned
from tests.support.ports import free_port

SENDING = [
    ("[[status:reached_limit]]", Depleted, Fate.NOT_SENT),
    ("[[status:too_many_tokens]]", Rejected, Fate.NOT_SENT),
    ("[[status:no_access]]", Rejected, Fate.NOT_SENT),
    ("[[status:unsupported_file_type]]", Rejected, Fate.NOT_SENT),
    ("[[status:file_too_large]]", Rejected, Fate.NOT_SENT),
    ("[[status:rate_limit_exceeded]]", RateLimited, Fate.NOT_SENT),
    ("[[status:concurrent_messages]]", RateLimited, Fate.NOT_SENT),
    ("[[status:never_seen_before]]", AdapterDrift, Fate.NOT_SENT),
    ("[[error:error_user_message_too_long]]", Rejected, Fate.ACCEPTED),
    ("[[error:error_insufficient_fund]]", Depleted, Fate.ACCEPTED),
    ("[[error:error_unknown]]", Transient, Fate.ACCEPTED),
    ("[[missing-chat]]", AdapterDrift, Fate.UNKNOWN),
    ("[[server-error]]", AdapterDrift, Fate.NOT_SENT),
    ("[[not-success]]", AdapterDrift, Fate.NOT_SENT),
    ("[[http:401]]", Unauthorized, Fate.NOT_SENT),
    ("[[http:403]]", Unauthorized, Fate.NOT_SENT),
    ("[[http:404]]", AdapterDrift, Fate.NOT_SENT),
    ("[[http:413]]", Rejected, Fate.NOT_SENT),
    ("[[http:429]]", RateLimited, Fate.NOT_SENT),
    ("[[http:500]]", Transient, Fate.UNKNOWN),
    ("[[http:502]]", Transient, Fate.UNKNOWN),
    ("[[http:503]]", Transient, Fate.NOT_SENT),
    ("[[http:504]]", Transient, Fate.UNKNOWN),
    ("[[reset:before]]", Transient, Fate.UNKNOWN),
    ("[[reset:after]]", Transient, Fate.UNKNOWN),
    ("[[fault-after:empty]]", Transient, Fate.UNKNOWN),
    ("[[fault-after:html]]", AdapterDrift, Fate.UNKNOWN),
    ("[[fault-after:http:502]]", Transient, Fate.UNKNOWN),
]


@pytest.mark.parametrize(("marker", "outcome", "fate"), SENDING, ids=[row[0].strip("[]") for row in SENDING])
async def test_what_a_failed_message_is_taken_for(
    poe: PoeWeb, emulator: Any, marker: str, outcome: type, fate: Fate
) -> None:
    account = emulator.accounts[0]
    said = await ask(poe, ref(account), f"hello {marker}")
    assert isinstance(said.outcome, outcome) and said.fate is fate, said.outcome
    assert not said.finished
    assert account.stats.sends_accepted <= 1 and account.stats.duplicate_texts == 0
    # A refusal without a known reason may be about the bot's name: its handle is tried once.
    named = outcome is AdapterDrift and fate is Fate.NOT_SENT and "http" not in marker
    assert account.stats.gql["SendMessageMutation"] == (2 if named else 1), "a message is never sent twice"


async def test_statuses_for_the_caller(poe: PoeWeb, emulator: Any) -> None:
    account = ref(emulator.accounts[0])
    for marker, status in (
        ("[[status:too_many_tokens]]", 413),
        ("[[error:error_user_message_too_long]]", 413),
        ("[[http:413]]", 413),
        ("[[status:unsupported_file_type]]", 400),
        ("[[status:file_too_large]]", 400),
    ):
        assert (await ask(poe, account, marker)).outcome.status == status


async def test_no_access_blocks_the_model_and_leaves_no_chat(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    said = await ask(poe, ref(account), "hello", model="Locked-Bot", session="s")
    assert isinstance(said.outcome, Rejected) and said.outcome.model == "GPT-4o-Mini", "the model as it was asked for"
    await poe.close()
    assert not account.chats


async def test_depletion_names_the_next_grant_once_it_is_known(poe: PoeWeb, emulator: Any) -> None:
    account = ref(emulator.accounts[0])
    reading = await poe.read_balance(account)
    for marker in ("[[status:reached_limit]]", "[[error:error_insufficient_fund]]"):
        assert (await ask(poe, account, marker)).outcome.until == reading.next_grant_at


async def test_a_time_out_leaves_the_fate_open(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, options=tuned(request_timeout=0.5)) as poe:
        said = await ask(poe, ref(account), "hello [[hold:2]]")
    assert isinstance(said.outcome, Transient) and said.outcome.timeout and said.fate is Fate.UNKNOWN
    assert account.stats.gql["SendMessageMutation"] == 1


async def test_an_answer_that_never_begins_is_a_time_out(emulator: Any) -> None:
    account = emulator.accounts[0]
    async with adapter(emulator, options=tuned(first_event=0.6)) as poe:
        said = await ask(poe, ref(account), "hello [[first:30]]")
        assert isinstance(said.outcome, Transient) and said.outcome.timeout and said.fate is Fate.ACCEPTED
    assert account.stats.answers_cancelled == 1


async def test_slow_is_not_dead(emulator: Any) -> None:
    async with adapter(emulator, options=tuned(silence=0.1)) as poe:
        said = await ask(poe, ref(emulator.accounts[0]), "hello [[first:1]] [[delay:0.3]] [[chunks:3]]")
    assert said.finished


@pytest.mark.parametrize("kind", ["http:500", "http:502", "reset", "empty", "server-error", "http:503"])
@pytest.mark.parametrize("where", ["SubscriptionsMutation", "page"])
async def test_trouble_before_the_message_means_that_it_was_not_sent(
    poe: PoeWeb, emulator: Any, where: str, kind: str
) -> None:
    account = emulator.accounts[0]
    account.fail(kind, where=where, times=None)
    said = await ask(poe, ref(account), "hello")
    assert isinstance(said.outcome, Transient | AdapterDrift) and said.fate is Fate.NOT_SENT
    assert account.stats.sends_accepted == 0


async def test_a_broken_connection_before_the_message_is_tried_once_more(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("reset", where="SubscriptionsMutation", times=1)
    assert (await ask(poe, ref(account), "hello")).finished


async def test_a_refused_message_stays_unsent_whatever_follows(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await poe.prewarm(ref(account))
    emulator.rotate_formkey(account)
    account.fail("reset", where="page", times=None)
    said = await ask(poe, ref(account), "hello")
    assert isinstance(said.outcome, Transient) and said.fate is Fate.NOT_SENT


async def test_a_connection_that_is_dropped_ends_its_messages(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    task = asyncio.create_task(ask(poe, ref(account), "long [[chunks:500]] [[delay:0.02]]"))
    while not account.running:
        await asyncio.sleep(0.01)
    await poe.forget(account.email)
    said = await asyncio.wait_for(task, 60)
    assert isinstance(said.outcome, Transient) and said.fate is Fate.ACCEPTED
    assert (await ask(poe, ref(account), "hello")).finished


# ---------------------------------------------------------------- dead sessions


async def test_a_dead_cookie_is_sent_to_the_login_page(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.alive = False
    said = await ask(poe, ref(account), "hello")
    assert isinstance(said.outcome, Unauthorized) and said.fate is Fate.NOT_SENT


@pytest.mark.parametrize("sign", ["401", "null-viewer"])
async def test_a_cookie_that_dies_later(sign: str) -> None:
    async with PoeEmulator(accounts=1, dead_gql=sign) as emulator, adapter(emulator) as poe:
        account = emulator.accounts[0]
        await poe.prewarm(ref(account))
        account.alive = False
        with pytest.raises(UpstreamFailure) as caught:
            await poe.read_balance(ref(account))
    assert isinstance(caught.value.outcome, Unauthorized)


async def test_new_credentials_bring_an_account_back(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    wrong = ref(account, poe_p_b="wrong==")
    assert isinstance((await ask(poe, wrong, "hello")).outcome, Unauthorized)
    assert (await ask(poe, ref(account, rev=1), "hello")).finished


# ---------------------------------------------------------------- our own network


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{port}", "http://no-such-host.invalid", "https://127.0.0.1:{port}"]
)
async def test_a_site_that_cannot_be_reached(emulator: Any, address: str) -> None:
    base_url = address.format(port=free_port())
    poe = PoeWeb(session=new_session, clock=SystemClock(), ids=Ids(), base_url=base_url, options=QUICK)
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    await poe.close()
    assert isinstance(said.outcome, NetworkFault) and said.fate is Fate.NOT_SENT


async def test_plain_talk_where_tls_is_expected(emulator: Any) -> None:
    base_url = emulator.base_url.replace("http://", "https://")
    poe = PoeWeb(session=new_session, clock=SystemClock(), ids=Ids(), base_url=base_url, options=QUICK)
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    await poe.close()
    assert isinstance(said.outcome, NetworkFault)


async def test_errors_hold_no_secrets(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    secrets = {account.p_b, account.p_lat, account.formkey}
    for marker in ("[[reset:before]]", "[[server-error]]", "[[http:500]]", "[[status:reached_limit]]"):
        said = await ask(poe, ref(account), marker)
        shown = f"{said.failure} {said.outcome} {poe!r}"
        assert not any(secret in shown for secret in secrets)
