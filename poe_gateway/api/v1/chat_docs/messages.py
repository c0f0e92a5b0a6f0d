"""``/v1/messages``: its answer, and the operation, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from poe_gateway.api.v1.chat_docs.messages_requests import MessageRequest, MessageThinking
from poe_gateway.api.v1.chat_docs.operation import GatewayFigures, Operation


class MessageAnswerText(BaseModel):
    """A piece of the answer; pictures are told as Markdown."""

    type: Literal["text"]
    text: str


class MessageAnswerCall(BaseModel):
    """A call of a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageThinkingTokens(BaseModel):
    """Of the output."""

    thinking_tokens: int


class MessageUsage(BaseModel):
    """Tokens in Anthropic's reckoning: what came out of a cache is not among ``input_tokens``."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: MessageThinkingTokens | None = Field(default=None, description="If any were thought.")
    gateway: GatewayFigures | None = Field(default=None, description="What the gateway adds, if anything.")


class MessageObject(BaseModel):
    """A whole answer. ``model`` is the one that really spoke."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[MessageAnswerText | MessageThinking | MessageAnswerCall]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
    stop_sequence: str | None
    usage: MessageUsage


_PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MESSAGES = Operation(
    id="create_message",
    tag="messages",
    summary="Message",
    description="Anthropic's Messages API.",
    asks=MessageRequest,
    answers=MessageObject,
    streamed="Named events from `message_start` to `message_stop`, of a broken answer an `error` event.",
    examples={
        "text": {
            "model": "Claude-Sonnet-4.5",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": "Say hello."}],
        },
        "stream": {
            "model": "Claude-Sonnet-4.5",
            "max_tokens": 1024,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "Say hello."}],
            "stream": True,
            "temperature": 0.7,
            "stop_sequences": ["END"],
            "metadata": {"user_id": "user-1"},
        },
        "tools": {
            "model": "Claude-Sonnet-4.5",
            "max_tokens": 1024,
            "messages": [
                {"role": "user", "content": "What is the weather in Paris?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 degrees"}],
                },
            ],
            "tools": [{"name": "get_weather", "description": "The weather in a city.", "input_schema": _PLACE}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
        "image": {
            "model": "Claude-Sonnet-4.5",
            "max_tokens": 1024,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
                        {"type": "text", "text": "What is this?"},
                    ],
                }
            ],
        },
        "thinking": {
            "model": "Claude-Sonnet-4.5",
            "max_tokens": 4096,
            "messages": [{"role": "user", "content": "Name a city."}],
            "thinking": {"type": "enabled", "budget_tokens": 2048},
            "output_config": {"format": {"type": "json_schema", "schema": _PLACE}},
        },
    },
)
