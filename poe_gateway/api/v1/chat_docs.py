"""The description of the raw chat route for ``/openapi.json``: it has no FastAPI route of its own.

Tests hold this against what the route really takes and gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
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
    """Tokens. ``estimated`` is present and true when the upstream did not tell them; ``points`` if it told a price.

    The costs are there when a price is known. They are exact as they are written: read them as decimal numbers.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool | None = None
    points: int | None = None
    prompt_tokens_details: dict[str, int] | None = Field(default=None, description="`cached_tokens`, if there were any")
    raw_cost: Decimal | None = Field(default=None, description="What the upstream asks.")
    billed_cost: Decimal | None = Field(default=None, description="With markup: what budgets are charged.")
    currency: str | None = None


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
    "x-gateway-cost": "Billed cost and its currency, as `0.0165 USD`; only without streaming and with a known price.",
    "idempotent-replayed": "true: this request did not run, the answer is that of an earlier one with the same key.",
    "x-gateway-original-request-id": "Id of the request that ran; only with idempotent-replayed.",
}
_RATES = {
    f"x-ratelimit-{figure}-{counted}": text.format(counted)
    for counted in ("requests", "tokens")
    for figure, text in (
        ("limit", "Most {} in the period that is nearest to its end; only where the key has such a limit."),
        ("remaining", "What is left of these {}."),
        ("reset", "Until these {} are unused again if nothing more comes, as `350ms`, `12s` or `6m0s`."),
    )
}
_AGAIN = {
    "retry-after": "Seconds; only where waiting helps.",
    "x-should-retry": "false where it does not, or not within a minute.",
}
_ERRORS = {
    "400": "The request is not valid, or the upstream refused it.",
    "401": "Missing, malformed, unknown or revoked key.",
    "402": "Every account that serves the model has used up its points.",
    "403": "The key may not do that: `model_not_allowed`, `address_not_allowed`, `org_disabled`, `currency_mismatch` "
    "or `model_unpriced`.",
    "404": "The model is not known.",
    "405": "Only POST.",
    "409": "The session's account is not available (only with SESSION_AFFINITY=strict), or another process still runs "
    "the request with this Idempotency-Key.",
    "413": "The body or the conversation is too long.",
    "422": "The Idempotency-Key belongs to another request.",
    "429": "`rate_limit_exceeded`: a limit of the key, its organisation or the gateway; `budget_exceeded`: a budget; "
    "`too_many_failures`: too many wrong keys from this address.",
    "502": "The upstream failed.",
    "503": "No account is free in time; Retry-After tells when.",
    "504": "The upstream did not answer in time.",
}


_OF_KEYS = ("401", "403", "429")
"""What any route may answer to a key."""


def _documented(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def describe(schema: dict[str, Any]) -> None:
    """Add the chat route to an OpenAPI document."""
    models = (ChatCompletionRequest, ChatCompletion, ErrorObject)
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        document = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components.update(document.pop("$defs", {}))
        components[model.__name__] = document
    headers = _documented({**_HEADERS, **_RATES})
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
    responses["429"]["headers"] = _documented({**_AGAIN, **_RATES})
    security: list[dict[str, list[str]]] = [{"ServiceKey": []}, {"ServiceKeyHeader": []}]
    paths = schema.get("paths", {})
    for path in ("/v1/key", "/v1/usage"):
        if path in paths:
            paths[path]["get"]["security"] = security
    for path, statuses in (("/v1/models", _OF_KEYS), ("/v1/models/{model_id}", (*_OF_KEYS, "404"))):
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
                },
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "required": False,
                    "description": "Requests with the same key and body run once; repetitions get the same answer.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                },
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
