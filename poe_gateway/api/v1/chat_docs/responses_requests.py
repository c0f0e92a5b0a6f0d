"""What ``/v1/responses`` takes, for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.v1.chat_docs.operation import MODEL, FunctionSchema

Status = Literal["in_progress", "completed", "incomplete"]


class ResponseTextPart(BaseModel):
    """A piece of text."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class ResponseRefusalPart(BaseModel):
    """What the assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


class ResponseImagePart(BaseModel):
    """An image; there are no files here."""

    type: Literal["input_image"]
    image_url: str = Field(description="An http(s) address or a data:image URL.")
    detail: str | None = "auto"


class ResponseMessageItem(BaseModel):
    """A turn."""

    type: Literal["message"] = "message"
    id: str | None = None
    status: Status | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ResponseTextPart | ResponseImagePart | ResponseRefusalPart]


class ResponseCallItem(BaseModel):
    """A call by the assistant."""

    type: Literal["function_call"]
    id: str | None = None
    status: Status | None = None
    call_id: str
    name: str
    arguments: str = Field(description="JSON as the model wrote it; it may be invalid.")


class ResponseCallOutputItem(BaseModel):
    """What a call gave. It answers a call that stands before it."""

    type: Literal["function_call_output"]
    id: str | None = None
    status: Status | None = None
    call_id: str
    output: str | list[ResponseTextPart | ResponseImagePart]


class SummaryPart(BaseModel):
    """A piece of the account of what the model thought."""

    type: Literal["summary_text"]
    text: str


class ReasoningPart(BaseModel):
    """A piece of what the model thought."""

    type: Literal["reasoning_text"]
    text: str


class ResponseReasoningItem(BaseModel):
    """The model's thinking."""

    type: Literal["reasoning"]
    id: str | None = None
    status: Status | None = None
    summary: list[SummaryPart]
    content: list[ReasoningPart] | None = None
    encrypted_content: str | None = None


class ResponsePictureItem(BaseModel):
    """A picture that was made before, said back with the rest of an answer. Models are not shown it again."""

    type: Literal["image_generation_call"]
    id: str | None = None
    status: Status | None = None
    result: str | None = Field(default=None, description="Base64.")


class ResponseReferenceItem(BaseModel):
    """An item of a kept response."""

    type: Literal["item_reference"] = "item_reference"
    id: str


Item = (
    ResponseMessageItem
    | ResponseCallItem
    | ResponseCallOutputItem
    | ResponseReasoningItem
    | ResponsePictureItem
    | ResponseReferenceItem
)


class ResponseTool(FunctionSchema):
    """A function, emulated where the upstream knows none. Nothing is run here."""

    type: Literal["function"]


class ResponseNamedTool(BaseModel):
    """This tool must be called."""

    type: Literal["function"]
    name: str


class ResponseAllowedTools(BaseModel):
    """Of all tools only these are offered."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ResponseNamedTool] = Field(min_length=1)


class ResponseTextFormat(BaseModel):
    """The form of the answer. ``json_schema`` goes with ``name`` and ``schema``."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseText(BaseModel):
    """How the text is to be."""

    format: ResponseTextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseReasoning(BaseModel):
    """How much the model is to think, and whether its thinking is told as a summary."""

    effort: str | None = Field(default=None, max_length=32)
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseStreamOptions(BaseModel):
    """Only with ``stream``."""

    include_obfuscation: bool | None = Field(default=None, description="There is none.")


class ResponseRequest(BaseModel):
    """OpenAI's request for a response. Further parameters are passed on to upstreams that follow them; fields of chat
    completions, prompt templates and other things that are not kept or done here are refused by their name."""

    model_config = ConfigDict(extra="allow")

    model: str = MODEL
    input: str | list[Item]
    instructions: str | None = Field(default=None, description="Never carried over to what goes on from here.")
    stream: bool | None = False
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = Field(default=False, description="Keep the answer, sealed, so that it can be continued.")
    previous_response_id: str | None = Field(default=None, max_length=128)
    tools: list[ResponseTool] | None = Field(default=None, max_length=512)
    tool_choice: Literal["auto", "none", "required"] | ResponseNamedTool | ResponseAllowedTools | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(default=None, ge=1)
    text: ResponseText | None = None
    reasoning: ResponseReasoning | None = None
    include: (
        list[Literal["reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url"]]
        | None
    ) = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = False
    service_tier: str | None = Field(default=None, max_length=64)
    prompt_cache_key: str | None = Field(default=None, max_length=1024)
    safety_identifier: str | None = Field(default=None, max_length=1024)
    n: Literal[1] | None = 1
    user: str | None = Field(
        default=None, max_length=512, description="Binds a session where metadata.session_id is not given."
    )
    metadata: dict[str, str] | None = Field(
        default=None, description="At most 16 pairs. `session_id` binds the caller's session to an account."
    )
