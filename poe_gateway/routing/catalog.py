"""Which offers serve which model, in memory; the catalogue of each offer is read from its upstream and stored.

An *offer* is a set of accounts that serve the same models. An offer whose catalogue nobody has read yet is *open*:
it may be asked for any model, and the upstream decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from poe_gateway.errors import ModelNotFound
from poe_gateway.routing.words import picked, serves


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model of an offer. ``id`` is the public name; ``upstream`` what the adapter is called with."""

    id: str
    upstream: str
    owned_by: str
    created: int = 0
    details: dict[str, Any] = {}


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The stored catalogue of one offer."""

    offer: str
    models: tuple[Model, ...]
    fetched_at: datetime


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """One public name with everything that serves it: the model as each offer lists it."""

    id: str
    """As the first of them spells it."""
    by_offer: dict[str, Model]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request may go: for each offer the model name its upstream understands."""

    model: str
    """Public name, as the catalogue spells it."""
    key: str
    """The same for every spelling of the model."""
    targets: dict[str, str]
    offers: frozenset[str]
    """The offers of ``targets``."""
    providers: dict[str, frozenset[str]]
    """The same by the adapter that serves them."""

    @staticmethod
    def of(model: str, key: str, targets: dict[str, str]) -> Plan:
        """A plan with these targets."""
        providers: dict[str, set[str]] = {}
        for offer in targets:
            providers.setdefault(offer.partition(":")[0], set()).add(offer)
        grouped = {provider: frozenset(offers) for provider, offers in providers.items()}
        return Plan(model=model, key=key, targets=targets, offers=frozenset(targets), providers=grouped)

    def among(self, providers: Collection[str]) -> Plan:
        """Without the offers of other providers."""
        if all(provider in providers for provider in self.providers):
            return self
        kept = frozenset().union(*(offers for name, offers in self.providers.items() if name in providers))
        return Plan.of(self.model, self.key, {offer: name for offer, name in self.targets.items() if offer in kept})


class CatalogStore(Protocol):
    """Where catalogues are kept between starts and shared between processes."""

    async def load(self) -> list[Listing]:
        """All stored listings."""

    async def put(self, listing: Listing) -> None:
        """Replace the listing of its offer."""

    async def drop(self, offer: str) -> None:
        """Forget an offer."""


class Catalog:
    """All listings, with look-up that ignores case and spaces."""

    def __init__(self) -> None:
        self._listings: dict[str, Listing] = {}
        self._names: dict[str, dict[str, Model]] = {}
        self._plans: dict[tuple[str, tuple[str, ...]], Plan] = {}
        self._present: frozenset[str] = frozenset()

    def replace(self, listings: Iterable[Listing]) -> None:
        """The listings as they are now; unknown offers are forgotten."""
        self._listings = {listing.offer: listing for listing in listings}
        names: dict[str, dict[str, Model]] = {}
        # Public names win over the upstream's own spelling of another model.
        for own in (True, False):
            for listing in self._listings.values():
                for model in listing.models:
                    key = name_key(model.id if own else model.upstream)
                    names.setdefault(key, {}).setdefault(listing.offer, model)
        self._names = names
        self._plans.clear()

    def has(self, offer: str) -> bool:
        return offer in self._listings

    def knows(self, model: str) -> bool:
        """Whether some listing names the model."""
        return name_key(model) in self._names

    def fetched_at(self, offer: str) -> datetime | None:
        listing = self._listings.get(offer)
        return listing.fetched_at if listing is not None else None

    def plan(self, model: str, offers: Mapping[str, int], among: tuple[str, ...] = ()) -> Plan:
        """Where ``model`` may be served, given the number of accounts by offer. Raises ModelNotFound.

        ``among``: beginnings of the offers that may serve (``words.serves``); empty: all. Who names offers has chosen
        where to ask: what none of them lists is for their upstream to judge, as lists tell by no means of every model,
        unless the account's owner has said which models it serves.
        Pure apart from a bounded cache of its own answers.
        """
        present = frozenset(offers)
        if present != self._present:
            self._present = present
            self._plans.clear()
        plan = self._plans.get((model, among))
        if plan is None:
            if among:
                present = frozenset(offer for offer in present if serves(among, offer))
            plan = self._plan(model, present, unlisted=bool(among))
            if len(self._plans) < 4096:
                self._plans[model, among] = plan
        return plan

    def _plan(self, model: str, present: frozenset[str], *, unlisted: bool) -> Plan:
        known = self._names.get(name_key(model), {})
        targets = {offer: entry.upstream for offer, entry in known.items() if offer in present}
        spelled = next((entry.id for offer, entry in known.items() if offer in present), None)
        if not targets:
            asked = {offer for offer in present if offer not in self._listings or (unlisted and not picked(offer))}
            targets = dict.fromkeys(asked, model)
        if not targets:
            raise ModelNotFound(
                f"The model '{model[:200]}' does not exist or is not served by this pool.", param="model"
            )
        return Plan.of(spelled or model, name_key(model), targets)

    def models(self, offers: Mapping[str, int]) -> list[Model]:
        """Every model that some account serves, each public name once, by name."""
        merged: dict[str, Model] = {}
        for offer in offers:
            listing = self._listings.get(offer)
            for model in listing.models if listing is not None else ():
                merged.setdefault(name_key(model.id), model)
        return sorted(merged.values(), key=lambda model: model.id.lower())

    def offered(self, offers: Iterable[str]) -> dict[str, Offered]:
        """Every model that these offers list, by ``name_key`` of its public name, in the order of the names."""
        found: dict[str, Offered] = {}
        for offer in offers:
            listing = self._listings.get(offer)
            for model in listing.models if listing is not None else ():
                known = found.get(key := name_key(model.id))
                if known is None:
                    found[key] = Offered(id=model.id, by_offer={offer: model})
                else:
                    known.by_offer.setdefault(offer, model)
        return dict(sorted(found.items()))

    def find(self, model_id: str, offers: Iterable[str]) -> Model:
        """One model by its public name. Raises ModelNotFound."""
        known = self._names.get(name_key(model_id), {})
        present = frozenset(offers)
        for offer, model in known.items():
            if offer in present:
                return model
        raise ModelNotFound(f"The model '{model_id[:200]}' does not exist.", param="model")


def name_key(name: str) -> str:
    """The same for every spelling of a model's name: case and spaces do not matter."""
    return name.lower().replace(" ", "")
