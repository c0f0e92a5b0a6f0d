"""The ``/v1/chat/completions`` dialect: bytes -> ``ChatRequest``, answer -> JSON and SSE bytes. Pure.

Contract: OpenAI's chat completions as its SDKs check it. Nothing is dropped silently: what is not understood is
passed on to upstreams that take parameters, or refused with a message that names the field.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from poe_gateway.chat.events import FinishReason
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, Part, Role, TextPart
from poe_gateway.errors import InvalidRequest

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_OWN = frozenset({"model", "messages", "stream", "stream_options", "n", "user", "metadata"})
_MESSAGE_OWN = frozenset({"role", "content"})
_decode = msgspec.json.Decoder().decode

Body = dict[str, Any]


def parse(raw: bytes | bytearray) -> ChatRequest:
    """The request of a body. Raises InvalidRequest with ``param`` naming the culprit."""
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else "not UTF-8"
        raise InvalidRequest(f"The body is not valid JSON: {reason}.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model.strip() or len(model) > 256:
        raise InvalidRequest("'model' is required: a string of 1 to 256 characters.", param="model")
    entries = body.get("messages")
    if not isinstance(entries, list) or not entries:
        raise InvalidRequest("'messages' is required: a list with at least one message.", param="messages")
    messages = tuple([_message(entry, place) for place, entry in enumerate(entries)])
    stream = _flag(body, "stream")
    choices = body.get("n")
    if choices is not None and (type(choices) is not int or choices != 1):
        raise InvalidRequest("Only one choice per request is supported: 'n' must be 1.", param="n")
    session, explicit = _session(body)
    return ChatRequest(
        model=model.strip(),
        messages=messages,
        stream=stream,
        include_usage=_include_usage(body, stream),
        session_id=session,
        session_explicit=explicit,
        parameters={key: value for key, value in body.items() if key not in _OWN and value is not None},
        metadata=_metadata(body),
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


def _metadata(body: Body) -> dict[str, str]:
    value = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("'metadata' must be an object of strings.", param="metadata")
    for key, entry in value.items():
        if not isinstance(entry, str) or len(key) > 64 or len(entry) > 512:
            raise InvalidRequest(
                "'metadata' takes strings only: keys up to 64, values up to 512 characters.",
                param=f"metadata.{key[:64]}",
            )
    return value


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
    if len(entry) == 2:
        return Message(role, parts)
    return Message(role, parts, {key: value for key, value in entry.items() if key not in _MESSAGE_OWN})


def _part(part: object, where: str) -> Part:
    if not isinstance(part, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return TextPart(part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return TextPart(part["refusal"])
    if kind == "image_url":
        image = part.get("image_url")
        image = {"url": image} if isinstance(image, str) else image
        if isinstance(image, dict) and isinstance(url := image.get("url"), str):
            if not url.startswith(("https://", "http://", "data:image/")):
                raise InvalidRequest(f"'{where}.image_url.url' must be an http(s) or data:image URL.", param=where)
            return ImagePart(url, str(image.get("detail") or "auto"))
    raise InvalidRequest(
        f"'{where}' is not a supported content part: 'text' and 'image_url' are.",
        param=where,
        code="unsupported_content",
    )


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one exchange; ``estimated`` when the upstream did not tell them. ``points`` if it told a price."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    points: int | None = None
    cached_tokens: int = 0
    raw_cost: str | None = None
    billed_cost: str | None = None
    currency: str | None = None
    """Costs as decimal numbers in text; None: no price is known."""

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's shape, with ``estimated``, ``points`` and the cost as extra fields where they apply."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.estimated:
            usage["estimated"] = True
        if self.points is not None:
            usage["points"] = self.points
        if self.cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.billed_cost is not None:
            # Written as they are: a float could not hold every amount.
            usage["raw_cost"] = None if self.raw_cost is None else orjson.Fragment(self.raw_cost)
            usage["billed_cost"] = orjson.Fragment(self.billed_cost)
            usage["currency"] = self.currency
        return usage


def completion(
    *,
    completion_id: str,
    created: int,
    model: str,
    text: str,
    tool_calls: list[dict[str, Any]],
    finish: FinishReason,
    usage: Usage,
) -> bytes:
    """A whole answer as a ``chat.completion`` object."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if tool_calls:
        message["tool_calls"] = tool_calls
        if not text:
            message["content"] = None
    return orjson.dumps(
        {
            "id": completion_id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": usage.as_dict(),
        }
    )


class ChunkWriter:
    """Writes the SSE events of one stream; every chunk has the same id and time. ``usage`` as asked for."""

    __slots__ = ("_head", "_tail", "_usage")

    def __init__(self, *, completion_id: str, created: int, model: str, include_usage: bool) -> None:
        self._head = (
            b'data: {"id":'
            + orjson.dumps(completion_id)
            + b',"object":"chat.completion.chunk","created":'
            + str(created).encode()
            + b',"model":'
            + orjson.dumps(model)
        )
        self._usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def first(self) -> bytes:
        """The opening chunk, which names the role."""
        return (
            self._head
            + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
            + self._tail
        )

    def text(self, text: str) -> bytes:
        """One piece of the answer."""
        return (
            self._head
            + b',"choices":[{"index":0,"delta":{"content":'
            + orjson.dumps(text)
            + b'},"logprobs":null,"finish_reason":null}]'
            + self._tail
        )

    def tool_calls(self, calls: tuple[dict[str, Any], ...]) -> bytes:
        """Fragments of tool calls."""
        return (
            self._head
            + b',"choices":[{"index":0,"delta":{"tool_calls":'
            + orjson.dumps(calls)
            + b'},"logprobs":null,"finish_reason":null}]'
            + self._tail
        )

    def last(self, finish: FinishReason, usage: Usage) -> bytes:
        """The closing chunk, the usage chunk where asked for, and ``[DONE]``."""
        out = (
            self._head
            + b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"'
            + finish.encode()
            + b'"}]'
            + self._tail
        )
        if self._usage:
            out += self._head + b',"choices":[],"usage":' + orjson.dumps(usage.as_dict()) + b"}\n\n"
        return out + b"data: [DONE]\n\n"


def merge_tool_calls(fragments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole tool calls from streamed fragments, in the order of their index."""
    calls: dict[int, dict[str, Any]] = {}
    for fragment in fragments:
        index = int(fragment.get("index", 0))
        call = calls.setdefault(index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        if fragment.get("id"):
            call["id"] = fragment["id"]
        if fragment.get("type"):
            call["type"] = fragment["type"]
        function = fragment.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]
