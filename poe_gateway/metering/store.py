"""What the ledger asks of its stores, and how its rows look as documents.

Everything may be sent again: after a lost answer, after a crash, by another process that drains a dead one's spool.
A store recognises what it has by its place, (spool, seq), and takes it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec.structs import asdict

from poe_gateway.metering.rows import Change, Correction, Intent, Outcome, Traffic
from poe_gateway.money import LARGEST, POINTS

T = TypeVar("T", bound=msgspec.Struct, contravariant=True)

_UNKNOWN = "unknown"


class Charge(NamedTuple):
    """One change of a budget bucket. ``seq``: of the record that brought it; ``from_lien``: it was reserved before."""

    seq: int
    amount: int
    from_lien: bool


class Entry(msgspec.Struct, frozen=True):
    """One record that is to be shipped. ``opened`` and ``intent`` belong to an Outcome.

    ``intent`` None with an Outcome: its intent cannot be read any more, so that nobody knows whose it was.
    """

    spool: str
    seq: int
    record: Outcome | Correction | Traffic | Change
    opened: int = 0
    intent: Intent | None = None

    @property
    def row_id(self) -> str:
        """Of the row that this is the end of."""
        return f"{self.spool}-{self.opened}"


class RowFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows are meant; None sets no bound. Begun from ``since`` on, and before ``until``."""

    org: str | None = None
    key_id: str | None = None
    account_id: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class RowSink(Protocol):
    """Where rows go. All methods raise StoreUnavailable: the fate of what was sent is unknown, send it again."""

    async def insert(self, entries: Sequence[Entry]) -> int:
        """Store ends of attempts as rows, those that are there already excepted; how many were refused for good."""

    async def amend(self, entry: Entry) -> bool:
        """Store a correction. False: it is void, the row has another one, or there is no such row."""

    async def close_spool(self, spool: str) -> None:
        """Remember for good that everything of this spool is stored and charged."""

    async def closed(self, spool: str) -> bool:
        """Whether ``close_spool`` was called for it."""


class Charger(Protocol):
    """The budgets. All methods raise StoreUnavailable."""

    async def charge(self, process: str, charges: Mapping[str, Sequence[Charge]]) -> None:
        """By bucket id, in the order of their seqs. What a bucket has applied of this spool is passed over."""

    async def close(self, process: str, now: datetime) -> None:
        """Forget what this process has borrowed anywhere, and what was applied of its spool."""


class Sink(Protocol[T]):
    """Where records of one other kind go."""

    async def put(self, spool: str, records: Sequence[tuple[int, T]]) -> None:
        """Store records with their seqs, those that are there already excepted. Raises StoreUnavailable."""


def row_fields(entry: Entry) -> dict[str, Any]:
    """The row of an attempt that is over, as a flat document. Times and amounts as they are."""
    end, intent = entry.record, entry.intent
    assert isinstance(end, Outcome)  # noqa: S101 - what ``insert`` is given
    fields: dict[str, Any] = dict.fromkeys(("request_id", "org", "key_id", "provider", "offer", "model"), _UNKNOWN)
    fields |= {"attempt": 1, "at": end.at, "account_id": None, "target": None, "stream": False, "unit": None}
    if intent is not None:
        fields |= asdict(intent)
    unit = end.unit or fields["unit"]
    fields |= asdict(end)
    del fields["row"], fields["charges"]
    fields.pop("cost", None)
    return fields | {
        "_id": entry.row_id,
        "spool": entry.spool,
        "seq": entry.seq,
        "at": end.at if intent is None else intent.at,
        "ended_at": end.at,
        "unit": unit,
        "charges": _charges(end.charges),
    }


COPIED = ("request_id", "attempt", "at", "org", "key_id", "provider", "offer", "account_id", "model", "target", "unit")
"""What a correction has from the row that it corrects, so that reports count it where they count the row."""


def correction_fields(entry: Entry, row: Mapping[str, Any]) -> dict[str, Any]:
    """The correction of a stored row, as a flat document."""
    record = entry.record
    assert isinstance(record, Correction)  # noqa: S101 - what ``amend`` is given
    return {name: row.get(name) for name in COPIED} | {
        "_id": correction_id(record.row),
        "corrects": record.row,
        "spool": entry.spool,
        "seq": entry.seq,
        "status": "correction",
        "reason": record.reason,
        "ended_at": record.at,
        "points": record.points,
        "raw_cost": record.raw_cost,
        "billed_cost": record.billed_cost,
        "upstream_id": record.upstream_id,
        "charges": _charges(record.charges),
    }


def correction_id(row_id: str) -> str:
    """There is one at most, whoever writes it."""
    return f"{row_id}~"


def charges_of(entries: Sequence[Entry]) -> dict[str, list[Charge]]:
    """What these records change in budgets, by bucket, in their order."""
    charges: dict[str, list[Charge]] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, Outcome | Correction):
            for bucket, amount in record.charges.items():
                if not amount:
                    continue  # only the row's own business
                # An absurd figure of an upstream must not block all others: the store holds 64 bits.
                bounded = max(-LARGEST, min(LARGEST, amount))
                charges.setdefault(bucket, []).append(Charge(entry.seq, bounded, isinstance(record, Outcome)))
    return charges


def orphan(intent: Intent, row_id: str, at: datetime) -> Outcome:
    """The end of an attempt whose end nobody saw: it counts as reserved until the upstream's books say better."""
    cost = None if intent.unit is None else intent.cost
    return Outcome(
        row=row_id,
        at=at,
        status="orphaned",
        points=intent.points or None,
        points_estimated=bool(intent.points),
        tokens_estimated=True,
        unit=intent.unit or _currency(intent.charges),
        raw_cost=cost,
        billed_cost=cost,
        cost_source=None if cost is None else "estimate",
        charges=intent.charges,
    )


def _currency(charges: Mapping[str, int]) -> str | None:
    """In which a correction of an attempt counts whose price was not known: that of its budgets, if they have one."""
    units = {bucket.split("|")[3] for bucket in charges} - {POINTS}
    return units.pop() if len(units) == 1 else None


def _charges(charges: Mapping[str, int]) -> list[dict[str, Any]]:
    """As a list: ids of buckets are no names of fields."""
    return [{"b": bucket, "n": amount} for bucket, amount in charges.items()]
