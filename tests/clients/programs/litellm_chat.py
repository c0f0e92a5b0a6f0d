"""LiteLLM as a client: of an OpenAI-compatible address, and by the other dialects that it speaks."""

from __future__ import annotations

import json
from typing import Any

import litellm
from telling import KEY, MODEL, URL, tell

GATEWAY = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": KEY, "num_retries": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def text() -> dict[str, Any]:
    answer = litellm.completion(**GATEWAY, messages=[{"role": "user", "content": "Say hello."}])
    choice = answer.choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason, "tokens": answer.usage.total_tokens}


def stream() -> dict[str, Any]:
    chunks = list(
        litellm.completion(
            **GATEWAY, messages=[{"role": "user", "content": "Say hello, and say it slowly."}], stream=True
        )
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    return {"text": "".join(pieces), "pieces": len(pieces), "finish": chunks[-1].choices[0].finish_reason}


def tools() -> dict[str, Any]:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = litellm.completion(**GATEWAY, messages=messages, tools=[WEATHER]).choices[0]
    messages.append(first.message)
    for call in first.message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "18 degrees"})
    second = litellm.completion(**GATEWAY, messages=messages, tools=[WEATHER]).choices[0]
    return {
        "calls": [[call.function.name, json.loads(call.function.arguments)] for call in first.message.tool_calls],
        "finish": first.finish_reason,
        "text": second.message.content,
    }


def streamed_tools() -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    chunks = list(litellm.completion(**GATEWAY, messages=messages, tools=[WEATHER], stream=True))
    choice = litellm.stream_chunk_builder(chunks, messages=messages).choices[0]
    return {
        "calls": [[call.function.name, json.loads(call.function.arguments)] for call in choice.message.tool_calls],
        "finish": choice.finish_reason,
    }


def embeddings() -> dict[str, Any]:
    answer = litellm.embedding(**GATEWAY, input=["one", "two"], encoding_format="float")
    return {"sizes": [len(each["embedding"]) for each in answer.data]}


def messages() -> dict[str, Any]:
    answer = litellm.completion(
        model=f"anthropic/{MODEL}",
        api_base=URL,
        api_key=KEY,
        messages=[{"role": "user", "content": "Say hello."}],
    )
    return {"text": answer.choices[0].message.content}


def ollama() -> dict[str, Any]:
    answer = litellm.completion(
        model=f"ollama_chat/{MODEL}",
        api_base=URL,
        api_key=KEY,
        messages=[{"role": "user", "content": "Say hello."}],
    )
    return {"text": answer.choices[0].message.content}


tell(text, stream, tools, streamed_tools, embeddings, messages, ollama)
