"""From the body of ``POST /v1/responses`` to the canonical request. Pure.

Names of sampling options become those of chat completions; what is not known by name is passed on as a parameter, so
that it is either followed or refused where the upstream is chosen. What belongs to this API alone and cannot be given
is refused here.

``max_output_tokens`` becomes ``max_tokens``, the canonical name: every adapter and the emulation know it, while
``max_completion_tokens`` is OpenAI's own.
"""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.fields import document, metadata
from poe_gateway.chat.request import ChatRequest, Message, TextPart, ToolChoice
from poe_gateway.chat.responses.echo import Echo
from poe_gateway.chat.responses.fields import (
    Body,
    count,
    flag,
    fragment,
    group,
    number,
    text,
    unsupported,
)
from poe_gateway.chat.responses.items import items_of
from poe_gateway.chat.responses.options import (
    LOGPROBS,
    Chosen,
    Reasoning,
    TextForm,
    included,
    reasoning,
    text_form,
    tool_choice,
    tools_of,
)
from poe_gateway.chat.responses.turns import check_calls, check_turns, turns
from poe_gateway.errors import InvalidRequest

_LONGEST = 10_000_000
"""Characters of instructions; bodies are bounded besides."""
_MOST_TOKENS = 2**31 - 1
_REFUSED = {
    "conversation": "conversations are continued by 'previous_response_id' only",
    "prompt": "no prompt templates are kept here; send 'instructions' and 'input'",
    "context_management": "the context is not compacted here",
    "moderation": "nothing is moderated here",
    "access_programs": "there are none here",
    "image": "images are passed on as they are",
    "prompt_cache_options": "prompts are cached as the upstream does by itself",
    "messages": "it is a field of chat completions; use 'input'",
    "response_format": "it is a field of chat completions; use 'text.format'",
    "max_tokens": "it is a field of chat completions; use 'max_output_tokens'",
    "max_completion_tokens": "it is a field of chat completions; use 'max_output_tokens'",
    "reasoning_effort": "it is a field of chat completions; use 'reasoning.effort'",
    "verbosity": "it is a field of chat completions; use 'text.verbosity'",
    "logprobs": f"it is a field of chat completions; use 'include' with '{LOGPROBS}'",
    "functions": "use 'tools'",
    "function_call": "use 'tool_choice'",
}
_SPELLED = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
_OWN = frozenset(
    {
        "model",
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "include",
        "max_output_tokens",
        "max_tool_calls",
        "temperature",
        "top_p",
        "top_logprobs",
        "store",
        "previous_response_id",
        "metadata",
        "user",
        "truncation",
        "background",
        "stream",
        "stream_options",
        "service_tier",
        "n",
    }
)


