"""Numbers as providers tell them: tokens, and money that never becomes a float. Pure."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from poe_gateway.chat.events import Measured

_LONGEST_NUMBER = 40
_DEAREST = 10**9
"""Units of currency that one exchange may cost; more is no price."""
_MOST = 2**53
_SMALLEST, _LARGEST = -20, 15
"""Powers of ten between which a balance or a price lies."""


def read_usage(usage: dict[str, Any], upstream_id: str | None) -> Measured:
    """``usage`` of a chat completion, its fractions as text."""
    return Measured(
        prompt_tokens=count(usage.get("prompt_tokens")),
        completion_tokens=count(usage.get("completion_tokens")),
        # DeepSeek counts the prompt in two parts, those found in its cache and the rest.
        cached_tokens=count(_detail(usage, "prompt_tokens_details", "cached_tokens", "prompt_cache_hit_tokens")),
        reasoning_tokens=count(_detail(usage, "completion_tokens_details", "reasoning_tokens", "reasoning_tokens")),
        # OpenRouter's, in dollars.
        cost=amount(usage.get("cost")),
        upstream_id=upstream_id,
    )


def read_input_usage(usage: Any, upstream_id: str | None = None) -> Measured | None:
    """``usage`` of embeddings and pictures, in the words of either; nothing is said, so no words are counted."""
    if not isinstance(usage, dict):
        return None
    told = usage.get("prompt_tokens", usage.get("input_tokens", usage.get("total_tokens")))
    given = count(usage.get("completion_tokens", usage.get("output_tokens")))
    prompt = count(told)
    return Measured(
        prompt_tokens=prompt,
        completion_tokens=0 if given is None and prompt is not None else given,
        cost=amount(usage.get("cost")),
        upstream_id=upstream_id,
    )


def amount(value: Any) -> str | None:
    """A price as it was written; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    if len(text) > _LONGEST_NUMBER:
        return None
    number = fraction(text)
    return text if number is not None and 0 <= number <= _DEAREST else None


def count(value: Any) -> int | None:
    """A number of things; None for what is none. Text is what the exact decoder makes of ``2.0``."""
    if isinstance(value, str):
        value = fraction(value) if len(value) <= _LONGEST_NUMBER else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not 0 <= value <= _MOST:
        return None
    return int(value)


def fraction(text: str) -> Decimal | None:
    """A finite decimal number."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def money(value: Any) -> Decimal | None:
    """A balance or a price of a sensible size, below zero too; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | str) or len(str(value)) > _LONGEST_NUMBER:
        return None
    number = fraction(str(value))
    if number is None or number == 0:
        return None if number is None else Decimal(0)
    return number if _SMALLEST <= number.adjusted() <= _LARGEST else None


def plain(number: Decimal) -> str:
    """What ``money`` gave, without exponent and idle zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _detail(usage: dict[str, Any], group: str, name: str, elsewhere: str) -> Any:
    details = usage.get(group)
    told = details.get(name) if isinstance(details, dict) else None
    return told if told is not None else usage.get(elsewhere)
