"""The ``/v1/messages`` dialect: bytes -> ``ChatRequest``, answer -> JSON and SSE bytes. Pure.

Contract: Anthropic's Messages API as its SDKs check it. Fields that no upstream here could follow are refused by
their name. What only a native upstream understands travels beside the canonical request (see ``turns``).
"""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.anthropic.answer import whole
from poe_gateway.chat.anthropic.options import output, sampling, tool_choice, tools
from poe_gateway.chat.anthropic.reading import Body, object_of, unsupported, wrong
from poe_gateway.chat.anthropic.turns import system_turns, turns
from poe_gateway.chat.anthropic.writer import MessageWriter
from poe_gateway.chat.dialect import Head, Reply, Shape
from poe_gateway.chat.fields import document, flag
from poe_gateway.chat.fields import model as model_name
from poe_gateway.chat.request import ChatRequest
from poe_gateway.errors import InvalidRequest

_KNOWN = frozenset(
    {
        "model",
        "messages",
        "system",
        "max_tokens",
        "stop_sequences",
        "temperature",
        "top_p",
        "top_k",
        "stream",
        "tools",
        "tool_choice",
        "metadata",
        "thinking",
        "output_config",
        "service_tier",
        "cache_control",
    }
)
_NATIVE = frozenset({"context_management", "inference_geo", "speed"})
"""Options that only Anthropic's own API can follow; they keep their names."""
_LONGEST_USER = 512
_SPELLED = {"reasoning_effort": "output_config.effort", "response_format": "output_config.format"}


def parse(raw: bytes | bytearray, *, counting: bool = False) -> ChatRequest:
    """The request of a body. Raises InvalidRequest with ``param`` naming the culprit.

    ``counting``: it is only to be counted; ``max_tokens`` may be missing.
    """
    body = document(raw)
    _refuse_strange(body)
    model = model_name(body)
    offered = tools(body.get("tools"))
    choice, parallel = tool_choice(body.get("tool_choice"), offered)
    form, effort = output(body.get("output_config"))
    parameters = sampling(body, counting=counting)
    if effort is not None:
        parameters["reasoning_effort"] = effort
    parameters |= {name: body[name] for name in _NATIVE & body.keys() if body[name] is not None}
    stream = flag(body, "stream")
    return ChatRequest(
        model=model,
        messages=system_turns(body.get("system")) + turns(_marked(body)),
        stream=stream,
        include_usage=stream,
        session_id=_user(body.get("metadata")),
        parameters=parameters,
        tools=offered,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        output=form,
        spelled=_SPELLED,
    )


def _refuse_strange(body: Body) -> None:
    for name, value in body.items():
        if value is None or name in _KNOWN or name in _NATIVE:
            continue
        if name == "thread":  # the SDKs' tool runners know this code, and send whole conversations from then on
            raise InvalidRequest(
                "'thread' is not supported: send the whole conversation.",
                param="thread",
                code="thread_unsupported_request",
            )
        raise unsupported(name[:256], "the gateway does not know it, or no upstream could follow it")


def _user(value: Any) -> str | None:
    """``metadata.user_id``: a weak hint at a session."""
    if value is None:
        return None
    metadata = object_of(value, "metadata")
    for name, given in metadata.items():
        if name != "user_id" and given is not None:
            raise unsupported(f"metadata.{name}"[:256], "it has 'user_id'")
    user = metadata.get("user_id")
    if user is None or user == "":
        return None
    if not isinstance(user, str) or len(user) > _LONGEST_USER:
        raise wrong("metadata.user_id", f"must be a string of at most {_LONGEST_USER} characters")
    return user


def _marked(body: Body) -> Any:
    """The messages, a cache mark of the whole request put on the last block, as Anthropic's API does."""
    mark, messages = body.get("cache_control"), body.get("messages")
    if mark is None:
        return messages
    object_of(mark, "cache_control")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(messages, list) or not isinstance(last, dict):
        return messages
    content = last.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content or not isinstance(content[-1], dict):
        return messages  # nothing that could be marked
    marked = {**last, "content": [*content[:-1], {"cache_control": mark, **content[-1]}]}
    return [*messages[:-1], marked]


class AnthropicMessages:
    """Implements ``Dialect``."""

    route = "/v1/messages"
    shape: Shape = "anthropic"
    prefix = "msg"
    stream_type = b"text/event-stream; charset=utf-8"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return parse(raw)

    def whole(self, reply: Reply) -> bytes:
        return whole(reply)

    def writer(self, head: Head) -> MessageWriter:
        return MessageWriter(head)
