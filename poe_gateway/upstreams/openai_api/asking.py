"""The canonical request as the body of a chat completion. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from poe_gateway.chat.anthropic.turns import NATIVE
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, OutputFormat, Part, TextPart, Tool, ToolChoice
from poe_gateway.upstreams.bodies import NotAskable, stand_in
from poe_gateway.upstreams.openai_api.presets import Preset

_EFFORTS = ((4096, "low"), (16384, "medium"))
"""Tokens of thinking below which a budget is called so; this API takes no number."""
_LONGEST_CALL_ID = 40
_LIMITS = ("max_completion_tokens", "max_tokens")
"""An answer's tokens at most, by the names that providers have for it; the first is the newer."""


def chat_body(request: ChatRequest, model: str, known: Preset) -> dict[str, Any]:
    """The JSON body: sampling options as they are, always streamed and with usage. Raises NotAskable."""
    _refuse_sound(request.parameters)
    messages = request.messages
    if not known.cache_marks:
        messages = tuple([message.unmarked for message in messages])
    body = {
        **_limited(_sampling(request.parameters), known.limit),
        "model": model,
        "messages": list(_turns(messages)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:  # without them the API takes none of the three
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _choice(request.tool_choice)
        if request.parallel_tool_calls is not None:
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


def _limited(parameters: dict[str, Any], limit: str | None) -> dict[str, Any]:
    """The options with the limit of tokens under the one name that the provider knows."""
    given = [parameters[name] for name in _LIMITS if parameters.get(name) is not None]
    if limit is None or not given:
        return parameters
    return {name: value for name, value in parameters.items() if name not in _LIMITS} | {limit: given[0]}


def _effort(budget: int) -> str:
    return next((word for least, word in _EFFORTS if budget < least), "high")


def _refuse_sound(parameters: dict[str, Any]) -> None:
    """An answer's sound would be lost: no event carries it."""
    modalities = parameters.get("modalities")
    if parameters.get("audio") is not None or (isinstance(modalities, list) and "audio" in modalities):
        raise NotAskable("Answers in sound are not supported: leave out 'audio' and the modality 'audio'.")


def _turns(messages: tuple[Message, ...]) -> Iterator[dict[str, Any]]:
    """The turns. Results of tools are text in this API: their images follow the last of them as the user's."""
    images: list[ImagePart] = []
    for message in messages:
        if message.role != "tool" and images:
            yield _shown(images)
            images = []
        if message.role == "tool":
            images += message.images
        yield _message(message)
    if images:
        yield _shown(images)


def _shown(images: list[ImagePart]) -> dict[str, Any]:
    told = TextPart("Images of the results of tools, in their order:")
    return {"role": "user", "content": [_part(told), *map(_part, images)]}


def _message(message: Message) -> dict[str, Any]:
    """One turn; plain text alone becomes a string. Only a turn that calls tools may have null in its place."""
    content: Any = message.text
    if message.role == "tool" and message.images:
        content = content or "(an image)"
    elif message.images or any(part.cache for part in message.parts):
        content = [_part(part) for part in message.parts]
    elif message.tool_calls and not message.parts:
        content = None
    turn = {**message.extra, "role": message.role, "content": content}
    turn.pop(NATIVE, None)  # another dialect's own copy of the turn
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": _call_id(call.id), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = _call_id(message.tool_call_id)
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _call_id(name: str) -> str:
    """OpenAI refuses ids that are longer than its own; other providers' often are."""
    return name if len(name) <= _LONGEST_CALL_ID else stand_in("call_", name)


def _part(part: Part) -> dict[str, Any]:
    mark = {"cache_control": part.cache} if part.cache else {}
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} | mark
        case ImagePart():
            image = {"url": part.url} if part.detail == "auto" else {"url": part.url, "detail": part.detail}
            return {"type": "image_url", "image_url": image} | mark


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
