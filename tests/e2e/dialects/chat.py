"""OpenAI's chat completions."""

from __future__ import annotations

import json
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


def _chat(*messages: Any, **more: Any) -> Callable[[str, str], Ask]:
    turns = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
    return lambda model, picture: Ask("/v1/chat/completions", {"model": model, "messages": turns, **more})


def _chat_picture(model: str, url: str) -> Ask:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return Ask("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": parts}]})


def _chat_whole(body: Any) -> Answer:
    [choice] = body["choices"]
    message = choice["message"]
    return Answer(
        text=message["content"] or "",
        calls=tuple(
            (call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls", ())
        ),
        finish=choice["finish_reason"],
        reasoning=message.get("reasoning_content", ""),
        logprobs=bool((choice.get("logprobs") or {}).get("content")),
    )


def _chat_streamed(events: list[Any]) -> Answer:
    choices = [choice for event in events for choice in event["choices"]]
    deltas = [choice["delta"] for choice in choices]
    texts = [delta["content"] for delta in deltas if delta.get("content")]
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            name, arguments = part["function"].get("name"), part["function"].get("arguments")
            calls.setdefault(part["index"], [name])
            calls[part["index"]] += [arguments] if arguments else []
    return Answer(
        text="".join(texts),
        calls=tuple((name, json.loads("".join(parts))) for name, *parts in calls.values()),
        finish=next(choice["finish_reason"] for choice in choices if choice["finish_reason"]),
        pieces=len(texts) or sum(len(parts) - 1 for parts in calls.values()),
    )


_JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
_TWO_CALLS = [
    {
        "id": f"call_{city}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'},
    }
    for city in ("Paris", "Rome")
]
CHAT = Dialect(
    {
        "text": _chat(HELLO),
        "stream": _chat(HELLO, stream=True),
        "system text": _chat({"role": "system", "content": BRIEF}, HELLO),
        "tools": _chat(WEATHER_IN_PARIS, tools=functions("get_weather")),
        "tools, streamed": _chat(WEATHER_IN_PARIS, tools=functions("get_weather"), stream=True),
        "a forced tool": _chat(
            WEATHER_IN_PARIS,
            tools=functions("get_time", "get_weather"),
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
        ),
        "several calls at once": _chat(CITIES, tools=functions("get_weather")),
        "one call at a time": _chat(CITIES, tools=functions("get_weather"), parallel_tool_calls=False),
        "results of tools": _chat(
            CITIES,
            {"role": "assistant", "content": None, "tool_calls": _TWO_CALLS},
            {"role": "tool", "tool_call_id": "call_Paris", "content": "18 degrees"},
            {"role": "tool", "tool_call_id": "call_Rome", "content": "25 degrees"},
            tools=functions("get_weather"),
        ),
        "JSON object": _chat(HELLO, response_format={"type": "json_object"}),
        "JSON by schema": _chat(HELLO, response_format=_JSON_SCHEMA),
        "image as data": lambda model, picture: _chat_picture(model, f"data:image/png;base64,{DATA}"),
        "image by address": _chat_picture,
        "stop": _chat(COUNTING, stop=["three"]),
        "max_tokens": _chat(COUNTING, max_tokens=LIMIT),
        "temperature": _chat(HELLO, temperature=0.5),
        "seed": _chat(HELLO, seed=7),
        "logprobs": _chat(HELLO, logprobs=True),
        "reasoning": _chat(HELLO, reasoning_effort="high"),
        "n above 1": _chat(HELLO, n=2),
    },
    _chat_whole,
    _chat_streamed,
)
