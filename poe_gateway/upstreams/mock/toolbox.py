"""Which tool the mock models call, and with what. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.chat.request import ChatRequest, Tool
from poe_gateway.upstreams.mock.answer import QUOTED, last_user_text
from poe_gateway.upstreams.mock.samples import sample

Fragment = dict[str, Any]
WISH = "mock_tool"
"""Metadata: the name of a function to be called, offered or not."""


def calls(request: ChatRequest) -> tuple[Fragment, ...]:
    """Fragments, in OpenAI's streaming shape, of the one call that the request calls for; none if it does not.

    A tool is called when tools are offered, none of them forbidden, and the last turn is the user's. Raises Unsampled.
    """
    said = last_user_text(request.messages)
    if (wish := request.metadata.get(WISH)) is not None:
        return _fragments(wish, {"text": said}, 1)
    tool = _wanted(request)
    if tool is None:
        return ()
    arguments = sample({"type": "object", **(tool.parameters or {})}, said[:QUOTED])
    return _fragments(tool.name, arguments, 1 + sum(len(message.tool_calls) for message in request.messages))


def _wanted(request: ChatRequest) -> Tool | None:
    choice = request.tool_choice
    turns = [message.role for message in request.messages if message.role != "system"]
    if not request.tools or not turns or turns[-1] != "user" or (choice is not None and choice.mode == "none"):
        return None
    named = choice.name if choice is not None else None
    return next((tool for tool in request.tools if tool.name == named), request.tools[0])


def _fragments(name: str, arguments: Any, number: int) -> tuple[Fragment, ...]:
    """``number``: the call's own within the conversation, so that no two calls have the same id."""
    written = msgspec.json.encode(arguments).decode()
    half = len(written) // 2
    start = {"name": name, "arguments": ""}
    return (
        {"index": 0, "id": f"call_mock_{number}", "type": "function", "function": start},
        {"index": 0, "function": {"arguments": written[:half]}},
        {"index": 0, "function": {"arguments": written[half:]}},
    )
