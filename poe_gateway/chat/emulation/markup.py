"""The form in which a model that only chats writes calls, and is told results: JSON between tags. Pure."""

from __future__ import annotations

import re

from poe_gateway.chat.emulation.reading import dumps
from poe_gateway.chat.request import Part, TextPart

OPENING, CLOSING = "<tool_call>", "</tool_call>"
_TAGS = (OPENING, CLOSING)
_FENCE = r"```[\w+-]{0,20}[ \t]{0,8}"
"""The first line of a code block without its end; models like to put calls into one."""
_SPACE = r"\s{0,64}"

MARK = re.compile(rf"{_SPACE}(?:{_FENCE}\r?\n{_SPACE})?(?:{OPENING}|{CLOSING})")
"""Where a call begins, with the space and the code fence before it; or an end that has no beginning."""


def _beginnings(tag: str) -> str:
    """A pattern of every beginning of ``tag``, the empty one and the whole included."""
    pattern = ""
    for letter in reversed(tag):
        pattern = f"(?:{re.escape(letter)}{pattern})?"
    return pattern


_BEGUN = "|".join(_beginnings(tag) for tag in _TAGS)
COULD_BEGIN = re.compile(rf"{_SPACE}(?:(?:{_FENCE}\r?\n{_SPACE})?(?:{_BEGUN})|`{{1,2}}|{_FENCE}\r?)\Z")
"""The end of a text that may turn out to be a ``MARK`` once more of it is known; matches an empty end too."""
_RESULT_TAG = re.compile(r"<(/\s*tool_result)")
_ANY_TAG = re.compile(rf"{_SPACE}(?:{OPENING}|{CLOSING})\s*")
_HALF_TAG = re.compile(rf"{_SPACE}(?:{_BEGUN})\Z")
_TELLING = 6
"""Letters of a tag at the end of a text from which on it is taken for one."""


def without_tags(text: str) -> str:
    """The text as a reader may see it: no tag, and no half of one at the end."""
    clean = _ANY_TAG.sub("\n", text)
    half = _HALF_TAG.search(clean)
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
