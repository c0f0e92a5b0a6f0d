"""Bodies of Ollama's clients -> ``ChatRequest``. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from poe_gateway.chat.embeddings import embed_request, texts
from poe_gateway.chat.fields import MOST_TURNS, Body, document, flag, integer, model, text
from poe_gateway.chat.ollama.options import DONE, output_format, parameters
from poe_gateway.chat.openai_tools import tools
from poe_gateway.chat.pictures import from_base64
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, Part, Role, TextPart, ToolCall
from poe_gateway.errors import InvalidRequest

_LATEST = ":latest"
_NO_TIME = re.compile(r"0+(\.0*)?(ns|us|µs|ms|s|m|h)?")
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_SHARED = frozenset({"model", "stream", "format", "options", "think", "logprobs", "top_logprobs", "keep_alive"})
_CHAT = _SHARED | {"messages", "tools"}
_GENERATE = _SHARED | {"prompt", "system", "images", "suffix", "template", "context", "raw"}
_EMBED = frozenset({"model", "input", "prompt", "options", "keep_alive", "truncate", "dimensions"})
_SPELLED = {"reasoning_effort": "think", "repetition_penalty": "repeat_penalty", "response_format": "format"}
_ITS_OWN_WAY = ("truncate", "shift")
"""True is how it is anyway: what is too long for the model is the upstream's affair."""


def name_of(body: Body) -> str:
    """The model; ``:latest`` is what Ollama's clients add to names without a tag. Raises InvalidRequest."""
    return model(body).removesuffix(_LATEST) or _LATEST


def parse_chat(raw: bytes | bytearray) -> ChatRequest:
    """The request of ``/api/chat``. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    name = name_of(body)
    entries = body.get("messages")
    if not isinstance(entries, list):
        raise InvalidRequest("'messages' is required: a list of messages.", param="messages")
    if not entries:
        return _loading(name, body)
    if len(entries) > MOST_TURNS:
        raise InvalidRequest(f"'messages' takes at most {MOST_TURNS} messages.", param="messages")
    return ChatRequest(
        model=name,
        messages=_messages(entries),
        stream=flag(body, "stream", default=True),
        parameters=_parameters(body, _CHAT),
        tools=tools(body.get("tools")),
        output=output_format(body.get("format")),
        spelled=_SPELLED,
    )


def parse_generate(raw: bytes | bytearray) -> ChatRequest:
    """The request of ``/api/generate``. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    name = name_of(body)
    for field in ("suffix", "template", "context", "raw"):
        if body.get(field):
            raise InvalidRequest(
                f"'{field}' is not supported: models are asked in turns, see /api/chat.",
                param=field,
                code="unsupported_parameter",
            )
    prompt, images = text(body, "prompt") or "", _images(body, "")
    if not prompt and not images:
        return _loading(name, body)
    turns = [Message("user", (TextPart(prompt), *images))]
    if system := text(body, "system"):
        turns.insert(0, Message("system", (TextPart(system),)))
    return ChatRequest(
        model=name,
        messages=tuple(turns),
        stream=flag(body, "stream", default=True),
        parameters=_parameters(body, _GENERATE),
        output=output_format(body.get("format")),
        spelled=_SPELLED,
    )


def _loading(name: str, body: Body) -> ChatRequest:
    """A request that says nothing asks for the model to be loaded, or with ``keep_alive`` 0 to be let go."""
    kept = body.get("keep_alive")
    gone = type(kept) in (int, float, str) and _NO_TIME.fullmatch(str(kept)) is not None
    return ChatRequest(
        model=name,
        messages=(),
        stream=flag(body, "stream", default=True),
        operation="load",
        echo={DONE: "unload" if gone else "load"},
    )


def parse_embed(raw: bytes | bytearray) -> ChatRequest:
    """The request of ``/api/embed``. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    return embed_request(name_of(body), texts(body.get("input")), _embedding(body))


def parse_embeddings(raw: bytes | bytearray) -> ChatRequest:
    """The request of ``/api/embeddings``: one text. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    name, prompt = name_of(body), text(body, "prompt")
    if not prompt:
        raise InvalidRequest("'prompt' is required: a string that is not empty.", param="prompt")
    return embed_request(name, (prompt,), _embedding(body))


