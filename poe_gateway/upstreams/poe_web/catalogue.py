"""Pages of the bot list, pure: connection -> models and the next cursor."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.upstreams.base import Model
from poe_gateway.upstreams.poe_web.protocol import ProtocolData
from poe_gateway.upstreams.poe_web.settings import epoch


class BotsPage(msgspec.Struct, frozen=True):
    """One page; ``cursor`` is None on the last one."""

    models: tuple[Model, ...]
    cursor: str | None


def bots_variables(protocol: ProtocolData, cursor: str | None) -> dict[str, Any]:
    """Variables for the page that follows ``cursor``."""
    return {**protocol.bots_variables, "cursor": cursor}


def bots_page(data: dict[str, Any], protocol: ProtocolData) -> BotsPage | None:
    """The models of one answer; None when the answer has another shape, or no viewer."""
    viewer = data.get("viewer")
    connection = viewer.get("availableBotsConnection") if isinstance(viewer, dict) else None
    edges = connection.get("edges") if isinstance(connection, dict) else None
    if not isinstance(connection, dict) or not isinstance(edges, list):
        return None
    nodes = [edge.get("node") for edge in edges if isinstance(edge, dict)]
    found = [_model(node, protocol) for node in nodes if isinstance(node, dict)]
    info = connection.get("pageInfo")
    cursor = info.get("endCursor") if isinstance(info, dict) and info.get("hasNextPage") is not False else None
    return BotsPage(tuple(model for model in found if model), str(cursor) if cursor and edges else None)


def _model(node: dict[str, Any], protocol: ProtocolData) -> Model | None:
    """One bot; None for deleted ones and those that this account may not use."""
    handle = node.get("handle") or node.get("displayName")
    if not isinstance(handle, str) or not handle.strip():
        return None
    if node.get("deletionState", "not_deleted") != "not_deleted" or node.get("canUserAccessBot") is False:
        return None
    handle = handle.strip()
    details: dict[str, Any] = {}
    if (name := node.get("displayName")) and name != handle:
        details["display_name"] = str(name)
    for key, public in (("allowsImageAttachments", "images"), ("isDown", "down"), ("isOfficialBot", "official")):
        if isinstance(node.get(key), bool):
            details[public] = node[key]
    if handle in protocol.prices:
        details["points"] = protocol.prices[handle]
    created = epoch(node.get("creationTime"))
    return Model(
        id=handle,
        upstream=protocol.codename(handle),
        owned_by="poe",
        created=int(created.timestamp()) if created else 0,
        details=details,
    )
