"""Outgoing translation, pure: headers, the signed body, variables, and the address of the push channel."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import orjson

from poe_gateway.upstreams.poe_web.protocol import ProtocolData, Send


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A push channel as the site handed it out (``tchannelData``). ``min_seq`` is where reading starts."""

    channel: str
    channel_hash: str
    box: str
    base_host: str
    min_seq: int


class Signed(msgspec.Struct, frozen=True):
    """A request body and the headers that go with exactly these bytes."""

    body: bytes
    headers: dict[str, str]


def render_headers(templates: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    """Fill the placeholders; a header that needs an unknown value is left out."""
    rendered: dict[str, str] = {}
    for name, template in templates.items():
        if "{" not in template:
            rendered[name] = template
            continue
        needed = [key for key in values if "{" + key + "}" in template]
        if needed and all(values[key] for key in needed):
            rendered[name] = template.format_map(values)
    return rendered


def tag(body: bytes, formkey: str, salt: str) -> str:
    """The tag id: md5 over the exact bytes of the document, the form key and the salt; lower-case hex."""
    return hashlib.md5(body + formkey.encode() + salt.encode(), usedforsecurity=False).hexdigest()


def graphql(
    protocol: ProtocolData,
    operation: str,
    variables: Mapping[str, Any],
    *,
    formkey: str,
    channel: str | None,
    revision: str | None,
) -> Signed:
    """The request for one named operation (a key of ``protocol.operations``)."""
    query = protocol.operations[operation]
    body = orjson.dumps({"queryName": query.query_name, "variables": variables, "extensions": {"hash": query.hash}})
    headers = render_headers(
        protocol.headers.graphql,
        {
            "origin": protocol.origin,
            "query_name": query.query_name,
            "tag": tag(body, formkey, protocol.tag_salt),
            "formkey": formkey,
            "channel": channel,
            "revision": revision,
        },
    )
    return Signed(body, headers)


def send_variables(
    send: Send,
    *,
    chat_id: int | None,
    bot: str,
    query: str,
    client_nonce: str,
    chat_nonce: str,
    sdid: str,
    file_tokens: Sequence[str] = (),
) -> dict[str, Any]:
    """Variables of the send mutation; ``chat_id`` None starts a new chat."""
    return {
        "chatId": chat_id,
        "bot": bot,
        "query": query,
        "shouldFetchChat": chat_id is None,
        "source": send.source_new if chat_id is None else send.source_continued,
        "clientNonce": client_nonce,
        "chatNonce": chat_nonce,
        "sdid": sdid,
        "attachments": [f"file{index}" for index in range(len(file_tokens))],
        "fileHashJwts": list(file_tokens),
        **send.constants,
    }


def subscription_variables(protocol: ProtocolData) -> dict[str, Any]:
    """The whole list: whether the site takes a part of it is not known."""
    return {
        "subscriptions": [
            {"subscriptionName": entry.subscriptionName, "query": None, "queryHash": entry.queryHash}
            for entry in protocol.subscriptions
        ]
    }


def uuid4_text(bits: int) -> str:
    """128 random bits in the form of a version 4 UUID."""
    bits = bits & ~(0xF << 76) | (4 << 76)
    bits = bits & ~(0x3 << 62) | (2 << 62)
    digits = f"{bits:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def chat_node_id(chat_id: int) -> str:
    """The global id of a chat: base64 of ``Chat:<number>``."""
    return base64.b64encode(f"Chat:{chat_id}".encode()).decode()


def push_url(protocol: ProtocolData, channel: Channel, *, number: int, min_seq: int, base: str | None) -> str:
    """Address of the websocket. ``base`` replaces scheme and host, path and query stay as they are."""
    if base is None:
        scheme, _, host = protocol.push.base.format(n=number, base_host=channel.base_host).partition("://")
        first, dot, rest = host.partition(".")
        base = f"{scheme}://{first[: protocol.push.label_length]}{dot}{rest}"
    path = protocol.push.path.format(box=quote(channel.box, safe=""))
    query = urlencode({"min_seq": min_seq, "channel": channel.channel, "hash": channel.channel_hash})
    return f"{base.rstrip('/')}{path}?{query}"
