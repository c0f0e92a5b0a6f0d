"""Fragments of tool calls as providers stream them, put in OpenAI's own order. Pure.

Clones leave out the index or the id, give every call the index 0, repeat the name in every fragment, or send arguments
as an object. What comes out has an index and an id per call, and the name once, in the call's first fragment that has
one.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson


class _Call(msgspec.Struct):
    """A call that was begun. ``place`` is its index as told on; ``id`` as the provider gave it."""

    place: int
    id: str
    name: str
    arguments: list[str]

    def ended_before(self, call_id: str, name: str, arguments: str) -> bool:
        """Whether a fragment under the same index begins another call: only beginnings tell a name, and no object can
        be added to arguments that are whole."""
        if not name or not self.name:
            return False
        if name != self.name or (call_id and self.id and call_id != self.id):
            return True
        return arguments.lstrip().startswith("{") and _whole("".join(self.arguments))


class Calls:
    """All calls of one answer: ``take`` every list of fragments."""

    def __init__(self) -> None:
        self._begun: dict[int, _Call] = {}
        """The call that fragments with this index belong to now."""
        self._by_id: dict[str, _Call] = {}
        self._count = 0

    def take(self, fragments: Any, exchange: str | None) -> tuple[dict[str, Any], ...]:
        """The fragments to tell on. ``exchange``: its name upstream, for ids where the provider gives none."""
        if not isinstance(fragments, list):
            return ()
        told = (self._fragment(fragment, nth, exchange) for nth, fragment in enumerate(fragments) if _is_call(fragment))
        return tuple([fragment for fragment in told if fragment is not None])

    def _fragment(self, fragment: dict[str, Any], nth: int, exchange: str | None) -> dict[str, Any] | None:
        told, call_id, function = fragment.get("index"), _text(fragment.get("id")), fragment.get("function") or {}
        name, arguments = _text(function.get("name")), _arguments(function.get("arguments"))
        index = told if type(told) is int else nth
        call = (self._by_id.get(call_id) if told is None else None) or self._begun.get(index)
        if call is None or call.ended_before(call_id, name, arguments):
            place = self._count
            self._count += 1
            call = self._begun[index] = _Call(place=place, id=call_id, name=name, arguments=[arguments])
            own = bool(call_id) and call_id not in self._by_id
            if call_id:
                self._by_id[call_id] = call  # the last one where all have the same
            return {
                **fragment,
                "index": place,
                "id": call_id if own else f"call_{exchange or 'x'}_{place}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        call.arguments.append(arguments)
        more = {"arguments": arguments}
        if name and not call.name:
            call.name = more["name"] = name
        return {"index": call.place, "function": more} if arguments or "name" in more else None


def _is_call(fragment: Any) -> bool:
    if not isinstance(fragment, dict):
        return False
    function = fragment.get("function")
    return isinstance(function, dict) or (function is None and bool(_text(fragment.get("id"))))


def _whole(arguments: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, dict) else _text(value)
