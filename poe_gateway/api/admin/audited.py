"""Every change that an operator makes through a route is told to the audit chain from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from poe_gateway.api.deps import gateway

_LONGEST = 64


def audited(
    request: Request,
    action: str,
    target: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """A change has happened. ``before`` and ``after``: plain values of what changed, never a secret.

    Who: the operator's key, and the name that ``X-Actor`` gives, if any (the command line sends the user's).
    """
    named = "".join(each for each in request.headers.get("x-actor", "") if each.isprintable())[:_LONGEST]
    client = request.client
    gateway(request).changes.record(
        action,
        target,
        before=before,
        after=after,
        actor=f"admin:{named}" if named else "admin",
        address=client.host if client is not None else None,
        request_id=request.scope.get("state", {}).get("request_id"),
    )


def differing(before: Mapping[str, Any], after: Mapping[str, Any], **also: Any) -> dict[str, dict[str, Any]]:
    """Both sides reduced to what differs, as arguments of ``audited``; ``also`` stands on the later side anyway."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {
        "before": {name: before.get(name) for name in names},
        "after": {**{name: after.get(name) for name in names}, **also},
    }
