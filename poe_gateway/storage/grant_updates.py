"""The conditional updates behind the grants, as data: each changes one document in one atomic step. Pure.

They are aggregation pipelines over ``grants``, ``wanted`` and ``freed_at`` of the document. An update that changes
nothing is recognised as such by the server and written nowhere.
"""

from __future__ import annotations

from typing import Any

from poe_gateway.pool.shares import STARVING
from poe_gateway.pool.store import TRIED_AFTER

Pipeline = list[dict[str, Any]]

FRESH_MS = 3000
"""A mark is believed for this long, on the database's clock."""
_REMARK_MS = 1000
_TURN_MS = 1500
"""A starving process's turn is kept for this long after its last mark: it may be gone."""
_ON_TRIAL = {
    "$or": [
        {"$eq": ["$health.trial", True]},
        # Its rest is over (``serving``), and nobody has stored that yet.
        {"$and": [{"$eq": ["$health.state", "cooldown"]}, {"$in": ["$health.cause", [str(c) for c in TRIED_AFTER]]}]},
    ]
}
_GRANTS = {"$ifNull": ["$grants", []]}
_WANTED = {"$ifNull": ["$wanted", []]}


def serving() -> dict[str, Any]:
    """Filter: the stored account may serve now, on the database's clock."""
    return {
        "deleted": {"$ne": True},
        "intent": "enabled",
        "$or": [
            {"health.state": "active"},
            {
                "health.state": {"$in": ["cooldown", "depleted"]},
                "health.until": {"$type": "date"},
                "$expr": {"$lte": ["$health.until", "$$NOW"]},
            },
        ],
    }


def taken(instance: str, *, hold: int, cap: int) -> Pipeline:
    """``instance`` gets up to ``hold`` slots, at most what others leave of ``cap``, never less than it has.

    A stored ``max_inflight`` below ``cap`` wins: the asker had not heard of it. So does a trial: one slot in all.
    Processes that starve take turns: for each that began to wait earlier, a slot is left. A satisfied mark of its own
    goes.
    """
    own = _own(instance)
    limit = {"$min": [cap, {"$ifNull": ["$max_inflight", cap]}, {"$cond": [_ON_TRIAL, 1, cap]}]}
    free = {"$subtract": [limit, {"$add": [{"$sum": "$$others.n"}, {"$size": _before(instance)}]}]}
    granted = {"$max": [own, {"$min": [hold, free]}]}
    return [
        {
            "$set": {
                "grants": {
                    "$let": {
                        "vars": {"others": _but(_GRANTS, instance)},
                        "in": {
                            "$let": {
                                "vars": {"n": granted},
                                "in": {
                                    "$cond": [
                                        {"$eq": ["$$n", own]},
                                        "$grants",
                                        {"$concatArrays": ["$$others", [{"i": {"$literal": instance}, "n": "$$n"}]]},
                                    ]
                                },
                            }
                        },
                    }
                }
            }
        },
        {
            "$set": {
                "wanted": _unless_empty({"$cond": [{"$gte": [_own(instance), hold]}, _but(_WANTED, instance), _WANTED]})
            }
        },
    ]


def given_back(instance: str, slots: int) -> Pipeline:
    """The grant of ``instance`` is lowered to ``slots``, never raised; others who want some are told."""
    own = _own(instance)
    others = _but(_GRANTS, instance)
    kept = [{"i": {"$literal": instance}, "n": slots}] if slots > 0 else []
    lowered = {"$gt": [own, slots]}
    return [
        {
            "$set": {
                "grants": {"$cond": [lowered, _unless_empty({"$concatArrays": [others, kept]}), "$grants"]},
                "freed_at": {
                    "$cond": [{"$and": [lowered, _some(_but(_WANTED, instance))]}, "$$NOW", "$freed_at"],
                },
            }
        }
    ]


def removed(instances: list[str]) -> Pipeline:
    """Grants and marks of dead processes go; others who want slots are told."""
    left = _but(_GRANTS, *instances)
    wanting = _but(_WANTED, *instances)
    freed = {"$and": [{"$lt": [{"$size": left}, {"$size": _GRANTS}]}, _some(wanting)]}
    return [
        {
            "$set": {
                "grants": _unless_empty(left),
                "wanted": _unless_empty(wanting),
                "freed_at": {"$cond": [freed, "$$NOW", "$freed_at"]},
            }
        }
    ]


