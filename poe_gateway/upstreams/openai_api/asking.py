"""The canonical request as the body of a chat completion. Pure."""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.anthropic.turns import NATIVE
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, OutputFormat, Part, TextPart, Tool, ToolChoice

_EFFORTS = ((4096, "low"), (16384, "medium"))
"""Tokens of thinking below which a budget is called so; this API takes no number."""


class NotAskable(ValueError):
    """What is asked for has no place in this API; the text may be shown to the caller."""


def chat_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The JSON body: sampling options as they are, always streamed and with usage. Raises NotAskable."""
    _refuse_sound(request.parameters)
    body = {
        **_sampling(request.parameters),
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    if request.parallel_tool_calls is not None and request.tools:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.output is not None:
        body["response_format"] = _format(request.output)
    return body


def _sampling(parameters: dict[str, Any]) -> dict[str, Any]:
    """The options untouched, but for Anthropic's way to ask for thinking: a budget is an effort here, and a model that
    may decide for itself is asked for nothing.

    Other values of ``thinking`` are passed on: several providers know them.
    """
    thinking = parameters.get("thinking")
    if not isinstance(thinking, dict):
        return parameters
    budget = thinking.get("budget_tokens")
    if type(budget) is not int and thinking.get("type") != "adaptive":
        return parameters
    others = {name: value for name, value in parameters.items() if name != "thinking"}
    return {"reasoning_effort": _effort(budget)} | others if type(budget) is int else others


def _effort(budget: int) -> str:
    return next((word for least, word in _EFFORTS if budget < least), "high")


def _refuse_sound(parameters: dict[str, Any]) -> None:
    """An answer's sound would be lost: no event carries it."""
    modalities = parameters.get("modalities")
    if parameters.get("audio") is not None or (isinstance(modalities, list) and "audio" in modalities):
        raise NotAskable("Answers in sound are not supported: leave out 'audio' and the modality 'audio'.")


def _message(message: Message) -> dict[str, Any]:
    """One turn; text alone becomes a plain string, a turn without parts (a tool call) null."""
    content: Any = None
    if message.images:
        content = [_part(part) for part in message.parts]
    elif message.parts:
        content = message.text
    turn = {**message.extra, "role": message.role, "content": content}
    turn.pop(NATIVE, None)  # another dialect's own copy of the turn
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            image = {"url": part.url} if part.detail == "auto" else {"url": part.url, "detail": part.detail}
            return {"type": "image_url", "image_url": image}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> Any:
    if choice.name is None:
        return choice.mode
    return {"type": "function", "function": {"name": choice.name}}


def _format(output: OutputFormat) -> dict[str, Any]:
    if output.kind == "json_object":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": output.name}
    if output.description:
        schema["description"] = output.description
    if output.schema is not None:
        schema["schema"] = output.schema
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}
