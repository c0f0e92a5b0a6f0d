"""What is different between two tables, in words. Pure. Prompts and other long texts are told, not shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import msgspec

from poe_gateway.routing.fields import join, plain
from poe_gateway.routing.table import Table

_LONG = 60


def changes(old: Table, new: Table) -> tuple[str, ...]:
    """One sentence for each difference, by section and name: ``+`` added, ``-`` removed, ``~`` changed."""
    told = list(_fields("gateway", old.terms, new.terms))
    told += _named("backends", old.backends, new.backends)
    told += _named("tiers", {tier.name: tier for tier in old.tiers}, {tier.name: tier for tier in new.tiers})
    told += _order(old, new)
    told += _named("aliases", old.aliases, new.aliases)
    told += _named("profiles", old.profiles, new.profiles)
    told += _named("clients", {each.name: each for each in old.clients}, {each.name: each for each in new.clients})
    told += _named("fallbacks", old.fallbacks, new.fallbacks)
    return tuple(told)


def _named(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        yield from _changed(join(section, name), old.get(name), new.get(name))


def _changed(path: str, old: Any, new: Any) -> Iterator[str]:
    """One entry; None: it is not there."""
    if old is None:
        yield f"+ {path}{_summary(new)}"
    elif new is None:
        yield f"- {path}{_summary(old)}"
    else:
        yield from _fields(path, old, new)


def _fields(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, msgspec.Struct):
        for field in old.__struct_fields__:
            yield from _fields(f"{path}.{field}", getattr(old, field), getattr(new, field))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _named(path, old, new)
    elif _entries(old) and _entries(new):
        for place, (before, after) in enumerate(zip_longest(old, new)):
            yield from _changed(f"{path}[{place}]", before, after)
    else:
        before, after = _shown(old), _shown(new)
        yield f"~ {path}: {before} -> {after if after != before else 'another one'}"


def _entries(value: Any) -> bool:
    """Whether it is a list of tables."""
    return isinstance(value, tuple) and all(isinstance(each, msgspec.Struct) for each in value)


def _order(old: Table, new: Table) -> Iterator[str]:
    """Tiers that both have, in another order: that alone changes what is cheaper than what."""
    before = [tier.name for tier in old.tiers if new.tier(tier.name) is not None]
    after = [tier.name for tier in new.tiers if old.tier(tier.name) is not None]
    if before != after:
        yield f"~ tiers: {' < '.join(map(plain, before))} -> {' < '.join(map(plain, after))}"


def _summary(value: Any) -> str:
    """What tells most about an entry that is new or gone."""
    if not isinstance(value, msgspec.Struct):
        return f": {_shown(value)}"
    fields = ("provider", "backend", "model", "mode", "route_to", "profile")
    known = ((name, getattr(value, name, None)) for name in fields)
    told = [f"{name} {_shown(text)}" for name, text in known if isinstance(text, str)]
    return f": {', '.join(told)}" if told else ""


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return ", ".join(map(_shown, value)) or "-"
    if isinstance(value, str):
        return plain(value) if len(value) <= _LONG and value.isprintable() else f"a text of {len(value)} characters"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple | list | Mapping):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    return "a value"
