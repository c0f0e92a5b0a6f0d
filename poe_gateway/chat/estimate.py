"""Token counts where nobody counts, and before a request is made: a quarter of the characters. Pure, and cheap.

Always marked as estimated. ``chat.tokens`` counts better and takes longer.
"""

from __future__ import annotations

from typing import Any

import orjson

from poe_gateway.chat.request import ChatRequest, Message, TextPart

_CHARS_PER_TOKEN = 4
_PER_IMAGE = 85
"""Tokens of a low-detail image in OpenAI's own accounting: the least that an image costs."""


def tokens(characters: int) -> int:
    """Estimated tokens of a text of that length; at least one of any text."""
    return max(1, -(-characters // _CHARS_PER_TOKEN)) if characters else 0


def prompt_tokens(request: ChatRequest) -> int:
    """Estimated tokens of the whole prompt: messages, images, tools and the form that the answer must have."""
    count = sum([_message(message) for message in request.messages])
    for entry in request.inputs:
        if isinstance(entry, tuple):  # token ids have no message
            count += len(entry)
    for tool in request.tools:
        count += tokens(len(tool.name) + len(tool.description) + len(written(tool.parameters)))
    if request.output is not None and request.output.schema is not None:
        count += tokens(len(written(request.output.schema)))
    return count


def _message(message: Message) -> int:
    characters, images = 0, 0
    for part in message.parts:
        if isinstance(part, TextPart):
            characters += len(part.text)
        else:
            images += 1
    for call in message.tool_calls:
        characters += len(call.name) + len(call.arguments)
    return tokens(characters) + _PER_IMAGE * images


def written(value: Any) -> str:
    """A JSON schema as prompts hold it. Of what cannot be written as JSON, its texts only."""
    if value is None:
        return ""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # lone surrogates, numbers beyond 64 bits, very deep ones
        return " ".join(_texts(value))


def _texts(value: Any) -> list[str]:
    """Keys and texts at any depth. Without recursion: the depth is the caller's choice."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, dict):
            waiting.extend(each.keys())
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
    return found
