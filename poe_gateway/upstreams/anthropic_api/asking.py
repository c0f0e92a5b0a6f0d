"""The canonical request as the body of Anthropic's Messages API. Pure.

Turns of the canonical request that came in Anthropic's own dialect and say more than it holds (thinking with its
signature, cache marks) are sent as they came. Speakers' names and the ``detail`` of images have no place in this API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from poe_gateway.chat.anthropic.arguments import checked
from poe_gateway.chat.anthropic.turns import native
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, OutputFormat, Part, TextPart, Tool, ToolChoice
from poe_gateway.upstreams.bodies import NotAskable, stand_in

Block = dict[str, Any]

PARAMETERS = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "temperature",
        "top_p",
        "top_k",
        "reasoning_effort",
        "thinking",
        "service_tier",
        "safety_identifier",
        "context_management",
        "inference_geo",
        "speed",
    }
)
"""Options, in OpenAI's names where it has any, that this API follows."""

_AS_THEY_ARE = ("temperature", "top_p", "top_k", "context_management", "inference_geo", "speed")
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_TIERS = {"auto": "auto", "default": "standard_only", "priority": "auto"}
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_DATA_URL = re.compile(r"data:image/(png|jpe?g|gif|webp);base64,", re.IGNORECASE)


def messages_body(request: ChatRequest, model: str, default_max_tokens: int) -> dict[str, Any]:
    """The JSON body, always streamed. Raises NotAskable."""
    parameters = request.parameters
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": _max_tokens(parameters, default_max_tokens),
        "messages": _turns(request.messages),
        "stream": True,
    }
    if system := _system(request.messages):
        body["system"] = system
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if (choice := _choice(request.tool_choice, request.parallel_tool_calls)) is not None:
            body["tool_choice"] = choice
    elif called := _called(request.messages):
        body |= {"tools": called, "tool_choice": {"type": "none"}}
    body |= {name: parameters[name] for name in _AS_THEY_ARE if parameters.get(name) is not None}
    if stops := _stops(parameters.get("stop")):
        body["stop_sequences"] = stops
    if config := _output_config(parameters.get("reasoning_effort"), request.output):
        body["output_config"] = config
    if (thinking := _thinking(parameters)) is not None:
        body["thinking"] = thinking
    if (tier := _TIERS.get(str(parameters.get("service_tier")))) is not None:
        body["service_tier"] = tier
    if isinstance(user := parameters.get("safety_identifier"), str):
        body["metadata"] = {"user_id": user}
    return body


def _max_tokens(parameters: Mapping[str, Any], default: int) -> Any:
    """The caller's limit; else the account's, with room for the thinking that the caller pays for."""
    for name in ("max_completion_tokens", "max_tokens"):
        if parameters.get(name) is not None:
            return parameters[name]
    thinking = parameters.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return default + budget if type(budget) is int and budget > 0 else default


def _stops(value: Any) -> list[str]:
    if value is None:
        return []
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise NotAskable("'stop' must be a string or a list of strings.")
    return [each for each in stops if each]


def _thinking(parameters: Mapping[str, Any]) -> Any:
    if parameters.get("thinking") is not None:
        return parameters["thinking"]
    return {"type": "disabled"} if parameters.get("reasoning_effort") == "none" else None


def _output_config(effort: Any, output: OutputFormat | None) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if effort is not None and effort != "none":
        if not isinstance(effort, str) or effort not in _EFFORTS:
            raise NotAskable("'reasoning_effort' must be one of none, low, medium, high, xhigh, max at this upstream.")
        config["effort"] = effort
    if output is not None:
        if output.schema is None:
            raise NotAskable("'response_format' must be a 'json_schema' with a schema at this upstream.")
        config["format"] = {"type": "json_schema", "schema": _closed(output.schema)}
    return config


