"""The canonical chat request: what every public dialect is parsed into and every upstream is given.

Values are frozen; nothing here knows a wire format.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image by ``https:``/``http:`` address or as a ``data:`` URL (base64)."""

    url: str
    detail: str = "auto"


Part = TextPart | ImagePart


class Message(msgspec.Struct, frozen=True):
    """One turn. ``extra`` holds fields of the turn that only some upstreams understand (tool calls, names)."""

    role: Role
    parts: tuple[Part, ...]
    extra: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One chat completion as asked for by a caller.

    ``session_id`` binds to an account and an upstream chat; ``session_explicit`` tells ``metadata.session_id``
    (True) from the weaker ``user`` field (False). ``parameters`` are sampling options in OpenAI's names
    (temperature, max_tokens, stop, tools …) that were given, unchanged. ``max_tokens`` is None when not given.
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
