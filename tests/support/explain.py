"""Memory twins of the stores of records, and decisions to keep in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Generic, TypeVar

from poe_gateway.explain.decisions import Filter
from poe_gateway.explain.history import AccountEntry
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.store import StoreUnavailable

T = TypeVar("T")
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)


def decision(number: int = 1, *, outcome: str = "Succeeded", **fields: Any) -> Decision:
    """Request ``req_1`` and so on, each a second after the one before, served by ``acct_1``."""
    made: dict[str, Any] = {
        "request_id": f"req_{number}",
        "at": NOON + timedelta(seconds=number),
        "process": "gw_1",
        "key_id": "key_app",
        "model": "gpt-4o",
        "offers": ["poe_web"],
        "tokens": 12,
        "choices": [Choice(strategy="balanced", candidates={"all": 3, "open": 0}, account_id="acct_1", how="chosen")],
        "tries": [Try(number=1, account_id="acct_1", outcome=outcome, charged_to="account", seconds=1.25, points=35)],
        "status": 200 if outcome == "Succeeded" else 502,
        "error_code": None if outcome == "Succeeded" else "upstream_error",
        "seconds": 1.5,
    }
    return Decision(**{**made, **fields})


class _Memory(Generic[T]):
    def __init__(self) -> None:
        self.rows: dict[int, T] = {}
        self.away = False
        self.deaf = False
        """It stores what it is given, and its answer is lost."""
        self.refuses: set[int] = set()
        self._ids = count(1)

    def _call(self) -> None:
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")

    def encode(self, record: T) -> dict[str, Any]:
        return {"_id": next(self._ids), "record": record}

    async def insert(self, documents: list[dict[str, Any]]) -> int:
        self._call()
        taken = [each for each in documents if each["_id"] not in self.refuses]
        self.rows |= {each["_id"]: each["record"] for each in taken}
        if self.deaf:
            raise StoreUnavailable("the answer of the memory store is lost")
        return len(documents) - len(taken)


class MemoryDecisions(_Memory[Decision]):
    """DecisionStore."""

    def _newest(self) -> list[Decision]:
        self._call()
        return sorted(self.rows.values(), key=lambda each: each.at, reverse=True)

    async def find(self, request_id: str, limit: int) -> list[Decision]:
        return [each for each in self._newest() if each.request_id == request_id][:limit]

    async def newest(self, limit: int, where: Filter) -> list[Decision]:
        return [each for each in self._newest() if where.admits(each)][:limit]

    async def page(
        self, since: datetime | None, until: datetime | None, limit: int, after: int | None = None
    ) -> tuple[list[Decision], int | None]:
        oldest = [
            each
            for each in reversed(self._newest())
            if (since is None or each.at >= since) and (until is None or each.at < until)
        ]
        start = after or 0
        page = oldest[start : start + limit]
        return page, start + limit if len(page) == limit else None


class MemoryHistory(_Memory[AccountEntry]):
    """HistoryStore."""

    async def of(self, account_id: str, limit: int, before: datetime | None) -> list[AccountEntry]:
        self._call()
        rows = sorted(self.rows.items(), key=lambda row: (row[1].at, row[0]), reverse=True)
        chosen = [each for _, each in rows if each.account_id == account_id and (before is None or each.at < before)]
        page = chosen[:limit]
        return page + [each for each in chosen[limit:] if each.at == page[-1].at]
