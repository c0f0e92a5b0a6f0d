"""The ``openai`` package: the Responses API."""

from __future__ import annotations

import json
from typing import Any

from openai import NotFoundError, OpenAI
from pydantic import BaseModel
from telling import KEY, MODEL, URL, tell

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Place(BaseModel):
    city: str


def text() -> dict[str, Any]:
    answer = client.responses.create(model=MODEL, input="Say hello.")
    return {"text": answer.output_text, "status": answer.status, "tokens": answer.usage.total_tokens}


def stream() -> dict[str, Any]:
    kinds = []
    with client.responses.stream(model=MODEL, input="Say hello, and say it slowly.") as events:
        for event in events:
            kinds.append(event.type)
        answer = events.get_final_response()
    return {
        "text": answer.output_text,
        "status": answer.status,
        "begins": kinds[:4],
        "ends": kinds[-3:],
        "pieces": kinds.count("response.output_text.delta"),
    }


def tools() -> dict[str, Any]:
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.responses.create(model=MODEL, input=asked, tools=[WEATHER])
    calls = [item for item in first.output if item.type == "function_call"]
    asked += first.output
    asked += [{"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"} for call in calls]
    second = client.responses.create(model=MODEL, input=asked, tools=[WEATHER])
    return {"calls": [[call.name, json.loads(call.arguments)] for call in calls], "text": second.output_text}


def streamed_tools() -> dict[str, Any]:
    arguments, done = "", None
    for event in client.responses.create(
        model=MODEL, input="What is the weather in Paris?", tools=[WEATHER], tool_choice="required", stream=True
    ):
        if event.type == "response.function_call_arguments.delta":
            arguments += event.delta
        elif event.type == "response.output_item.done" and event.item.type == "function_call":
            done = event.item
    return {"calls": [[done.name, json.loads(done.arguments)]], "same": arguments == done.arguments}


def structured() -> dict[str, Any]:
    answer = client.responses.parse(model=MODEL, input="Name a city by the sea.", text_format=Place)
    return {"city": answer.output_parsed.city}


def kept() -> dict[str, Any]:
    first = client.responses.create(model=MODEL, input="My name is Ada.", store=True)
    raw = client.responses.with_raw_response.create(
        model=MODEL, input="Say hello.", previous_response_id=first.id, store=True
    )
    second = raw.parse()
    again = client.responses.retrieve(second.id)
    items = list(client.responses.input_items.list(second.id, order="asc"))
    client.responses.delete(first.id)
    client.responses.delete(second.id)
    try:
        client.responses.retrieve(second.id)
        gone = False
    except NotFoundError:
        gone = True
    return {
        "text": second.output_text,
        "same": again.output_text == second.output_text,
        "before": again.previous_response_id == first.id,
        "session": raw.headers["x-gateway-session"],
        "items": [[item.role, item.content[0].text] for item in items],
        "gone": gone,
    }


def kept_tools() -> dict[str, Any]:
    first = client.responses.create(model=MODEL, input="What is the weather in Paris?", tools=[WEATHER], store=True)
    calls = [item for item in first.output if item.type == "function_call"]
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"} for call in calls],
        tools=[WEATHER],
    )
    return {"calls": [[call.name, json.loads(call.arguments)] for call in calls], "text": second.output_text}


tell(text, stream, tools, streamed_tools, structured, kept, kept_tools)
