"""What providers tell of the money or points that are left. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from poe_gateway.upstreams.drift import Drift, exactly
from poe_gateway.upstreams.openai_api.figures import money


def read_points(body: bytes) -> int:
    """Poe's ``{"current_point_balance": n}``. Raises Drift."""
    value = exactly(body, "the balance")
    points = money(value.get("current_point_balance")) if isinstance(value, dict) else None
    if points is None:
        raise Drift("the balance has no current_point_balance")
    return int(points)


def read_key(body: bytes) -> Decimal | None:
    """Dollars left of the limit of an OpenRouter key; None for a key without one. Raises Drift."""
    told = _data(body)
    if told.get("limit_remaining") is None:
        return None
    left = money(told["limit_remaining"])
    if left is None:
        raise Drift("the limit of the key is no number")
    return left


def read_credits(body: bytes) -> Decimal:
    """Dollars paid in to OpenRouter and not used yet; below zero when overdrawn. Raises Drift."""
    told = _data(body)
    paid, used = money(told.get("total_credits")), money(told.get("total_usage"))
    if paid is None or used is None:
        raise Drift("the credits are not as expected")
    return paid - used


def _data(body: bytes) -> dict[str, Any]:
    value = exactly(body, "the balance")
    told = value.get("data") if isinstance(value, dict) else None
    if not isinstance(told, dict):
        raise Drift("the balance has no data")
    return told
