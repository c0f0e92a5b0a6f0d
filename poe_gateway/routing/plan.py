"""Where a request goes: from the name that the caller gave, and the profile that is his, to a course. Pure.

A name is looked up in this order, and the first that knows it decides:

1. alias, 2. tier, 3. profile (``auto`` is the caller's own), 4. ``provider:model``, where the word before the first
colon is a backend or a provider, 5. ``X-Provider``, 6. the catalogue, 7. the default provider.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from glob import escape

import msgspec

from poe_gateway.chat.request import Operation
from poe_gateway.errors import Forbidden, InvalidRequest, Unavailable
from poe_gateway.routing.classifying import classified as classified  # of this room's surface
from poe_gateway.routing.classifying import classifier_request as classifier_request
from poe_gateway.routing.course import Asked, Course, Leg
from poe_gateway.routing.fields import plain
from poe_gateway.routing.ladder import (
    Circumstances,
    barred,
    barred_model,
    named_provider,
    provider_leg,
    with_fallbacks,
)
from poe_gateway.routing.modes import at_tier, entered, system_texts
from poe_gateway.routing.table import Client, Profile, Table, Tier
from poe_gateway.routing.words import Accounts, accounts_of

AUTO = "auto"
"""As a model's name: whatever the caller's own profile decides."""
_LATEST = ":latest"
"""What Ollama's clients put behind a name."""


class _Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for: at most one of the first three."""

    tier: Tier | None = None
    profile: Profile | None = None
    leg: Leg | None = None
    by_alias: bool = False
    names: tuple[str, ...] = ()
    """Under which a fallback chain may stand, the caller's own word first."""
    grants: tuple[str, ...] = ()
    """The name, where it is the table's own and not a provider's or nobody's."""


def client_of(table: Table, *, key_id: str | None, key_name: str | None, org: str | None) -> Client | None:
    """The entry that a key belongs to: its own, else its organisation's (``org``: id)."""
    names = {name for name in (key_id, key_name) if name is not None}
    for client in table.clients:
        if client.key in names or (key_name == client.key_name and (client.key_env or client.key_file)):
            return client
    return next((client for client in table.clients if org is not None and client.org == org), None)


def profile_of(table: Table, *, key_id: str | None, key_name: str | None, org: str | None) -> Profile | None:
    """The profile of a caller: of his entry, else ``default``; without a key the public one. None: none has a say."""
    client = client_of(table, key_id=key_id, key_name=key_name, org=org)
    if client is not None:
        return table.profiles[client.profile]
    if key_id is None and table.terms.public_profile is not None:
        return table.profiles[table.terms.public_profile]
    return table.profiles.get("default")


def usable_profiles(table: Table, *, key_id: str | None, key_name: str | None, org: str | None) -> frozenset[str]:
    """The profiles that a caller may name in place of a model: without any ``[[clients]]`` all, else his own and those
    that his entry adds."""
    if not table.clients:
        return frozenset(table.profiles)
    own = profile_of(table, key_id=key_id, key_name=key_name, org=org)
    client = client_of(table, key_id=key_id, key_name=key_name, org=org)
    others: Collection[str] = client.profiles if client is not None else ()
    return frozenset(table.profiles if "*" in others else [*others, *([own.name] if own is not None else [])])


def public_names(table: Table) -> tuple[str, ...] | None:
    """What callers without a key may ask for, as globs; None: they are not let in.

    Names of the file only, and the models that its tiers lead to: never the rest of the catalogue.
    """
    profile = table.terms.public_profile
    if profile is None:
        return None
    names = [AUTO, AUTO + _LATEST, profile, profile + _LATEST]
    names += [name for tier in table.tiers for name in (tier.name, tier.model)]
    return tuple(dict.fromkeys(escape(name) for name in [*names, *table.aliases]))


