"""What the mock models say, and in which pieces. Pure, and the same for the same request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from poe_gateway.chat.request import ChatRequest, Message
from poe_gateway.upstreams.mock.samples import sample

QUOTED = 120
"""Characters of the user's text that ``mock-1`` and ``mock-2`` repeat."""

_WORD = re.compile(r"\s*\S+\s*")
_MIN_PIECE = 48
_MAX_PIECES = 256
_JSON_PIECE = 12


def last_user_text(messages: Sequence[Message]) -> str:
    """The text of the newest user turn, or nothing."""
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


def results(messages: Sequence[Message]) -> str | None:
    """What the tools answered that were called last; None when the last turn is nobody's answer."""
    told: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        told.append(message.text)
    return ", ".join(reversed(told)) if told else None


def answer(model: str, request: ChatRequest, slow_pieces: int) -> tuple[str, ...]:
    """The pieces of the answer; joined they are the whole text. Raises Unsampled."""
    told = results(request.messages)
    said = last_user_text(request.messages) if told is None else told
    if request.output is not None:
        return tuple(slices(_form(request, said[:QUOTED]), _JSON_PIECE))
    if model == "mock-echo":
        return tuple(slices(said))
    if model == "mock-slow":
        return tuple(f"[mock] piece {n} of {slow_pieces}\n" for n in range(1, slow_pieces + 1))
    return tuple(words(f"[mock] ok: {said[:QUOTED]}{_seen(request) if told is None else ''}"))


def words(text: str) -> list[str]:
    """``text`` word by word."""
    return _WORD.findall(text) or ([text] if text else [])


def slices(text: str, least: int = _MIN_PIECE) -> Iterator[str]:
    """``text`` in at most 256 pieces of at least ``least`` characters. Cuts fall between code points."""
    size = max(least, -(-len(text) // _MAX_PIECES))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def tokens(characters: int) -> int:
    """A quarter of the characters, rounded up."""
    return -(-characters // 4)


def counted(images: int) -> str:
    """``1 image``, ``2 images``."""
    return f"{images} image{'' if images == 1 else 's'}"


def _seen(request: ChatRequest) -> str:
    """The pictures of the newest user turn, as far as the mock sees them: their number."""
    newest = next((message for message in reversed(request.messages) if message.role == "user"), None)
    images = len(newest.images) if newest is not None else 0
    return f" ({counted(images)})" if images else ""


def _form(request: ChatRequest, said: str) -> str:
    """JSON by the schema that is asked for; any object where there is none."""
    schema = request.output.schema if request.output is not None else None
    value = {"answer": f"[mock] ok: {said}"} if schema is None else sample(schema, said)
    return msgspec.json.encode(value).decode()
