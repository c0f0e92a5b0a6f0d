"""The vault: seals credential documents with Fernet and opens them; the only importer of the crypto library.

Several keys may be held, newest first: new seals use the first, opening tries all. ``kid`` names a key by a
digest, so that a rotation can tell what is sealed by which key without opening it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class VaultError(Exception):
    """A sealed value cannot be opened with the configured keys."""


class BadKey(ValueError):
    """A Fernet key is malformed: 32 bytes in URL-safe base64 are needed."""


def new_key() -> str:
    """A fresh Fernet key as text."""
    return Fernet.generate_key().decode()


class Vault:
    """Seals and opens. Raises BadKey for malformed keys, VaultError for what cannot be opened."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        if not keys:
            raise BadKey("at least one Fernet key is needed")
        try:
            self._fernets = [Fernet(key) for key in keys]
        except (ValueError, TypeError):
            raise BadKey("a Fernet key must be 32 bytes in URL-safe base64") from None
        self._multi = MultiFernet(self._fernets)
        self.kids = tuple(hashlib.sha256(b"kid:" + key.encode()).hexdigest()[:12] for key in keys)

    @property
    def kid(self) -> str:
        """Name of the key that seals now."""
        return self.kids[0]

    def seal(self, document: Mapping[str, Any]) -> bytes:
        """A Fernet token over the document as JSON."""
        return self._multi.encrypt(orjson.dumps(document))

    def open(self, token: bytes) -> dict[str, Any]:
        """The document of a token. Raises VaultError; the message holds neither token nor key."""
        try:
            document: dict[str, Any] = orjson.loads(self._multi.decrypt(token))
        except InvalidToken:
            raise VaultError("the value was sealed with a key that FERNET_KEY does not hold") from None
        return document

    def reseal(self, token: bytes) -> bytes:
        """The same document under the newest key. Raises VaultError."""
        try:
            return self._multi.rotate(token)
        except InvalidToken:
            raise VaultError("the value was sealed with a key that FERNET_KEY does not hold") from None
