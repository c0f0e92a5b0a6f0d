"""What may be asked for by name: the models of the catalogue, and the tiers, aliases and profiles of the table. Pure.

Every name once. Where a model is called as a tier, an alias or a profile, the latter is meant by a request, and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import msgspec

from poe_gateway.api.v1.model_facts import ModelCapabilities, Price, least, merged, prices
from poe_gateway.metering.pricing import PriceRule
from poe_gateway.routing.catalog import Model, Offered, name_key
from poe_gateway.routing.course import Leg
from poe_gateway.routing.ladder import leg_of, named_provider, provider_leg
from poe_gateway.routing.table import Profile, Table
from poe_gateway.routing.words import serves
from poe_gateway.upstreams.base import Capabilities

Kind = Literal["model", "tier", "alias", "profile"]
_OURS = "gateway"
"""Who owns names that the operator made."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is made of, as far as it is one caller's."""

    offers: Mapping[str, str]
    """Offers that may serve him, and the provider of each."""
    offered: Mapping[str, Offered]
    """What those offers list, by ``name_key``."""
    table: Table
    capabilities: Mapping[str, Capabilities]
    """By provider."""
    rule: Callable[[str, str], PriceRule | None]
    """The price rule in force for a provider and a public model name."""
    may: Callable[[str], bool]
    """Whether he may use what is called so."""
    profiles: Collection[str] = ()
    """Profiles that he may name."""
    fallback: tuple[str, ...] = ()
    """Models that are listed where an offer's own list was never read."""
    unread: frozenset[str] = frozenset()
    """Those offers."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One name."""

    id: str
    kind: Kind = "model"
    owned_by: str = _OURS
    created: int = 0
    resolves_to: str | None = None
    """Of a tier, ``backend:model``; of an alias, what it stands for; of a profile, the tier where it begins."""
    providers: tuple[str, ...] = ()
    context_length: int | None = None
    max_output_tokens: int | None = None
    capabilities: ModelCapabilities | None = None
    pricing: tuple[Price, ...] = ()
    details: Mapping[str, Any] = {}
    """What the first provider tells of the model."""


def listed(sources: Sources) -> Iterator[Listed]:
    """Tiers in the order of the table, aliases, profiles; then models in the order of their names."""
    seen: set[str] = set()
    for entry in _named(sources):
        if entry.id not in seen:
            seen.add(entry.id)
            yield entry
    known = {name_key(name) for name in seen}
    for key, model in sources.offered.items():
        if key not in known and sources.may(model.id):
            yield _model(sources, model.id, model.by_offer)
    for name in sources.fallback if sources.unread else ():
        key = name_key(name)
        if key not in known and key not in sources.offered and sources.may(name):
            known.add(key)
            yield _unread(sources, name)


def find(sources: Sources, name: str) -> Listed | None:
    """One name, as it is written or in any other case."""
    near: Listed | None = None
    for entry in listed(sources):
        if entry.id == name:
            return entry
        if near is None and name_key(entry.id) == name_key(name):
            near = entry
    return near


def _named(sources: Sources) -> Iterator[Listed]:
    """What the table names and the caller may use, and some offer of his could serve."""
    table = sources.table
    for tier in table.tiers:
        yield from _led(sources, tier.name, "tier", f"{tier.backend}:{tier.model}", leg_of(table, tier))
    for name, target in table.aliases.items():
        if target in table.profiles and table.tier(target) is None:
            if target in sources.profiles and sources.may(name):
                yield Listed(id=name, kind="alias", resolves_to=target)
        elif (leg := _leg(table, target)) is not None:
            yield from _led(sources, name, "alias", target, leg)
    for name, profile in table.profiles.items():
        if name in sources.profiles and sources.may(name):
            yield Listed(id=name, kind="profile", resolves_to=_beginning(table, profile))


def _leg(table: Table, target: str) -> Leg | None:
    tier = table.tier(target)
    if tier is not None:
        return leg_of(table, tier)
    named = named_provider(table, target)
    return None if named is None else provider_leg(*named)


def _led(sources: Sources, name: str, kind: Kind, target: str, leg: Leg) -> Iterator[Listed]:
    """A name that leads to one model, with what is known of that; nothing when the caller may not go there."""
    offers = {offer: provider for offer, provider in sources.offers.items() if serves(leg.offers, offer)}
    known = sources.offered.get(name_key(leg.model))
    models = {} if known is None else {offer: model for offer, model in known.by_offer.items() if offer in offers}
    if not offers or not (sources.may(name) or sources.may(leg.model)):
        return
    entry = _model(sources, leg.model, models) if models else _unlisted(sources, leg.model, offers.values())
    yield msgspec.structs.replace(
        entry,
        id=name,
        kind=kind,
        owned_by=_OURS,
        resolves_to=target,
        context_length=least([leg.max_context_tokens, entry.context_length]),
    )


def _beginning(table: Table, profile: Profile) -> str | None:
    """The tier that a profile takes first, where that does not depend on the request."""
    if profile.mode == "escalate":
        return table.tiers[0].name
    if profile.mode == "dispatch":
        first = table.tiers[0].name if table.tiers else None
        return profile.classifier or profile.max_auto_tier or first
    return None


def _model(sources: Sources, name: str, by_offer: Mapping[str, Model]) -> Listed:
    served = [(sources.offers[offer], model) for offer, model in by_offer.items()]
    first = served[0][1]
    return Listed(
        id=name,
        owned_by=first.owned_by,
        created=first.created,
        details=first.details,
        providers=_once(provider for provider, _ in served),
        context_length=least([model.details.get("context_length") for _, model in served]),
        max_output_tokens=least([model.details.get("max_output_tokens") for _, model in served]),
        capabilities=merged([(sources.capabilities[provider], model.details) for provider, model in served]),
        pricing=prices([(provider, model.details, sources.rule(provider, name)) for provider, model in served]),
    )


def _unread(sources: Sources, name: str) -> Listed:
    return _unlisted(sources, name, [sources.offers[offer] for offer in sorted(sources.unread)])


def _unlisted(sources: Sources, name: str, providers: Collection[str]) -> Listed:
    """A model that nobody's list has: what is known of its providers."""
    kinds = _once(providers)
    return Listed(
        id=name,
        owned_by="unknown",
        providers=kinds,
        capabilities=merged([(sources.capabilities[provider], {}) for provider in kinds]),
        pricing=prices([(provider, {}, sources.rule(provider, name)) for provider in kinds]),
    )


def _once(providers: Iterator[str] | Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(providers))
