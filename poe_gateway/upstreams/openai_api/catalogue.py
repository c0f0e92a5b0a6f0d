"""A provider's list of models, with what it tells of each in whatever words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from poe_gateway.upstreams.base import Model
from poe_gateway.upstreams.drift import Drift, exactly
from poe_gateway.upstreams.openai_api.figures import count, money, plain

_LONGEST_NAME = 256
_MOST_WORDS = 64
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_PRICE = re.compile(r"[a-z][a-z0-9_]{0,39}")


def read_models(body: bytes, only: frozenset[str] | None) -> list[Model]:
    """The provider's list, reduced to the names of ``only`` where given. Raises Drift."""
    value = exactly(body, "the list of models")
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise Drift("the list of models has no data")
    names = _rows(rows)
    if rows and not names:
        raise Drift("no entry of the list of models has an id")
    return [model for model in names.values() if only is None or model.id in only]


def _rows(rows: Iterable[Any]) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for row in rows:
        name = row.get("id") if isinstance(row, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            continue
        owner = row.get("owned_by")
        models[name] = Model(
            id=name,
            upstream=name,
            owned_by=owner if isinstance(owner, str) and owner else "unknown",
            created=count(row.get("created")) or 0,
            details=_details(row),
        )
    return models


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a model, under OpenRouter's names; other providers' words are put into those."""
    best, form, window = _group(row, "top_provider"), _group(row, "architecture"), _group(row, "context_window")
    told = {
        "context_length": _first_count(
            row.get("context_length"),
            best.get("context_length"),
            window.get("context_length"),  # Poe
            row.get("context_window"),  # Groq
            row.get("max_model_len"),  # vLLM
            row.get("max_context_length"),  # Mistral
        ),
        "max_output_tokens": _first_count(
            best.get("max_completion_tokens"),
            window.get("max_output_tokens"),
            row.get("max_output_tokens"),
            row.get("max_completion_tokens"),
        ),
        "input_modalities": _words(form.get("input_modalities", row.get("input_modalities"))),
        "output_modalities": _words(form.get("output_modalities", row.get("output_modalities"))),
        "supported_parameters": _words(row.get("supported_parameters")),
        "pricing": _pricing(row.get("pricing")),
    }
    return {name: value for name, value in told.items() if value}


def _group(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _first_count(*values: Any) -> int | None:
    return next((number for value in values if (number := count(value))), None)


def _words(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    words = (word for word in value if isinstance(word, str) and _WORD.fullmatch(word))
    return list(dict.fromkeys(words))[:_MOST_WORDS]


def _pricing(value: Any) -> dict[str, str]:
    """Money per token, request or picture as a decimal. Only of lists that speak of prompt or completion: others
    count in millions of tokens."""
    if not isinstance(value, dict) or not {"prompt", "completion"} & value.keys():
        return {}
    prices = [(name, money(price)) for name, price in value.items() if _PRICE.fullmatch(name)]
    return {name: plain(price) for name, price in prices[:_MOST_WORDS] if price is not None and price >= 0}
