"""What the mock models say, and in which pieces. Pure, and the same for the same request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from poe_gateway.chat.request import Message

QUOTED = 120
"""Characters of the user's text that ``mock-1`` and ``mock-2`` repeat."""

_WORD = re.compile(r"\s*\S+\s*")
_MIN_PIECE = 48
_MAX_PIECES = 256


def last_user_text(messages: Sequence[Message]) -> str:
    """The text of the newest user turn, or nothing."""
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


def answer(model: str, said: str, slow_pieces: int) -> tuple[str, ...]:
    """The pieces of the answer to ``said``; joined they are the whole text."""
    if model == "mock-echo":
        return tuple(slices(said))
    if model == "mock-slow":
        return tuple(f"[mock] piece {n} of {slow_pieces}\n" for n in range(1, slow_pieces + 1))
    return tuple(_WORD.findall(f"[mock] ok: {said[:QUOTED]}"))


def slices(text: str) -> Iterator[str]:
    """``text`` in at most 256 pieces of at least 48 characters. Cuts fall between code points."""
    size = max(_MIN_PIECE, -(-len(text) // _MAX_PIECES))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def tokens(characters: int) -> int:
    """A quarter of the characters, rounded up."""
    return -(-characters // 4)


def tool_call(name: str, said: str) -> Iterator[dict[str, Any]]:
    """Fragments, in OpenAI's streaming shape, of one call ``name({"text": said})``."""
    arguments = msgspec.json.encode({"text": said}).decode()
    half = len(arguments) // 2
    yield {"index": 0, "id": "call_mock_1", "type": "function", "function": {"name": name, "arguments": ""}}
    yield {"index": 0, "function": {"arguments": arguments[:half]}}
    yield {"index": 0, "function": {"arguments": arguments[half:]}}
