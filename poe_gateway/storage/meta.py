"""What all processes of one database share: the proof that they hold the right FERNET_KEY, and the pepper.

Documents of ``meta``: ``{_id: "vault", canaries: {kid: sealed}}`` and ``{_id: "pepper", sealed}``. Both are made once,
whoever comes first.
"""

from __future__ import annotations

import base64

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from poe_gateway.clock import Ids
from poe_gateway.storage import schema
from poe_gateway.storage.client import Collection, Database, Document, guarded
from poe_gateway.vault import Vault, VaultError

_CANARY = {"canary": "poe-gateway"}


class VaultMismatch(Exception):
    """FERNET_KEY is not the key that this database was written with."""

    def __init__(self) -> None:
        super().__init__(
            "FERNET_KEY does not hold the key that the credentials in this database are sealed with. Set the key that "
            "was used before (several keys, newest first, are separated by commas), or name an empty database in "
            "MONGODB_DB."
        )


class MongoMeta:
    """All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._meta = db[schema.META]
        self._credentials = db[schema.CREDENTIALS]

    async def self_test(self, vault: Vault) -> None:
        """Prove that the vault opens what is sealed in this database; on an empty one, leave the proof for others.

        A key that is new beside a right one gets its own proof. Raises VaultMismatch.
        """
        with guarded():
            document = await self._meta.find_one({"_id": "vault"})
            if document is None:
                await self._try_credentials(vault)
                document = await _made_once(self._meta, "vault", {"canaries": {vault.kid: vault.seal(_CANARY)}})
            if not any(_opens(vault, sealed) for sealed in document["canaries"].values()):
                raise VaultMismatch
            if vault.kid not in document["canaries"]:
                await self._meta.update_one({"_id": "vault"}, {"$set": {f"canaries.{vault.kid}": vault.seal(_CANARY)}})

    async def _try_credentials(self, vault: Vault) -> None:
        """A database with credentials but without a proof: one of them must open."""
        sample = await self._credentials.find_one({}, {"sealed": 1})
        if sample is not None and not _opens(vault, sample["sealed"]):
            raise VaultMismatch

    async def pepper(self, vault: Vault, ids: Ids) -> bytes:
        """The 32 bytes that key the hashes of service keys, the same for all processes. Raises VaultMismatch.

        Sealed anew when a newer key has come to the front of FERNET_KEY.
        """
        fresh = vault.seal({"pepper": ids.secret(32)})
        with guarded():
            document = await _made_once(self._meta, "pepper", {"sealed": fresh, "kid": vault.kid})
            sealed = bytes(document["sealed"])
            try:
                text: str = vault.open(sealed)["pepper"]
                if document["kid"] != vault.kid:
                    await self._meta.update_one(
                        {"_id": "pepper", "sealed": sealed},
                        {"$set": {"sealed": vault.reseal(sealed), "kid": vault.kid}},
                    )
            except VaultError:
                raise VaultMismatch from None
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _opens(vault: Vault, sealed: bytes) -> bool:
    try:
        vault.open(bytes(sealed))
    except VaultError:
        return False
    return True


async def _made_once(meta: Collection, name: str, fields: Document) -> Document:
    """The stored document; made from ``fields`` when there is none yet."""
    for _ in range(2):
        try:
            stored = await meta.find_one_and_update(
                {"_id": name}, {"$setOnInsert": fields}, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            continue
        if stored is not None:
            return stored
    raise AssertionError("a document can only be made once")
