"""Organisations: holders of keys with limits of their own. Values, and the store's protocol."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from poe_gateway.limits.terms import Budget, Rates

DEFAULT_ORG = "default"
"""Id and name of the organisation that keys belong to when nothing else is said."""


class Org(msgspec.Struct, frozen=True, kw_only=True):
    """One organisation. ``name`` is unique; that of the default organisation never changes."""

    id: str
    name: str
    enabled: bool = True
    """The keys of one that is switched off do not work."""
    rates: Rates = Rates()
    """Of all its keys together; the gateway's defaults are for keys only."""
    budgets: tuple[Budget, ...] = ()
    keep_text: bool = False
    """Its requests' text is kept (sealed) for the auditor."""
    note: str = ""
    created_at: datetime | None = None


class OrgTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator changes of an organisation; a field that is UNSET stays as it is."""

    name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    rates: Rates | UnsetType = UNSET
    budgets: tuple[Budget, ...] | UnsetType = UNSET
    keep_text: bool | UnsetType = UNSET
    note: str | UnsetType = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that change."""
        return {name: value for name, value in asdict(self).items() if value is not UNSET}

    def on(self, org: Org) -> Org:
        """The organisation under these terms."""
        return replace(org, **self.given())


DEFAULT = Org(id=DEFAULT_ORG, name=DEFAULT_ORG)
"""The default organisation until it is changed for the first time: only then it is stored."""


class NameTaken(Exception):
    """Another organisation has this name."""


class OrgStore(Protocol):
    """Where organisations are kept. None is ever deleted. All methods raise StoreUnavailable."""

    async def load(self) -> list[Org]:
        """All that are stored."""

    async def changes(self) -> list[Org]:
        """Those stored since ``load`` or the last call; may repeat itself."""

    async def add(self, org: Org) -> None:
        """Store a new one. Raises NameTaken."""

    async def change(self, org_id: str, terms: OrgTerms) -> Org | None:
        """Change what is given and nothing else; as stored then, None when unknown. Raises NameTaken."""
