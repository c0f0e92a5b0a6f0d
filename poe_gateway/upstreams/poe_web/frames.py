"""Incoming frames of the push channel, pure: text -> events and control signs. Never raises for odd input."""

from __future__ import annotations

import base64
import re
from typing import Any, Literal

import msgspec
import orjson

MESSAGE_EVENTS = frozenset({"messageAdded", "messageCreated", "messageTextUpdated", "messageStateUpdated"})
_INTEGER = re.compile(r"\s*-?[0-9]{1,40}\s*\Z")
_CHAT_IN_ID = frozenset({"messageAdded", "messageCancelled", "chatTitleUpdated", "jobUpdated", "messageCreated"})
"""Subscriptions whose unique id carries the chat id."""


class PushEvent(msgspec.Struct, frozen=True):
    """One update: the subscription's name, the chat it concerns (None = not told) and its data."""

    kind: str
    chat_id: int | None
    data: dict[str, Any]


class Frame(msgspec.Struct, frozen=True):
    """A decoded frame. ``renew`` = this channel is over, a new one must be asked for."""

    events: tuple[PushEvent, ...] = ()
    min_seq: int | None = None
    renew: bool = False
    heartbeat: Literal["ping", "pong"] | None = None


def number(value: Any) -> int | None:
    """An integer that may be written as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _INTEGER.match(value):
        return int(value)
    return None


def chat_number(value: Any) -> int | None:
    """A chat id: a number, its text, or the base64 of ``Chat:<number>``."""
    direct = number(value)
    if direct is not None or not isinstance(value, str) or not value:
        return direct
    try:
        text = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except ValueError:
        return None
    kind, _, digits = text.partition(":")
    return number(digits) if kind == "Chat" else None


def _chat_in(data: Any, depth: int = 0) -> int | None:
    """The chat named inside an event's data: ``chatId``, ``chat`` or ``trigger.message.chat``."""
    if not isinstance(data, dict) or depth > 4:
        return None
    found = chat_number(data.get("chatId"))
    if found is not None:
        return found
    if isinstance(chat := data.get("chat"), dict):
        found = chat_number(chat.get("chatId"))
        return found if found is not None else chat_number(chat.get("id"))
    for key in ("trigger", "message"):
        if (found := _chat_in(data.get(key), depth + 1)) is not None:
            return found
    return None


def _event(payload: Any) -> PushEvent | None:
    if not isinstance(payload, dict):
        return None
    unique = payload.get("unique_id")
    unique = unique if isinstance(unique, str) else ""
    name, _, subject = unique.partition(":")
    kind = payload.get("subscription_name") or name
    if not isinstance(kind, str) or not kind:
        return None
    data = _decoded(payload.get("data"))
    inner = _decoded(data.get(kind)) if isinstance(data, dict) else None
    if not isinstance(inner, dict):
        return None
    chat_id = _chat_in(inner)
    if chat_id is None and kind in _CHAT_IN_ID:
        chat_id = chat_number(subject)
    return PushEvent(kind, chat_id, inner)


def _decoded(value: Any) -> Any:
    """JSON text or the value itself."""
    if isinstance(value, str | bytes):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value


def decode_frame(raw: str | bytes) -> Frame:
    """Everything one frame says; all of its messages, in order."""
    document = _decoded(raw)
    if not isinstance(document, dict):
        return Frame()
    match document.get("type"):
        case "ping":
            return Frame(heartbeat="ping")
        case "pong":
            return Frame(heartbeat="pong")
    texts = document.get("messages")
    parts = [_decoded(text) for text in texts] if isinstance(texts, list) else []
    events: list[PushEvent] = []
    renew = False
    for part in (document, *parts):
        if not isinstance(part, dict):
            continue
        if part.get("error") == "missed_messages" or part.get("message_type") == "refetchChannel":
            renew = True
        elif (event := _event(part.get("payload"))) is not None:
            events.append(event)
    return Frame(tuple(events), number(document.get("min_seq")), renew)
