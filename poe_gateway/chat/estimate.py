"""Token counts where the upstream tells none: a quarter of the characters, at least one. Always marked as estimated."""

from __future__ import annotations

from poe_gateway.chat.request import ChatRequest

_CHARS_PER_TOKEN = 4
_PER_IMAGE = 85
"""Tokens of a low-detail image in OpenAI's own accounting: the least that an image costs."""


def tokens(characters: int) -> int:
    """Estimated tokens of a text of that length."""
    return max(1, -(-characters // _CHARS_PER_TOKEN)) if characters else 0


def prompt_tokens(request: ChatRequest) -> int:
    """Estimated tokens of the whole prompt, images included."""
    count = 0
    for message in request.messages:
        count += tokens(len(message.text)) + _PER_IMAGE * len(message.images)
    return count