def _closed(schema: Any) -> Any:
    """The schema with every object closed, as the API demands: an answer by it is one by the caller's schema too."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # A name under "properties" is a field of the caller's, whatever it is called.
    closed = {
        key: {name: _closed(each) for name, each in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else value
        if key in ("enum", "const", "default", "examples")
        else _closed(value)
        for key, value in schema.items()
    }
    if closed.get("type") == "object" or "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _tool(tool: Tool) -> Block:
    schema = {"type": "object", "properties": {}} if tool.parameters is None else {"type": "object", **tool.parameters}
    told: Block = {"name": tool.name, "input_schema": schema}
    if tool.description:
        told["description"] = tool.description
    if tool.strict:
        told["strict"] = True
        told["input_schema"] = _closed(schema)
    return told


def _called(messages: tuple[Message, ...]) -> list[Block]:
    """Tools that were called before and are not offered any more: a conversation with calls must declare some."""
    names = dict.fromkeys(call.name for message in messages for call in message.tool_calls)
    return [{"name": name, "input_schema": {"type": "object"}} for name in names]


def _choice(choice: ToolChoice | None, parallel: bool | None) -> Block | None:
    told: Block = {"type": "auto"}
    if choice is not None and choice.name is not None:
        told = {"type": "tool", "name": choice.name}
    elif choice is not None and choice.mode != "auto":
        told = {"type": "any" if choice.mode == "required" else "none"}
    elif choice is None and parallel is not False:
        return None
    if parallel is False and told["type"] != "none":
        told["disable_parallel_tool_use"] = True
    return told


def _system(messages: tuple[Message, ...]) -> str | list[Block]:
    """All instructions; blocks only where some came with more than their text."""
    own = [message for message in messages if message.role == "system"]
    if not any(native(message) or any(part.cache for part in message.parts) for message in own):
        return "\n\n".join(text for message in own if (text := message.text).strip())
    return [block for message in own for block in native(message) or _blocks(message.parts)]


def _turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Turns of users and the assistant in alternation; results of tools belong to the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        content = _content(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += content
        elif content:
            turns.append({"role": role, "content": content})
    if not turns:
        raise NotAskable("'messages' must hold at least one turn of the user that is not empty.")
    return turns


def _content(message: Message) -> list[Block]:
    if (kept := native(message)) is not None:
        return [block for block in kept if not _unproven(block)]
    if message.role != "tool":
        return _blocks(message.parts) + [
            {
                "type": "tool_use",
                "id": _call_id(call.id),
                "name": call.name,
                "input": orjson.Fragment(checked(call.arguments)),
            }
            for call in message.tool_calls
        ]
    result: Block = {"type": "tool_result", "tool_use_id": _call_id(message.tool_call_id or "")}
    if content := _blocks(message.unmarked.parts):
        result["content"] = content
    if marks := [part.cache for part in message.parts if part.cache]:
        result["cache_control"] = marks[-1]  # the API takes marks of the whole result only
    return [result]


def _unproven(block: Block) -> bool:
    """Thinking that another upstream told: it has no signature, and the API takes none without."""
    return block["type"] == "thinking" and not block.get("signature")


def _call_id(name: str) -> str:
    """Ids made elsewhere may hold signs that this API refuses."""
    if _CALL_ID.fullmatch(name):
        return name
    return stand_in("toolu_", name)


def _blocks(parts: tuple[Part, ...]) -> list[Block]:
    """Blocks of the parts; texts of nothing but blanks are refused by the API and say nothing."""
    return [_block(part) for part in parts if not (isinstance(part, TextPart) and not part.text.strip())]


def _block(part: Part) -> Block:
    mark = {"cache_control": part.cache} if part.cache else {}
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} | mark
        case ImagePart():
            return {"type": "image", "source": _source(part.url)} | mark


def _source(url: str) -> Block:
    if url[:5].lower() != "data:":
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    if head is None:
        raise NotAskable("Images in data URLs must be png, jpeg, gif or webp in base64 at this upstream.")
    kind = head[1].lower().replace("jpg", "jpeg")
    return {"type": "base64", "media_type": f"image/{kind}", "data": url[head.end() :]}
