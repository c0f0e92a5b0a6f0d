"""The ``anthropic`` package."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic, BadRequestError
from telling import KEY, MODEL, URL, tell

client = Anthropic(base_url=URL, api_key=KEY, max_retries=0)

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def text() -> dict[str, Any]:
    message = client.messages.create(model=MODEL, max_tokens=1024, messages=[{"role": "user", "content": "Say hello."}])
    return {
        "text": message.content[0].text,
        "finish": message.stop_reason,
        "tokens": message.usage.input_tokens + message.usage.output_tokens,
    }


def stream() -> dict[str, Any]:
    with client.messages.stream(
        model=MODEL, max_tokens=1024, messages=[{"role": "user", "content": "Say hello, and say it slowly."}]
    ) as events:
        pieces = list(events.text_stream)
        message = events.get_final_message()
    return {"text": "".join(pieces), "pieces": len(pieces), "finish": message.stop_reason}


def tools() -> dict[str, Any]:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    raw = client.messages.with_raw_response.create(model=MODEL, max_tokens=1024, tools=[WEATHER], messages=messages)
    first = raw.parse()
    calls = [block for block in first.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"} for call in calls]
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = client.messages.create(model=MODEL, max_tokens=1024, tools=[WEATHER], messages=messages)
    return {
        "calls": [[call.name, call.input] for call in calls],
        "finish": first.stop_reason,
        "text": second.content[0].text,
        "emulated": raw.headers.get("x-gateway-emulated"),
    }


def streamed_tools() -> dict[str, Any]:
    with client.messages.stream(
        model=MODEL,
        max_tokens=1024,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
    ) as events:
        kinds = {event.type for event in events}
        message = events.get_final_message()
    calls = [block for block in message.content if block.type == "tool_use"]
    return {
        "calls": [[call.name, call.input] for call in calls],
        "finish": message.stop_reason,
        "deltas": "input_json" in kinds,
    }


def stopped() -> dict[str, Any]:
    message = client.messages.create(
        model=MODEL,
        max_tokens=1024,
        stop_sequences=["two"],
        messages=[{"role": "user", "content": "one two three"}],
    )
    return {"text": message.content[0].text, "finish": message.stop_reason, "sequence": message.stop_sequence}


def count_tokens() -> dict[str, Any]:
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "Say hello."}])
    return {"tokens": counted.input_tokens}


def invalid() -> dict[str, Any]:
    try:
        client.messages.create(model=MODEL, max_tokens=1024, messages=[])
    except BadRequestError as error:
        return {"type": error.body["error"]["type"], "request_id": bool(error.request_id)}
    return {}


def models() -> dict[str, Any]:
    return {"served": MODEL in [model.id for model in client.models.list()]}


tell(text, stream, tools, streamed_tools, stopped, count_tokens, invalid, models)
