"""What ``/v1/chat/completions`` takes, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.v1.chat_docs.operation import MODEL, FunctionSchema


class ChatTextPart(BaseModel):
    """A piece of text."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    cache_control: dict[str, Any] | None = Field(
        default=None, description="A mark for the cache of prompts of providers that have one."
    )


class ChatRefusalPart(BaseModel):
    """What was said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


class ChatImageUrl(BaseModel):
    """Where an image is."""

    url: str = Field(description="An http(s) address or a data:image URL.")
    detail: Literal["auto", "low", "high"] | None = None


class ChatImagePart(BaseModel):
    """An image."""

    type: Literal["image_url"]
    image_url: ChatImageUrl | str
    cache_control: dict[str, Any] | None = Field(default=None, description="As of texts.")


class ChatCalledFunction(BaseModel):
    """Which function, and with what."""

    name: str
    arguments: str = Field(description="JSON as the model wrote it; it may be invalid.")


class ChatToolCall(BaseModel):
    """A call by the assistant."""

    id: str
    type: Literal["function"] = "function"
    function: ChatCalledFunction


class ChatMessage(BaseModel):
    """One turn. Further fields go to upstreams that understand them."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ChatTextPart | ChatImagePart | ChatRefusalPart] | None = Field(
        default=None, description="May be missing in an assistant's turn only."
    )
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = Field(default=None, description="Of a `tool` turn: the call that it answers.")
    name: str | None = None


class ChatTool(BaseModel):
    """A function, emulated where the upstream knows none."""

    type: Literal["function"] = "function"
    function: FunctionSchema


class ChatNamed(BaseModel):
    """A function by its name."""

    name: str


class ChatNamedTool(BaseModel):
    """This tool must be called."""

    type: Literal["function"]
    function: ChatNamed


class ChatStreamOptions(BaseModel):
    """Only with ``stream``."""

    include_usage: bool | None = False


class JsonSchemaForm(BaseModel):
    """A named JSON schema."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ChatResponseFormat(BaseModel):
    """The form of the answer, emulated where the upstream knows none. ``json_schema`` goes with its own type."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaForm | None = None


class ChatCompletionRequest(BaseModel):
    """OpenAI's chat completion request. Further parameters are passed on to upstreams that follow them; a parameter
    that the upstream does not follow is emulated (`stop`, `max_tokens`), refused, or dropped if the caller allows."""

    model_config = ConfigDict(extra="allow")

    model: str = MODEL
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = False
    stream_options: ChatStreamOptions | None = None
    tools: list[ChatTool] | None = Field(default=None, max_length=512)
    tool_choice: Literal["auto", "none", "required"] | ChatNamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ChatResponseFormat | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    n: Literal[1] | None = 1
    user: str | None = Field(
        default=None, max_length=512, description="Binds a session where metadata.session_id is not given."
    )
    metadata: dict[str, str] | None = Field(
        default=None, description="`session_id` binds the caller's session to an account and its conversation."
    )
