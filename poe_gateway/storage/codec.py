"""Structs to documents and back.

What is written is made fit for BSON first, so that no upstream's odd value (a number beyond 64 bits, half a
surrogate pair, a NUL in a key) can ever block the writing of everything else. Times are kept to the millisecond.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)
_INT64 = 2**63 - 1
_PLAIN = frozenset({bool, float, type(None)})
"""Kinds of values that are stored as they are."""


def to_document(value: msgspec.Struct) -> dict[str, Any]:
    """The struct's fields as a document; ``id`` becomes ``_id``."""
    document: dict[str, Any] = storable(msgspec.to_builtins(value, builtin_types=(datetime,)))
    if "id" in document:
        document["_id"] = document.pop("id")
    return document


def from_document(kind: type[T], document: dict[str, Any]) -> T:
    """The struct of a document; fields that it does not know are passed over. Raises msgspec.ValidationError."""
    if "_id" in document:
        document = {**document, "id": document["_id"]}
    return msgspec.convert(document, kind)


def storable(value: Any) -> Any:
    """The value as it will be read back."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if -_INT64 <= value <= _INT64 else max(-_INT64, min(_INT64, value))
    if kind is dict:
        return _document(value)
    if kind is datetime:
        if value.tzinfo is not UTC:
            value = value.astimezone(UTC)
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, list | tuple):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return storable(dict(value))
    if isinstance(value, bool | float):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, int):
        return storable(int(value))
    return storable(str(value)) if isinstance(value, str) else value


def _document(value: dict[Any, Any]) -> dict[str, Any]:
    """Most values of most documents are short and plain, and not worth a call each."""
    document: dict[str, Any] = {}
    for key, each in value.items():
        kind = type(each)
        if kind is str:
            if not each.isascii():
                each = each.encode("utf-8", "replace").decode()
        elif kind is int:
            if not -_INT64 <= each <= _INT64:
                each = storable(each)
        elif kind not in _PLAIN:
            each = storable(each)
        if type(key) is not str or not key.isascii() or "\x00" in key:
            key = str(key).encode("utf-8", "replace").decode().replace("\x00", "")
        document[key] = each
    return document
