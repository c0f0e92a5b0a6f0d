"""Ollama's routes: their answers, and the operations, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from poe_gateway.api.v1.chat_docs.ollama_requests import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
)
from poe_gateway.api.v1.chat_docs.operation import GatewayFigures, Operation


class OllamaMadeCall(BaseModel):
    """Which function, and with what. What is no JSON object stands under ``invalid_json``."""

    name: str
    arguments: dict[str, Any]


class OllamaAnswerCall(BaseModel):
    """A call of a tool."""

    id: str
    function: OllamaMadeCall


class OllamaAnswerMessage(BaseModel):
    """The answer, or a piece of it."""

    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    images: list[str] | None = Field(default=None, description="Base64; pictures by address are told as Markdown.")
    tool_calls: list[OllamaAnswerCall] | None = None


class OllamaFigures(GatewayFigures):
    """What the last line of a stream and the whole answer tell. Times in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "content_filter"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaChatAnswer(OllamaFigures):
    """The whole answer, or one line of a stream. ``model`` is the one that really spoke."""

    message: OllamaAnswerMessage


class OllamaGenerateAnswer(OllamaFigures):
    """The whole answer, or one line of a stream. ``model`` is the one that really spoke."""

    response: str
    thinking: str | None = None
    image: str | None = Field(default=None, description="The first of the images.")
    images: list[str] | None = Field(default=None, description="Base64; pictures by address are told as Markdown.")
    tool_calls: list[OllamaAnswerCall] | None = None


class OllamaEmbedAnswer(GatewayFigures):
    """All vectors in the order of the inputs. Times in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsAnswer(BaseModel):
    """One vector."""

    embedding: list[float]


_LINES = "JSON lines like the whole answer, each with a piece; the last one has `done: true` and the figures. Of a "
_BROKEN = "broken answer the last line is an error object."
OLLAMA_CHAT = Operation(
    id="ollama_chat",
    tag="ollama",
    summary="Chat",
    description="Ollama's chat. Streamed unless `stream` is false.",
    asks=OllamaChatRequest,
    answers=OllamaChatAnswer,
    streamed=_LINES + _BROKEN,
    examples={
        "stream": {"model": "GPT-4o", "messages": [{"role": "user", "content": "Say hello."}]},
        "whole": {
            "model": "GPT-4o",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}],
            "stream": False,
            "options": {"temperature": 0.7, "num_predict": 100, "stop": ["END"]},
        },
        "tools": {
            "model": "GPT-4o",
            "messages": [
                {"role": "user", "content": "What is the weather in Paris?"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
                },
                {"role": "tool", "tool_name": "get_weather", "content": "18 degrees"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "description": "The weather in a city.",
                        "parameters": {
                            "type": "object",
                            "properties": {"city": {"type": "string"}},
                            "required": ["city"],
                        },
                    },
                }
            ],
            "stream": False,
        },
        "json": {
            "model": "GPT-4o",
            "messages": [{"role": "user", "content": "Name a city."}],
            "format": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "think": "low",
            "stream": False,
        },
    },
)
OLLAMA_GENERATE = Operation(
    id="ollama_generate",
    tag="ollama",
    summary="Answer to a prompt",
    description="Ollama's answer to one prompt. Streamed unless `stream` is false. `suffix`, `template`, `context` and "
    "`raw` are refused: models are asked in turns.",
    asks=OllamaGenerateRequest,
    answers=OllamaGenerateAnswer,
    streamed=_LINES + _BROKEN,
    examples={
        "stream": {"model": "GPT-4o", "prompt": "Say hello."},
        "whole": {
            "model": "GPT-4o",
            "system": "Be brief.",
            "prompt": "Name a city.",
            "format": "json",
            "stream": False,
            "options": {"seed": 7},
        },
    },
)
OLLAMA_EMBED = Operation(
    id="ollama_embed",
    tag="ollama",
    summary="Embeddings",
    description="Ollama's embeddings, of upstreams that make them.",
    asks=OllamaEmbedRequest,
    answers=OllamaEmbedAnswer,
    examples={
        "one": {"model": "text-embedding-3-small", "input": "Hello."},
        "several": {"model": "text-embedding-3-small", "input": ["Hello.", "Bye."], "dimensions": 256},
    },
)
OLLAMA_EMBEDDINGS = Operation(
    id="ollama_embeddings",
    tag="ollama",
    summary="One embedding (old form)",
    description="Ollama's old form, for one text.",
    asks=OllamaEmbeddingsRequest,
    answers=OllamaEmbeddingsAnswer,
    examples={"one": {"model": "text-embedding-3-small", "prompt": "Hello."}},
)
