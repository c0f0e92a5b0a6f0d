"""Accounts for the tests of the stores."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import InsertOne

from poe_gateway.pool.account import Account, Balance
from poe_gateway.storage.accounts import account_fields
from poe_gateway.storage.client import Database

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def account(number: int = 1, **fields: Any) -> Account:
    """Account ``acct_00001`` called ``User1@example.org`` and so on, created a second after the one before."""
    made: dict[str, Any] = {
        "id": f"acct_{number:05}",
        "provider": "mock",
        "name": f"User{number}@example.org",
        "offer": "mock",
        "balance": Balance(points=1000, estimated=False),
        "created_at": NOON + timedelta(seconds=number),
    }
    return Account(**{**made, **fields})


async def insert(db: Database, accounts: Iterable[Account]) -> None:
    """Put accounts into the database as they are (``rev`` 1), stamped by its clock."""
    rows = [{"_id": each.id, **account_fields(each), "rev": max(each.rev, 1)} for each in accounts]
    if rows:
        await db.accounts.bulk_write([InsertOne(row) for row in rows], ordered=False)
        await db.accounts.update_many(
            {"_id": {"$in": [row["_id"] for row in rows]}}, {"$currentDate": {"changed_at": True}}
        )