def _embedding(body: Body) -> dict[str, Any]:
    flag(body, "truncate")
    asked = parameters({"options": body.get("options")})
    asked |= {key: value for key, value in body.items() if key not in _EMBED and value is not None}
    most = integer(body, "dimensions", least=1, most=65_536)
    return asked | ({} if most is None else {"dimensions": most})


def _parameters(body: Body, own: frozenset[str]) -> dict[str, Any]:
    """Options by their names at OpenAI, and whatever else the body holds."""
    rest = {key: value for key, value in body.items() if key not in own and value is not None}
    for name in _ITS_OWN_WAY:
        if rest.get(name) is True:
            del rest[name]
    return rest | parameters(body)


def _messages(entries: list[Any]) -> tuple[Message, ...]:
    turns: list[Message] = []
    open_calls: list[ToolCall] = []
    for place, entry in enumerate(entries):
        where = f"messages[{place}]"
        if not isinstance(entry, dict):
            raise InvalidRequest(f"'{where}' must be an object.", param=where)
        said = entry.get("role")
        role = _ROLES.get(said) if isinstance(said, str) else None
        if role is None:
            raise InvalidRequest(f"'{where}.role' must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
        turns.append(_message(role, entry, place, open_calls))
    return tuple(turns)


def _message(role: Role, entry: Body, place: int, open_calls: list[ToolCall]) -> Message:
    """One turn. ``open_calls`` holds the calls that no turn has answered yet; earlier thinking is left out."""
    where = f"messages[{place}]."
    content, images = text(entry, "content", where=where), _images(entry, where)
    calls = _tool_calls(entry.get("tool_calls"), f"{where}tool_calls", place)
    if content is None and not images and not calls:
        raise InvalidRequest(f"'{where}content' must be a string.", param=f"{where}content")
    said = content or not (images or calls)
    parts: tuple[Part, ...] = (*((TextPart(content or ""),) if said else ()), *images)
    if role == "tool":
        name, call_id = _answered(entry, where, open_calls)
        return Message(role, parts, tool_call_id=call_id, name=name)
    if calls:
        open_calls[:] = calls
    return Message(role, parts, tool_calls=calls)


def _answered(entry: Body, where: str, open_calls: list[ToolCall]) -> tuple[str | None, str | None]:
    """Name of the tool and id of the call that a ``tool`` turn answers.

    Ollama tells the tool's name at most: then it is the first open call of that tool, else the first open one.
    """
    name = text(entry, "tool_name", where=where) or text(entry, "name", where=where)
    call_id = text(entry, "tool_call_id", where=where)
    if call_id is None:
        named = [call for call in open_calls if call.name == name] or open_calls[:1]
        call_id = named[0].id if named else None
    for call in open_calls:
        if call.id == call_id:
            open_calls.remove(call)
            return name or call.name, call_id
    return name, call_id


def _tool_calls(value: Any, where: str, place: int) -> tuple[ToolCall, ...]:
    """Calls of an assistant's turn; those without an id get one by their place."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRequest(f"'{where}' must be a list.", param=where)
    calls = []
    for index, entry in enumerate(value):
        function = entry.get("function") if isinstance(entry, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            raise InvalidRequest(
                f"'{where}[{index}].function' must have a name and arguments, an object.",
                param=f"{where}[{index}]",
            )
        given = entry.get("id")
        call_id = given if isinstance(given, str) and given else f"call_{place}_{index}"
        calls.append(ToolCall(call_id, name, msgspec.json.encode(arguments or {}).decode()))
    return tuple(calls)


def _images(entry: Body, where: str) -> tuple[ImagePart, ...]:
    value = entry.get("images")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRequest(f"'{where}images' must be a list.", param=f"{where}images")
    return tuple([ImagePart(from_base64(each, f"{where}images[{index}]")) for index, each in enumerate(value)])
