"""The form in which a model that only chats writes calls, and is told results: JSON between tags. Pure."""

from __future__ import annotations

import re

from poe_gateway.chat.emulation.reading import dumps
from poe_gateway.chat.request import Part, TextPart

OPENING, CLOSING = "<tool_call>", "</tool_call>"
_TAGS = (OPENING, CLOSING)
_FENCE = r"```[\w+-]{0,20}[ \t]{0,8}"
"""The first line of a code block without its end; models like to put calls into one."""
_MOST_SPACE = 64
_SPACE = rf"\s{{0,{_MOST_SPACE}}}"

_TAG = re.compile(f"{OPENING}|{CLOSING}")
_BEFORE_TAG = re.compile(rf"{_SPACE}(?:{_FENCE}\r?\n{_SPACE})?\Z")
_FARTHEST = 256
"""No match of a pattern here that holds no more than one tag is longer. They try every place with every number of
spaces, so they see the end of a text only: models may write spaces without end.
"""


def _beginnings(tag: str) -> str:
    """A pattern of every beginning of ``tag``, the empty one and the whole included."""
    pattern = ""
    for letter in reversed(tag):
        pattern = f"(?:{re.escape(letter)}{pattern})?"
    return pattern


_BEGUN = "|".join(_beginnings(tag) for tag in _TAGS)
_COULD_BEGIN = re.compile(rf"{_SPACE}(?:(?:{_FENCE}\r?\n{_SPACE})?(?:{_BEGUN})|`{{1,2}}|{_FENCE}\r?)\Z")
_RESULT_TAG = re.compile(r"<(/\s*tool_result)")
_TAG_AND_SPACE = re.compile(rf"(?:{OPENING}|{CLOSING})\s*")
_HALF_TAG = re.compile(rf"{_SPACE}(?:{_BEGUN})\Z")
_TELLING = 6
"""Letters of a tag at the end of a text from which on it is taken for one."""


def beginning_of_mark(text: str) -> int | None:
    """Where a call begins, with the space and the code fence before it; or an end that has no beginning."""
    tag = _TAG.search(text)
    if tag is None:
        return None
    near = text[max(0, tag.start() - _FARTHEST) : tag.start()]
    before = _BEFORE_TAG.search(near)
    return tag.start() if before is None else tag.start() - len(near) + before.start()


def certain(text: str) -> int:
    """How much of the text is no part of a mark, whatever comes next."""
    end = text[-_FARTHEST:]
    if "<" not in end and "`" not in end:
        return len(text) - min(_MOST_SPACE, len(end) - len(end.rstrip()))
    possible = _COULD_BEGIN.search(end)
    return len(text) if possible is None else len(text) - len(end) + possible.start()


def without_tags(text: str) -> str:
    """The text as a reader may see it: no tag, and no half of one at the end."""
    *pieces, last = _TAG_AND_SPACE.split(text)
    clean = "\n".join([*[piece.rstrip() for piece in pieces], last])
    half = _HALF_TAG.search(clean, max(0, len(clean) - _FARTHEST))
    if half is not None and len(half.group().strip()) >= _TELLING:
        clean = clean[: half.start()]
    return clean


def call(name: str, arguments: object) -> str:
    """A call as the model is to write it. ``arguments``: their value, or what stood there if that was no JSON."""
    return f'{OPENING}{{"name": {dumps(name)}, "arguments": {dumps(arguments)}}}{CLOSING}'


RESULT_END = "\n</tool_result>"


def result_begin(number: int, tool: str) -> str:
    """Before what a tool answered to call ``number`` (from 1); ``tool`` may be unknown."""
    named = f" tool={dumps(tool)}" if tool else ""
    return f'<tool_result call="{number}"{named}>\n'


def inside(part: Part) -> Part:
    """A part of a result; its text cannot end the result early."""
    return TextPart(_RESULT_TAG.sub(r"<\\\1", part.text)) if isinstance(part, TextPart) else part
