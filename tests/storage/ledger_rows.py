"""Rows of the ledger as they are stored, written by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CENT = 1_000_000
"""Of a currency, in its smallest units."""


def ledger_row(number: int, **fields: Any) -> dict[str, Any]:
    """A success at noon that cost 2 cents and is billed with 3."""
    row: dict[str, Any] = {
        "_id": f"spool_a-{number}",
        "spool": "spool_a",
        "seq": number + 1,
        "request_id": f"req_{number}",
        "attempt": 1,
        "at": NOON,
        "ended_at": NOON,
        "org": "default",
        "key_id": "key_1",
        "provider": "openai_api",
        "offer": "openai_api:host",
        "account_id": "acct_1",
        "model": "gpt-4o",
        "target": "gpt-4o-2024",
        "stream": False,
        "status": "succeeded",
        "outcome": "Succeeded",
        "fate": "accepted",
        "error_code": None,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "tokens_estimated": False,
        "points": 7,
        "points_estimated": False,
        "unit": "USD",
        "raw_cost": 2 * CENT,
        "billed_cost": 3 * CENT,
        "cost_source": "rule",
        "price_rule": "rule_1@1",
        "upstream_id": None,
        "seconds": 0.5,
        "charges": [],
    }
    return {**row, **fields}


def correction(row: dict[str, Any], **differences: Any) -> dict[str, Any]:
    """What corrects it."""
    copied = (
        "request_id",
        "attempt",
        "at",
        "org",
        "key_id",
        "provider",
        "offer",
        "account_id",
        "model",
        "target",
        "unit",
    )
    return {
        "_id": f"{row['_id']}~",
        "corrects": row["_id"],
        "spool": "spool_b",
        "seq": 1,
        "status": "correction",
        "reason": "books",
        **{name: row[name] for name in copied},
        "points": 0,
        "raw_cost": 0,
        "billed_cost": 0,
        "upstream_id": None,
        "charges": [],
        **differences,
    }
