"""The description of the raw chat route for ``/openapi.json``: it has no FastAPI route of its own.

Tests hold this against what the route really takes and gives.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class TextPart(BaseModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """Where an image is."""

    url: str = Field(description="An http(s) address or a data:image URL.")
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(BaseModel):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ChatMessage(BaseModel):
    """One turn. Further fields (tool calls, names) go to upstreams that understand them."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | ImagePart] | None = None


class StreamOptions(BaseModel):
    """Only with ``stream``."""

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """OpenAI's chat completion request. Further parameters go to upstreams that take parameters."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    user: str | None = Field(default=None, description="Binds a session where metadata.session_id is not given.")
    metadata: dict[str, str] | None = Field(
        default=None, description="`session_id` binds the caller's session to an account and its conversation."
    )


class Usage(BaseModel):
    """Tokens. ``estimated`` is present and true when the upstream did not tell them; ``points`` if it told a price."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool | None = None
    points: int | None = None


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(BaseModel):
    """The only choice."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None
    status: int
    metadata: dict[str, Any] | None = None


class ErrorObject(BaseModel):
    """Every failure of every route."""

    error: ErrorDetail


_HEADERS = {
    "x-request-id": "Id of the request, the caller's own if it sent a valid one.",
    "x-gateway-account": "Opaque id of the account that answered.",
    "x-gateway-attempts": "Accounts tried, the last one included.",
    "x-gateway-session": "new, continued, replayed, moved or borrowed; only with a session.",
    "x-gateway-wait-ms": "Time in the queue; only if it waited.",
    "x-gateway-queue-position": "Place in the queue at joining, from 1; only if it waited.",
    "x-gateway-queue-expected-ms": "Wait expected at joining; only if it waited and the pace is known.",
    "x-gateway-usage": "upstream or estimated; only without streaming.",
}
_ERRORS = {
    "400": "The request is not valid, or the upstream refused it.",
    "401": "Missing, malformed, unknown or revoked key.",
    "402": "Every account that serves the model has used up its points.",
    "404": "The model is not known.",
    "405": "Only POST.",
    "409": "The session's account is not available (only with SESSION_AFFINITY=strict).",
    "413": "The body or the conversation is too long.",
    "502": "The upstream failed.",
    "503": "No account is free in time; Retry-After tells when.",
    "504": "The upstream did not answer in time.",
}


def describe(schema: dict[str, Any]) -> None:
    """Add the chat route to an OpenAPI document."""
    models = (ChatCompletionRequest, ChatCompletion, ErrorObject)
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        document = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components.update(document.pop("$defs", {}))
        components[model.__name__] = document
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorObject"}}}
    responses: dict[str, Any] = {
        "200": {
            "description": "The answer; with `stream` as server-sent events that end with `data: [DONE]`.",
            "headers": headers,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ChatCompletion"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    }
    for status, text in _ERRORS.items():
        responses[status] = {"description": text, "content": error}
    security: list[dict[str, list[str]]] = [{"ServiceKey": []}, {"ServiceKeyHeader": []}]
    paths = schema.get("paths", {})
    for path, statuses in (("/v1/models", ("401",)), ("/v1/models/{model_id}", ("401", "404"))):
        if path in paths:
            paths[path]["get"]["security"] = security
            for status in statuses:
                paths[path]["get"]["responses"][status] = {"description": _ERRORS[status], "content": error}
            paths[path]["get"]["responses"].pop("422", None)  # any text is a model id
    chat = {
        "post": {
            "tags": ["chat"],
            "summary": "Chat completion",
            "operationId": "create_chat_completion",
            "parameters": [
                {
                    "name": "X-Timeout",
                    "in": "header",
                    "required": False,
                    "description": "Seconds the caller is ready to wait.",
                    "schema": {"type": "number", "exclusiveMinimum": 0},
                }
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatCompletionRequest"}}},
            },
            "responses": responses,
            "security": security,
        }
    }
    schema["paths"] = {"/v1/chat/completions": chat, **paths}
    components_security = schema["components"].setdefault("securitySchemes", {})
    components_security["ServiceKey"] = {"type": "http", "scheme": "bearer"}
    components_security["ServiceKeyHeader"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
