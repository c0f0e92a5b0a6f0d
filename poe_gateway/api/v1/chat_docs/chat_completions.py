"""``/v1/chat/completions``: its answer, and the operation, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from poe_gateway.api.v1.chat_docs.chat_requests import ChatCompletionRequest, ChatToolCall
from poe_gateway.api.v1.chat_docs.operation import GatewayFigures, Operation


class PromptTokens(BaseModel):
    """Of the prompt."""

    cached_tokens: int


class CompletionTokens(BaseModel):
    """Of the answer."""

    reasoning_tokens: int


class ChatUsage(GatewayFigures):
    """Tokens and cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens | None = Field(default=None, description="If any came out of a cache.")
    completion_tokens_details: CompletionTokens | None = Field(default=None, description="If any were thought.")


class ChatMadeUrl(BaseModel):
    """Where a picture is: an address, or a data URL."""

    url: str


class ChatMadePicture(BaseModel):
    """A picture that the model made."""

    type: Literal["image_url"]
    image_url: ChatMadeUrl


class ChatAnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = Field(default=None, description="The model's thinking, where it is told.")
    tool_calls: list[ChatToolCall] | None = None
    images: list[ChatMadePicture] | None = None


class ChatLogprobs(BaseModel):
    """Probabilities of the tokens, as the upstream tells them."""

    content: list[dict[str, Any]]
    refusal: None = None


class ChatChoice(BaseModel):
    """The only choice."""

    index: int
    message: ChatAnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(BaseModel):
    """A whole answer. ``model`` is the one that really spoke."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CHAT = Operation(
    id="create_chat_completion",
    tag="chat",
    summary="Chat completion",
    description="OpenAI's chat completions.",
    asks=ChatCompletionRequest,
    answers=ChatCompletion,
    streamed="Chunks (`chat.completion.chunk`) that end with `data: [DONE]`, of a broken answer with an error object.",
    examples={
        "text": {"model": "GPT-4o", "messages": [{"role": "user", "content": "Say hello."}]},
        "stream": {
            "model": "GPT-4o",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 100,
            "temperature": 0.7,
            "stop": ["END"],
        },
        "session": {
            "model": "GPT-4o",
            "messages": [{"role": "user", "content": "And in French?"}],
            "metadata": {"session_id": "talk-1"},
        },
        "tools": {
            "model": "GPT-4o",
            "messages": [
                {"role": "user", "content": "What is the weather in Paris?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
            ],
            "tools": [_WEATHER],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
        },
        "image": {
            "model": "GPT-4o",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}},
                    ],
                }
            ],
        },
        "json": {
            "model": "GPT-4o",
            "messages": [{"role": "user", "content": "Name a city."}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "place",
                    "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
                    "strict": True,
                },
            },
        },
    },
)
