"""Tool calls out of their streamed fragments. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from poe_gateway.chat.request import ToolCall


def merged(fragments: Iterable[dict[str, Any]]) -> tuple[ToolCall, ...]:
    """Whole tool calls from fragments in OpenAI's streaming shape, in the order of their index."""
    ids: dict[int, str] = {}
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for fragment in fragments:
        index = int(fragment.get("index", 0))
        function = fragment.get("function") or {}
        ids[index] = fragment.get("id") or ids.get(index, "")
        names[index] = names.get(index, "") + (function.get("name") or "")
        arguments[index] = arguments.get(index, "") + (function.get("arguments") or "")
    return tuple([ToolCall(ids[index], names[index], arguments[index]) for index in sorted(ids)])
