"""Service keys: what is known of them, and how a presented key is recognised. Pure but for the store's protocol.

Only keyed hashes are kept. New keys are ``pgw_<id>.<secret>``; keys given by the operator (bootstrap) may have any
form. Both are found by the hash of the whole text.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from typing import Protocol

import msgspec

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


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls."""

    key_id: str
    name: str


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
