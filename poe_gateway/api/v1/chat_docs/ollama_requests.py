"""What Ollama's routes take, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.v1.chat_docs.chat_requests import ChatTool
from poe_gateway.api.v1.chat_docs.embeddings import Text, Texts
from poe_gateway.api.v1.chat_docs.operation import MODEL


class OllamaOptions(BaseModel):
    """Sampling options. What tells how a model is loaded (``num_ctx``, ``num_gpu`` …) has no meaning here and is
    passed over; further options are passed on to upstreams that follow them."""

    model_config = ConfigDict(extra="allow")

    num_predict: int | None = Field(default=None, ge=-2, description="Tokens at most; below 1 there is no limit.")
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class OllamaTerms(BaseModel):
    """What all of Ollama's requests have."""

    model_config = ConfigDict(extra="allow")

    model: str = MODEL
    options: OllamaOptions | None = None
    keep_alive: str | float | None = Field(default=None, description="0, where nothing is said: told as `unload`.")
    truncate: bool | None = None


class OllamaAnswerTerms(OllamaTerms):
    """What is asked of an answer."""

    stream: bool | None = Field(default=True, description="True unless said otherwise.")
    format: Literal["json", ""] | dict[str, Any] | None = Field(
        default=None, description="`json` or a JSON schema; emulated where the upstream knows none."
    )
    think: bool | Literal["low", "medium", "high"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class OllamaCalledFunction(BaseModel):
    """Which function, and with what."""

    name: str
    arguments: dict[str, Any] | None = None


class OllamaToolCall(BaseModel):
    """A call by the assistant."""

    id: str | None = None
    function: OllamaCalledFunction


class OllamaMessage(BaseModel):
    """One turn: at least text, images or calls."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = Field(default=None, description="Earlier thinking is left out.")
    images: list[str] | None = Field(default=None, description="Base64, or data:image URLs.")
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = Field(default=None, description="Of a `tool` turn: the tool that it answers for.")
    tool_call_id: str | None = None
    name: str | None = None


class OllamaChatRequest(OllamaAnswerTerms):
    """Ollama's request for the next turn of a chat."""

    messages: list[OllamaMessage] = Field(description="Empty: whether the model is there, told as `load`.")
    tools: list[ChatTool] | None = Field(default=None, max_length=512)


class OllamaGenerateRequest(OllamaAnswerTerms):
    """Ollama's request for an answer to a prompt; without ``prompt`` and ``images``, whether the model is there."""

    prompt: str | None = None
    system: str | None = None
    images: list[str] | None = Field(default=None, description="Base64, or data:image URLs.")


class OllamaEmbedRequest(OllamaTerms):
    """Ollama's request for embeddings."""

    input: Text | Texts
    dimensions: int | None = Field(default=None, ge=1, le=65_536)


class OllamaEmbeddingsRequest(OllamaTerms):
    """Ollama's old request for one embedding."""

    prompt: str = Field(min_length=1)
    dimensions: int | None = Field(default=None, ge=1, le=65_536)