def plan_course(
    table: Table,
    model: str,
    asked: Asked,
    profile: Profile | None,
    *,
    knows: Callable[[str], bool],
    default_provider: str | None,
    tokens: int,
    tool_results: bool,
    healthy: Callable[[str], bool],
    operation: Operation = "chat",
    usable: Collection[str] | None = None,
) -> Course:
    """The course of a request for ``model``.

    ``profile`` is the caller's; ``knows`` tells whether the catalogue has a name; ``tokens`` those of the prompt;
    ``usable`` the profiles that he may name (None: as without an entry of his own). Raises InvalidRequest (unknown
    provider), Forbidden (``expert_required``), RequestTooLarge, ModelNotFound, Unavailable (the default provider is
    none).
    """
    at = Circumstances(tokens=tokens, tool_results=tool_results, expert=asked.expert, healthy=healthy)
    chosen = _provider(table, asked.provider) if asked.provider and asked.provider.strip() else None
    if usable is None:
        usable = table.profiles if not table.clients else [profile.name] if profile is not None else []
    meaning = _meaning(table, model, usable)
    if meaning.profile is not None:
        profile = meaning.profile
    if profile is not None and profile.mode == "reply":
        _only_chat(operation, profile)
        return entered(table, profile, at)
    if _left_open(meaning, model, profile, chosen, knows):
        if profile is not None and operation == "chat" and _decides(profile, meaning, model):
            grants = (*meaning.grants, AUTO, profile.name)
            return msgspec.structs.replace(entered(table, profile, at), names=grants)
        if meaning.profile is not None:
            _only_chat(operation, meaning.profile)
    course = msgspec.structs.replace(_plain(profile, asked, operation), names=meaning.grants)
    if meaning.tier is not None:
        if barred(table, profile, meaning.tier, asked.expert):
            raise _expert(f"The tier '{plain(meaning.tier.name)}'")
        return at_tier(table, course, meaning.tier, at, asked=meaning.names[0])
    leg = meaning.leg or _leg(table, model, chosen, knows, default_provider)
    if barred_model(table, profile, leg.model, asked.expert):
        raise _expert(f"The model '{plain(leg.model)}'")
    legs = with_fallbacks(table, leg, (*meaning.names, leg.model), profile, at)
    return msgspec.structs.replace(course, legs=legs, fallback=len(legs) > 1)


def _meaning(table: Table, model: str, usable: Collection[str]) -> _Meaning:
    """By alias, tier, profile and ``provider:model``, in that order."""
    for name in dict.fromkeys((model, model.removesuffix(_LATEST))):
        target = table.aliases.get(name)
        by_alias = target is not None
        target = target if target is not None else name
        names = (model, name, target) if by_alias else (model, name)
        tier = table.tier(target)
        if tier is not None:
            return _Meaning(tier=tier, by_alias=by_alias, names=names, grants=(name,))
        if target in table.profiles and target in usable:
            return _Meaning(profile=table.profiles[target], by_alias=by_alias, names=names, grants=(name,))
        provider = named_provider(table, target) if by_alias else None
        if provider is not None:
            return _Meaning(leg=provider_leg(*provider), by_alias=True, names=names, grants=(name,))
    provider = named_provider(table, model)
    if provider is not None:
        prefix = model[: len(model) - len(provider[1])]
        return _Meaning(leg=provider_leg(*provider, prefix), names=(model,))
    return _Meaning(names=(model,))


def _left_open(
    meaning: _Meaning, model: str, profile: Profile | None, chosen: Accounts | None, knows: Callable[[str], bool]
) -> bool:
    """Whether the name leaves the choice to a profile: it names one, or nothing that is known.

    An alias of a tier says how the answer should be; a profile that escalates or classifies knows better.
    """
    if meaning.leg is not None:
        return False
    if meaning.tier is not None:
        return meaning.by_alias and profile is not None and profile.mode in ("escalate", "classify")
    if meaning.profile is not None or _is_auto(model):
        return True
    return chosen is None and not knows(model)


def _decides(profile: Profile, meaning: _Meaning, model: str) -> bool:
    """Whether the profile has somewhere to go for a name that is left to it."""
    if profile.mode in ("escalate", "classify") or meaning.profile is not None:
        return True
    return profile.classifier is not None or (_is_auto(model) and profile.max_auto_tier is not None)


def _leg(
    table: Table, model: str, chosen: Accounts | None, knows: Callable[[str], bool], default_provider: str | None
) -> Leg:
    """A plain name: at the provider of the header, where the catalogue has it, or at the default provider."""
    if chosen is not None:
        return provider_leg(chosen, model)
    if default_provider is None or knows(model):
        return Leg(model=model)
    accounts = accounts_of(table, default_provider)
    if accounts is None:
        raise Unavailable("The default provider is not set up.", code="provider_not_configured")
    return provider_leg(accounts, model)


def _plain(profile: Profile | None, asked: Asked, operation: Operation) -> Course:
    """A course without legs, by the caller's own choice."""
    if profile is None:
        return Course(legs=(), expert=asked.expert)
    system = system_texts(profile, "") if operation == "chat" else ()
    return Course(
        legs=(), mode="dispatch", profile=profile, profiles=(profile.name,), system=system, expert=asked.expert
    )


def _provider(table: Table, word: str) -> Accounts:
    accounts = accounts_of(table, word.strip())
    if accounts is None:
        raise InvalidRequest(f"Unknown provider '{plain(word)}'.", code="unknown_provider", param="X-Provider")
    return accounts


def _only_chat(operation: Operation, profile: Profile) -> None:
    if operation != "chat":
        raise InvalidRequest(
            f"'{plain(profile.name)}' is a profile, and profiles answer chats only. Name a model.",
            code="unsupported_operation",
            param="model",
        )


def _expert(what: str) -> Forbidden:
    return Forbidden(f"{what} is only served with the header X-Gateway-Expert: true.", code="expert_required")


def _is_auto(model: str) -> bool:
    return model.removesuffix(_LATEST) == AUTO
