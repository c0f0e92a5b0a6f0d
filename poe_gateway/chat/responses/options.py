"""Tools, the form of the answer, thinking and what is to be included, as the Responses API writes them. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.chat.openai_tools import function_tool, named_choice, schema_format
from poe_gateway.chat.openai_tools import tool_choice as plain_choice
from poe_gateway.chat.request import OutputFormat, Tool, ToolChoice
from poe_gateway.chat.responses.fields import Body, choice, group, text, unsupported
from poe_gateway.errors import InvalidRequest

_MOST_TOOLS = 512
_VERBOSITY = ("low", "medium", "high")
_SUMMARIES = ("auto", "concise", "detailed")
_INCLUDED = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url"})
LOGPROBS = "message.output_text.logprobs"


def tools_of(value: Any) -> tuple[Tool, ...]:
    """``tools``: functions in the flat form. Raises InvalidRequest."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MOST_TOOLS:
        raise InvalidRequest(f"'tools' must be a list of at most {_MOST_TOOLS} tools.", param="tools")
    return tuple([_tool(entry, f"tools[{place}]") for place, entry in enumerate(value)])


def _tool(entry: Any, where: str) -> Tool:
    if not isinstance(entry, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    if entry.get("type") != "function":
        raise InvalidRequest(
            f"'{where}' is not a supported tool: only functions are, nothing is run here.",
            param=where,
            code="unsupported_tool",
        )
    return function_tool(entry, where)


class Chosen(msgspec.Struct, frozen=True):
    """Which tools the model may see, and whether it must call one."""

    tools: tuple[Tool, ...]
    choice: ToolChoice | None


def tool_choice(value: Any, offered: tuple[Tool, ...]) -> Chosen:
    """``tool_choice``; of allowed tools only those are offered. Raises InvalidRequest."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is None:
        return Chosen(offered, plain_choice(value, offered))
    if kind == "function":
        name = value.get("name")
        if not isinstance(name, str):
            raise InvalidRequest("'tool_choice.name' must be a string.", param="tool_choice.name")
        return Chosen(offered, named_choice(name, offered))
    if kind == "allowed_tools":
        return _allowed(value, offered)
    raise InvalidRequest(
        "'tool_choice' must be 'auto', 'none', 'required', a function or allowed tools.", param="tool_choice"
    )


def _allowed(value: Body, offered: tuple[Tool, ...]) -> Chosen:
    entries, mode = value.get("tools"), value.get("mode")
    if mode not in ("auto", "required"):
        raise InvalidRequest("'tool_choice.mode' must be 'auto' or 'required'.", param="tool_choice.mode")
    if not isinstance(entries, list) or not entries:
        raise InvalidRequest("'tool_choice.tools' must be a list of functions.", param="tool_choice.tools")
    names = set()
    for place, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) and entry.get("type") == "function" else None
        if not isinstance(name, str) or all(tool.name != name for tool in offered):
            raise InvalidRequest(
                f"'tool_choice.tools[{place}]' is not a function of 'tools'.", param=f"tool_choice.tools[{place}]"
            )
        names.add(name)
    return Chosen(tuple([tool for tool in offered if tool.name in names]), ToolChoice(mode=mode))


class TextForm(msgspec.Struct, frozen=True, kw_only=True):
    """How the text is to be. ``verbosity`` None: as usual."""

    output: OutputFormat | None
    verbosity: str | None
    said: Body
    """As the response object repeats it."""


def text_form(body: Body) -> TextForm:
    """``text``. Raises InvalidRequest."""
    wish = group(body, "text")
    verbosity = choice(wish, "verbosity", _VERBOSITY, "text.")
    form = wish.get("format")
    if form is None:
        form = {"type": "text"}
    return TextForm(
        output=_format(form),
        verbosity=None if verbosity == "medium" else verbosity,
        said={"format": form, "verbosity": verbosity or "medium"},
    )


def _format(form: Any) -> OutputFormat | None:
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat(kind="json_object")
    if kind != "json_schema":
        raise InvalidRequest(
            "'text.format.type' must be 'text', 'json_object' or 'json_schema'.", param="text.format.type"
        )
    if not isinstance(form.get("schema"), dict):
        raise InvalidRequest("'text.format.schema' must be a JSON schema.", param="text.format.schema")
    return schema_format(form, "text.format")


class Reasoning(msgspec.Struct, frozen=True):
    """How much the model is to think, and whether its thinking is told as a summary."""

    effort: str | None
    summary: str | None


def reasoning(body: Body) -> Reasoning:
    """``reasoning``. Raises InvalidRequest.

    A summary is the upstream's own account of its thinking: how long it is, is not ours to say.
    """
    wish = group(body, "reasoning")
    for name in wish:
        if name not in ("effort", "summary", "generate_summary") and wish[name] is not None:
            raise unsupported(f"reasoning.{name}"[:80], "only 'effort' and 'summary' are")
    old = choice(wish, "generate_summary", _SUMMARIES, "reasoning.")
    return Reasoning(text(wish, "effort", 32, "reasoning."), choice(wish, "summary", _SUMMARIES, "reasoning.") or old)


def included(value: Any) -> frozenset[str]:
    """``include``: what is known and can be given. Raises InvalidRequest."""
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise InvalidRequest("'include' must be a list.", param="include")
    for place, entry in enumerate(value):
        if not isinstance(entry, str) or entry not in _INCLUDED:
            raise unsupported(f"include[{place}]", f"{', '.join(sorted(_INCLUDED))} are")
    return frozenset(value)
