"""Tokens and cost of one exchange, and who counted them. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import orjson

Counted = Literal["upstream", "tokenizer", "estimate"]
"""Who counted the tokens: the upstream itself, a tokenizer here, or nobody (a quarter of the characters)."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one exchange. ``points`` if the upstream told a price in them."""

    prompt_tokens: int
    completion_tokens: int
    counted: Counted = "upstream"
    points: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    raw_cost: str | None = None
    billed_cost: str | None = None
    currency: str | None = None
    """Costs as decimal numbers in text; None: no price is known."""

    @property
    def estimated(self) -> bool:
        """The upstream did not tell the tokens."""
        return self.counted != "upstream"

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def extras(self) -> dict[str, Any]:
        """What is ours in every dialect: ``estimated``, ``counted_by``, ``points`` and the cost, where they apply."""
        extras: dict[str, Any] = {}
        if self.estimated:
            extras["estimated"] = True
            extras["counted_by"] = self.counted
        if self.points is not None:
            extras["points"] = self.points
        if self.billed_cost is not None:
            # Written as they are: a float could not hold every amount.
            extras["raw_cost"] = None if self.raw_cost is None else orjson.Fragment(self.raw_cost)
            extras["billed_cost"] = orjson.Fragment(self.billed_cost)
            extras["currency"] = self.currency
        return extras

    def as_dict(self) -> dict[str, Any]:
        """The shape of OpenAI's chat completions, with ``extras``."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }
        if self.cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.reasoning_tokens:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        usage.update(self.extras())
        return usage
