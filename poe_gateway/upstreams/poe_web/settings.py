"""Readings from the account's settings, pure: the push channel and the points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from poe_gateway.upstreams.base import Reading
from poe_gateway.upstreams.poe_web.frames import number
from poe_gateway.upstreams.poe_web.wire import Channel

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?\Z")
_MICROSECONDS_FROM = 10**14
"""Epoch times from here on are microseconds (milliseconds would be beyond the year 5000)."""
_MILLISECONDS_FROM = 10**11


def channel_of(data: Any) -> Channel | None:
    """The channel in a ``tchannelData`` object, or None when it lacks what the socket needs."""
    if not isinstance(data, dict):
        return None
    channel, secret, box = data.get("channel"), data.get("channelHash"), data.get("boxName")
    host = data.get("baseHost") or "poe.com"
    if not channel or not box or not isinstance(host, str) or not _HOST.match(host):
        return None
    return Channel(
        channel=str(channel),
        channel_hash=str(secret or ""),
        box=str(box),
        base_host=host,
        min_seq=number(data.get("minSeq")) or 0,
    )


def epoch(value: Any) -> datetime | None:
    """A time in seconds, milliseconds or microseconds since 1970; the size of the number tells which."""
    if isinstance(value, float):
        value = int(value)
    count = number(value)
    if count is None or count <= 0:
        return None
    if count >= _MICROSECONDS_FROM:
        seconds = count / 1e6
    elif count >= _MILLISECONDS_FROM:
        seconds = count / 1e3
    else:
        seconds = float(count)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _points(info: Mapping[str, Any]) -> int | None:
    """Plan and bought points added up, or the older single balance; the newer spelling wins."""
    parts = [number(info.get(name)) for name in ("subscriptionPointBalance", "addonPointBalance")]
    if any(part is not None for part in parts):
        return sum(part or 0 for part in parts)
    return number(info.get("messagePointBalance"))


def reading_of(viewer: Mapping[str, Any]) -> Reading:
    """The balance in a ``viewer`` of the settings query; what is not told stays None."""
    info = viewer.get("messagePointInfo")
    info = info if isinstance(info, dict) else {}
    plan = viewer.get("subscription")
    details: dict[str, Any] = {}
    active: bool | None = None
    if isinstance(plan, dict):
        active = plan["isActive"] if isinstance(plan.get("isActive"), bool) else None
        product = plan.get("subscriptionProduct")
        name = product.get("displayName") if isinstance(product, dict) else None
        if name := name or plan.get("planType"):
            details["plan"] = str(name)[:80]
        if expires := epoch(plan.get("expiresTime")):
            details["plan_expires_at"] = expires.isoformat()
    elif "subscription" in viewer:
        active = False
    return Reading(
        points=_points(info),
        subscription_active=active,
        allotment=number(info.get("totalMessagePointAllotment")),
        next_grant_at=epoch(info.get("computePointNextGrantTime")) or epoch(info.get("messagePointResetTime")),
        details=details,
    )