def parse(raw: bytes | bytearray) -> ChatRequest:
    """The request of a body. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    _refuse(body)
    model = body.get("model")
    if not isinstance(model, str) or not model.strip() or len(model) > 256:
        raise InvalidRequest("'model' is required: a string of 1 to 256 characters.", param="model")
    offered = tools_of(body.get("tools"))
    chosen = tool_choice(body.get("tool_choice"), offered)
    form, thinking = text_form(body), reasoning(body)
    parameters = _parameters(body, form, thinking)
    session, explicit = _session(body)
    echo = _echo(body, form, thinking, parameters)
    if not echo.refers:
        check_turns(echo.items)
    if not echo.refers and echo.previous is None:
        check_calls((), echo.items)
    instructions = echo.form["instructions"]
    begin = () if instructions is None else (Message("system", (TextPart(instructions),)),)
    return ChatRequest(
        model=model.strip(),
        messages=(*begin, *turns(echo.items)),
        stream=_stream(body),
        session_id=session,
        session_explicit=explicit,
        parameters=parameters,
        metadata=echo.form["metadata"],
        tools=chosen.tools,
        tool_choice=_unless_auto(chosen),
        parallel_tool_calls=flag(body, "parallel_tool_calls"),
        output=form.output,
        spelled={**_SPELLED, "logprobs": "top_logprobs" if "top_logprobs" in parameters else "include"},
        echo=echo.said(),
    )


def _unless_auto(chosen: Chosen) -> ToolChoice | None:
    """``auto`` without tools asks for nothing."""
    return chosen.choice if chosen.tools or chosen.choice is None or chosen.choice.mode == "required" else None


def _refuse(body: Body) -> None:
    for name, reason in _REFUSED.items():
        if body.get(name) is not None:
            raise unsupported(name, reason)
    if flag(body, "background"):
        raise unsupported("background", "answers are given at once; leave it out")
    if (cut := body.get("truncation")) not in (None, "disabled"):
        if cut == "auto":
            raise unsupported("truncation", "input is never cut; use 'disabled'")
        raise InvalidRequest("'truncation' must be 'disabled'.", param="truncation")
    choices = body.get("n")
    if choices is not None and (type(choices) is not int or choices != 1):
        raise InvalidRequest("Only one answer per request is supported: 'n' must be 1.", param="n")


def _stream(body: Body) -> bool:
    stream = bool(flag(body, "stream"))
    options = group(body, "stream_options")
    flag(options, "include_obfuscation")  # there is none: whoever asks for it is no worse off than who does not
    if body.get("stream_options") is not None and not stream:
        raise InvalidRequest("'stream_options' goes only with 'stream': true.", param="stream_options")
    return stream


def _parameters(body: Body, form: TextForm, thinking: Reasoning) -> dict[str, Any]:
    """Sampling options in the names of chat completions."""
    parameters = {name: value for name, value in body.items() if name not in _OWN and value is not None}
    probabilities = count(body, "top_logprobs", 0, 20)
    tier = text(body, "service_tier", 64)
    given = {
        "temperature": number(body, "temperature", 0, 2),
        "top_p": number(body, "top_p", 0, 1),
        "max_tokens": count(body, "max_output_tokens", 1, _MOST_TOKENS),
        "reasoning_effort": thinking.effort,
        "verbosity": form.verbosity,
        "logprobs": True if probabilities or LOGPROBS in included(body.get("include")) else None,
        "top_logprobs": probabilities or None,
        "service_tier": None if tier == "auto" else tier,
    }
    parameters.update({name: value for name, value in given.items() if value is not None})
    return parameters


def _echo(body: Body, form: TextForm, thinking: Reasoning, parameters: dict[str, Any]) -> Echo:
    items = items_of(body.get("input"))
    instructions = text(body, "instructions", _LONGEST)
    previous = text(body, "previous_response_id", 128) or None
    together = flag(body, "parallel_tool_calls")
    said = {
        "background": False,
        "instructions": instructions,
        "max_output_tokens": parameters.get("max_tokens"),
        "max_tool_calls": count(body, "max_tool_calls", 1, _MOST_TOKENS),
        "metadata": metadata(body),
        "parallel_tool_calls": True if together is None else together,
        "previous_response_id": previous,
        "prompt_cache_key": text(body, "prompt_cache_key", 1024),
        "reasoning": {"effort": thinking.effort, "summary": thinking.summary},
        "safety_identifier": text(body, "safety_identifier", 1024),
        "service_tier": body.get("service_tier") or "auto",
        "temperature": parameters.get("temperature", 1.0),
        "text": fragment(form.said, "text"),
        "tool_choice": fragment(body.get("tool_choice") or "auto", "tool_choice"),
        "tools": fragment(body.get("tools") or [], "tools"),
        "top_logprobs": parameters.get("top_logprobs", 0),
        "top_p": parameters.get("top_p", 1.0),
        "truncation": "disabled",
        "user": text(body, "user", 512),
    }
    return Echo(
        items=items,
        form=said,
        store=bool(flag(body, "store")),
        previous=previous,
        instructed=instructions is not None,
        summary=thinking.summary is not None,
    )


def _session(body: Body) -> tuple[str | None, bool]:
    """The caller's session, and whether it is named as such (``user`` is weaker)."""
    session = group(body, "metadata").get("session_id")
    if isinstance(session, str) and session:
        return session, True
    return text(body, "user", 512) or None, False
