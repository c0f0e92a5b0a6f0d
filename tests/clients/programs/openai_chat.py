"""The ``openai`` package: chat completions."""

from __future__ import annotations

import json
from typing import Any

from openai import BadRequestError, OpenAI
from pydantic import BaseModel
from telling import KEY, MODEL, URL, tell

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Place(BaseModel):
    city: str


def text() -> dict[str, Any]:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Say hello."}])
    choice = answer.choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason, "tokens": answer.usage.total_tokens}


def stream() -> dict[str, Any]:
    pieces, finish, tokens = [], None, None
    for chunk in client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say hello, and say it slowly."}],
        stream=True,
        stream_options={"include_usage": True},
    ):
        for choice in chunk.choices:
            pieces += [choice.delta.content] if choice.delta.content else []
            finish = choice.finish_reason or finish
        if chunk.usage:
            tokens = chunk.usage.total_tokens
    return {"text": "".join(pieces), "pieces": len(pieces), "finish": finish, "tokens": tokens}


def tools() -> dict[str, Any]:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, tools=[WEATHER])
    first = raw.parse().choices[0]
    messages.append(first.message)
    for call in first.message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "18 degrees"})
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER]).choices[0]
    return {
        "calls": [[call.function.name, json.loads(call.function.arguments)] for call in first.message.tool_calls],
        "finish": first.finish_reason,
        "text": second.message.content,
        "emulated": raw.headers.get("x-gateway-emulated"),
    }


def streamed_tools() -> dict[str, Any]:
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{**WEATHER, "function": {**WEATHER["function"], "strict": True}}],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    ) as events:
        kinds = {event.type for event in events}
        choice = events.get_final_completion().choices[0]
    return {
        "calls": [[call.function.name, json.loads(call.function.arguments)] for call in choice.message.tool_calls],
        "finish": choice.finish_reason,
        "deltas": "tool_calls.function.arguments.delta" in kinds,
    }


def structured() -> dict[str, Any]:
    answer = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Name a city by the sea."}], response_format=Place
    )
    return {"city": answer.choices[0].message.parsed.city, "finish": answer.choices[0].finish_reason}


def stop() -> dict[str, Any]:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}], stop=["two"]
    )
    return {"text": raw.parse().choices[0].message.content, "emulated": raw.headers.get("x-gateway-emulated")}


def refused() -> dict[str, Any]:
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], n=2)
    except BadRequestError as error:
        return {"param": error.param, "request_id": bool(error.request_id)}
    return {}


def models() -> dict[str, Any]:
    return {"served": MODEL in [model.id for model in client.models.list()], "one": client.models.retrieve(MODEL).id}


tell(text, stream, tools, streamed_tools, structured, stop, refused, models)
