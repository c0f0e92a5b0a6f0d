"""The ``ollama`` package."""

from __future__ import annotations

from typing import Any

from ollama import Client, ResponseError
from pydantic import BaseModel
from telling import KEY, MODEL, URL, tell

client = Client(host=URL, headers={"Authorization": f"Bearer {KEY}"})


class Place(BaseModel):
    city: str


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return "18 degrees"


def models() -> dict[str, Any]:
    return {"served": MODEL in [model.model.removesuffix(":latest") for model in client.list().models]}


def text() -> dict[str, Any]:
    answer = client.chat(model=MODEL, messages=[{"role": "user", "content": "Say hello."}])
    return {
        "text": answer.message.content,
        "finish": answer.done_reason,
        "tokens": answer.prompt_eval_count + answer.eval_count,
    }


def stream() -> dict[str, Any]:
    said = [{"role": "user", "content": "Say hello, and say it slowly."}]
    parts = list(client.chat(model=MODEL, messages=said, stream=True))
    pieces = [part.message.content for part in parts if part.message.content]
    return {"text": "".join(pieces), "pieces": len(pieces), "finish": parts[-1].done_reason}


def generate() -> dict[str, Any]:
    return {"text": client.generate(model=MODEL, prompt="Say hello.").response}


def loaded() -> dict[str, Any]:
    answers = [
        client.generate(model=MODEL),
        client.generate(model=MODEL, keep_alive=0),
        client.chat(model=MODEL, messages=[]),
        *client.chat(model=MODEL, messages=[], stream=True),
    ]
    return {"reasons": [answer.done_reason for answer in answers], "done": all(answer.done for answer in answers)}


def streamed_generate() -> dict[str, Any]:
    parts = client.generate(model=MODEL, prompt="Say hello, and say it slowly.", stream=True)
    return {"text": "".join(part.response for part in parts)}


def tools() -> dict[str, Any]:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat(model=MODEL, messages=messages, tools=[get_weather]).message
    messages.append(first)
    for call in first.tool_calls or ():
        result = get_weather(**call.function.arguments)
        messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
    second = client.chat(model=MODEL, messages=messages, tools=[get_weather]).message
    return {
        "calls": [[call.function.name, dict(call.function.arguments)] for call in first.tool_calls or ()],
        "text": second.content,
    }


def streamed_tools() -> dict[str, Any]:
    said = [{"role": "user", "content": "What is the weather in Paris?"}]
    parts = client.chat(model=MODEL, messages=said, tools=[get_weather], stream=True)
    calls = [call.function for part in parts for call in part.message.tool_calls or ()]
    return {"calls": [[call.name, dict(call.arguments)] for call in calls]}


def structured() -> dict[str, Any]:
    said = [{"role": "user", "content": "Name a city by the sea."}]
    answer = client.chat(model=MODEL, messages=said, format=Place.model_json_schema())
    return {"city": Place.model_validate_json(answer.message.content).city}


def embeddings() -> dict[str, Any]:
    return {"sizes": [len(each) for each in client.embed(model=MODEL, input=["one", "two"]).embeddings]}


def missing() -> dict[str, Any]:
    try:
        client.chat(model="no-such-model", messages=[{"role": "user", "content": "hi"}])
    except ResponseError as error:
        return {"status": error.status_code, "told": "no-such-model" in error.error}
    return {}


tell(models, text, stream, generate, loaded, streamed_generate, tools, streamed_tools, structured, embeddings, missing)
