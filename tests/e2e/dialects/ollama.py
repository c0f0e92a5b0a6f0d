"""Ollama's chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.e2e.dialects.asks import (
    BRIEF,
    CITIES,
    COUNTING,
    DATA,
    HELLO,
    LIMIT,
    PLACE,
    WEATHER_IN_PARIS,
    Answer,
    Ask,
    Dialect,
    functions,
)


def _talk(*messages: Any, **more: Any) -> Callable[[str, str], Ask]:
    turns = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
    return lambda model, picture: Ask("/api/chat", {"model": model, "messages": turns, "stream": False, **more})


def _talk_whole(body: Any) -> Answer:
    message = body.get("message") or {"content": body["response"]}
    return Answer(
        text=message["content"],
        calls=tuple(
            (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())
        ),
        finish=body["done_reason"],
        reasoning=message.get("thinking", ""),
        logprobs=bool(body.get("logprobs")),
    )


def _talk_streamed(events: list[Any]) -> Answer:
    wholes = [_talk_whole({"done_reason": "", **event}) for event in events]
    texts = [each.text for each in wholes if each.text]
    calls = tuple(call for each in wholes for call in each.calls)
    return Answer(text="".join(texts), calls=calls, finish=wholes[-1].finish, pieces=len(texts) or len(calls))


OLLAMA = Dialect(
    {
        "text": _talk(HELLO),
        "stream": _talk(HELLO, stream=True),
        "system text": _talk({"role": "system", "content": BRIEF}, HELLO),
        "/api/generate": lambda model, picture: Ask(
            "/api/generate", {"model": model, "prompt": HELLO, "stream": False}
        ),
        "tools": _talk(WEATHER_IN_PARIS, tools=functions("get_weather")),
        "tools, streamed": _talk(WEATHER_IN_PARIS, tools=functions("get_weather"), stream=True),
        "several calls at once": _talk(CITIES, tools=functions("get_weather")),
        "results of tools": _talk(
            CITIES,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"function": {"name": "get_weather", "arguments": {"city": city}}} for city in ("Paris", "Rome")
                ],
            },
            {"role": "tool", "tool_name": "get_weather", "content": "18 degrees"},
            {"role": "tool", "tool_name": "get_weather", "content": "25 degrees"},
            tools=functions("get_weather"),
        ),
        "JSON object": _talk(HELLO, format="json"),
        "JSON by schema": _talk(HELLO, format=PLACE),
        "image as data": _talk({"role": "user", "content": "What is this?", "images": [DATA]}),
        "stop": _talk(COUNTING, options={"stop": ["three"]}),
        "max_tokens": _talk(COUNTING, options={"num_predict": LIMIT}),
        "temperature": _talk(HELLO, options={"temperature": 0.5}),
        "seed": _talk(HELLO, options={"seed": 7}),
        "logprobs": _talk(HELLO, logprobs=True),
        "reasoning": _talk(HELLO, think="high"),
    },
    _talk_whole,
    _talk_streamed,
)
