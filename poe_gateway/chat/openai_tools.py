"""Tools, tool calls and the form of the answer, as OpenAI's dialects write them. Pure."""

from __future__ import annotations

import re
from typing import Any

from poe_gateway.chat.request import OutputFormat, Tool, ToolCall, ToolChoice
from poe_gateway.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MOST_TOOLS = 512


def tools(value: Any) -> tuple[Tool, ...]:
    """``tools`` of a chat completion. Raises InvalidRequest."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MOST_TOOLS:
        raise InvalidRequest(f"'tools' must be a list of at most {_MOST_TOOLS} tools.", param="tools")
    return tuple([_tool(entry, f"tools[{place}]") for place, entry in enumerate(value)])


def _tool(entry: Any, where: str) -> Tool:
    if not isinstance(entry, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    kind = entry.get("type", "function")
    function = entry.get("function")
    if kind != "function" or not isinstance(function, dict):
        raise InvalidRequest(
            f"'{where}' is not a supported tool: only functions are.", param=where, code="unsupported_tool"
        )
    return function_tool(function, f"{where}.function")


def function_tool(function: dict[str, Any], where: str) -> Tool:
    """One function: ``name``, ``description``, ``parameters``, ``strict``. Raises InvalidRequest."""
    name, description = function.get("name"), function.get("description")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"'{where}.name' must be 1 to 128 letters, digits, or any of '_.:-'.", param=f"{where}.name"
        )
    if description is not None and not isinstance(description, str):
        raise InvalidRequest(f"'{where}.description' must be a string.", param=f"{where}.description")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest(f"'{where}.parameters' must be a JSON schema.", param=f"{where}.parameters")
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequest(f"'{where}.strict' must be true or false.", param=f"{where}.strict")
    return Tool(name=name, description=description or "", parameters=parameters, strict=strict)


def tool_choice(value: Any, offered: tuple[Tool, ...]) -> ToolChoice | None:
    """``tool_choice`` of a chat completion. Raises InvalidRequest."""
    if value is None:
        return None
    if value in ("auto", "none", "required") and isinstance(value, str):
        if value == "required" and not offered:
            raise InvalidRequest("'tool_choice' requires 'tools'.", param="tool_choice")
        return ToolChoice(mode=value)  # type: ignore[arg-type]
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if isinstance(name, str):
        return named_choice(name, offered)
    raise InvalidRequest(
        "'tool_choice' must be 'auto', 'none', 'required' or the name of a function.", param="tool_choice"
    )


def named_choice(name: str, offered: tuple[Tool, ...]) -> ToolChoice:
    """This tool must be called. Raises InvalidRequest when it is not offered."""
    if all(tool.name != name for tool in offered):
        raise InvalidRequest("'tool_choice' names a tool that is not in 'tools'.", param="tool_choice")
    return ToolChoice(mode="required", name=name)


def tool_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    """``tool_calls`` of an assistant's turn. Raises InvalidRequest."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRequest(f"'{where}' must be a list.", param=where)
    calls = []
    for place, entry in enumerate(value):
        function = entry.get("function") if isinstance(entry, dict) else None
        if (
            not isinstance(function, dict)
            or not isinstance(call_id := entry.get("id"), str)
            or not isinstance(name := function.get("name"), str)
            or not isinstance(arguments := function.get("arguments"), str)
        ):
            raise InvalidRequest(
                f"'{where}[{place}]' must have an id and a function with a name and arguments, all of them strings.",
                param=f"{where}[{place}]",
            )
        calls.append(ToolCall(call_id, name, arguments))
    return tuple(calls)


def output_format(value: Any, where: str = "response_format") -> OutputFormat | None:
    """``response_format``; None for text. Raises InvalidRequest."""
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat(kind="json_object")
    if kind != "json_schema":
        raise InvalidRequest(f"'{where}.type' must be 'text', 'json_object' or 'json_schema'.", param=f"{where}.type")
    return schema_format(value.get("json_schema"), f"{where}.json_schema")


def schema_format(value: Any, where: str) -> OutputFormat:
    """A named JSON schema: ``name``, ``description``, ``schema``, ``strict``. Raises InvalidRequest."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    name, schema = value.get("name"), value.get("schema")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"'{where}.name' must be 1 to 128 letters, digits, or any of '_.:-'.", param=f"{where}.name"
        )
    if schema is not None and not isinstance(schema, dict):
        raise InvalidRequest(f"'{where}.schema' must be a JSON schema.", param=f"{where}.schema")
    strict, description = value.get("strict"), value.get("description")
    return OutputFormat(
        kind="json_schema",
        name=name,
        description=description if isinstance(description, str) else "",
        schema=schema,
        strict=strict if isinstance(strict, bool) else None,
    )
