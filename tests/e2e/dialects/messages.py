"""Anthropic's messages."""

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
    TOOLS,
    WEATHER_IN_PARIS,
    Answer,
    Ask,
    Body,
    Dialect,
)


def _message(*messages: Any, **more: Any) -> Callable[[str, str], Ask]:
    turns = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
    return lambda model, picture: Ask("/v1/messages", {"model": model, "max_tokens": 2048, "messages": turns, **more})


def _message_picture(model: str, source: Body) -> Ask:
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    return _message({"role": "user", "content": parts})(model, "")


def _schemas(*names: str) -> list[Body]:
    return [{"name": name, "description": TOOLS[name], "input_schema": PLACE} for name in names]


def _message_whole(body: Any) -> Answer:
    if "input_tokens" in body:
        return Answer(items=body["input_tokens"])
    blocks = body["content"]
    return Answer(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        calls=tuple((block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"),
        finish="length" if body["stop_reason"] == "max_tokens" else body["stop_reason"],
        reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
    )


def _message_streamed(events: list[Any]) -> Answer:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    texts = [delta["text"] for delta in deltas if delta["type"] == "text_delta"]
    written = [delta["partial_json"] for delta in deltas if delta["type"] == "input_json_delta"]
    names = [block["name"] for block in starts if block["type"] == "tool_use"]
    return Answer(
        text="".join(texts),
        calls=tuple((name, json.loads("".join(written))) for name in names),
        finish=next(event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"),
        pieces=len(texts) or len([each for each in written if each]),
    )


_CLAUDE_RESULTS = [
    {"type": "tool_result", "tool_use_id": "toolu_Paris", "content": "18 degrees"},
    {"type": "tool_result", "tool_use_id": "toolu_Rome", "content": "25 degrees"},
]
_CLAUDE_CALLS = [
    {"type": "tool_use", "id": f"toolu_{city}", "name": "get_weather", "input": {"city": city}}
    for city in ("Paris", "Rome")
]
MESSAGES = Dialect(
    {
        "text": _message(HELLO),
        "stream": _message(HELLO, stream=True),
        "system text": _message(HELLO, system=BRIEF),
        "tools": _message(WEATHER_IN_PARIS, tools=_schemas("get_weather")),
        "tools, streamed": _message(WEATHER_IN_PARIS, tools=_schemas("get_weather"), stream=True),
        "a forced tool": _message(
            WEATHER_IN_PARIS,
            tools=_schemas("get_time", "get_weather"),
            tool_choice={"type": "tool", "name": "get_weather"},
        ),
        "several calls at once": _message(CITIES, tools=_schemas("get_weather")),
        "one call at a time": _message(
            CITIES,
            tools=_schemas("get_weather"),
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        ),
        "results of tools": _message(
            CITIES,
            {"role": "assistant", "content": _CLAUDE_CALLS},
            {"role": "user", "content": _CLAUDE_RESULTS},
            tools=_schemas("get_weather"),
        ),
        "JSON by schema": _message(HELLO, output_config={"format": {"type": "json_schema", "schema": PLACE}}),
        "image as data": lambda model, picture: _message_picture(
            model, {"type": "base64", "media_type": "image/png", "data": DATA}
        ),
        "image by address": lambda model, picture: _message_picture(model, {"type": "url", "url": picture}),
        "stop": _message(COUNTING, stop_sequences=["three"]),
        "max_tokens": _message(COUNTING, max_tokens=LIMIT),
        "temperature": _message(HELLO, temperature=0.5),
        "reasoning": _message(HELLO, thinking={"type": "enabled", "budget_tokens": 1024}),
        "count_tokens": lambda model, picture: Ask(
            "/v1/messages/count_tokens", {"model": model, "messages": [{"role": "user", "content": HELLO}]}
        ),
    },
    _message_whole,
    _message_streamed,
)
