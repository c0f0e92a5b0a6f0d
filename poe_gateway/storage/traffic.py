"""Records of requests for the auditor in MongoDB: ``_id`` is the record's place in its spool.."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from msgspec.structs import fields

from poe_gateway.metering.rows import Traffic
from poe_gateway.metering.traffic import Place, TrafficFilter
from poe_gateway.storage import schema
from poe_gateway.storage.appending import append
from poe_gateway.storage.client import Database, Document, guarded
from poe_gateway.storage.codec import to_document
from poe_gateway.vault import Vault, VaultError

_LONG = 20.0
"""Seconds for a question that may look at every record."""
_REPEATS = 100
"""Records of one request id that are shown."""
_DEFAULTS = {
    each.name: each.default if each.default_factory is msgspec.NODEFAULT else each.default_factory()
    for each in fields(Traffic)
    if not each.required
}


class MongoTraffic:
    """Sink of traffic records and TrafficRecords; kept for ``days`` from their moment on, then they vanish.

    Methods with ``async`` raise StoreUnavailable.
    """

    def __init__(self, db: Database, days: int, vault: Vault) -> None:
        self._traffic = db[schema.TRAFFIC]
        self._kept = timedelta(days=days)
        self._vault = vault
        self.refused = 0

    async def put(self, spool: str, records: Sequence[tuple[int, Traffic]]) -> None:
        """Store the records that are not there yet. May be repeated."""
        self.refused += await append(self._traffic, [self._document(spool, seq, each) for seq, each in records])

    def _document(self, spool: str, seq: int, record: Traffic) -> Document:
        document = {
            name: value
            for name, value in to_document(record).items()
            if name != "type" and (name not in _DEFAULTS or value != _DEFAULTS[name])
        }
        return {"_id": f"{spool}-{seq}", **document, "expires_at": record.at + self._kept}

    async def newest(
        self, where: TrafficFilter, limit: int, after: Place | None = None
    ) -> tuple[list[Traffic], Place | None]:
        """See TrafficRecords."""
        named = (("request_id", where.request_id), ("key_id", where.key_id), ("org", where.org))
        query: Document = {name: value for name, value in named if value is not None}
        bounds = {"$gte": where.since, "$lt": where.until}
        if bounded := {sign: moment for sign, moment in bounds.items() if moment is not None}:
            query["at"] = bounded
        if after is not None:
            query["$or"] = [{"at": {"$lt": after[0]}}, {"at": after[0], "_id": {"$lt": after[1]}}]
        with guarded(_LONG):
            rows = await self._traffic.find(query).sort([("at", -1), ("_id", -1)]).limit(limit).to_list()
        more = (rows[-1]["at"], str(rows[-1]["_id"])) if len(rows) == limit else None
        return [msgspec.convert(each, Traffic) for each in rows], more

    async def of(self, request_id: str) -> list[Traffic]:
        """See TrafficRecords."""
        found, _ = await self.newest(TrafficFilter(request_id=request_id), _REPEATS)
        return found

    def seal(self, text: str) -> str:
        """For ``TrafficShape.record``, where the organisation wants texts kept."""
        return self._vault.seal({"text": text}).decode()

    def open(self, sealed: str) -> dict[str, Any] | None:
        """See TrafficRecords."""
        try:
            text = self._vault.open(sealed.encode())["text"]
        except VaultError:
            return None
        opened: dict[str, Any] = json.loads(text)
        return opened
