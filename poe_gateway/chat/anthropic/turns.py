"""Turns of a Messages request -> canonical turns. Pure.

A canonical turn holds text, images and tool calls. What it cannot hold but Anthropic's own API understands (thinking
with its signature, cache marks, failed tools, the order of blocks) is kept beside it: ``Message.extra[NATIVE]`` holds
the turn's ``Blocks`` as they were sent, for a native upstream to send on. Other upstreams must leave it out. Whoever
changes the parts of a turn leaves it out too.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from poe_gateway.chat.anthropic.reading import Body, object_of, text_of, unsupported, wrong
from poe_gateway.chat.fields import MOST_TURNS
from poe_gateway.chat.request import ImagePart, Message, Part, TextPart, ToolCall
from poe_gateway.errors import InvalidRequest

NATIVE = "anthropic"
"""Key of ``Message.extra``."""


class Blocks(list[Body]):
    """Blocks that were checked here; no body of another dialect can bring them, whatever its fields are called."""


def native(message: Message) -> Blocks | None:
    """The turn's blocks as they were sent, where the canonical turn says less."""
    kept = message.extra.get(NATIVE)
    return kept if isinstance(kept, Blocks) else None


_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]++={0,2}")
_PLAIN: dict[str, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    "image": frozenset({"type", "source"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
    "tool_result": frozenset({"type", "tool_use_id", "content"}),
}
"""Fields that a canonical turn holds; a block with any other is kept as it was."""


def system_turns(value: Any) -> tuple[Message, ...]:
    """The ``system`` field: text, or blocks of text. Raises InvalidRequest."""
    if value is None or value == "" or value == []:
        return ()
    return (_system(value, "system"),)


def turns(value: Any) -> tuple[Message, ...]:
    """The ``messages`` field. Raises InvalidRequest."""
    if not isinstance(value, list) or not value:
        raise wrong("messages", "is required: a list with at least one message")
    read: list[Message] = []
    for place, entry in enumerate(value):
        blocks = entry.get("content") if isinstance(entry, dict) else None
        if len(read) + (len(blocks) if isinstance(blocks, list) else 1) > MOST_TURNS:  # results of tools are turns, too
            raise wrong("messages", f"takes at most {MOST_TURNS} messages and results of tools")
        read += _turn(entry, f"messages[{place}]")
    return tuple(read)


def _turn(entry: Any, where: str) -> list[Message]:
    turn = object_of(entry, where)
    role, content = turn.get("role"), turn.get("content")
    if role == "system":
        return [_system(content, f"{where}.content")]
    if role not in ("user", "assistant"):
        raise wrong(f"{where}.role", "must be 'user', 'assistant' or 'system'")
    if isinstance(content, str):
        return [Message(role, (TextPart(content),))]
    blocks = _blocks(content, f"{where}.content")
    return [_spoken(blocks, f"{where}.content")] if role == "assistant" else _asked(blocks, f"{where}.content")


def _blocks(value: Any, where: str) -> list[Body]:
    if not isinstance(value, list):
        raise wrong(where, "must be a string or a list of blocks")
    for place, block in enumerate(value):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise wrong(f"{where}[{place}]", "must be a block with a type")
    return value


def _system(value: Any, where: str) -> Message:
    if isinstance(value, str):
        return Message("system", (TextPart(value),))
    blocks = _blocks(value, where)
    for place, block in enumerate(blocks):
        if block["type"] != "text":
            raise unsupported(f"{where}[{place}]", "instructions are text")
    # Blocks are paragraphs; the canonical turn joins its parts without a sign between.
    text = "\n\n".join(_said(block, f"{where}[{place}]") for place, block in enumerate(blocks))
    return Message("system", (TextPart(text),), _kept(blocks, len(blocks) > 1))


def _asked(blocks: list[Body], where: str) -> list[Message]:
    """A user's turn: results of tools, each a turn of its own, and then the rest."""
    results: list[Message] = []
    answered: set[str | None] = set()
    rest: dict[str, Body] = {}
    for place, block in enumerate(blocks):
        at = f"{where}[{place}]"
        if block["type"] == "tool_result":
            result = _result(block, at)
            if result.tool_call_id in answered:
                raise wrong(f"{at}.tool_use_id", "must not be answered twice")
            answered.add(result.tool_call_id)
            results.append(result)
        else:
            rest[at] = block
    if not blocks:
        raise wrong(where, "must not be empty")
    return [*results, Message("user", _parts(rest), _kept(list(rest.values())))] if rest else results


def _result(block: Body, where: str) -> Message:
    content = block.get("content")
    failed = block.get("is_error")
    if failed is not None and not isinstance(failed, bool):
        raise wrong(f"{where}.is_error", "must be true or false")
    parts: list[Part] = []
    if isinstance(content, str):
        parts.append(TextPart(content))
    elif content is not None:
        inner = _blocks(content, f"{where}.content")
        parts += _parts({f"{where}.content[{place}]": each for place, each in enumerate(inner)})
    if failed:  # other upstreams have no field for it
        parts.insert(0, TextPart("Error: " if parts else "Error"))
    more = isinstance(content, list) and any(_says_more(each) for each in content)
    call = text_of(block, "tool_use_id", where)
    return Message("tool", tuple(parts), _kept([block], more), tool_call_id=call)


def _spoken(blocks: list[Body], where: str) -> Message:
    """An assistant's turn."""
    parts: list[Part] = []
    calls: list[ToolCall] = []
    ids: set[str] = set()
    odd = False
    for place, block in enumerate(blocks):
        at = f"{where}[{place}]"
        match block["type"]:
            case "tool_use":
                call = _call(block, at)
                if call.id in ids:
                    raise wrong(f"{at}.id", "must not be given twice")
                ids.add(call.id)
                calls.append(call)
            case "thinking":
                text_of(block, "thinking", at, required=False)
                text_of(block, "signature", at, required=False)
            case "redacted_thinking":
                text_of(block, "data", at)
            case "text":
                odd = odd or bool(calls)  # text after a call
                parts.append(_part(block, at))
            case other:
                raise _unknown(other, at)
    return Message("assistant", tuple(parts), _kept(blocks, odd), tuple(calls))


def _call(block: Body, where: str) -> ToolCall:
    try:
        arguments = orjson.dumps(object_of(block.get("input"), f"{where}.input")).decode()
    except orjson.JSONEncodeError:
        raise wrong(f"{where}.input", "is nested too deeply") from None
    return ToolCall(text_of(block, "id", where), text_of(block, "name", where), arguments)


def _parts(blocks: dict[str, Body]) -> tuple[Part, ...]:
    """Parts of blocks by their places. Parts are joined without a sign between; documents stand apart from the rest."""
    parts: list[Part] = []
    apart = False
    for where, block in blocks.items():
        part, document = _part(block, where), block["type"] == "document"
        if isinstance(part, TextPart) and parts and (document or apart):
            part = TextPart(f"\n\n{part.text}")
        parts.append(part)
        apart = document
    return tuple(parts)


def _part(block: Body, where: str) -> Part:
    match block["type"]:
        case "text":
            return TextPart(_said(block, where))
        case "image":
            return _image(object_of(block.get("source"), f"{where}.source"), f"{where}.source")
        case "document":
            return TextPart(_document(block, where))
        case other:
            raise _unknown(other, where)


def _said(block: Body, where: str) -> str:
    """The text of a text block; it may be empty."""
    text = block.get("text")
    if not isinstance(text, str):
        raise wrong(f"{where}.text", "must be a string")
    return text


def _image(source: Body, where: str) -> ImagePart:
    if source.get("type") == "base64":
        kind, data = source.get("media_type"), text_of(source, "data", where)
        if not isinstance(kind, str) or kind not in _IMAGE_TYPES:
            raise wrong(f"{where}.media_type", f"must be one of {', '.join(sorted(_IMAGE_TYPES))}")
        if _BASE64.fullmatch(data) is None:
            raise wrong(f"{where}.data", "must be base64")
        return ImagePart(f"data:{kind};base64,{data}")
    if source.get("type") == "url":
        url = text_of(source, "url", where)
        if not url.startswith(("https://", "http://")):
            raise wrong(f"{where}.url", "must be an http(s) address")
        return ImagePart(url)
    raise unsupported(where, "images come as 'base64' or by 'url'")


def _document(block: Body, where: str) -> str:
    """A document of plain text, under its title."""
    source = object_of(block.get("source"), f"{where}.source")
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled"):
        raise unsupported(f"{where}.citations", "answers carry no citations here")
    if source.get("type") == "text":
        text = text_of(source, "data", f"{where}.source")
    elif source.get("type") == "content" and isinstance(content := source.get("content"), str):
        text = content
    elif source.get("type") == "content":
        inner = _blocks(content, f"{where}.source.content")
        parts = [_part(each, f"{where}.source.content[{place}]") for place, each in enumerate(inner)]
        if not all(isinstance(part, TextPart) for part in parts):
            raise unsupported(f"{where}.source.content", "documents are plain text here")
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
    else:
        raise unsupported(f"{where}.source", "documents are plain text here")
    heads = [text_of(block, name, where, required=False) for name in ("title", "context")]
    return "\n\n".join([*filter(None, heads), text])


def _unknown(kind: str, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{where}' is not a supported block ('{kind[:64]}'): 'text', 'image', 'tool_use', 'tool_result', 'thinking' "
        "and 'document' of plain text are, where they belong.",
        param=where,
        code="unsupported_content",
    )


def _kept(blocks: list[Body], kept: bool = False) -> dict[str, Any]:
    """``extra`` of a turn: its blocks, if they say more than the canonical turn does."""
    return {NATIVE: Blocks(blocks)} if kept or any(_says_more(block) for block in blocks) else {}


def _says_more(block: Body) -> bool:
    plain = _PLAIN.get(block["type"], frozenset())
    return any(value is not None and name not in plain for name, value in block.items())
