"""``/v1/responses``: its answer, and the operation, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from poe_gateway.api.v1.chat_docs.operation import GatewayFigures, Operation
from poe_gateway.api.v1.chat_docs.responses_requests import (
    ReasoningPart,
    ResponseAllowedTools,
    ResponseNamedTool,
    ResponseReasoning,
    ResponseRefusalPart,
    ResponseRequest,
    ResponseText,
    ResponseTool,
    Status,
    SummaryPart,
)


class ResponseOutputText(BaseModel):
    """A piece of the answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]] = Field(description="Always empty.")
    logprobs: list[dict[str, Any]] = Field(description="Of the tokens, where asked for and told.")


class ResponseOutputMessage(BaseModel):
    """What the assistant says."""

    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[ResponseOutputText | ResponseRefusalPart]


class ResponseOutputReasoning(BaseModel):
    """The model's thinking: as ``summary`` where that was asked for, else as ``content``."""

    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[SummaryPart]
    content: list[ReasoningPart] | None = None
    encrypted_content: str | None = None


class ResponseOutputCall(BaseModel):
    """A call of a function."""

    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


class ResponseOutputImage(BaseModel):
    """A picture. ``url`` is the gateway's own."""

    id: str
    type: Literal["image_generation_call"]
    status: Status
    result: str | None = Field(description="Base64.")
    url: str | None = None
    revised_prompt: str | None = None


class ResponseInputTokens(BaseModel):
    """Of the input."""

    cached_tokens: int
    cache_write_tokens: int


class ResponseOutputTokens(BaseModel):
    """Of the output."""

    reasoning_tokens: int


class ResponseUsage(GatewayFigures):
    """Tokens and cost."""

    input_tokens: int
    input_tokens_details: ResponseInputTokens
    output_tokens: int
    output_tokens_details: ResponseOutputTokens
    total_tokens: int


class ResponseIncomplete(BaseModel):
    """Why the answer is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseObject(BaseModel):
    """A whole answer. ``model`` is the one that really spoke; other fields repeat the request."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    error: None = None
    incomplete_details: ResponseIncomplete | None
    model: str
    output: list[ResponseOutputMessage | ResponseOutputReasoning | ResponseOutputCall | ResponseOutputImage]
    usage: ResponseUsage
    store: bool = Field(description="It is kept, and can be retrieved by its id.")
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ResponseReasoning
    safety_identifier: str | None
    service_tier: str
    temperature: float
    text: ResponseText
    tool_choice: Literal["auto", "none", "required"] | ResponseNamedTool | ResponseAllowedTools
    tools: list[ResponseTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: str | None


_PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RESPONSES = Operation(
    id="create_response",
    tag="responses",
    summary="Response",
    description="OpenAI's Responses API. Nothing is kept unless `store` is true.",
    asks=ResponseRequest,
    answers=ResponseObject,
    streamed="Named, numbered events from `response.created` to `response.completed`, `response.incomplete` or "
    "`response.failed`, which hold the whole response.",
    examples={
        "text": {"model": "GPT-4o", "input": "Say hello."},
        "stream": {
            "model": "GPT-4o",
            "instructions": "Be brief.",
            "input": "Say hello.",
            "stream": True,
            "max_output_tokens": 100,
            "temperature": 0.7,
        },
        "kept": {"model": "GPT-4o", "input": "Say hello.", "store": True, "metadata": {"session_id": "talk-1"}},
        "continued": {
            "model": "GPT-4o",
            "previous_response_id": "resp_0123456789abcdefghjkmnpq",
            "input": "And in French?",
        },
        "tools": {
            "model": "GPT-4o",
            "input": [
                {"role": "user", "content": "What is the weather in Paris?"},
                {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
                {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees"},
            ],
            "tools": [
                {
                    "type": "function",
                    "name": "get_weather",
                    "description": "The weather in a city.",
                    "parameters": _PLACE,
                    "strict": True,
                }
            ],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
        },
        "image": {
            "model": "GPT-4o",
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is this?"},
                        {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "low"},
                    ],
                }
            ],
        },
        "json": {
            "model": "GPT-4o",
            "input": "Name a city.",
            "text": {"format": {"type": "json_schema", "name": "place", "schema": _PLACE, "strict": True}},
            "reasoning": {"effort": "low", "summary": "auto"},
        },
    },
)
