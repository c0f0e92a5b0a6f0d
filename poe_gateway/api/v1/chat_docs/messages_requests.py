"""What ``/v1/messages`` takes, for the documentation. Fields that are not listed are refused by their name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.v1.chat_docs.operation import MODEL


class CacheMark(BaseModel):
    """Where a prompt may be cached; native upstreams only."""

    model_config = ConfigDict(extra="allow")

    type: Literal["ephemeral"]


class MessageText(BaseModel):
    """A piece of text."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text"]
    text: str
    cache_control: CacheMark | None = None


class MessageImageData(BaseModel):
    """A picture in base64."""

    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str


class MessageImageUrl(BaseModel):
    """A picture by its http(s) address."""

    type: Literal["url"]
    url: str


class MessageImage(BaseModel):
    """An image."""

    model_config = ConfigDict(extra="allow")

    type: Literal["image"]
    source: MessageImageData | MessageImageUrl


class MessageDocumentSource(BaseModel):
    """Plain text: as ``data``, or as ``content``."""

    type: Literal["text", "content"]
    media_type: str | None = None
    data: str | None = None
    content: str | list[MessageText] | None = None


class MessageDocument(BaseModel):
    """A document of plain text."""

    model_config = ConfigDict(extra="allow")

    type: Literal["document"]
    source: MessageDocumentSource
    title: str | None = None
    context: str | None = None


class MessageToolUse(BaseModel):
    """A call by the assistant."""

    model_config = ConfigDict(extra="allow")

    type: Literal["tool_use"]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: dict[str, Any]


class MessageToolResult(BaseModel):
    """What a call gave."""

    model_config = ConfigDict(extra="allow")

    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1)
    content: str | list[MessageText | MessageImage | MessageDocument] | None = None
    is_error: bool | None = None


class MessageThinking(BaseModel):
    """What the assistant thought, with Anthropic's proof of it."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class MessageRedactedThinking(BaseModel):
    """What the assistant thought, sealed by Anthropic."""

    type: Literal["redacted_thinking"]
    data: str


Block = (
    MessageText
    | MessageImage
    | MessageDocument
    | MessageToolUse
    | MessageToolResult
    | MessageThinking
    | MessageRedactedThinking
)


class MessageTurn(BaseModel):
    """One turn. Calls and thinking are the assistant's; images, documents and results of tools the user's."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class MessageTool(BaseModel):
    """A function, emulated where the upstream knows none. Tools that run at Anthropic are refused."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["custom"] | None = None
    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheMark | None = None
    eager_input_streaming: bool | None = None


class MessageToolChoice(BaseModel):
    """Whether tools are called; ``name`` goes with ``tool``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessageThinkingTerms(BaseModel):
    """How much the model is to think; ``budget_tokens`` goes with ``enabled`` and is less than ``max_tokens``."""

    model_config = ConfigDict(extra="allow")

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(default=None, ge=1024)


class MessageForm(BaseModel):
    """The answer is JSON by this schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class MessageOutput(BaseModel):
    """The form of the answer, and the effort."""

    model_config = ConfigDict(extra="forbid")

    format: MessageForm | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class MessageMetadata(BaseModel):
    """``user_id`` binds a session, as ``user`` does in OpenAI's dialects."""

    model_config = ConfigDict(extra="forbid")

    user_id: str | None = Field(default=None, max_length=512)


class CountedMessages(BaseModel):
    """Anthropic's request for a count of tokens: as for a message, but ``max_tokens`` may be missing."""

    model_config = ConfigDict(extra="forbid")

    model: str = MODEL
    messages: list[MessageTurn] = Field(min_length=1)
    system: str | list[MessageText] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stop_sequences: list[str] | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    stream: bool | None = False
    tools: list[MessageTool] | None = Field(default=None, max_length=512)
    tool_choice: MessageToolChoice | None = None
    thinking: MessageThinkingTerms | None = None
    output_config: MessageOutput | None = None
    metadata: MessageMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: CacheMark | None = None
    context_management: dict[str, Any] | None = Field(default=None, description="Native upstreams only.")
    inference_geo: str | None = Field(default=None, description="Native upstreams only.")
    speed: str | None = Field(default=None, description="Native upstreams only, but for `standard`.")


class MessageRequest(CountedMessages):
    """Anthropic's request for a message."""

    max_tokens: int = Field(ge=1)
