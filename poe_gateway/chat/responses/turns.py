"""From items to turns: what a model is given of a conversation. Pure.

An assistant's text and the calls that follow it are one turn, as they are said back in chat completions: the turn that
an upstream conversation remembers is then the same (see ``chat.history``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from poe_gateway.chat.request import ImagePart, Message, Part, Role, TextPart, ToolCall
from poe_gateway.chat.responses.echo import Item
from poe_gateway.errors import InvalidRequest

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def turns(items: Iterable[Item]) -> tuple[Message, ...]:
    """The turns of items in their full form. References must be resolved; pictures made before are not told again."""
    messages: list[Message] = []
    thinking = ""
    for item in items:
        kind = item["type"]
        if kind == "reasoning":
            thinking = _thinking(item)
        elif kind == "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            if not messages or messages[-1].role != "assistant":
                messages.append(Message("assistant", ()))
            messages[-1] = _calling(messages[-1], call, thinking)
        elif kind == "message":
            if item["role"] != "assistant":
                thinking = ""
            messages.append(Message(_ROLES[item["role"]], _parts(item["content"])))
        elif kind == "function_call_output":
            thinking = ""
            messages.append(Message("tool", _parts(item["output"]), tool_call_id=item["call_id"]))
    return tuple(messages)


def check_turns(items: Iterable[Item]) -> None:
    """Something must be said: thinking alone is no turn. Raises InvalidRequest."""
    if not turns(items):
        raise InvalidRequest("'input' holds no message, call or output.", param="input")


def check_calls(earlier: Iterable[Item], items: Iterable[Item]) -> None:
    """Every output must answer a call that stands before it. Raises InvalidRequest."""
    known = {item["call_id"] for item in earlier if item["type"] == "function_call"}
    for place, item in enumerate(items):
        if item["type"] == "function_call":
            known.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in known:
            raise InvalidRequest(
                f"'input[{place}]' is the output of a call that the conversation does not hold.",
                param=f"input[{place}].call_id",
            )


def _calling(message: Message, call: ToolCall, thinking: str) -> Message:
    # Providers that think ask for the thinking back with its calls, and some refuse it elsewhere.
    extra: dict[str, Any] = {"reasoning_content": thinking} if thinking else message.extra
    return replace(message, tool_calls=(*message.tool_calls, call), extra=extra)


def _thinking(item: Item) -> str:
    return "".join(part["text"] for part in item.get("content") or item["summary"])


def _parts(content: str | list[dict[str, Any]]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple([_part(part) for part in content])


def _part(part: dict[str, Any]) -> Part:
    if part["type"] == "input_image":
        return ImagePart(part["image_url"], part["detail"])
    return TextPart(part["refusal"] if part["type"] == "refusal" else part["text"])
