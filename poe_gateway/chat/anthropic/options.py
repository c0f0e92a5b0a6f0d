"""Tools, choices and sampling options of a Messages request -> canonical ones. Pure."""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.anthropic.reading import Body, object_of, text_of, unsupported, wrong
from poe_gateway.chat.fields import flag, integer
from poe_gateway.chat.openai_tools import function_tool, named_choice
from poe_gateway.chat.request import OutputFormat, Tool, ToolChoice

_MOST_TOOLS = 512
_MOST = 2**31 - 1
_LEAST_THINKING = 1024
"""Tokens; Anthropic's own rule."""
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_TIERS = {"auto": "auto", "standard_only": "default"}
"""Anthropic's names of service tiers in OpenAI's words."""
_HARMLESS = frozenset(
    {"type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming"}
)
"""Fields of a tool that are understood, or that change nothing of the answer."""


def tools(value: Any) -> tuple[Tool, ...]:
    """The ``tools`` field: functions of the caller's only. Raises InvalidRequest."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MOST_TOOLS:
        raise wrong("tools", f"must be a list of at most {_MOST_TOOLS} tools")
    offered = tuple([_tool(entry, f"tools[{place}]") for place, entry in enumerate(value)])
    if len({tool.name for tool in offered}) < len(offered):
        raise wrong("tools", "must not name a tool twice")
    return offered


def _tool(entry: Any, where: str) -> Tool:
    tool = object_of(entry, where)
    kind = tool.get("type")
    if kind is not None and kind != "custom":
        told = kind[:64] if isinstance(kind, str) else "?"
        raise unsupported(f"{where}.type", f"'{told}' runs at Anthropic; only tools with an 'input_schema' are served")
    for name, given in tool.items():
        if given is not None and name not in _HARMLESS:
            raise unsupported(f"{where}.{name}"[:256], "tools have a name, a description and an 'input_schema'")
    schema = object_of(tool.get("input_schema"), f"{where}.input_schema")
    return function_tool({**tool, "parameters": schema}, where)


def tool_choice(value: Any, offered: tuple[Tool, ...]) -> tuple[ToolChoice | None, bool | None]:
    """The ``tool_choice`` field: the choice, and whether several tools may be called at once.

    Raises InvalidRequest.
    """
    if value is None:
        return None, None
    choice = object_of(value, "tool_choice")
    kind = choice.get("type")
    parallel = False if flag(choice, "disable_parallel_tool_use", where="tool_choice.") else None
    if kind in ("any", "tool") and not offered:
        raise wrong("tool_choice", "requires 'tools'")
    match kind:
        case "auto":
            return ToolChoice(mode="auto"), parallel
        case "none":
            return ToolChoice(mode="none"), None
        case "any":
            return ToolChoice(mode="required"), parallel
        case "tool":
            return named_choice(text_of(choice, "name", "tool_choice"), offered), parallel
    raise wrong("tool_choice.type", "must be 'auto', 'any', 'tool' or 'none'")


def sampling(body: Body, *, counting: bool = False) -> dict[str, Any]:
    """Sampling options under OpenAI's names. ``counting``: ``max_tokens`` may be missing. Raises InvalidRequest."""
    parameters: dict[str, Any] = {}
    limit = integer(body, "max_tokens", least=1, most=_MOST)
    if limit is None and not counting:
        raise wrong("max_tokens", f"is required: a whole number from 1 to {_MOST}")
    if limit is not None:
        parameters["max_tokens"] = limit
    for name, most in (("temperature", 1), ("top_p", 1)):
        value = body.get(name)
        if value is None:
            continue
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise wrong(name, f"must be a number from 0 to {most}")
        parameters[name] = value
    if (top_k := integer(body, "top_k", least=0, most=_MOST)) is not None:
        parameters["top_k"] = top_k
    if stops := _stops(body.get("stop_sequences")):
        parameters["stop"] = stops
    if (thinking := _thinking(body.get("thinking"), limit)) is not None:
        parameters["thinking"] = thinking
    if (tier := body.get("service_tier")) is not None:
        if not isinstance(tier, str) or tier not in _TIERS:
            raise wrong("service_tier", "must be 'auto' or 'standard_only'")
        parameters["service_tier"] = _TIERS[tier]
    return parameters


def _stops(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise wrong("stop_sequences", "must be a list of strings that are not empty")
    return value


def _thinking(value: Any, limit: int | None) -> Body | None:
    if value is None:
        return None
    thinking = object_of(value, "thinking")
    kind = thinking.get("type")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if type(budget) is not int or budget < _LEAST_THINKING or (limit is not None and budget >= limit):
            raise wrong("thinking.budget_tokens", f"must be at least {_LEAST_THINKING} and less than 'max_tokens'")
    elif kind not in ("disabled", "adaptive", "between_tools"):
        raise wrong("thinking.type", "must be 'enabled', 'disabled', 'adaptive' or 'between_tools'")
    return thinking


def output(value: Any) -> tuple[OutputFormat | None, str | None]:
    """The ``output_config`` field: the form of the answer, and the effort. Raises InvalidRequest."""
    if value is None:
        return None, None
    config = object_of(value, "output_config")
    for name, given in config.items():
        if given is not None and name not in ("effort", "format"):
            raise unsupported(f"output_config.{name}"[:256], "it has 'effort' and 'format'")
    effort, form = config.get("effort"), config.get("format")
    if effort is not None and (not isinstance(effort, str) or effort not in _EFFORTS):
        raise wrong("output_config.effort", f"must be one of {', '.join(sorted(_EFFORTS))}")
    if form is None:
        return None, effort
    form = object_of(form, "output_config.format")
    if form.get("type") != "json_schema":
        raise wrong("output_config.format.type", "must be 'json_schema'")
    schema = object_of(form.get("schema"), "output_config.format.schema")
    return OutputFormat(kind="json_schema", schema=schema, strict=True), effort
