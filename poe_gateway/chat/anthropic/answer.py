"""A canonical answer -> a ``message`` of Anthropic's Messages API. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from poe_gateway.chat.anthropic.arguments import checked
from poe_gateway.chat.dialect import Reply
from poe_gateway.chat.events import FinishReason, ImageMade
from poe_gateway.chat.usage import Usage

_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def whole(reply: Reply) -> bytes:
    """A ``message`` object."""
    return orjson.dumps(
        message(
            reply.head.id,
            reply.head.model,
            list(_blocks(reply)),
            usage_object(reply.usage),
            stop_reason(reply.finish, reply),
            reply.stop_sequence,
        )
    )


def message(
    name: str,
    model: str,
    content: list[dict[str, Any]],
    usage: dict[str, Any],
    reason: str | None = None,
    sequence: str | None = None,
) -> dict[str, Any]:
    """The object with all fields that SDKs require."""
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage,
    }


def stop_reason(finish: FinishReason, reply: Reply) -> str:
    """Why it ended. A tool that is called wins over a plain end: some upstreams tell no more than that."""
    if finish == "stop":
        if reply.tool_calls:
            return "tool_use"
        if reply.stop_sequence is not None:
            return "stop_sequence"
        if reply.refusal:
            return "refusal"
    return _REASONS[finish]


def usage_object(usage: Usage) -> dict[str, Any]:
    """Tokens in Anthropic's reckoning, where what came out of a cache is not among ``input_tokens``.

    What is the gateway's own stands under ``gateway``.
    """
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    told: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if extras := usage.extras():
        told["gateway"] = extras
    return told


def call_id(head_id: str, place: int, told: str) -> str:
    """The id of a call; one is made for upstreams that tell none."""
    return told or f"toolu_{head_id}_{place}"


def picture(image: ImageMade) -> str:
    """Answers have no blocks for pictures: one is told as Markdown."""
    return f"![image]({image.url or f'data:{image.media_type};base64,{image.base64}'})"


def _blocks(reply: Reply) -> Iterable[dict[str, Any]]:
    if reply.reasoning or reply.signature:
        yield {"type": "thinking", "thinking": reply.reasoning, "signature": reply.signature or ""}
    said = [reply.text + reply.refusal, *map(picture, reply.images)]
    if text := "\n\n".join(filter(None, said)):
        yield {"type": "text", "text": text}
    for place, call in enumerate(reply.tool_calls):
        yield {
            "type": "tool_use",
            "id": call_id(reply.head.id, place, call.id),
            "name": call.name,
            "input": orjson.Fragment(checked(call.arguments)),
        }
