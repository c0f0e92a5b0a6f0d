"""Several files as one document: overlays over the main file, and one file for each profile; and back. Pure.

Tables are merged key by key, the later file wins. The lists ``[[tiers]]`` and ``[[clients]]`` are merged by name: an
entry whose name is there takes its place, others follow at the end. Any other list is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from poe_gateway.routing.fields import join

File = TypeVar("File")
_NAMED = frozenset({"tiers", "clients"})
_IDENTITY = ("name", "key_env", "key_file", "key", "org")
"""What tells entries of a named list apart: the first of these that they have."""


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Both documents as one; neither is changed."""
    document = _tables(base, overlay)
    for name in _NAMED & base.keys() & overlay.keys():
        if isinstance(base[name], list) and isinstance(overlay[name], list):
            document[name] = _named(base[name], overlay[name])
    return document


def with_profile(document: Mapping[str, Any], stem: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """The document with a profile from a file of its own, in place of one of that name.

    ``stem``: the file's name without its ending; ``name`` inside the file wins over it.
    """
    fields = dict(profile)
    name = fields.pop("name", stem)
    if not isinstance(name, str):
        # Told where it stands, as any other field of the wrong type.
        name, fields["name"] = stem, name
    present = document.get("profiles", {})
    if not isinstance(present, Mapping):
        return dict(document)
    return {**document, "profiles": {**present, name: fields}}


def origins(
    documents: Sequence[tuple[File, Mapping[str, Any]]], together: Mapping[str, Any]
) -> dict[str, tuple[File, str]]:
    """Every place of the merged document, as ``tiers[2].backend``, with its file and its place in that.

    ``documents``: each file with what it holds, in the order of merging; ``together``: what became of them.
    """
    found: dict[str, tuple[File, str]] = {}
    entries: dict[int, tuple[File, str]] = {}
    for file, document in documents:
        for key, value in document.items():
            named = key in _NAMED and isinstance(value, list)
            found |= {place: (file, place) for place in ([key] if named else _places(join("", key), value))}
            if named:
                entries |= {id(entry): (file, f"{key}[{number}]") for number, entry in enumerate(value)}
    for key in _NAMED & together.keys():
        for number, entry in enumerate(together[key]) if isinstance(together[key], list) else ():
            if id(entry) in entries:
                file, own = entries[id(entry)]
                start = f"{key}[{number}]"
                found |= {place: (file, own + place[len(start) :]) for place in _places(start, entry)}
    return found


def _places(path: str, value: Any) -> Iterator[str]:
    """The path of the value and of everything in it."""
    yield path
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _places(join(path, key), each)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _places(f"{path}[{number}]", each)


def _tables(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    together = dict(base)
    for key, value in overlay.items():
        present = together.get(key)
        both = isinstance(present, Mapping) and isinstance(value, Mapping)
        together[key] = _tables(present, value) if both else value  # type: ignore[arg-type]
    return together


def _named(base: list[Any], overlay: list[Any]) -> list[Any]:
    entries = list(base)
    places = {_identity(entry): place for place, entry in enumerate(base)}
    for entry in overlay:
        place = places.get(_identity(entry)) if _identity(entry) is not None else None
        if place is None:
            entries.append(entry)
        else:
            entries[place] = entry
    return entries


def _identity(entry: Any) -> tuple[str, str] | None:
    if not isinstance(entry, Mapping):
        return None
    return next(((key, entry[key]) for key in _IDENTITY if isinstance(entry.get(key), str)), None)
