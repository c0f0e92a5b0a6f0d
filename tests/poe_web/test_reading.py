"""Incoming translation: frames, settings, bots, pages, answers."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.upstreams.poe_web import load_protocol, page
from poe_gateway.upstreams.poe_web.catalogue import bots_page
from poe_gateway.upstreams.poe_web.frames import Frame, PushEvent, chat_number, decode_frame
from poe_gateway.upstreams.poe_web.messages import Update, chat_nodes, cost_points, pick_reply, send_answer
from poe_gateway.upstreams.poe_web.settings import channel_of, epoch, reading_of

PROTOCOL = load_protocol()


def _push(kind: str, subject: Any, data: Any, *, text: bool = True) -> Any:
    message = {
        "message_type": "subscriptionUpdate",
        "payload": {"unique_id": f"{kind}:{subject}", "subscription_name": kind, "data": {kind: data}},
    }
    return json.dumps(message) if text else message


NODE_ID = base64.b64encode(b"Chat:77").decode()


@pytest.mark.parametrize("subject", [77, "77", NODE_ID, NODE_ID.rstrip("=")])
@pytest.mark.parametrize("as_text", [True, False])
def test_the_chat_of_an_event(subject: Any, as_text: bool) -> None:
    frame = decode_frame(json.dumps({"messages": [_push("messageAdded", subject, {"text": "x"}, text=as_text)]}))
    assert frame.events == (PushEvent("messageAdded", 77, {"text": "x"}),)


def test_all_messages_of_a_frame_are_read() -> None:
    texts = [_push("chatMarkedAsUnseen", 1, {}), "not json", _push("messageAdded", 2, {}), _push("jobUpdated", 2, {})]
    frame = decode_frame(json.dumps({"messages": texts, "min_seq": "12"}))
    assert [event.kind for event in frame.events] == ["chatMarkedAsUnseen", "messageAdded", "jobUpdated"]
    assert frame.min_seq == 12


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [json.dumps({"message_type": "refetchChannel"})]},
        {"message_type": "refetchChannel"},
        {"error": "missed_messages"},
        {"messages": [json.dumps({"error": "missed_messages"})]},
    ],
)
def test_a_channel_that_is_over(document: Any) -> None:
    assert decode_frame(json.dumps(document)).renew


def test_the_chat_of_a_cost_is_told_inside() -> None:
    data = {"totalCostPoints": 17, "trigger": {"message": {"messageId": 5, "chat": {"chatId": 77}}}}
    event = decode_frame(json.dumps({"messages": [_push("jobCostUpdated", "Sm9iOjE=", data)]})).events[0]
    assert (event.chat_id, cost_points(event.data)) == (77, 17)
    data["trigger"] = {"message": {"chat": {"id": NODE_ID}}}
    assert decode_frame(json.dumps({"messages": [_push("jobCostUpdated", 1, data)]})).events[0].chat_id == 77


@pytest.mark.parametrize(("kind", "beat"), [("ping", "ping"), ("pong", "pong")])
def test_heartbeats(kind: str, beat: str) -> None:
    assert decode_frame(json.dumps({"type": kind})).heartbeat == beat


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "payload", "unique_id", "subscription_name", "data", "error", "min_seq", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_odd_frames_are_no_errors(document: Any) -> None:
    assert isinstance(decode_frame(json.dumps(document)), Frame)
    assert isinstance(decode_frame(json.dumps({"messages": [json.dumps(document), document]})), Frame)


@given(st.text(max_size=20) | st.binary(max_size=20))
def test_odd_bytes_are_no_errors(raw: str | bytes) -> None:
    decode_frame(raw)
    chat_number(raw)


# ---------------------------------------------------------------- settings

AT = datetime(2026, 3, 14, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6)])
def test_times_in_any_unit(unit: str, factor: int) -> None:
    assert epoch(int(AT.timestamp()) * factor) == AT
    assert epoch(str(int(AT.timestamp()) * factor)) == AT


@pytest.mark.parametrize("value", [None, 0, -5, "soon", True, 10**30, [], float(-1)])
def test_times_that_are_none(value: Any) -> None:
    assert epoch(value) is None


@pytest.mark.parametrize(
    ("info", "points"),
    [
        ({"messagePointBalance": 120}, 120),
        ({"subscriptionPointBalance": 100, "addonPointBalance": 25}, 125),
        ({"subscriptionPointBalance": 100}, 100),
        ({"addonPointBalance": 7, "subscriptionPointBalance": None}, 7),
        ({"subscriptionPointBalance": 0, "addonPointBalance": 0, "messagePointBalance": 99}, 0),
        ({"messagePointBalance": "120"}, 120),
        ({}, None),
    ],
)
def test_points_in_both_spellings(info: dict[str, Any], points: int | None) -> None:
    assert reading_of({"messagePointInfo": info}).points == points


def test_a_whole_reading() -> None:
    reading = reading_of(
        {
            "messagePointInfo": {
                "messagePointBalance": 5,
                "totalMessagePointAllotment": 3000,
                "messagePointResetTime": int(AT.timestamp() * 1000),
            },
            "subscription": {
                "isActive": True,
                "expiresTime": int(AT.timestamp() * 10**6),
                "subscriptionProduct": {"displayName": "Yearly"},
            },
        }
    )
    assert (reading.allotment, reading.next_grant_at, reading.subscription_active) == (3000, AT, True)
    assert reading.details == {"plan": "Yearly", "plan_expires_at": AT.isoformat()}
    assert reading_of({"subscription": None}).subscription_active is False
    assert reading_of({}).subscription_active is None


def test_channel_data() -> None:
    data = {"minSeq": "12", "channel": "c", "channelHash": 5, "boxName": "b", "baseHost": "poe.com", "targetUrl": "?"}
    found = channel_of(data)
    assert found is not None and (found.min_seq, found.channel_hash) == (12, "5")
    for lacking in ("channel", "boxName"):
        assert channel_of({**data, lacking: None}) is None
    assert channel_of({**data, "baseHost": "evil/..@x"}) is None
    assert channel_of(None) is None


# ---------------------------------------------------------------- bots


def test_a_page_of_bots() -> None:
    nodes = [
        {"handle": "GPT-4o", "displayName": "GPT 4o", "deletionState": "not_deleted", "isOfficialBot": True},
        {"handle": "Gone", "deletionState": "deleted"},
        {"handle": "Locked", "canUserAccessBot": False},
        {"handle": "New Bot 5"},
        {"displayName": ""},
    ]
    edges = [{"node": node} for node in nodes]
    found = bots_page(
        {"viewer": {"availableBotsConnection": {"edges": edges, "pageInfo": {"endCursor": 10}}}}, PROTOCOL
    )
    assert found is not None and found.cursor == "10"
    assert [(model.id, model.upstream) for model in found.models] == [("GPT-4o", "gpt4_o"), ("New Bot 5", "newbot5")]
    assert found.models[0].details == {"display_name": "GPT 4o", "official": True}


@pytest.mark.parametrize("data", [{}, {"viewer": None}, {"viewer": {}}, {"viewer": {"availableBotsConnection": {}}}])
def test_bots_in_another_shape(data: dict[str, Any]) -> None:
    assert bots_page(data, PROTOCOL) is None


# ---------------------------------------------------------------- answers


def test_the_answer_to_a_message() -> None:
    sent = send_answer(
        {
            "messageEdgeCreate": {
                "status": "success",
                "statusMessage": None,
                "message": {"node": {"messageId": 5}},
                "chat": {"chatId": 77, "chatCode": "abc"},
                "botMessage": {"messageId": 6, "state": "complete", "text": "hi"},
            }
        }
    )
    assert sent is not None and sent.human is not None
    assert (sent.status, sent.chat_id, sent.chat_code, sent.human.message_id) == (
        "success",
        77,
        "abc",
        "5",
    )
    assert sent.reply is not None and (sent.reply.message_id, sent.reply.text) == ("6", "hi")


@pytest.mark.parametrize(
    ("chat", "number"),
    [({"chatId": "77"}, 77), ({"id": NODE_ID}, 77), ({"chatId": NODE_ID}, 77), ({}, None), (None, None)],
)
def test_the_chat_in_the_answer(chat: Any, number: int | None) -> None:
    sent = send_answer({"messageEdgeCreate": {"status": "success", "chat": chat, "botMessage": None}})
    assert sent is not None and sent.chat_id == number and sent.reply is None


def test_answers_in_another_shape() -> None:
    assert send_answer({}) is None and send_answer({"messageEdgeCreate": None}) is None
    assert chat_nodes({"chatOfCode": None}) is None


def _node(message_id: str, author: str, created: int = 0) -> Update:
    return Update(message_id=message_id, author=author, created=created)


OLD = [_node("1", "human", 10), _node("2", "bot", 11)]
NEW = [_node("3", "human", 20), _node("4", "pacarana", 21), _node("5", "bot", 22)]


@pytest.mark.parametrize("nodes", [OLD + NEW, (OLD + NEW)[::-1]], ids=["oldest first", "newest first"])
@pytest.mark.parametrize(("human", "found"), [("3", "5"), ("1", "5"), (None, "5")])
def test_the_reply_in_a_chat(nodes: list[Update], human: str | None, found: str) -> None:
    reply = pick_reply(nodes, reply_id=None, human_id=human, not_bots=("human", "pacarana"), done={"2"})
    assert reply is not None and reply.message_id == found


def test_no_reply_yet() -> None:
    nodes = [*OLD, NEW[0]]
    options: dict[str, Any] = {"human_id": "3", "not_bots": ("human",), "done": set()}
    assert pick_reply(nodes, reply_id=None, **options) is None
    assert pick_reply(nodes, reply_id="9", **options) is None


# ---------------------------------------------------------------- pages


def _page(*parts: str) -> page.PageFacts:
    return page.read_page("<html><head>" + "".join(parts), challenge_element="sign", suspended="Please wait")


def test_scripts_are_sorted_out() -> None:
    facts = _page(
        "<script src='/x/webpack-1.js'></script><script src='/x/_app-1.js'></script><script src='/_app-2.js'></script>",
        "<script>window.a=function(){}</script>",
        "<script>function b(){document.title}</script>",
        '<script type="application/json">{"function": 1}</script>',
        "<script>var c=1</script>",
    )
    assert facts["app_sources"] == ["/x/_app-1.js", "/_app-2.js"]
    assert facts["scripts"] == ["window.a=function(){}"]
    assert facts["other_scripts"] == ["function b(){document.title}", "var c=1"]


def test_page_data_at_any_depth() -> None:
    data = {"props": [{"a": {"tchannelData": {"channel": "c"}}}], "buildId": "b" * 20}
    facts = _page(f'<script id="__NEXT_DATA__" type="application/json">{json.dumps(data)}</script>')
    assert facts["tchannel"] == {"channel": "c"} and facts["build"] == "b" * 20
    assert _page('<script id="__NEXT_DATA__" type="application/json">{"broken</script>')["tchannel"] is None
    deep = "[" * 5000 + "]" * 5000
    assert _page(f'<script id="__NEXT_DATA__" type="application/json">{deep}</script>')["tchannel"] is None


def test_signs_on_a_page() -> None:
    assert _page("<title> A title </title><p id=sign>")["challenge"]
    assert _page("<body><p>Please wait a moment</p>")["suspended"]
    assert not _page("<script>var text='Please wait a moment'</script>")["suspended"], "only what is shown counts"


REV = "b759a4647fa291beba4792e9139bc4c014399434"


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        (f"<https://psc2.cf2.poecdn.net/assets/_next/static/{REV}/css/app.css>; rel=preload", REV),
        (f"poecdn.net/assets/_next/static/chunks/x poecdn.net/assets/_next/static/{REV}/chunks/1.js", REV),
        (f'"https://x.poecdn.net/assets/translations/{REV}/en.json"', REV),
        ("poecdn.net/assets/translations/short/en.json", None),
        ("poecdn.net/assets/_next/static/css/chunks/x", None),
        ("", None),
    ],
)
def test_the_revision_in_headers_and_pages(text: str, revision: str | None) -> None:
    assert page.revision_in(text) == revision
    assert page.revision_of({"Link": text}, None) == revision


def test_what_is_read_from_the_app_bundle() -> None:
    bundle = (
        f'window.first="no";let useFormkeyDecode=(e)=>e;window.abc="s3cret";window.z="no";x={{"poe-revision":"{REV}"}}'
    )
    assert page.window_secret(bundle) == 'window.abc="s3cret";'
    assert page.bundle_revision(bundle) == REV
    assert page.window_secret('window.abc="s3cret"') is None


@given(st.text(alphabet='<>/="ascriptn!-{} ', max_size=200))
def test_odd_pages_are_no_errors(html: str) -> None:
    page.read_page(html)
