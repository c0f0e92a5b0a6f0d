"""The ``/v1/chat/completions`` dialect: bytes -> ``ChatRequest``, answer -> JSON and SSE bytes. Pure.

Contract: OpenAI's chat completions as its SDKs check it. Nothing is dropped silently: what is not understood is
passed on to upstreams that take parameters, or refused with a message that names the field.
"""

from __future__ import annotations

from typing import Any

import orjson

from poe_gateway.chat.appending import Appender
from poe_gateway.chat.dialect import Head, Reply, Shape
from poe_gateway.chat.events import (
    ChatEvent,
    Finished,
    ImageMade,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.fields import MOST_TURNS, Body, document, metadata
from poe_gateway.chat.fields import model as named
from poe_gateway.chat.openai_tools import output_format, tool_calls, tool_choice, tools
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, Part, Role, TextPart
from poe_gateway.chat.sse import data_event, openai_error
from poe_gateway.errors import GatewayError, InvalidRequest

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_OWN = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "n",
        "user",
        "metadata",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "functions",
        "function_call",
    }
)
_MESSAGE_OWN = frozenset({"role", "content", "tool_calls", "tool_call_id", "name"})


def parse(raw: bytes | bytearray) -> ChatRequest:
    """The request of a body. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    model = named(body)
    entries = body.get("messages")
    if not isinstance(entries, list) or not entries:
        raise InvalidRequest("'messages' is required: a list with at least one message.", param="messages")
    if len(entries) > MOST_TURNS:
        raise InvalidRequest(f"'messages' takes at most {MOST_TURNS} messages.", param="messages")
    messages = tuple([_message(entry, place) for place, entry in enumerate(entries)])
    stream = _flag(body, "stream")
    choices = body.get("n")
    if choices is not None and (type(choices) is not int or choices != 1):
        raise InvalidRequest("Only one choice per request is supported: 'n' must be 1.", param="n")
    session, explicit = _session(body)
    for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
        if body.get(old) is not None:
            raise _outdated(old, new)
    offered = tools(body.get("tools"))
    return ChatRequest(
        model=model,
        messages=messages,
        stream=stream,
        include_usage=_include_usage(body, stream),
        session_id=session,
        session_explicit=explicit,
        parameters={key: value for key, value in body.items() if key not in _OWN and value is not None},
        metadata=metadata(body),
        tools=offered,
        tool_choice=tool_choice(body.get("tool_choice"), offered),
        parallel_tool_calls=_flag(body, "parallel_tool_calls") if body.get("parallel_tool_calls") is not None else None,
        output=output_format(body.get("response_format")),
    )


def _outdated(where: str, new: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{where}' is the old form and not supported: use '{new}'.", param=where, code="unsupported_parameter"
    )


def _flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be true or false.", param=name)
    return value


def _include_usage(body: Body, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    if not stream:
        raise InvalidRequest("'stream_options' goes only with 'stream': true.", param="stream_options")
    return _flag(options, "include_usage")


def _session(body: Body) -> tuple[str | None, bool]:
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        session = metadata.get("session_id")
        if isinstance(session, str) and session:
            return session, True
    user = body.get("user")
    if user is None or user == "":
        return None, False
    if not isinstance(user, str) or len(user) > 512:
        raise InvalidRequest("'user' must be a string of at most 512 characters.", param="user")
    return user, False


def _message(entry: object, place: int) -> Message:
    where = f"messages[{place}]"
    if not isinstance(entry, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    said = entry.get("role")
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        if said == "function":
            raise _outdated(f"{where}.role", "tool")
        raise InvalidRequest(
            f"'{where}.role' must be one of {', '.join(sorted(_ROLES))}.",
            param=f"{where}.role",
        )
    content = entry.get("content")
    parts: tuple[Part, ...]
    if isinstance(content, str):
        parts = (TextPart(content),)
    elif isinstance(content, list):
        parts = tuple([_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)])
    elif content is None and role == "assistant":
        parts = ()
    else:
        raise InvalidRequest(f"'{where}.content' must be a string or a list of parts.", param=f"{where}.content")
    if len(entry) == 2 and content is not None:  # by far the most turns have a role and a content
        return Message(role, parts)
    if entry.get("function_call") is not None:
        raise _outdated(f"{where}.function_call", "tool_calls")
    return Message(
        role,
        parts,
        {key: value for key, value in entry.items() if key not in _MESSAGE_OWN and value is not None},
        tool_calls(entry.get("tool_calls"), f"{where}.tool_calls"),
        _text(entry, "tool_call_id", where),
        _text(entry, "name", where),
    )


def _text(entry: Body, name: str, where: str) -> str | None:
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"'{where}.{name}' must be a string.", param=f"{where}.{name}")
    return value


def _part(part: object, where: str) -> Part:
    if not isinstance(part, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return TextPart(part["text"], _mark(part, where))
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return TextPart(part["refusal"])
    if kind == "image_url":
        image = part.get("image_url")
        image = {"url": image} if isinstance(image, str) else image
        if isinstance(image, dict) and isinstance(url := image.get("url"), str):
            if not url.startswith(("https://", "http://", "data:image/")):
                raise InvalidRequest(f"'{where}.image_url.url' must be an http(s) or data:image URL.", param=where)
            return ImagePart(url, str(image.get("detail") or "auto"), _mark(part, where))
    raise InvalidRequest(
        f"'{where}' is not a supported content part: 'text' and 'image_url' are.",
        param=where,
        code="unsupported_content",
    )


def _mark(part: Body, where: str) -> dict[str, Any] | None:
    """``cache_control`` of a part, which several providers know."""
    mark = part.get("cache_control")
    if mark is not None and not isinstance(mark, dict):
        raise InvalidRequest(f"'{where}.cache_control' must be an object.", param=f"{where}.cache_control")
    return mark


class OpenAIChat:
    """Implements ``Dialect``."""

    route = "/v1/chat/completions"
    shape: Shape = "openai"
    prefix = "chatcmpl"
    stream_type = b"text/event-stream; charset=utf-8"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return parse(raw)

    def whole(self, reply: Reply) -> bytes:
        """A ``chat.completion`` object."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal or None}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if reply.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in reply.tool_calls
            ]
        if not reply.text and (reply.tool_calls or reply.refusal):
            message["content"] = None
        if reply.images:
            message["images"] = [_image(image) for image in reply.images]
        logprobs = None if reply.logprobs is None else {"content": list(reply.logprobs), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reply.finish}
        return orjson.dumps(
            {
                "id": reply.head.id,
                "object": "chat.completion",
                "created": reply.head.created,
                "model": reply.head.model,
                "choices": [choice],
                "usage": reply.usage.as_dict(),
            }
        )

    def writer(self, head: Head) -> ChunkWriter:
        return ChunkWriter(head)


