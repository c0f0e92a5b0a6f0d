"""Service keys: what is known of them, and how a presented key is recognised. Pure but for the store's protocol.

Only keyed hashes are kept. New keys are ``pgw_<id>.<secret>``; keys given by the operator (bootstrap) may have any
form. Both are found by the hash of the whole text.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from fnmatch import translate
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, fields, replace

from poe_gateway.auth.orgs import DEFAULT, Org
from poe_gateway.auth.orgs import DEFAULT_ORG as DEFAULT_ORG
from poe_gateway.errors import Forbidden
from poe_gateway.limits.terms import Budget, Rates, Scope

_PRINTABLE = re.compile(r"[\x21-\x7e]{8,512}")


class ServiceKey(msgspec.Struct, frozen=True, kw_only=True):
    """One service key. ``id`` is public; ``hash`` the keyed hash in hex of the whole key text."""

    id: str
    name: str
    hash: str
    enabled: bool = True
    created_at: datetime
    revoked_at: datetime | None = None
    bootstrap: bool = False
    priority: int = 0
    """Requests of a higher priority wait less."""
    weight: int = 1
    """Turns in the queue against other keys of the same priority."""
    providers: tuple[str, ...] = ()
    """Accounts of these providers only; empty for all."""
    labels: tuple[str, ...] = ()
    """Accounts that carry all of these only."""
    without: tuple[str, ...] = ()
    """Accounts that carry none of these only."""
    org: str = DEFAULT_ORG
    """Id of the organisation that it belongs to."""
    expires_at: datetime | None = None
    """From then on it does not work; None: it works until it is revoked."""
    models: tuple[str, ...] = ()
    """Globs of public model names, in any case, that it may use; empty for all."""
    addresses: tuple[str, ...] = ()
    """Networks in CIDR form that it may be used from; empty for all."""
    rates: Rates = Rates()
    budgets: tuple[Budget, ...] = ()
    note: str = ""
    previous_hash: str | None = None
    """Of the text before the last rotation, which works until ``previous_until``."""
    previous_until: datetime | None = None
    last_rotated_at: datetime | None = None


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator changes of a key; a field that is UNSET stays as it is."""

    name: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    weight: int | UnsetType = UNSET
    providers: tuple[str, ...] | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET
    without: tuple[str, ...] | UnsetType = UNSET
    org: str | UnsetType = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType = UNSET
    addresses: tuple[str, ...] | UnsetType = UNSET
    rates: Rates | UnsetType = UNSET
    budgets: tuple[Budget, ...] | UnsetType = UNSET
    note: str | UnsetType = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that change."""
        return {name: value for name, value in asdict(self).items() if value is not UNSET}

    def on(self, key: ServiceKey) -> ServiceKey:
        """The key under these terms."""
        return replace(key, **self.given())


DEFAULTS = {
    each.name: each.default
    for each in fields(ServiceKey)
    if each.name in KeyTerms.__struct_fields__ and each.default is not msgspec.NODEFAULT
}
"""The terms of a new key."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and which accounts may serve him. One per key, made when the key changes."""

    key_id: str
    name: str
    priority: int = 0
    weight: int = 1
    providers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    org: str = DEFAULT_ORG
    """Organisation's id."""
    models: tuple[str, ...] = ()
    """Globs of public model names that the key may use; empty for all."""
    addresses: tuple[str, ...] = ()
    """Networks in CIDR form that the key may be used from; empty for all."""
    expires_at: datetime | None = None
    scopes: tuple[Scope, ...] = ()
    """Holders of limits that count this key's requests, those without any limit left out."""
    keep_text: bool = False
    """The organisation wants its requests' text kept (sealed) for the auditor."""


class KeyStore(Protocol):
    """Where service keys are kept."""

    async def load(self) -> list[ServiceKey]:
        """All keys, revoked ones too. Raises StoreUnavailable."""

    async def changes(self) -> list[ServiceKey]:
        """Keys stored since ``load`` or the last call; may repeat itself."""

    async def add(self, key: ServiceKey) -> bool:
        """Store a new key; False when its hash is there already (then nothing changes)."""

    async def revoke(self, key_id: str, at: datetime) -> ServiceKey | None:
        """Switch a key off for good; None when unknown."""

    async def change(self, key_id: str, terms: KeyTerms) -> ServiceKey | None:
        """Change what is given and nothing else; the key as stored then, None when unknown."""

    async def switch(self, key_id: str, enabled: bool) -> ServiceKey | None:
        """Switch a key on or off; one that is revoked stays as it is. The key as stored then, None when unknown."""

    async def rotate(self, key_id: str, digest: str, at: datetime, until: datetime | None) -> ServiceKey | None:
        """Give a key another text; the hash before is kept until ``until``, with None it is forgotten at once.

        One that is revoked stays as it is. The key as stored then, None when unknown.
        """


def principal_of(
    key: ServiceKey, org: Org = DEFAULT, defaults: Rates | None = None, everywhere: Scope | None = None
) -> Principal:
    """The caller who presents this key. ``defaults``: where the key's own rates say nothing."""
    scopes = [
        Scope(kind="key", id=key.id, rates=key.rates.over(defaults or Rates()), budgets=key.budgets),
        Scope(kind="org", id=org.id, rates=org.rates, budgets=org.budgets),
    ]
    if everywhere is not None:
        scopes.append(everywhere)
    return Principal(
        key_id=key.id,
        name=key.name,
        priority=key.priority,
        weight=key.weight,
        providers=key.providers,
        labels=key.labels,
        without=key.without,
        org=key.org,
        models=key.models,
        addresses=key.addresses,
        expires_at=key.expires_at,
        scopes=tuple(scope for scope in scopes if not scope.idle),
        keep_text=org.keep_text,
    )


def may_use(principal: Principal, model: str) -> bool:
    """Whether the key may use a model, by its public name in any case."""
    return not principal.models or _globs(principal.models).fullmatch(model.strip().lower()) is not None


def allowed(principal: Principal, model: str) -> None:
    """Raises Forbidden when the key may not use the model."""
    if not may_use(principal, model):
        raise Forbidden(f"This API key may not use the model '{model[:200]}'.", code="model_not_allowed", param="model")


@lru_cache(maxsize=4096)
def _globs(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(each.lower()) for each in globs))


def keyed_hash(pepper: bytes, value: str) -> str:
    """HMAC-SHA256 in hex: useless without the pepper, which is itself sealed in the database."""
    return hmac.digest(pepper, value.encode(), "sha256").hex()


def presented_key(authorization: str | None, x_api_key: str | None) -> str | None:
    """The key of a request's headers, None when missing or malformed.

    ``Authorization: Bearer <key>`` (scheme in any case) or ``X-API-Key: <key>``. Both given and different counts as
    malformed.
    """
    bearer: str | None = None
    if authorization is not None:
        scheme, _, rest = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return None
        bearer = rest.strip()
        if not _PRINTABLE.fullmatch(bearer):
            return None
    if x_api_key is not None:
        x_api_key = x_api_key.strip()
        if not _PRINTABLE.fullmatch(x_api_key) or (bearer is not None and bearer != x_api_key):
            return None
        return x_api_key
    return bearer
