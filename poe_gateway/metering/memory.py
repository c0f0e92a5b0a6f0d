"""The ledger's stores without a database: for tests, simulations and demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from poe_gateway.metering.rows import Correction, Record
from poe_gateway.metering.store import Charge, Entry, RowFilter, correction_fields, row_fields


class MemoryRows:
    """RowSink, and the rows for reading."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.marks: set[str] = set()

    async def insert(self, entries: Sequence[Entry]) -> int:
        for entry in entries:
            self.documents.setdefault(entry.row_id, row_fields(entry))
        return 0

    async def amend(self, entry: Entry) -> bool:
        assert isinstance(entry.record, Correction)  # noqa: S101 - what it is given
        row = self.documents.get(entry.record.row)
        if row is None:
            return False
        fields = correction_fields(entry, row)
        known = self.documents.setdefault(fields["_id"], fields)
        if (known["spool"], known["seq"]) != (entry.spool, entry.seq):
            return False
        row["corrected_at"] = entry.record.at
        return True

    async def close_spool(self, spool: str) -> None:
        self.marks.add(spool)

    async def closed(self, spool: str) -> bool:
        return spool in self.marks

    async def row(self, row_id: str) -> dict[str, Any] | None:
        """See MongoLedger."""
        return self.documents.get(row_id)

    async def rows(
        self, where: RowFilter, limit: int = 100, after: tuple[datetime, str] | None = None
    ) -> list[dict[str, Any]]:
        """See MongoLedger."""
        found = [row for row in self._sorted() if _matches(row, where)]
        return [row for row in found if after is None or (row["at"], row["_id"]) > after][:limit]

    async def orphans(self, account_id: str | None, before: datetime, limit: int = 1000) -> list[dict[str, Any]]:
        """See MongoLedger."""
        return [
            row
            for row in self._sorted()
            if row["status"] == "orphaned"
            and row["at"] < before
            and "corrected_at" not in row
            and account_id in (None, row["account_id"])
        ][:limit]

    def _sorted(self) -> list[dict[str, Any]]:
        return sorted(self.documents.values(), key=lambda row: (row["at"], row["_id"]))


class MemoryCharger:
    """Charger: what is spent of each bucket. What processes borrow is not its business."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.applied: dict[tuple[str, str], int] = {}
        """Highest seq by bucket and spool."""

    async def charge(self, process: str, charges: Mapping[str, Sequence[Charge]]) -> None:
        for bucket, entries in charges.items():
            for charge in entries:
                if charge.seq > self.applied.get((bucket, process), 0):
                    self.spent[bucket] = self.spent.get(bucket, 0) + charge.amount
                    self.applied[bucket, process] = charge.seq

    async def close(self, process: str, now: datetime) -> None:
        for bucket, spool in list(self.applied):
            if spool == process:
                del self.applied[bucket, spool]


class MemorySink:
    """Sink of records of any kind."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], Record] = {}

    async def put(self, spool: str, records: Sequence[tuple[int, Any]]) -> None:
        for seq, record in records:
            self.records.setdefault((spool, seq), record)


def _matches(row: Mapping[str, Any], where: RowFilter) -> bool:
    named = ("org", "key_id", "account_id", "request_id")
    return (
        all(getattr(where, name) in (None, row.get(name)) for name in named)
        and (where.since is None or row["at"] >= where.since)
        and (where.until is None or row["at"] < where.until)
    )
