"""Organisations in MongoDB. Documents are Org structs with ``changed_at`` on the database's clock."""

from __future__ import annotations

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from poe_gateway.auth.orgs import DEFAULT, DEFAULT_ORG, NameTaken, Org, OrgTerms
from poe_gateway.clock import Clock
from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import from_document, to_document
from poe_gateway.storage.followed import Followed


class MongoOrgs:
    """OrgStore of one process. All methods raise StoreUnavailable."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._orgs = db[schema.ORGANISATIONS]
        self._followed = Followed(self._orgs, Org, clock)

    async def load(self) -> list[Org]:
        return await self._followed.load()

    async def changes(self) -> list[Org]:
        return await self._followed.changes()

    async def add(self, org: Org) -> None:
        """See OrgStore. Raises ValueError when another organisation has this id."""
        document = to_document(org)
        org_id = document.pop("_id")
        with guarded():
            try:
                # An upsert, because only updates can take the database's clock.
                result = await self._orgs.update_one(
                    {"_id": org_id},
                    {"$setOnInsert": document, "$currentDate": {"changed_at": True}},
                    upsert=True,
                )
            except DuplicateKeyError:
                raise NameTaken from None
        if result.upserted_id is None:
            raise ValueError(f"the organisation's id {org.id} is taken")

    async def change(self, org_id: str, terms: OrgTerms) -> Org | None:
        """See OrgStore. The default organisation is stored with its first change."""
        given = to_document(terms)
        update: Document = {"$currentDate": {"changed_at": True}}
        if given:
            update["$set"] = given
        if org_id == DEFAULT_ORG:
            rest = {name: each for name, each in to_document(DEFAULT).items() if name != "_id" and name not in given}
            update["$setOnInsert"] = rest
        with guarded():
            try:
                document = await self._orgs.find_one_and_update(
                    {"_id": org_id}, update, upsert=org_id == DEFAULT_ORG, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:
                raise NameTaken from None
        return None if document is None else from_document(Org, document)
