"""How a dialect is described: what it asks, and what came back. The words and tools that all of them ask with."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.e2e.obedient import DOT

Body = dict[str, Any]

HELLO = "Say hello."
CITIES = "What is the weather in Paris, and in Rome?"
WEATHER_IN_PARIS = "What is the weather in Paris?"
COUNTING = "one two three four five six seven eight nine ten"
BRIEF = "Be brief."
LIMIT = 5
"""Tokens; less than the answer to ``COUNTING`` has."""
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = {"get_time": "The time in a city.", "get_weather": "The weather of a city."}
DATA = base64.b64encode(DOT).decode()


class Answer(NamedTuple):
    """What came back, whatever the dialect. ``pieces``: of the text or the arguments, when it was streamed."""

    text: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    finish: str = ""
    reasoning: str = ""
    logprobs: bool = False
    pieces: int = 1
    items: int = 0
    """Vectors, pictures or tokens."""


class Ask(NamedTuple):
    """One request. ``path`` is below the gateway's address."""

    path: str
    body: Body
    files: dict[str, tuple[str, bytes, str]] | None = None


class Dialect(NamedTuple):
    """``asks``: by feature, made of a model and the address of a picture. ``whole`` and ``streamed`` read answers."""

    asks: dict[str, Callable[[str, str], Ask]]
    whole: Callable[[Any], Answer]
    streamed: Callable[[list[Any]], Answer] = lambda events: Answer()


def functions(*names: str) -> list[Body]:
    return [
        {"type": "function", "function": {"name": name, "description": TOOLS[name], "parameters": PLACE}}
        for name in names
    ]
