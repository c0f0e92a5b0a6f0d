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
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return max(-_INT64, min(_INT64, value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, dict):
        return {storable(str(key)).replace("\x00", ""): storable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [storable(each) for each in value]
    return value
