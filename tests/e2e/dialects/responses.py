"""OpenAI's responses."""

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
    Body,
    Dialect,
    functions,
)


def _respond(said: Any, **more: Any) -> Callable[[str, str], Ask]:
    return lambda model, picture: Ask("/v1/responses", {"model": model, "input": said, **more})


def _respond_picture(model: str, url: str) -> Ask:
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]
    return Ask("/v1/responses", {"model": model, "input": [{"role": "user", "content": parts}]})


def _flat(*names: str) -> list[Body]:
    return [{"type": "function", **each["function"]} for each in functions(*names)]


def _respond_whole(body: Any) -> Answer:
    texts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    thoughts = [part["text"] for item in body["output"] if item["type"] == "reasoning" for part in item["summary"]]
    calls = [item for item in body["output"] if item["type"] == "function_call"]
    cut = (body["incomplete_details"] or {}).get("reason") == "max_output_tokens"
    return Answer(
        text="".join(part["text"] for part in texts),
        calls=tuple((call["name"], json.loads(call["arguments"])) for call in calls),
        finish="length" if cut else body["status"],
        reasoning="".join(thoughts),
        logprobs=any(part.get("logprobs") for part in texts),
    )


def _respond_streamed(events: list[Any]) -> Answer:
    kinds = [event["type"] for event in events]
    deltas = ("response.output_text.delta", "response.function_call_arguments.delta")
    return _respond_whole(events[-1]["response"])._replace(pieces=sum(kinds.count(kind) for kind in deltas))


_RESPONSE_TURNS = [
    {"role": "user", "content": CITIES},
    *(
        {
            "type": "function_call",
            "call_id": f"call_{city}",
            "name": "get_weather",
            "arguments": f'{{"city": "{city}"}}',
        }
        for city in ("Paris", "Rome")
    ),
    {"type": "function_call_output", "call_id": "call_Paris", "output": "18 degrees"},
    {"type": "function_call_output", "call_id": "call_Rome", "output": "25 degrees"},
]
RESPONSES = Dialect(
    {
        "text": _respond(HELLO),
        "stream": _respond(HELLO, stream=True),
        "system text": _respond(HELLO, instructions=BRIEF),
        "tools": _respond(WEATHER_IN_PARIS, tools=_flat("get_weather")),
        "tools, streamed": _respond(WEATHER_IN_PARIS, tools=_flat("get_weather"), stream=True),
        "a forced tool": _respond(
            WEATHER_IN_PARIS,
            tools=_flat("get_time", "get_weather"),
            tool_choice={"type": "function", "name": "get_weather"},
        ),
        "several calls at once": _respond(CITIES, tools=_flat("get_weather")),
        "one call at a time": _respond(CITIES, tools=_flat("get_weather"), parallel_tool_calls=False),
        "results of tools": _respond(_RESPONSE_TURNS, tools=_flat("get_weather")),
        "JSON object": _respond(HELLO, text={"format": {"type": "json_object"}}),
        "JSON by schema": _respond(
            HELLO, text={"format": {"type": "json_schema", "name": "place", "schema": PLACE, "strict": True}}
        ),
        "image as data": lambda model, picture: _respond_picture(model, f"data:image/png;base64,{DATA}"),
        "image by address": _respond_picture,
        "max_tokens": _respond(COUNTING, max_output_tokens=LIMIT),
        "temperature": _respond(HELLO, temperature=0.5),
        "logprobs": _respond(HELLO, include=["message.output_text.logprobs"]),
        "reasoning": _respond(HELLO, reasoning={"effort": "high", "summary": "auto"}),
        "store": _respond(HELLO, store=True),
        "previous answer": _respond(HELLO, store=True),
    },
    _respond_whole,
    _respond_streamed,
)
