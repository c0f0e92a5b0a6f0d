"""What a row is put right by, once its entry in the upstream's book is known. Pure.

Only differences are told. The upstream's figure replaces an estimate always; a figure that it had told itself only
where the entry was found by its id, for by time alone the two may not be the same exchange. A price by the operator's
own rule stays a price by that rule, with the true points.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from poe_gateway.metering.matching import BookEntry, Certainty, Ours
from poe_gateway.metering.pricing import PriceRule, Usage, price
from poe_gateway.metering.rows import Correction
from poe_gateway.money import POINTS, amount_of

Row = Mapping[str, Any]
"""A row of the ledger as it is stored."""
_UNIT_OF_BUDGET = 3
"""Place of the unit in a budget's bucket id: ``budget|key|<id>|USD|day|2026-11-21``."""


class Price(NamedTuple):
    """What an exchange costs by its entry, in the row's unit."""

    raw: int
    billed: int


def ours(row: Row, corrections: Mapping[str, Row]) -> Ours:
    """``corrections`` by the id of the row that they correct."""
    correction = corrections.get(row["_id"])
    upstream_id = row.get("upstream_id")
    if correction is not None:
        upstream_id = correction.get("upstream_id") or upstream_id
    return Ours(
        id=row["_id"],
        at=row["at"],
        model=row.get("target") or row["model"],
        upstream_id=upstream_id,
        certainty=_certainty(row, correction),
    )


def _certainty(row: Row, correction: Row | None) -> Certainty:
    if correction is not None:
        return "void" if correction["reason"] == UNSEEN else "put_right"
    if row.get("fate") == "not_sent":
        return "void"
    if row["status"] == "orphaned" or (row["status"] != "succeeded" and row.get("fate") in (None, "unknown")):
        return "doubtful"
    return "seen"


UNSEEN = "unseen"
"""The upstream's book does not know it: it costs nothing."""
SEEN = "books"
"""The upstream's book has other figures, or says for the first time that there was such an exchange."""


def unseen(row: Row, at: datetime) -> Correction | None:
    """An attempt that never reached the upstream gives everything back; None when it had cost nothing."""
    if row["status"] != "orphaned" and not (row.get("points") or row.get("raw_cost") or row.get("billed_cost")):
        return None
    return Correction(
        row=row["_id"],
        at=at,
        reason=UNSEEN,
        points=-(row.get("points") or 0),
        raw_cost=-(row.get("raw_cost") or 0),
        billed_cost=-(row.get("billed_cost") or 0),
        charges={each["b"]: -each["n"] for each in row.get("charges") or () if each["n"]},
    )


def seen(row: Row, entry: BookEntry, cost: Price | None, *, by_id: bool, at: datetime) -> Correction | None:
    """The difference to the entry; None when there is nothing to put right.

    ``cost``: by the entry, in the row's unit; None: the row's own stays.
    """
    orphan = row["status"] == "orphaned"
    points = 0
    if entry.points is not None and (by_id or orphan or row.get("points_estimated") or row.get("points") is None):
        points = entry.points - (row.get("points") or 0)
    raw = billed = 0
    source = row.get("cost_source")
    if cost is not None and (orphan or by_id or source != "upstream"):
        raw = cost.raw - (row.get("raw_cost") or 0)
        billed = cost.billed - (row.get("billed_cost") or 0)
    if not (points or raw or billed or orphan):
        return None
    return Correction(
        row=row["_id"],
        at=at,
        reason=SEEN,
        points=points,
        raw_cost=raw,
        billed_cost=billed,
        upstream_id=entry.id,
        charges=_charges(row, points, billed),
    )


def _charges(row: Row, points: int, billed: int) -> dict[str, int]:
    """Each budget that the row names changes to what the row's figure is now in its unit.

    Of an orphan another amount was charged than its figure says: what was still reserved, or a tenth of the budget.
    """
    charges: dict[str, int] = {}
    for each in row.get("charges") or ():
        unit = each["b"].split("|")[_UNIT_OF_BUDGET]
        if unit == POINTS:
            figure, change = row.get("points"), points
        elif unit == row.get("unit"):
            figure, change = row.get("billed_cost"), billed
        else:
            continue
        if figure is None and not change:
            continue  # the book does not say either
        if lacking := (figure or 0) + change - each["n"]:
            charges[each["b"]] = lacking
    return charges


def plain_price(row: Row, entry: BookEntry) -> Price | None:
    """By the entry alone: its cost in the row's currency, billed in the proportion of before.

    None where the row's own price stays: it was given by a rule, or the entry tells none.
    """
    unit = row.get("unit")
    if row.get("cost_source") == "rule":
        return None
    if unit == POINTS and entry.points is not None:
        raw = entry.points
    elif entry.cost is not None and unit == entry.currency and unit is not None:
        raw = amount_of(entry.cost, unit)
    else:
        return None
    before, billed = row.get("raw_cost"), row.get("billed_cost")
    if not before or billed is None:
        return Price(raw, raw)
    # Rounded half up; both are never negative.
    return Price(raw, (2 * raw * billed + before) // (2 * before))


def rule_price(rule: PriceRule | None, row: Row, entry: BookEntry) -> Price | None:
    """By the entry and the rule that holds for the row. None: nothing better than the row's own price is known."""
    by_rule = row.get("cost_source") == "rule"
    if by_rule and (rule is None or rule.name != row.get("price_rule")):
        return None
    told = None if by_rule or entry.cost is None or entry.currency is None else (str(entry.cost), entry.currency)
    counted = not (row["status"] == "orphaned" or row.get("tokens_estimated"))
    cost = price(
        rule,
        Usage(
            prompt_tokens=row.get("prompt_tokens") or 0,
            completion_tokens=row.get("completion_tokens") or 0,
            cached_tokens=row.get("cached_tokens") or 0,
            points=row.get("points") if entry.points is None else entry.points,
            told=told,
        ),
    )
    if cost is None or cost.raw is None or cost.billed is None or cost.unit != row.get("unit"):
        return None
    by_tokens = rule is not None and (rule.input, rule.output, rule.cached) != (None, None, None)
    if cost.source == "rule" and by_tokens and not counted:
        return None
    return Price(cost.raw, cost.billed)
