"""A list of turns as one query, pure.

The site keeps the turns of its own chats, so a chat that is continued gets only the new text. A whole history
from an OpenAI-style caller is folded into one message:

- a single user turn is sent bare, without label;
- otherwise system texts come first, unlabelled, then every turn as ``<Role>: <text>``, blank lines between
  them;
- tool calls of the assistant are written as JSON after its text, results of tools under ``Tool``.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from poe_gateway.chat.request import Message

_LABELS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


def _said(message: Message) -> str:
    """The text of one turn, with tool calls appended where there are any."""
    if not message.tool_calls:
        return message.text
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    return "\n".join(filter(None, (message.text, orjson.dumps(calls).decode())))


def _label(message: Message) -> str:
    label = _LABELS.get(message.role, "User")
    return f"{label} ({message.name})" if message.name else label


def fold(messages: Sequence[Message]) -> str:
    """The query for these turns; empty when they hold no text."""
    instructions = [message.text for message in messages if message.role == "system" and message.text]
    turns = [message for message in messages if message.role != "system"]
    if len(turns) == 1 and turns[0].role == "user" and not turns[0].name:
        return "\n\n".join([*instructions, turns[0].text]).strip("\n")
    labelled = [f"{_label(turn)}: {said}" for turn in turns if (said := _said(turn))]
    return "\n\n".join([*instructions, *labelled])