def marked(instance: str, pressure: float) -> Pipeline:
    """``instance`` wants slots; its former mark is replaced unless it is quite new, stale marks go.

    ``since``: from when on it has wanted them without a break.
    """
    mark = {"i": {"$literal": instance}, "p": pressure, "at": "$$NOW", "since": _since(instance)}
    quite_new = _some(
        {
            "$filter": {
                "input": _WANTED,
                "cond": {
                    "$and": [{"$eq": ["$$this.i", {"$literal": instance}]}, {"$gt": ["$$this.at", _ago(_REMARK_MS)]}]
                },
            }
        }
    )
    fresh = {"$filter": {"input": _but(_WANTED, instance), "cond": {"$gt": ["$$this.at", _ago(FRESH_MS)]}}}
    return [{"$set": {"wanted": {"$cond": [quite_new, "$wanted", {"$concatArrays": [fresh, [mark]]}]}}}]


def lapsed_marks_dropped() -> Pipeline:
    """Marks that nobody believes any more go."""
    fresh = {"$filter": {"input": _WANTED, "cond": {"$gt": ["$$this.at", _ago(FRESH_MS)]}}}
    return [{"$set": {"wanted": _unless_empty(fresh)}}]


def others_marks(instance: str) -> Pipeline:
    """Stages that leave the documents with fresh marks of others, and of them only these marks."""
    fresh = {"$filter": {"input": _but(_WANTED, instance), "cond": {"$gt": ["$$this.at", _ago(FRESH_MS)]}}}
    return [{"$project": {"wanted": fresh}}, {"$match": {"wanted.0": {"$exists": True}}}]


def holdings() -> Pipeline:
    """Stages: of all documents with grants, ``{_id: process, documents, slots}``."""
    return [
        {"$match": {"grants.i": {"$exists": True}}},
        {"$project": {"_id": 0, "grants": 1}},
        {"$unwind": "$grants"},
        {"$group": {"_id": "$grants.i", "documents": {"$sum": 1}, "slots": {"$sum": "$grants.n"}}},
    ]


def _since(instance: str) -> dict[str, Any]:
    """From when on ``instance`` has wanted slots; now, when it has no fresh mark."""
    mine = {
        "$filter": {
            "input": _WANTED,
            "cond": {"$and": [{"$eq": ["$$this.i", {"$literal": instance}]}, {"$gt": ["$$this.at", _ago(FRESH_MS)]}]},
        }
    }
    return {"$ifNull": [{"$min": {"$map": {"input": mine, "in": "$$this.since"}}}, "$$NOW"]}


def _before(instance: str) -> dict[str, Any]:
    """Marks of other processes that starve and whose turn is before that of ``instance``."""
    return {
        "$filter": {
            "input": _but(_WANTED, instance),
            "cond": {
                "$and": [
                    {"$gte": ["$$this.p", STARVING]},
                    {"$gt": ["$$this.at", _ago(_TURN_MS)]},
                    {"$lt": ["$$this.since", _since(instance)]},
                ]
            },
        }
    }


def _ago(milliseconds: int) -> dict[str, Any]:
    return {"$subtract": ["$$NOW", milliseconds]}


def _own(instance: str) -> dict[str, Any]:
    mine = {"$filter": {"input": _GRANTS, "cond": {"$eq": ["$$this.i", {"$literal": instance}]}}}
    return {"$sum": {"$map": {"input": mine, "in": "$$this.n"}}}


def _but(entries: dict[str, Any], *instances: str) -> dict[str, Any]:
    return {"$filter": {"input": entries, "cond": {"$not": [{"$in": ["$$this.i", {"$literal": list(instances)}]}]}}}


def _some(entries: dict[str, Any]) -> dict[str, Any]:
    return {"$gt": [{"$size": entries}, 0]}


def _unless_empty(entries: dict[str, Any]) -> dict[str, Any]:
    return {"$cond": [_some(entries), entries, "$$REMOVE"]}
