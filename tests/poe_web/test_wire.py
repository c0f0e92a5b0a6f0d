"""Outgoing translation and the protocol file."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest

from poe_gateway.upstreams.base import CredentialError
from poe_gateway.upstreams.poe_web import ProtocolError, identity, load_protocol, wire
from poe_gateway.upstreams.poe_web.protocol import parse_protocol
from tests.poe_emulator import protocol as site_protocol

PROTOCOL = load_protocol()
RAW = orjson.loads((Path(wire.__file__).parent / "protocol.json").read_bytes())
CHANNEL = wire.Channel(channel="ch-1", channel_hash="h&1", box="box/1", base_host="poe.com", min_seq=7)


def _signed(**changes: Any) -> wire.Signed:
    values: dict[str, Any] = {"formkey": "k" * 32, "channel": "ch-1", "revision": "rev", **changes}
    return wire.graphql(PROTOCOL, "send", {"query": "grüße"}, **values)


def test_the_tag_signs_the_very_bytes() -> None:
    signed = _signed()
    wanted = hashlib.md5(signed.body + b"k" * 32 + b"4LxgHM6KpFqokX0Ox").hexdigest()
    assert signed.headers["poe-tag-id"] == wanted
    assert list(orjson.loads(signed.body)) == ["queryName", "variables", "extensions"]


def test_headers_of_a_call() -> None:
    headers = _signed().headers
    assert headers["poe-queryname"] == orjson.loads(_signed().body)["queryName"] == "sendMessageMutation"
    assert headers["poegraphql"] == "1"
    assert (headers["Poe-Formkey"], headers["Poe-Tchannel"], headers["Poe-Revision"]) == ("k" * 32, "ch-1", "rev")
    assert (headers["Origin"], headers["Referer"]) == ("https://poe.com", "https://poe.com/")
    assert not any(name.lower().startswith("sec-ch") for name in headers), "no imitation of a browser"


def test_headers_of_unknown_values_are_left_out() -> None:
    headers = _signed(channel=None, revision=None).headers
    assert "Poe-Tchannel" not in headers and "Poe-Revision" not in headers and "Poe-Formkey" in headers


@pytest.mark.parametrize(("chat_id", "fetch"), [(None, True), (42, False)])
def test_variables_of_a_message(chat_id: int | None, fetch: bool) -> None:
    variables = wire.send_variables(
        PROTOCOL.send,
        chat_id=chat_id,
        bot="b",
        query="q",
        client_nonce="n",
        chat_nonce="c",
        sdid="s",
        file_tokens=["t.o.k"],
    )
    assert set(variables) == site_protocol.SEND_VARIABLES["current"]
    assert variables["shouldFetchChat"] is fetch
    assert ("newChatContext" in variables["source"]["chatInputMetadata"]) is fetch
    assert variables["attachments"] == ["file0"] and variables["fileHashJwts"] == ["t.o.k"]


def test_the_address_of_the_push_channel() -> None:
    url = wire.push_url(PROTOCOL, CHANNEL, number=123456789, min_seq=9, base=None)
    assert url == "wss://tch12345678.tch.poe.com/up/box%2F1/updates?min_seq=9&channel=ch-1&hash=h%261"
    url = wire.push_url(PROTOCOL, CHANNEL, number=1, min_seq=9, base="ws://127.0.0.1:1")
    assert url == "ws://127.0.0.1:1/up/box%2F1/updates?min_seq=9&channel=ch-1&hash=h%261"


def test_small_forms() -> None:
    assert uuid.UUID(wire.uuid4_text((1 << 128) - 1)).version == 4
    assert uuid.UUID(wire.uuid4_text(0)).variant == uuid.RFC_4122
    assert wire.chat_node_id(12) == "Q2hhdDoxMg=="


# ---------------------------------------------------------------- the protocol file


def test_the_packaged_protocol_is_the_sites_own() -> None:
    assert {s.subscriptionName: s.queryHash for s in PROTOCOL.subscriptions} == site_protocol.CURRENT_SUBSCRIPTIONS
    assert len(PROTOCOL.subscriptions) == 42
    for operation in PROTOCOL.operations.values():
        known = site_protocol.operation_with_hash("current", operation.hash)
        assert known is not None and known.is_called(operation.query_name)
    assert "3f60d527c3f636f308b3a26fc3a0012be34ea1a201e47a774b4513d8a1ba8912" not in {
        operation.hash for operation in PROTOCOL.operations.values()
    }, "the mutation that deletes all chats is not even known"


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        ("GPT-4o-Mini", "gpt4_o_mini"),
        ("gpt-4o-mini", "gpt4_o_mini"),
        ("gpt4_o_mini", "gpt4_o_mini"),
        ("Claude Sonnet 9", "claudesonnet9"),
        ("Assistant", "capybara"),
    ],
)
def test_names_that_messages_are_sent_to(handle: str, code: str) -> None:
    assert PROTOCOL.codename(handle) == code


def test_another_file_may_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "next.json"
    path.write_bytes(orjson.dumps({**RAW, "generation": "next", "tag_salt": "other"}))
    assert load_protocol(path).generation == "next"
    with pytest.raises(ProtocolError):
        load_protocol(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"operations": {}}, "operations lack"),
        ({"tag_salt": 5}, "tag_salt"),
        ({"typo": 1}, "typo"),
        ({"subscriptions": []}, "no subscriptions"),
        ({"subscriptions": [{"subscriptionName": "messageAdded", "queryHash": "ff"}]}, "messageAdded"),
        ({"headers": {**RAW["headers"], "page": {"X": "{nonsense}"}}}, "page.X"),
        ({"format": 2}, "format"),
    ],
)
def test_a_broken_file_is_refused_with_its_culprit(change: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ProtocolError, match=culprit):
        parse_protocol(orjson.dumps({**RAW, **change}))


# ---------------------------------------------------------------- credentials

MINIMAL = {"poe_p_b": "abc=="}


def test_credentials_that_are_enough() -> None:
    described = identity.describe(MINIMAL)
    assert (described.offer, described.metered, described.renews_daily) == ("poe_web", True, True)
    assert described.details == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"poe_p_b": ""}, "poe_p_b"),
        ({"poe_p_b": None}, "poe_p_b"),
        ({"poe_p_b": "p-b=abc; other"}, "poe_p_b"),
        ({"p_lat": "a\nb"}, "p_lat"),
        ({"formkey": 5}, "formkey"),
        ({"user_agent": "Mözilla"}, "user_agent"),
        ({"password": "x"}, "password"),
    ],
)
def test_credentials_that_cannot_be_used(change: dict[str, Any], field: str) -> None:
    with pytest.raises(CredentialError) as caught:
        identity.describe({**MINIMAL, **change})
    assert caught.value.field == field


def test_cookies_go_out_each_on_its_own() -> None:
    who = identity.Identity({**MINIMAL, "poe_cf_bm": "bm"}, PROTOCOL)
    assert who.cookie_header == "p-b=abc==; __cf_bm=bm"
    assert who.user_agent.startswith("Mozilla/5.0 ")
    assert "abc" not in repr(who)


def test_cookies_of_responses() -> None:
    who = identity.Identity({**MINIMAL, "poe_cf_clearance": "c"}, PROTOCOL)
    for name, value in (("__cf_bm", "new"), ("p-b", "anonymous"), ("cf_clearance", "x"), ("odd", "a;b"), ("x", "1")):
        who.absorb(name, value, expired=False)
    assert who.cookie_header == "p-b=abc==; cf_clearance=c; __cf_bm=new; x=1"
    who.absorb("x", "1", expired=True)
    for n in range(100):
        who.absorb(f"n{n}", "1", expired=False)
    assert who.cookie_header.count("=") < 40 and "x=1" not in who.cookie_header
