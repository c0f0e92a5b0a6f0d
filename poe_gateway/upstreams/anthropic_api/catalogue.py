"""Anthropic's list of models, page by page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from poe_gateway.upstreams.base import Model
from poe_gateway.upstreams.drift import Drift, exactly

_PAGE = 1000
_MOST_PAGES = 20
_LONGEST_NAME = 256


class Listing:
    """Collects the pages: ask ``next_page`` for a query, ``take`` what it brings, until there is none."""

    def __init__(self, only: frozenset[str] | None) -> None:
        self._only = only
        self._models: dict[str, Model] = {}
        self._after: str | None = None
        self._pages = 0
        self._more = True

    def next_page(self) -> str | None:
        """The query of the next page."""
        if not self._more or self._pages == _MOST_PAGES:
            return None
        return urlencode({"limit": _PAGE} | ({"after_id": self._after} if self._after else {}))

    def take(self, body: bytes) -> None:
        """One page. Raises Drift."""
        value = exactly(body, "the list of models")
        rows = value.get("data") if isinstance(value, dict) else None
        if not isinstance(rows, list):
            raise Drift("the list of models has no data")
        found = [model for row in rows if isinstance(row, dict) and (model := _model(row)) is not None]
        if rows and not found:
            raise Drift("no entry of the list of models has an id")
        self._models |= {model.id: model for model in found}
        last = value.get("last_id")
        self._pages += 1
        self._more = value.get("has_more") is True and isinstance(last, str) and last != self._after
        self._after = last if isinstance(last, str) else None

    def models(self) -> list[Model]:
        """What was listed, reduced to the allow-list where there is one."""
        return [model for model in self._models.values() if self._only is None or model.id in self._only]


def _model(row: Mapping[str, Any]) -> Model | None:
    name = row.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        return None
    return Model(id=name, upstream=name, owned_by="anthropic", created=_created(row), details=_details(row))


def _created(row: Mapping[str, Any]) -> int:
    """Unix second; 0 when it is not told."""
    try:
        told = datetime.fromisoformat(str(row.get("created_at")))
        return max(0, int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, source in (("context_length", "max_input_tokens"), ("max_output_tokens", "max_tokens")):
        if type(number := row.get(source)) is int and number > 0:
            told[name] = number
    capabilities = row.get("capabilities")
    if isinstance(capabilities, dict):
        image = capabilities.get("image_input")
        sees = isinstance(image, dict) and image.get("supported") is True
        told["input_modalities"] = ["text", "image"] if sees else ["text"]
        told["output_modalities"] = ["text"]
    return told
