"""The redacted shape of requests for the auditor: roles, lengths and keyed digests, no text. Pure.

The digests are keyed, so that a short text cannot be found by trying; equal texts have equal digests. With the
organisation's ``keep_text`` on, prompt and answer are sealed by a function that is handed in.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from poe_gateway.metering.rows import Traffic

Turn = tuple[str, str, int]
"""Role, text, number of images."""
Seal = Callable[[str], str]

_TOLD = 200
"""Turns that are told one by one; of longer conversations the newest, and the others in one line."""
_LONGEST = 200
"""Characters of a model's name: callers may send anything."""
_LARGEST = 4 * 1024 * 1024
"""Bytes of kept text: a stored document has a bound, and so has patience."""


class TrafficShape:
    """Makes the records. ``secret``: what all gateways of one database share."""

    def __init__(self, secret: bytes) -> None:
        key = hmac.digest(secret, b"poe-gateway traffic digest 1", "sha256")
        # Copying a keyed state is cheaper than keying a new one.
        self._copy = blake2b(key=key, digest_size=16).copy

    def digest(self, text: str) -> str:
        """32 hexadecimal digits; nothing can be learnt from them without the key but equality."""
        state = self._copy()
        state.update(text.encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    def messages(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        """One entry a turn: ``role``, ``length`` in characters, ``digest``, and ``images`` where there are any.

        The oldest turns of a very long conversation become one entry ``{earlier, length}``: how many, and how long.
        """
        digest = self.digest
        shape: list[dict[str, Any]] = []
        if len(turns) > _TOLD:
            earlier = turns[:-_TOLD]
            shape.append({"earlier": len(earlier), "length": sum(len(text) for _, text, _ in earlier)})
            turns = turns[-_TOLD:]
        for role, text, images in turns:
            entry: dict[str, Any] = {"role": role, "length": len(text), "digest": digest(text)}
            if images:
                entry["images"] = images
            shape.append(entry)
        return shape

    def answer(self, text: str, finish: str | None) -> dict[str, Any]:
        """``length`` in characters, ``finish`` reason, ``digest``."""
        return {"length": len(text), "finish": finish, "digest": self.digest(text)}

    def record(
        self,
        *,
        request_id: str,
        at: datetime,
        org: str,
        key_id: str,
        route: str,
        model: str | None,
        status: int,
        turns: Sequence[Turn] = (),
        answer: str | None = None,
        finish: str | None = None,
        error_code: str | None = None,
        address: str | None = None,
        stream: bool = False,
        tokens: int = 0,
        seconds: float = 0.0,
        attempts: int = 0,
        replayed: bool = False,
        seal: Seal | None = None,
    ) -> Traffic:
        """The record of one request. ``answer`` None: there was none. ``seal``: given only where text may be kept."""
        return Traffic(
            request_id=request_id,
            at=at,
            org=org,
            key_id=key_id,
            route=route,
            model=None if model is None else model[:_LONGEST],
            status=status,
            error_code=error_code,
            address=address,
            stream=stream,
            messages=self.messages(turns),
            answer={} if answer is None else self.answer(answer, finish),
            tokens=tokens,
            seconds=seconds,
            attempts=attempts,
            replayed=replayed,
            sealed=None if seal is None else seal(_kept(turns, answer)),
        )


def _kept(turns: Sequence[Turn], answer: str | None) -> str:
    """What is sealed, as JSON: ``messages`` and ``answer``, or ``too_long`` with the size in bytes."""
    messages = [{"role": role, "text": text, "images": images} for role, text, images in turns]
    whole = json.dumps({"messages": messages, "answer": answer}, ensure_ascii=False).encode("utf-8", "replace")
    return whole.decode() if len(whole) <= _LARGEST else json.dumps({"too_long": len(whole)})


class TrafficFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are meant; None sets no bound. From ``since`` on, and before ``until``."""

    request_id: str | None = None
    key_id: str | None = None
    org: str | None = None
    since: datetime | None = None
    until: datetime | None = None


Place = tuple[datetime, str]
"""Where a page ended: moment and id of its last record."""


class TrafficRecords(Protocol):
    """The stored records, for reading. All methods raise StoreUnavailable."""

    refused: int
    """Records that the store of this process would not take."""

    async def newest(
        self, where: TrafficFilter, limit: int, after: Place | None = None
    ) -> tuple[list[Traffic], Place | None]:
        """One page, newest first, and where the next one goes on."""

    async def of(self, request_id: str) -> list[Traffic]:
        """All records of a request id, newest first: a caller may send its own id more than once."""

    def open(self, sealed: str) -> dict[str, Any] | None:
        """The kept text. None: it cannot be opened any more, the key that sealed it is gone."""
