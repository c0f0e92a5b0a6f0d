"""Sampling options that the mock models obey: where an answer ends, and what is told of its tokens. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.chat.emulation.parameters import LIMITS, STOP, stop_sequences, token_limit
from poe_gateway.chat.events import Finished
from poe_gateway.chat.request import ChatRequest
from poe_gateway.errors import InvalidRequest

_CHARACTERS = 4
"""Of a token, as the mock counts."""
_MOST_ALTERNATIVES = 20


class Unfulfillable(ValueError):
    """A wish that makes no sense; the text may be shown to the caller."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What of ``parameters`` counts here. ``alternatives``: tokens told beside each one; None tells no logprobs."""

    stop: tuple[str, ...] = ()
    longest: int | None = None
    """Characters."""
    alternatives: int | None = None
    thinks: bool = False

    def ended(self, pieces: tuple[str, ...]) -> tuple[tuple[str, ...], Finished]:
        """The pieces up to a stop sequence or the longest that is allowed, and how the answer ends."""
        if not self.stop and self.longest is None:
            return pieces, Finished()
        text = "".join(pieces)
        found = [(at, word) for word in self.stop if (at := text.find(word)) >= 0]
        end, word = min(found, default=(len(text), None))
        if self.longest is not None and self.longest < end:
            return _first(pieces, self.longest), Finished("length")
        return _first(pieces, end), Finished("stop", word)

    def told(self, piece: str) -> tuple[dict[str, Any], ...] | None:
        """What is told of a piece's probability, where it is asked for: each piece counts as one token."""
        if self.alternatives is None:
            return None
        others = [_token(f"{piece}{nth}" if nth else piece, nth) for nth in range(self.alternatives)]
        return ({**_token(piece, 0), "top_logprobs": others},)


def read_wishes(request: ChatRequest) -> Wishes:
    """The request's wishes. Raises Unfulfillable."""
    given = request.parameters
    try:
        stop = stop_sequences(given[STOP]) if given.get(STOP) is not None else ()
        limits = [token_limit(name, given[name]) for name in LIMITS if given.get(name) is not None]
    except InvalidRequest as error:
        raise Unfulfillable(error.message) from None
    return Wishes(
        stop=stop,
        longest=min(limits) * _CHARACTERS if limits else None,
        alternatives=_alternatives(given),
        thinks=_thinks(given),
    )


def _alternatives(given: dict[str, Any]) -> int | None:
    wanted, most = given.get("logprobs"), given.get("top_logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise Unfulfillable("'logprobs' must be true or false.")
    if most is not None and (type(most) is not int or not 0 <= most <= _MOST_ALTERNATIVES):
        raise Unfulfillable(f"'top_logprobs' must be a whole number from 0 to {_MOST_ALTERNATIVES}.")
    if most and not wanted:
        raise Unfulfillable("'top_logprobs' goes only with 'logprobs': true.")
    return (most or 0) if wanted else None


def _thinks(given: dict[str, Any]) -> bool:
    """Whether thinking is asked for, in OpenAI's words or Anthropic's."""
    thinking = given.get("thinking")
    asked = isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")
    return asked or given.get("reasoning_effort") in ("low", "medium", "high", "xhigh", "max")


def _first(pieces: tuple[str, ...], characters: int) -> tuple[str, ...]:
    kept: list[str] = []
    for piece in pieces:
        if characters <= 0:
            break
        kept.append(piece[:characters])
        characters -= len(piece)
    return tuple(kept)


def _token(text: str, nth: int) -> dict[str, Any]:
    return {"token": text, "logprob": -0.125 * (nth + 1), "bytes": list(text.encode("utf-8", "surrogatepass"))}
