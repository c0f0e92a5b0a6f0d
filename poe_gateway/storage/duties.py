"""When the scheduler's duties ran last, in MongoDB."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, guarded
from poe_gateway.storage.codec import storable


class MongoDuties:
    """Records ``{last_run_at, last_day, ok, detail, token}`` by name. All methods raise StoreUnavailable."""

    def __init__(self, db: Database) -> None:
        self._duties = db[schema.DUTIES]

    async def get(self, name: str) -> dict[str, Any] | None:
        """The record of one duty, None when it never ran."""
        with guarded():
            return await self._duties.find_one({"_id": name}, {"_id": 0})

    async def all(self) -> dict[str, dict[str, Any]]:
        """All records by name."""
        with guarded():
            return {each.pop("_id"): each async for each in self._duties.find()}

    async def put(
        self, name: str, *, last_run_at: datetime, last_day: str | None, ok: bool, detail: str = "", token: int = 0
    ) -> bool:
        """Write the record of a run; ``last_day`` is the local day (ISO) that it settled, for duties that have one.

        ``token`` is the leader's fencing token: the word of an earlier leader comes to nothing, then False.
        """
        record = storable(
            {"last_run_at": last_run_at, "last_day": last_day, "ok": ok, "detail": detail[:1000], "token": token}
        )
        with guarded():
            try:
                await self._duties.replace_one(
                    {"_id": name, "token": {"$lte": token}}, {"_id": name, **record}, upsert=True
                )
            except DuplicateKeyError:
                return False
        return True
