"""Tiers as places to go: which may be taken, which are large enough, and what follows when one cannot be had. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from poe_gateway.errors import RequestTooLarge
from poe_gateway.routing.course import Leg
from poe_gateway.routing.table import Profile, Table, Tier
from poe_gateway.routing.words import Accounts, accounts_of

_MOST_LEGS = 16
"""Places that one request goes to at most."""


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of one request while its course is decided."""

    tokens: int = 0
    """Of the prompt, estimated."""
    tool_results: bool = False
    """It hands in what tools have answered."""
    expert: bool = False
    healthy: Callable[[str], bool] = lambda backend: True
    """By the backend's name."""


def reach(table: Table, profile: Profile | None) -> tuple[Tier, ...]:
    """The tiers that a profile takes by itself, cheapest first; without one all of them."""
    if profile is None or profile.max_auto_tier is None:
        return table.tiers
    return table.tiers[: place(table, profile.max_auto_tier) + 1]


def place(table: Table, name: str) -> int:
    """Where a tier stands in the ladder, from 0."""
    return next(number for number, tier in enumerate(table.tiers) if tier.name == name)


def barred(table: Table, profile: Profile | None, tier: Tier, expert: bool) -> bool:
    """Whether a tier is only for those who set the expert flag, and it is not set."""
    if profile is None or expert or not profile.expert_requires_flag:
        return False
    return place(table, tier.name) >= len(reach(table, profile))


def barred_model(table: Table, profile: Profile | None, model: str, expert: bool) -> bool:
    """The same of a model that is asked for by its own name: one that only barred tiers serve."""
    tiers = [tier for tier in table.tiers if same_name(tier.model, model)]
    return bool(tiers) and all(barred(table, profile, tier, expert) for tier in tiers)


def fitting(tiers: Sequence[Tier], start: int, tokens: int) -> Tier:
    """The first tier from ``start`` upward that the prompt goes into. Raises RequestTooLarge."""
    for tier in tiers[start:]:
        if tier.fits(tokens):
            return tier
    raise too_large(tokens)


def too_large(tokens: int) -> RequestTooLarge:
    """No tier that may be taken is large enough."""
    return RequestTooLarge(f"The prompt has about {tokens} tokens: more than any tier takes that may serve it.")


def leg_of(table: Table, tier: Tier, think: bool | None = None) -> Leg:
    """A tier as a leg. ``think`` wins over what the tier says."""
    accounts = accounts_of(table, tier.backend)
    assert accounts is not None  # noqa: S101 - every tier's backend is in the table
    think = tier.think if think is None else think
    reasoning: dict[str, Any] = {} if think is None else {"reasoning_effort": "medium" if think else "none"}
    return Leg(
        model=tier.model,
        offers=accounts.offers,
        labels=accounts.labels,
        tier=tier.name,
        backend=tier.backend,
        options={**accounts.options, **reasoning},
        max_context_tokens=tier.max_context_tokens,
    )


def provider_leg(accounts: Accounts, model: str, prefix: str | None = None) -> Leg:
    """A model of one provider."""
    return Leg(
        model=model,
        prefix=prefix,
        offers=accounts.offers,
        labels=accounts.labels,
        backend=accounts.backend,
        options=accounts.options,
    )


def named_provider(table: Table, name: str) -> tuple[Accounts, str] | None:
    """``provider:model`` as accounts and model; None: the word before the first colon is no provider."""
    word, colon, model = name.partition(":")
    accounts = accounts_of(table, word) if colon and model else None
    return None if accounts is None else (accounts, model)


def with_fallbacks(
    table: Table, first: Leg, names: Sequence[str], profile: Profile | None, at: Circumstances
) -> tuple[Leg, ...]:
    """The leg and the chain that follows it. ``names``: what it is called, the caller's own word first."""
    legs = [first]
    for name in _chain(table, names):
        leg = _fallback(table, name, profile, at)
        if leg is not None and all(_place_of(leg) != _place_of(other) for other in legs):
            legs.append(leg)
        if len(legs) == _MOST_LEGS:
            break
    return tuple(legs)


def same_name(one: str, other: str) -> bool:
    """As the catalogue compares names of models."""
    return one.lower().replace(" ", "") == other.lower().replace(" ", "")


def _chain(table: Table, names: Sequence[str]) -> Iterator[str]:
    """Names that follow, each with its own chain behind it, none twice."""
    coming = list(reversed(_following(table, names)))
    seen: set[str] = set()
    while coming:
        name = coming.pop()
        if name not in seen:
            seen.add(name)
            yield name
            coming.extend(reversed(_following(table, (name, table.aliases.get(name, name)))))


def _following(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """The chain of the first of these names that has one."""
    for name in names:
        if name in table.fallbacks:
            return table.fallbacks[name]
        for key, found in table.fallbacks.items():
            if same_name(key, name):
                return found
    return ()


def _fallback(table: Table, name: str, profile: Profile | None, at: Circumstances) -> Leg | None:
    """None: the prompt is too long for it, or it is not for this caller."""
    target = table.aliases.get(name, name)
    tier = table.tier(target)
    if tier is not None:
        return leg_of(table, tier) if tier.fits(at.tokens) and not barred(table, profile, tier, at.expert) else None
    provider = named_provider(table, target)
    model = target if provider is None else provider[1]
    if barred_model(table, profile, model, at.expert):
        return None
    return Leg(model=model) if provider is None else provider_leg(provider[0], model)


def _place_of(leg: Leg) -> tuple[Any, ...]:
    return leg.model, leg.offers, leg.labels
