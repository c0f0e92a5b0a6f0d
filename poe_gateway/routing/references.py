"""What refers to what in a table: names that lead nowhere, circles, names that hide others. Pure.

Aliases are followed here once, so that nobody has to at each request.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from poe_gateway.routing.fields import Problems, join, near, plain
from poe_gateway.routing.table import Profile, Rule, Table
from poe_gateway.routing.words import WORDS, known_provider

_MOST_CIRCLES = 20


def connected(table: Table, problems: Problems, notes: list[str]) -> Table:
    """The table with aliases followed. Everything that leads nowhere is told in ``problems``."""
    _tiers(table, problems)
    aliases = _aliases(table, problems)
    table = replace(table, aliases=aliases)
    table = replace(table, profiles={name: _profile(table, each, problems) for name, each in table.profiles.items()})
    _cascades(table, problems)
    _clients(table, problems)
    _fallbacks(table, problems, notes)
    _hidden(table, notes)
    public = table.terms.public_profile
    if public is not None and public not in table.profiles:
        problems.add("gateway.public_profile", _unknown("profile", public, table.profiles))
    return table


def _tiers(table: Table, problems: Problems) -> None:
    seen: set[str] = set()
    for place, tier in enumerate(table.tiers):
        if tier.name in seen:
            problems.add(f"tiers[{place}].name", f"there is another tier {plain(tier.name)!r}")
        seen.add(tier.name)
        if tier.backend not in table.backends:
            problems.add(f"tiers[{place}].backend", _unknown("backend", tier.backend, table.backends))


def _aliases(table: Table, problems: Problems) -> dict[str, str]:
    """Each alias with where it leads in the end."""
    found: dict[str, str] = {}
    for name in table.aliases:
        target, way = table.aliases[name], [name]
        while table.tier(target) is None and target in table.aliases and target not in way:
            way.append(target)
            target = table.aliases[target]
        if table.tier(target) is not None or target in table.profiles or _provider_model(table, target):
            found[name] = target
        elif target in way:
            problems.add(join("aliases", name), f"goes in a circle: {_way([*way, target])}")
        else:
            known = [tier.name for tier in table.tiers] + [each for each in table.aliases if each != name]
            problems.add(join("aliases", name), _unknown("tier", target, known))
    return found


def _profile(table: Table, profile: Profile, problems: Problems) -> Profile:
    path = join("profiles", profile.name)
    if profile.mode in ("escalate", "classify") and not table.tiers:
        problems.add(f"{path}.mode", f"{profile.mode!r} needs tiers, and there are none")
    if profile.expert_requires_flag and profile.max_auto_tier is None:
        problems.add(f"{path}.expert_requires_flag", "needs max_auto_tier: the flag is for the tiers above it")
    return replace(
        profile,
        classifier=_tier_name(table, profile.classifier, f"{path}.classifier", problems),
        max_auto_tier=_tier_name(table, profile.max_auto_tier, f"{path}.max_auto_tier", problems),
        rules=tuple([_rule(table, rule, f"{path}.rules", problems) for rule in profile.rules]),
    )


def _tier_name(table: Table, name: str | None, path: str, problems: Problems) -> str | None:
    """The tier that a name or an alias stands for."""
    if name is None or table.tier(name) is not None:
        return name
    target = table.aliases.get(name)
    if target is not None and table.tier(target) is not None:
        return target
    problems.add(path, _unknown("tier", name, [*(tier.name for tier in table.tiers), *table.aliases]))
    return None


def _rule(table: Table, rule: Rule, path: str, problems: Problems) -> Rule:
    if rule.route_to is not None and rule.route_to in table.profiles:
        return replace(rule, route_to=None, profile=rule.route_to)
    if rule.profile is not None and rule.profile not in table.profiles:
        problems.add(path, _unknown("profile", rule.profile, table.profiles))
    return replace(rule, route_to=_tier_name(table, rule.route_to, path, problems))


def _cascades(table: Table, problems: Problems) -> None:
    graph = {name: {rule.profile for rule in each.rules if rule.profile} for name, each in table.profiles.items()}
    for circle in _circles(graph):
        problems.add(f"{join('profiles', circle[0])}.rules", f"go in a circle: {_way(circle)}")


def _clients(table: Table, problems: Problems) -> None:
    seen: set[tuple[str, str | None]] = set()
    for place, client in enumerate(table.clients):
        for what in ("name", "key_env", "key_file", "key", "org"):
            value = getattr(client, what)
            if value is not None and (what, value) in seen:
                problems.add(f"clients[{place}].{what}", "another client has the same")
            seen.add((what, value))
        for name in (client.profile, *client.profiles):
            if name not in table.profiles and not (name == "*" and name in client.profiles):
                field = "profile" if name == client.profile else "profiles"
                problems.add(f"clients[{place}].{field}", _unknown("profile", name, table.profiles))


def _fallbacks(table: Table, problems: Problems, notes: list[str]) -> None:
    tiers = {tier.name for tier in table.tiers}
    for name, targets in table.fallbacks.items():
        for target in targets:
            if target in tiers or target in table.aliases or _provider_model(table, target):
                continue
            hint = near(target, [*tiers, *table.aliases])
            if hint:
                problems.add(join("fallbacks", name), f"unknown tier {plain(target)!r}{hint}")
            else:
                told = f"{plain(target)!r} is no tier and no alias: it is taken for a model of the catalogue"
                notes.append(f"{join('fallbacks', name)}: {told}")
    graph: dict[str, set[str]] = {}
    for name, targets in table.fallbacks.items():
        graph.setdefault(_end(table, name), set()).update(_end(table, target) for target in targets)
    for circle in _circles(graph):
        problems.add(join("fallbacks", circle[0]), f"goes in a circle: {_way(circle)}")


def _hidden(table: Table, notes: list[str]) -> None:
    """Names that stand for two things: the first in the order of names wins."""
    for name in table.aliases:
        for kind, known in (("tier", table.tier(name) is not None), ("profile", name in table.profiles)):
            if known:
                notes.append(f"{join('aliases', name)}: hides the {kind} of the same name")
    notes.extend(
        f"{join('profiles', tier.name)}: as a model's name it is hidden by the tier of the same name"
        for tier in table.tiers
        if tier.name in table.profiles
    )
    for name, backend in table.backends.items():
        if name in WORDS and name != backend.provider and WORDS[name].adapter != WORDS[backend.provider].adapter:
            notes.append(f"{join('backends', name)}: hides the provider of the same name")


def _provider_model(table: Table, name: str) -> bool:
    word, colon, model = name.partition(":")
    return bool(colon and model) and known_provider(table, word)


def _end(table: Table, name: str) -> str:
    return table.aliases.get(name, name)


def _circles(graph: Mapping[str, set[str]]) -> Iterable[list[str]]:
    """Circles of a graph, each from its first name on, until none is left or enough are told."""
    edges = {node: set(following) for node, following in graph.items()}
    for _ in range(_MOST_CIRCLES):
        try:
            graphlib.TopologicalSorter(edges).prepare()
        except graphlib.CycleError as error:
            # The sorter takes edges for predecessors: its circle runs against ours.
            circle = list(reversed(error.args[1]))
            start = min(range(len(circle) - 1), key=lambda place: circle[place])
            circle = [*circle[start:-1], *circle[: start + 1]]
            edges[circle[0]].discard(circle[1])
            yield circle
        else:
            return


def _way(names: Iterable[str]) -> str:
    return " -> ".join(plain(name) for name in names)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    return f"unknown {kind} {plain(name)!r}{near(name, list(known))}"
