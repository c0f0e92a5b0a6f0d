"""What an upstream conversation already holds, and what of a request is new to it. Pure.

A conversation is remembered as one digest per turn. A request continues it when its turns begin with exactly those;
only the rest is sent then. Anything else (an edited or shortened history) is a new conversation.
"""

from __future__ import annotations

import json
from hashlib import blake2b

from poe_gateway.chat.request import ChatRequest, Message, TextPart, ToolCall


def digest(message: Message) -> str:
    """16 hex characters over role, trimmed text, images and tool fields."""
    hasher = blake2b(message.role.encode(), digest_size=8)
    hasher.update(b"\x00" + message.text.strip().encode("utf-8", "surrogatepass"))
    for image in message.images:
        hasher.update(b"\x01" + image.url.encode("utf-8", "surrogatepass"))
    for call in message.tool_calls:
        hasher.update(b"\x02" + json.dumps((call.id, call.name, _compact(call.arguments))).encode())
    if message.tool_call_id:
        hasher.update(b"\x03" + message.tool_call_id.encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def _compact(text: str) -> str:
    """JSON in one spelling: callers may send arguments back written anew."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def digests(messages: tuple[Message, ...]) -> tuple[str, ...]:
    return tuple([digest(message) for message in messages])


def answered(text: str, calls: tuple[ToolCall, ...] = ()) -> str:
    """Digest of the assistant's turn as the caller will send it back."""
    return digest(Message("assistant", (TextPart(text),), tool_calls=calls))


def new_turns(request: ChatRequest, chain: tuple[str, ...]) -> tuple[Message, ...] | None:
    """The turns that the conversation does not hold yet; None when the request does not continue it.

    A caller that names its session and sends a single turn relies on the session's memory: that turn is new.
    The weaker ``user`` field promises no such thing, so there the history must extend what is held.
    """
    if not chain:
        return None
    messages = request.messages
    if len(messages) > len(chain) and digests(messages[: len(chain)]) == chain:
        rest = messages[len(chain) :]
        return rest if rest[0].role != "assistant" else None
    spoken = tuple(message for message in messages if message.role != "system")
    if request.session_explicit and len(spoken) == 1 and spoken[0].role == "user":
        system = tuple(message for message in messages if message.role == "system")
        if digests(system) == chain[: len(system)]:
            return spoken
    return None
