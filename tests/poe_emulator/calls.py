"""A GraphQL call that passed the header checks, and what every operation needs to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .accounts import Account
from .chats import Chat
from .connections import Connection
from .protocol import Generation
from .pushes import Channel
from .site import Site

Data = dict[str, Any]


class Unservable(Exception):
    """The site answers "Server Error"; the text says why, for the test."""


@dataclass(slots=True)
class Call:
    """One GraphQL request that passed the header checks."""

    site: Site
    account: Account
    channel: Channel
    generation: Generation
    variables: Data
    files: dict[str, str]
    """Legacy uploads: form field -> file name."""
    connection: Connection


def need(call: Call, *names: str) -> None:
    if set(call.variables) != set(names):
        raise Unservable(f"variables are not {{{', '.join(names)}}}")


def unused_nonce(call: Call) -> None:
    if call.variables["clientNonce"] in call.account.nonces:
        call.account.stats.duplicate_nonces += 1
        raise Unservable("clientNonce was used before")


def use_nonce(call: Call) -> None:
    unused_nonce(call)
    call.account.nonces.add(call.variables["clientNonce"])


def chat_named(call: Call) -> Chat:
    chat = call.account.chats.get(call.variables["chatId"])
    if chat is None:
        raise Unservable(f"no chat {call.variables['chatId']!r} in this account")
    return chat


def chat_of_message(call: Call, message_id: object) -> Chat:
    for chat in call.account.chats.values():
        if chat.message(message_id) is not None:
            return chat
    raise Unservable(f"no message {message_id!r} in this account")


def paged(nodes: list[Data], count: Any, cursor: Any) -> tuple[list[Data], Data]:
    """Edges and pageInfo; a cursor is the number of nodes already seen, as text."""
    if not isinstance(count, int) or not (cursor is None or isinstance(cursor, str)):
        raise Unservable("count is no integer or cursor no text")
    start = int(cursor) if cursor and cursor.isdigit() else 0
    shown = nodes[start : start + count]
    end = start + len(shown)
    edges = [{"node": node, "cursor": str(start + at + 1)} for at, node in enumerate(shown)]
    return edges, {"hasNextPage": end < len(nodes), "endCursor": str(end)}
