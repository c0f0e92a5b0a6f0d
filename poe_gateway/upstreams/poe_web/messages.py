"""Messages of a chat as the site tells them, pure: answers to a send, pushed updates, a chat that was re-read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from poe_gateway.upstreams.poe_web.frames import chat_number, number
from poe_gateway.upstreams.poe_web.pictures import Attachment, attachments


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What one event says about one message; None = not told. ``text`` is the whole text so far."""

    message_id: str | None
    author: str | None = None
    state: str | None = None
    text: str | None = None
    state_text: str | None = None
    followups: tuple[str, ...] = ()
    created: int = 0
    """Microseconds since 1970; 0 = not told."""
    attachments: tuple[Attachment, ...] = ()
    """Files that hang on the message and can be addressed."""


class SendAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """``messageEdgeCreate``. ``chat_id`` is None when the answer names no chat."""

    status: str
    status_message: str
    chat_id: int | None
    chat_code: str | None
    human: Update | None
    """The message itself, as the site has stored it."""
    reply: Update | None
    """The bot's message, when it is already in the answer."""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _id(node: dict[str, Any]) -> str | None:
    value = node.get("messageId", node.get("id"))
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _author(node: dict[str, Any]) -> str | None:
    author = node.get("author")
    if isinstance(author, dict):
        author = author.get("handle") or author.get("nickname")
    return _text(author)


def update_of(node: Any) -> Update | None:
    """A message node, whole or in part; None when it is no object."""
    if not isinstance(node, dict):
        return None
    if isinstance(node.get("message"), dict) and "text" not in node:
        node = node["message"]
    actions = node.get("followupActions")
    bodies = [action.get("bodyText") for action in actions if isinstance(action, dict)] if actions else []
    return Update(
        message_id=_id(node),
        author=_author(node),
        state=_text(node.get("state")),
        text=_text(node.get("text")),
        state_text=_text(node.get("messageStateText")),
        followups=tuple(body for body in bodies if isinstance(body, str)),
        created=number(node.get("creationTime")) or 0,
        attachments=attachments(node.get("attachments")),
    )


def send_answer(data: dict[str, Any]) -> SendAnswer | None:
    """The answer to a send; None when it has another shape."""
    created = data.get("messageEdgeCreate")
    if not isinstance(created, dict):
        return None
    status = _text(created.get("status"))
    chat = created.get("chat")
    chat = chat if isinstance(chat, dict) else {}
    message = created.get("message")
    node = message.get("node") if isinstance(message, dict) else None
    node = node if isinstance(node, dict) else message if isinstance(message, dict) else {}
    if status is None:
        # Some answers to a continued chat carry the message alone.
        status = "success" if node else ""
    reply = created.get("botMessage")
    if isinstance(reply, dict) and isinstance(reply.get("node"), dict):
        reply = reply["node"]
    found = chat_number(chat.get("chatId"))
    return SendAnswer(
        status=status,
        status_message=_text(created.get("statusMessage")) or "",
        chat_id=found if found is not None else chat_number(chat.get("id")),
        chat_code=_text(chat.get("chatCode")),
        human=update_of(node) if node else None,
        reply=update_of(reply),
    )


def chat_nodes(data: dict[str, Any]) -> list[Update] | None:
    """The messages of a re-read chat, in the site's order; None when the answer has another shape."""
    chat = data.get("chatOfCode") or data.get("node")
    connection = chat.get("messagesConnection") if isinstance(chat, dict) else None
    edges = connection.get("edges") if isinstance(connection, dict) else None
    if not isinstance(edges, list):
        return None
    nodes = [update_of(edge.get("node")) for edge in edges if isinstance(edge, dict)]
    return [node for node in nodes if node is not None]


def pick_reply(
    nodes: list[Update], *, reply_id: str | None, human_id: str | None, not_bots: Collection[str], done: Collection[str]
) -> Update | None:
    """The bot's answer to our message in a re-read chat: by its id, else the newest one after our message.

    ``done`` are messages of earlier turns; ``not_bots`` are authors whose messages are no answers.
    """
    if reply_id is not None:
        return next((node for node in nodes if node.message_id == reply_id), None)
    asked = next((at for at, node in enumerate(nodes) if node.message_id == human_id and human_id), None)
    since = nodes[asked].created if asked is not None else 0
    candidates = [
        (node.created, at, node)
        for at, node in enumerate(nodes)
        if node.author not in not_bots and node.message_id not in done and node.message_id != human_id
    ]
    if asked is not None:
        # The order of the list is not promised: times decide where they are told.
        candidates = [entry for entry in candidates if (entry[0] >= since if since and entry[0] else entry[1] > asked)]
    return max(candidates, default=(0, 0, None), key=lambda entry: entry[:2])[2]


def is_older(update: Update, than: Update) -> bool:
    """Whether a message was surely there before another one: by creation time and by number.

    Both are tellers of age, neither is promised to be: where one contradicts the other, nothing is sure.
    """
    ages: set[int] = set()
    same_unit = update.created and than.created and update.created < 100 * than.created < 10_000 * update.created
    if same_unit and update.created != than.created:
        ages.add(-1 if update.created < than.created else 1)
    own, other = number(update.message_id), number(than.message_id)
    if own is not None and other is not None and own != other:
        ages.add(-1 if own < other else 1)
    return ages == {-1}


def cost_points(data: dict[str, Any]) -> int | None:
    """The price in a jobCostUpdated, in whole points."""
    value = data.get("totalCostPoints")
    if isinstance(value, float):
        return round(value)
    return number(value)


def trigger_of(data: dict[str, Any]) -> Update | None:
    """The message that set a job off, where it is told."""
    trigger = data.get("trigger")
    return update_of(trigger.get("message")) if isinstance(trigger, dict) else None
