"""Failures of the hot routes, in the shape of each dialect, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from poe_gateway.chat.dialect import Shape


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="The culprit.")
    code: str | None
    status: int
    metadata: dict[str, Any] | None = Field(default=None, description="`session_id` and `account_id`, if known.")


class OpenAIError(BaseModel):
    """A failure of OpenAI's dialects."""

    error: OpenAIErrorDetail


class AnthropicErrorCode(BaseModel):
    """Where Anthropic's SDKs look for the code."""

    error_code: str


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str
    code: str | None
    param: str | None = Field(default=None, description="The culprit.")
    details: AnthropicErrorCode | None = None


class AnthropicError(BaseModel):
    """A failure of Anthropic's dialect."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


class OllamaError(BaseModel):
    """A failure of Ollama's dialect."""

    error: str
    code: str | None


OF_SHAPE: Mapping[Shape, type[BaseModel]] = {
    "openai": OpenAIError,
    "anthropic": AnthropicError,
    "ollama": OllamaError,
}
STATUSES: Mapping[int, str] = {
    400: "The request is not valid, asks for what the upstream cannot do (`unsupported_parameter`, "
    "`unsupported_content`, `unsupported_operation`), or the upstream refused it.",
    401: "Missing, malformed, unknown or revoked key.",
    402: "Every account that serves the model has used up its points.",
    403: "The key may not do that: `model_not_allowed`, `address_not_allowed`, `org_disabled`, `currency_mismatch`, "
    "`model_unpriced` or `expert_required`.",
    404: "The model, or an item that the input refers to, is not known.",
    405: "Only POST.",
    409: "The session's account is not available (only with SESSION_AFFINITY=strict), or another process still runs "
    "the request with this Idempotency-Key.",
    413: "The body or the conversation is too long.",
    422: "The Idempotency-Key belongs to another request.",
    429: "`rate_limit_exceeded`: a limit of the key, its organisation or the gateway; `budget_exceeded`: a budget; "
    "`too_many_failures`: too many wrong keys from this address.",
    500: "The gateway failed in an unforeseen way.",
    502: "The upstream failed.",
    503: "No account is free in time; Retry-After tells when.",
    504: "The upstream did not answer in time.",
}
