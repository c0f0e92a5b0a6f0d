"""The chain of audit entries: each holds a keyed hash over itself and the hash before it. Pure.

A link is a mapping: ``n`` (1, 2, 3 …), the fields of the change, ``prev`` (hash of link n-1), ``kid`` (name of the key)
and ``hash``: HMAC-SHA256 over the canonical JSON of all other fields (sorted keys, no spaces, ASCII, ``at`` as whole
milliseconds since 1970). Whoever lacks the key can neither change, leave out, move nor add a link unnoticed.

The head is the newest link's number and hash, signed with the same key: without it, a tail that was cut off would not
be missed. It is written after its link, so it may lag behind after a crash; it is never ahead.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

Link = Mapping[str, Any]
Wrong = Literal["changed", "missing", "reordered", "cut off", "foreign key"]

GENESIS = "0" * 64
"""What link 1 has for the hash before it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NEAR = 10_000
"""How many numbers up and down a link is looked for that does not fit where it is."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest link as its writer noted it; ``n`` 0: there is none yet."""

    n: int = 0
    hash: str = GENESIS
    expires_at: datetime | None = None
    """When that link may be gone."""
    trimmed: bool = False
    """Links expire, or did once: the chain need not begin with 1."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found. ``bad`` is the number of the first link that is not as it was written."""

    ok: bool
    checked: int
    """Links found good."""
    first: int | None
    """The oldest link that is left."""
    last: int
    """The newest link found good, 0: none; ``hash`` is its hash, to be noted elsewhere."""
    hash: str
    bad: int | None = None
    wrong: Wrong | None = None
    detail: str = ""


class Chain:
    """Makes and checks links. ``secret``: what all gateways of one database share."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"poe-gateway audit chain 1", "sha256")
        self.kid = hashlib.sha256(b"kid:" + self._key).hexdigest()[:12]

    def link(self, n: int, prev: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Link ``n`` over ``fields``, which must be as the store gives them back (times in whole milliseconds)."""
        link = {**fields, "n": n, "prev": prev, "kid": self.kid}
        return {**link, "hash": self._hash(b"link:", link)}

    def genuine(self, link: Link) -> bool:
        """Whether the link is as it was made, number and all."""
        try:
            told = self._hash(b"link:", {name: value for name, value in link.items() if name != "hash"})
        except (TypeError, ValueError):
            return False  # something that no link ever held
        return hmac.compare_digest(told.encode(), str(link.get("hash")).encode("utf-8", "replace"))

    def sign(self, head: Head) -> str:
        """Proof that a holder of the key wrote this head."""
        return self._hash(b"head:", {**msgspec.structs.asdict(head), "kid": self.kid})

    def signed(self, head: Head, mac: str) -> bool:
        return hmac.compare_digest(self.sign(head).encode(), mac.encode("utf-8", "replace"))

    def _hash(self, kind: bytes, fields: Mapping[str, Any]) -> str:
        return hmac.digest(self._key, kind + _canonical(fields), "sha256").hex()


def _canonical(fields: Mapping[str, Any]) -> bytes:
    """Raises TypeError or ValueError for what is not plain: only top-level fields may be moments."""
    flat = {name: _milliseconds(value) if isinstance(value, datetime) else value for name, value in fields.items()}
    return json.dumps(flat, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _milliseconds(moment: datetime) -> dict[str, int]:
    return {"ms": (moment - _EPOCH) // _MILLISECOND}


class Walk:
    """One verification: links are shown to it in the order of their numbers.

    ``head``: as it was before the first link was read; None: there is none. ``noted``: number and hash that somebody
    wrote down elsewhere.
    """

    def __init__(self, chain: Chain, head: Head | None, noted: tuple[int, str] | None = None) -> None:
        self._chain = chain
        self._head = head or Head()
        self._known = [(self._head.n, self._head.hash, "the head tells of")]
        self._noted = noted
        if noted is not None:
            self._known.append((*noted, "was noted"))
        self._fault: tuple[int | None, Wrong, str] | None = None
        self._hash = GENESIS
        self.first: int | None = None
        self.last = 0
        self.checked = 0

    def step(self, link: Link) -> bool:
        """The next link. False once something is wrong: the rest need not be shown."""
        if self._fault is None:
            self._fault = self._look(link)
        if self._fault is not None:
            return False
        self.last, self._hash = int(link["n"]), str(link["hash"])
        self.checked += 1
        return True

    def fail(self, wrong: Wrong, detail: str, bad: int | None = None) -> None:
        """Something is wrong that no single link shows; what was found before counts more."""
        if self._fault is None:
            self._fault = (bad, wrong, detail)

    def _look(self, link: Link) -> tuple[int, Wrong, str] | None:
        n, expected = link.get("n"), self.last + 1
        if not isinstance(n, int) or isinstance(n, bool):
            return expected, "changed", "its number is not a whole one"
        begins = self.first is None and n > 1 and self._head.trimmed
        if self.first is None:
            self.first = n
        if n != expected and not begins:
            return expected, "missing", f"the next entry that is there is {n}"
        if link.get("kid") != self._chain.kid:
            return n, "foreign key", "written with another key than this gateway's"
        if not self._chain.genuine(link):
            return self._misplaced(link, n) or (n, "changed", "it is not as it was written")
        if link.get("prev") != self._hash and not begins:
            return n, "changed", "it does not follow the entry before it"
        for number, told, who in self._known:
            if n == number and link["hash"] != told:
                return n, "changed", f"its hash is not the one that {who}"
        return None

    def _misplaced(self, link: Link, n: int) -> tuple[int, Wrong, str] | None:
        for place in range(max(1, n - _NEAR), n + _NEAR):
            if place != n and self._chain.genuine({**link, "n": place}):
                return n, "reordered", f"it was written as entry {place}"
        return None

    def end(self, now: datetime) -> Report:
        """All links were shown."""
        words = ""
        expired = self.first is None and self._head.expires_at is not None and self._head.expires_at <= now
        if expired:
            words = f"All {self._head.n} entries have expired."
        elif self.first is not None and self.first > 1:
            words = f"Entries older than {self.first} have expired."
        for number, _, who in self._known:
            if number > self.last and not (expired and number <= self._head.n):
                self.fail("cut off", f"there was an entry {number}: so {who}", self.last + 1)
        if self._noted is not None and words and self._noted[0] < (self.first or self._head.n + 1):
            words += f" The noted entry {self._noted[0]} is among them and could not be compared."
        bad, wrong, detail = self._fault or (None, None, words)
        return Report(
            ok=wrong is None,
            checked=self.checked,
            first=self.first,
            last=self.last,
            hash=self._hash,
            bad=bad,
            wrong=wrong,
            detail=detail,
        )