def _image(image: ImageMade) -> dict[str, Any]:
    """As OpenRouter and others tell pictures in chat completions."""
    url = image.url or f"data:{image.media_type};base64,{image.base64}"
    return {"type": "image_url", "image_url": {"url": url}}


class ChunkWriter:
    """Implements ``Writer``: every chunk has the same id and time, ``usage`` comes as asked for."""

    __slots__ = ("_head", "_tail", "_text", "_usage")

    def __init__(self, head: Head) -> None:
        self._head = (
            b'data: {"id":'
            + orjson.dumps(head.id)
            + b',"object":"chat.completion.chunk","created":'
            + str(head.created).encode()
            + b',"model":'
            + orjson.dumps(head.model)
        )
        self._usage = head.request.include_usage
        self._tail = b',"usage":null}\n\n' if self._usage else b"}\n\n"
        self._text = Appender()

    def begin(self) -> bytes:
        """The opening chunk, which names the role."""
        return (
            self._head
            + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
            + self._tail
        )

    def event(self, event: ChatEvent) -> bytes:
        """One piece."""
        if isinstance(event, TextDelta | TextReplaced):
            logprobs = event.logprobs if isinstance(event, TextDelta) else None
            return self._delta(b'"content":' + orjson.dumps(self._text.piece(event)), logprobs)
        if isinstance(event, ToolCallDelta):
            return self._delta(b'"tool_calls":' + orjson.dumps(event.calls))
        if isinstance(event, ReasoningDelta):
            return self._delta(b'"reasoning_content":' + orjson.dumps(event.text)) if event.text else b""
        if isinstance(event, RefusalDelta):
            return self._delta(b'"refusal":' + orjson.dumps(event.text))
        if isinstance(event, ImageMade):
            return self._delta(b'"images":' + orjson.dumps([_image(event)]))
        return b""

    def _delta(self, delta: bytes, logprobs: tuple[dict[str, Any], ...] | None = None) -> bytes:
        told = b"null" if logprobs is None else orjson.dumps({"content": logprobs, "refusal": None})
        return (
            self._head
            + b',"choices":[{"index":0,"delta":{'
            + delta
            + b'},"logprobs":'
            + told
            + b',"finish_reason":null}]'
            + self._tail
        )

    def end(self, finished: Finished, reply: Reply) -> bytes:
        """The closing chunk, the usage chunk where asked for, and ``[DONE]``."""
        out = (
            self._head
            + b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"'
            + finished.reason.encode()
            + b'"}]'
            + self._tail
        )
        if self._usage:
            out += self._head + b',"choices":[],"usage":' + orjson.dumps(reply.usage.as_dict()) + b"}\n\n"
        return out + b"data: [DONE]\n\n"

    def broken(self, error: GatewayError) -> bytes:
        return data_event(openai_error(error))
