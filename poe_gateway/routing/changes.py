"""What is different between two tables, in words. Pure. Prompts and other long texts are told, not shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        path = join(section, name)
        if name not in old:
            yield f"+ {path}{_summary(new[name])}"
        elif name not in new:
            yield f"- {path}{_summary(old[name])}"
        else:
            yield from _fields(path, old[name], new[name])


def _fields(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if not isinstance(old, msgspec.Struct):
        yield f"~ {path}: {_shown(old)} -> {_shown(new)}"
        return
    for field in old.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield f"~ {path}.{field}: {_shown(before)} -> {_shown(after)}"


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
    known = ((name, getattr(value, name, None)) for name in ("provider", "backend", "model", "mode", "profile"))
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
    return f"{len(value)} entries" if isinstance(value, tuple | Mapping) else "another value"
