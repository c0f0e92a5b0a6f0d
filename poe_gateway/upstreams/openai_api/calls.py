"""Fragments of tool calls as providers stream them, put in OpenAI's own order. Pure.

Clones leave out the index or the id, give every call the index 0, repeat the name in every fragment, or send arguments
as an object. What comes out has an index and an id per call, and the name once, in the call's first fragment.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson


class _Call(msgspec.Struct):
    """A call that was begun. ``place`` is its index as told on; ``id`` as the provider gave it."""

    place: int
    id: str
    named: bool


class Calls:
    """All calls of one answer: ``take`` every list of fragments."""

    def __init__(self) -> None:
        self._begun: dict[int, _Call] = {}
        """The call that fragments with this index belong to now."""
        self._count = 0

    def take(self, fragments: Any, exchange: str | None) -> tuple[dict[str, Any], ...]:
        """The fragments to tell on. ``exchange``: its name upstream, for ids where the provider gives none."""
        if not isinstance(fragments, list):
            return ()
        told = (self._fragment(fragment, nth, exchange) for nth, fragment in enumerate(fragments) if _is_call(fragment))
        return tuple([fragment for fragment in told if fragment is not None])

    def _fragment(self, fragment: dict[str, Any], nth: int, exchange: str | None) -> dict[str, Any] | None:
        index, call_id, function = fragment.get("index"), _text(fragment.get("id")), fragment["function"]
        index = index if type(index) is int else nth
        name, arguments = _text(function.get("name")), _arguments(function.get("arguments"))
        call = self._begun.get(index)
        if call is None or (name and call_id and call.id and call_id != call.id):
            call = self._begun[index] = _Call(place=self._count, id=call_id, named=bool(name))
            self._count += 1
            return {
                **fragment,
                "index": call.place,
                "id": call_id or f"call_{exchange or 'x'}_{call.place}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        more = {"arguments": arguments}
        if name and not call.named:
            call.named = True
            more["name"] = name
        return {"index": call.place, "function": more} if arguments or "name" in more else None


def _is_call(fragment: Any) -> bool:
    return isinstance(fragment, dict) and isinstance(fragment.get("function"), dict)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, dict) else _text(value)
