"""Items of ``input``, checked and brought into their full form. Pure.

The full form is that of the listing of input items, but for the ids: those are given when a response is kept. It is
also what is kept, so that a conversation is read again by the code that read it first.
"""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.fields import MOST_TURNS
from poe_gateway.chat.responses.echo import Item
from poe_gateway.chat.responses.fields import Body, needed, text
from poe_gateway.errors import InvalidRequest

_ROLES = ("user", "assistant", "system", "developer")
_STATES = ("in_progress", "completed", "incomplete")
_LONGEST_ID = 256
_TEXTS = frozenset({"input_text", "output_text", "text"})
_HERE = "text and images by 'image_url' are"


def items_of(value: Any) -> tuple[Item, ...]:
    """``input`` of a request. Raises InvalidRequest with ``param`` naming the item."""
    if isinstance(value, str):
        return (_item({"role": "user", "content": value}, "input"),)
    if not isinstance(value, list) or not value:
        raise InvalidRequest("'input' is required: a string, or a list with at least one item.", param="input")
    if len(value) > MOST_TURNS:
        raise InvalidRequest(f"'input' takes at most {MOST_TURNS} items.", param="input")
    return tuple([_item(entry, f"input[{place}]") for place, entry in enumerate(value)])


def _item(entry: Any, where: str) -> Item:
    if not isinstance(entry, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    kind = entry.get("type")
    if kind is None:
        kind = "message" if "role" in entry else "item_reference"
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise InvalidRequest(
            f"'{where}' is not a supported item: {', '.join(_READERS)} are.", param=where, code="unsupported_item"
        )
    item = read(entry, where)
    state = entry.get("status")
    if state is not None and state not in _STATES:
        raise InvalidRequest(f"'{where}.status' must be one of {', '.join(_STATES)}.", param=f"{where}.status")
    if kind != "item_reference":
        item["status"] = state or "completed"
    if (given := text(entry, "id", _LONGEST_ID, f"{where}.")) and "id" not in item:
        item["id"] = given
    return item


def _message(entry: Body, where: str) -> Item:
    role = entry.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"'{where}.role' must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
    content, where = entry.get("content"), f"{where}.content"
    if isinstance(content, str):
        content = [_text(content, role)]
    elif isinstance(content, list) and (content or role == "assistant"):
        content = [_part(part, role, f"{where}[{place}]") for place, part in enumerate(content)]
    else:
        raise InvalidRequest(f"'{where}' must be a string or a list of parts.", param=where)
    return {"type": "message", "role": role, "content": content}


def _text(said: str, role: str) -> Body:
    if role == "assistant":
        return {"type": "output_text", "text": said, "annotations": []}
    return {"type": "input_text", "text": said}


def _part(part: Any, role: str, where: str) -> Body:
    """A part of a message, or of a tool's output (role ``tool``)."""
    if not isinstance(part, dict):
        raise InvalidRequest(f"'{where}' must be an object.", param=where)
    kind = part.get("type")
    if isinstance(kind, str) and kind in _TEXTS:
        said = part.get("text")
        if not isinstance(said, str):
            raise InvalidRequest(f"'{where}.text' must be a string.", param=f"{where}.text")
        return _text(said, role)
    if kind == "refusal" and role == "assistant" and isinstance(part.get("refusal"), str):
        return {"type": "refusal", "refusal": part["refusal"]}
    if kind == "input_image" and role != "assistant":
        return _image(part, where)
    raise InvalidRequest(
        f"'{where}' is not a supported content part: {_HERE}.", param=where, code="unsupported_content"
    )


def _image(part: Body, where: str) -> Body:
    url, detail = part.get("image_url"), part.get("detail")
    if url is None and part.get("file_id") is not None:
        raise InvalidRequest(
            f"'{where}.file_id' is not supported: no files are kept here; {_HERE}.",
            param=f"{where}.file_id",
            code="unsupported_content",
        )
    if not isinstance(url, str) or not url.startswith(("https://", "http://", "data:image/")):
        raise InvalidRequest(f"'{where}.image_url' must be an http(s) or data:image URL.", param=f"{where}.image_url")
    if detail is not None and not isinstance(detail, str):
        raise InvalidRequest(f"'{where}.detail' must be a string.", param=f"{where}.detail")
    return {"type": "input_image", "detail": detail or "auto", "image_url": url}


def _call(entry: Body, where: str) -> Item:
    if not isinstance(arguments := entry.get("arguments"), str):
        raise InvalidRequest(f"'{where}.arguments' must be a string.", param=f"{where}.arguments")
    return {
        "type": "function_call",
        "call_id": needed(entry, "call_id", where),
        "name": needed(entry, "name", where),
        "arguments": arguments,
    }


def _output(entry: Body, where: str) -> Item:
    output = entry.get("output")
    if isinstance(output, list):
        output = [_part(part, "tool", f"{where}.output[{place}]") for place, part in enumerate(output)]
    elif not isinstance(output, str):
        raise InvalidRequest(f"'{where}.output' must be a string or a list of parts.", param=f"{where}.output")
    return {"type": "function_call_output", "call_id": needed(entry, "call_id", where), "output": output}


def _reasoning(entry: Body, where: str) -> Item:
    item: Item = {"type": "reasoning", "summary": _thoughts(entry, "summary", "summary_text", where)}
    if entry.get("content") is not None:
        item["content"] = _thoughts(entry, "content", "reasoning_text", where)
    sealed = entry.get("encrypted_content")
    if sealed is not None:
        if not isinstance(sealed, str):
            raise InvalidRequest(f"'{where}.encrypted_content' must be a string.", param=f"{where}.encrypted_content")
        item["encrypted_content"] = sealed
    return item


def _thoughts(entry: Body, name: str, kind: str, where: str) -> list[Body]:
    parts = entry.get(name)
    known = isinstance(parts, list) and all(
        isinstance(part, dict) and part.get("type") == kind and isinstance(part.get("text"), str) for part in parts
    )
    if parts is not None and not known:
        raise InvalidRequest(f"'{where}.{name}' must be a list of '{kind}' parts.", param=f"{where}.{name}")
    return [{"type": kind, "text": part["text"]} for part in parts or ()]


def _picture(entry: Body, where: str) -> Item:
    """A picture that was made before, as the answer told it."""
    result = entry.get("result")
    if result is not None and not isinstance(result, str):
        raise InvalidRequest(f"'{where}.result' must be a string.", param=f"{where}.result")
    return {"type": "image_generation_call", "result": result}


def _reference(entry: Body, where: str) -> Item:
    return {"type": "item_reference", "id": needed(entry, "id", where)}


_READERS = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "reasoning": _reasoning,
    "image_generation_call": _picture,
    "item_reference": _reference,
}
