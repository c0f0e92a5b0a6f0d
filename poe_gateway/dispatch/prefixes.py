"""Conversations without a session id: one that goes on returns to the account that began it.

A conversation is known by its opening: all turns up to and including the first answer. What is kept is a preference
of this process, in memory, bounded by number, by uses and by time: the account is taken when it is free, else any.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import msgspec

from poe_gateway.chat import history
from poe_gateway.chat.request import ChatRequest, ToolCall

_SIZE = 50_000


class _Known(msgspec.Struct):
    account_id: str
    since: float
    uses: int = 0


class PrefixBook:
    """Openings and their accounts. ``max_uses`` and ``max_seconds`` (monotonic) bound each."""

    def __init__(self, *, max_uses: int, max_seconds: float) -> None:
        self._max_uses = max_uses
        self._max_seconds = max_seconds
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def account(self, opening: bytes, now: float) -> str | None:
        """The account that the conversation began on, or None."""
        known = self._known.get(opening)
        if known is None:
            return None
        known.uses += 1
        if known.uses > self._max_uses or now - known.since > self._max_seconds:
            del self._known[opening]
            return None
        return known.account_id

    def remember(self, opening: bytes, account_id: str, now: float) -> None:
        """The conversation was answered there; a move starts its bounds anew."""
        known = self._known.get(opening)
        if known is not None and known.account_id == account_id:
            self._known.move_to_end(opening)
            return
        self._known[opening] = _Known(account_id, now)
        self._known.move_to_end(opening)
        while len(self._known) > _SIZE:
            self._known.popitem(last=False)

    def flush(self, account_id: str | None = None) -> None:
        """Forget all, or what leads to one account."""
        for opening in [key for key, each in self._known.items() if account_id in (None, each.account_id)]:
            del self._known[opening]


def opening_of(caller: str, request: ChatRequest) -> bytes | None:
    """The opening of a conversation that goes on; None for one that only begins."""
    for number, message in enumerate(request.messages):
        if message.role == "assistant":
            return _hashed(caller, history.digests(request.messages[: number + 1]))
    return None


def opening_with(caller: str, request: ChatRequest, answer: str, calls: tuple[ToolCall, ...] = ()) -> bytes:
    """The opening that a request without earlier answers makes together with its own."""
    return _hashed(caller, (*history.digests(request.messages), history.answered(answer, calls)))


def _hashed(caller: str, digests: tuple[str, ...]) -> bytes:
    return blake2b("\x00".join((caller, *digests)).encode(), digest_size=16).digest()
