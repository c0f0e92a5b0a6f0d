"""Tool calls out of what a model wrote. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from poe_gateway.chat.emulation import reading, validation
from poe_gateway.chat.emulation.markup import CLOSING, OPENING, beginning_of_mark
from poe_gateway.chat.emulation.plan import Offer

_BEFORE_JSON = re.compile(r"\s*(?:```[\w+-]{0,20}[ \t]*\r?\n\s*)?")
_HEAD = 512
"""Characters within which an answer that is a call without tags must show it."""
_BARE = re.compile(r'\s*(?:```[\w+-]{0,20}[ \t]*\r?\n)?\s*(?:\[\s*)?\{\s*"name"\s*:\s*"')
_COULD_BE_BARE = re.compile(
    r"\s*(?:`{0,2}|```[\w+-]{0,20}[ \t]*\r?"
    r"|(?:```[\w+-]{0,20}[ \t]*\r?\n)?\s*(?:\[\s*)?"
    r'(?:\{\s*(?:"(?:n(?:a(?:m(?:e(?:"\s*(?::\s*)?)?)?)?)?)?)?)?)'
)
_MOST_PROBLEMS = 16
"""Calls that cannot be read, after which no more are looked for."""
_WORDS = ("arguments", "parameters", "input")
"""What models call the arguments."""


class Called(msgspec.Struct, frozen=True):
    """One valid call. ``arguments``: JSON."""

    name: str
    arguments: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Calls in an answer, what is wrong with others, and the text before the first of them."""

    calls: tuple[Called, ...] = ()
    problems: tuple[str, ...] = ()
    before: str = ""


def is_bare(beginning: str) -> bool | None:
    """Whether an answer that begins so may be a call without tags; None: too early to tell."""
    head = beginning[:_HEAD]
    if _BARE.match(head):
        return True
    return None if len(beginning) < _HEAD and _COULD_BE_BARE.fullmatch(head) else False


def read(text: str, offer: Offer) -> Found:
    """All calls of a whole answer. Raises SchemaError."""
    mark = beginning_of_mark(text)
    reader = _Reader(offer)
    if mark is not None:
        reader.tagged(text)
        return Found(calls=tuple(reader.calls), problems=tuple(reader.problems), before=text[:mark])
    if is_bare(text):
        reader.bare(text)
        return Found(calls=tuple(reader.calls), problems=tuple(reader.problems))
    return Found(before=text)


class _Reader:
    def __init__(self, offer: Offer) -> None:
        self.calls: list[Called] = []
        self.problems: list[str] = []
        self._offer = offer
        self._tools = {tool.name: tool for tool in offer.callable}

    def tagged(self, text: str) -> None:
        at = text.find(OPENING)
        while at >= 0 and len(self.problems) < _MOST_PROBLEMS:
            at += len(OPENING)
            start = _BEFORE_JSON.match(text, at)
            try:
                value, at = reading.beginning(text, at if start is None else start.end())
            except reading.NotJSON as error:
                self.problems.append(f"what is between {OPENING} and {CLOSING} is no JSON object: {error}")
            else:
                self._take(value)
            at = text.find(OPENING, at)

    def bare(self, text: str) -> None:
        """Only a known tool makes a call of what has no tags: anything else is an answer in JSON."""
        for value, _ in reading.found(text):
            entries = value if isinstance(value, list) else [value]
            if all(self._is_known(entry) for entry in entries):
                self._take(value)
            return

    def _is_known(self, entry: Any) -> bool:
        if not isinstance(entry, dict) or not any(word in entry for word in _WORDS):
            return False
        return isinstance(name := entry.get("name"), str) and name in self._tools

    def _take(self, value: Any) -> None:
        for entry in value if isinstance(value, list) else [value]:
            call = self._call(entry)
            if isinstance(call, str):
                self.problems.append(call)
            elif self._offer.parallel or not self.calls:
                self.calls.append(call)

    def _call(self, entry: Any) -> Called | str:
        """The call, or what is wrong with it."""
        if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
            return 'a call must be a JSON object with "name" and "arguments"'
        if not self._tools:
            return "no tool may be called now"
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(f'"{each}"' for each in list(self._tools)[:20])
            return f"the tool {reading.dumps(name[:100])} cannot be called now; possible: {known}"
        arguments = next((entry[word] for word in _WORDS if word in entry), None)
        if isinstance(arguments, str):  # as OpenAI's API tells them
            try:
                arguments = reading.whole(arguments or "{}")
            except reading.NotJSON as error:
                return f'the arguments of "{name}" are no JSON: {error}'
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, dict):
            return f'the arguments of "{name}" must be a JSON object'
        faults = [] if tool.parameters is None else validation.faults(tool.parameters, arguments)
        if faults:
            return f'the arguments of "{name}" are not valid: {"; ".join(faults)}'
        return Called(name, reading.dumps(arguments))
