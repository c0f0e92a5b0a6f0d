"""Poe's usage history: ``GET /usage/points_history``, newest first, a hundred entries a page, 30 days back. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

import msgspec

from poe_gateway.upstreams.base import BookEntry, Books
from poe_gateway.upstreams.drift import Drift

_PAGE = 100
_PAGES = 200
"""Read at most; what is older is told as not covered."""
_EXACT = msgspec.json.Decoder(float_hook=Decimal)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
_LARGEST = 2**53
_DEAREST = 10**9


class History:
    """Collects pages until ``since`` is reached: ask ``next_page``, hand in what came, in the end take ``books``."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._entries: dict[str, BookEntry] = {}
        self._pages = 0
        self._more = True
        self._last: str | None = None
        self._reached: datetime | None = None
        """Moment of the oldest entry read."""

    def next_page(self) -> str | None:
        """The query of the next page; None when nothing is missing or enough was read."""
        if not self._more or self._pages >= _PAGES:
            return None
        return urlencode({"limit": _PAGE} | ({} if self._last is None else {"starting_after": self._last}))

    def take(self, body: bytes) -> None:
        """One page. Raises Drift."""
        self._pages += 1
        value = _decoded(body)
        rows = value.get("data")
        if not isinstance(rows, list):
            raise Drift("the usage history has no data")
        before = self._last
        for row in rows:
            entry = _entry(row)
            self._last = entry.id
            self._reached = entry.at if self._reached is None else min(self._reached, entry.at)
            self._entries[entry.id] = entry
        if value.get("has_more") is not True or not rows:
            self._more = False
        elif self._last == before:
            raise Drift("a page of the usage history repeats")
        elif self._reached is not None and self._reached < self._since:
            self._more = False

    def books(self) -> Books:
        """What was read. It is whole back to ``since``, or to where reading was given up."""
        whole = self._since
        if self._more and self._reached is not None:
            whole = max(whole, self._reached)
        kept = (entry for entry in self._entries.values() if entry.at >= whole)
        return Books(since=whole, entries=tuple(kept))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        value = _EXACT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidOperation):
        raise Drift("the usage history is not JSON") from None
    if not isinstance(value, dict):
        raise Drift("the usage history is not an object")
    return value


def _entry(row: Any) -> BookEntry:
    """One entry. Raises Drift: an entry that is not understood would pass for one that is not there."""
    if not isinstance(row, dict):
        raise Drift("an entry of the usage history is not an object")
    name, model = row.get("query_id"), row.get("bot_name", row.get("app_name"))
    if not isinstance(name, str) or not name or not isinstance(model, str):
        raise Drift("an entry of the usage history has no id or no model")
    kind = row.get("usage_type")
    cost = _cost(row.get("cost_usd"))
    return BookEntry(
        id=name,
        at=_moment(row.get("creation_time")),
        model=model,
        points=_points(row.get("cost_points")),
        cost=cost,
        currency=None if cost is None else "USD",
        kind=kind if isinstance(kind, str) else "",
    )


def _moment(value: Any) -> datetime:
    """The reference says microseconds, an example of the guide shows seconds: ten digits against sixteen."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise Drift("an entry of the usage history has no time")
    seconds = value / 1_000_000 if value > _LATEST else float(value)
    if seconds > _LATEST:
        raise Drift("an entry of the usage history has no time")
    return datetime.fromtimestamp(seconds, UTC)


def _points(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        return None
    return value


def _cost(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and 0 <= number <= _DEAREST else None
