"""The canonical request: what every public dialect is parsed into and every upstream is given.

Values are frozen; nothing here knows a wire format. Names of sampling options (``parameters``) are those of OpenAI's
chat completions, whatever dialect they came in.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

Role = Literal["system", "user", "assistant", "tool"]
Operation = Literal["chat", "embed", "image", "load"]
"""What is asked for: an answer in words, vectors of texts, pictures, or only whether the model is there."""


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text. ``cache``: the caller's mark for a provider's cache of prompts (``cache_control``)."""

    text: str
    cache: dict[str, Any] | None = None


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image by ``https:``/``http:`` address or as a ``data:`` URL (base64). ``cache``: as of texts."""

    url: str
    detail: str = "auto"
    cache: dict[str, Any] | None = None


Part = TextPart | ImagePart


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool by the assistant. ``arguments`` is JSON as the model wrote it; it may be invalid."""

    id: str
    name: str
    arguments: str


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the assistant may call. ``parameters``: JSON schema of its arguments; None takes none."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether tools are called. ``name``: exactly this one must be (with ``mode`` ``required``)."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The answer must be one JSON object, by ``schema`` where there is one (``json_schema``)."""

    kind: Literal["json_object", "json_schema"]
    name: str = "response"
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn.

    ``tool_calls``: of an assistant's turn. ``tool_call_id``: which call a ``tool`` turn answers. ``name``: of the
    speaker, or of the tool. ``extra`` holds fields of the turn that only upstreams of the same dialect understand.
    """

    role: Role
    parts: tuple[Part, ...]
    extra: dict[str, Any] = {}
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))

    @property
    def unmarked(self) -> Message:
        """The turn without marks for caches."""
        if not any(part.cache for part in self.parts):
            return self
        return replace(self, parts=tuple([replace(part, cache=None) for part in self.parts]))


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as asked for by a caller.

    ``session_id`` binds to an account and an upstream chat; ``session_explicit`` tells ``metadata.session_id``
    (True) from the weaker ``user`` field (False). ``parameters`` are sampling options in OpenAI's names
    (temperature, max_tokens, stop, seed, logprobs …) that were given, unchanged; tools and the form of the answer are
    not among them.

    ``operation`` ``embed``: ``inputs`` holds what is to be embedded, and ``messages`` one user turn for each text.
    ``image``: the only message is the prompt, with the images to be edited. ``load``: no message; no upstream is asked.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    session_id: str | None = None
    session_explicit: bool = False
    parameters: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    timeout: float | None = None
    """Seconds the caller is ready to wait (``X-Timeout``), or None."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputFormat | None = None
    operation: Operation = "chat"
    inputs: tuple[str | tuple[int, ...], ...] = ()
    defaults: tuple[str, ...] = ()
    """Names of ``parameters`` that the operator's routing gave, not the caller: dropped where they cannot be
    followed."""
    lenient: bool = False
    """Parameters that an upstream cannot follow may be dropped, if that is said (``X-Gateway-Drop-Params``)."""
    spelled: dict[str, str] = {}
    """What the dialect calls ``messages``, ``response_format`` and ``parameters`` where it has words of its own."""
    echo: dict[str, Any] = {}
    """What the dialect itself wants to say again in its answer; nobody else looks at it."""

    def spelling(self, name: str) -> str:
        """The caller's word for a field."""
        return self.spelled.get(name, name)
