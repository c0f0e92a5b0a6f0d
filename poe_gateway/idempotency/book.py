"""The book of claims: who runs a request that has a key, and what came of it. One for all processes, in a store.

A claim says "I run this"; it is renewed while the run lasts. The claim of a process that died lapses, and a repetition
takes it over: the request runs again. A finished answer is kept sealed; the caller's key only as a keyed digest.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol

import msgspec

from poe_gateway.errors import Conflict, StoreUnavailable, Unavailable, Unprocessable
from poe_gateway.vault import Vault, VaultError

_LEASE = 15.0
"""Seconds after which the claim of a process that died can be taken over."""
_BEAT = 5.0
_AGAIN = (0.2, 1.0, 3.0)
"""Pauses in seconds before the end of a run is written again."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One process wants to run one request.

    ``id`` is the keyed digest of the caller and its key, ``digest`` that of the request, ``owner`` this run's own name.
    """

    id: str
    digest: str
    owner: str
    request_id: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds under a claim's id. ``sealed``: the finished answer, None while it runs."""

    digest: str
    owner: str
    sealed: bytes | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A finished answer. ``pieces``: its body as it was sent."""

    request_id: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    pieces: tuple[bytes, ...]


class AnswerStore(Protocol):
    """Claims and answers of all processes, on one clock. All methods raise StoreUnavailable."""

    async def claim(self, claim: Claim, lease: float, ttl: float) -> Found:
        """Take the claim if its id is free; what is stored then. It is won when ``owner`` is the claim's own.

        Free is what is not there, what has expired, and a run of the same digest whose lease of ``lease`` seconds has
        lapsed.
        """

    async def renew(self, claim: Claim, lease: float, ttl: float) -> bool:
        """Hold it for ``lease`` seconds from now; False when it is not held any more."""

    async def finish(self, claim: Claim, status: int, sealed: bytes, kid: str, ttl: float) -> bool:
        """Keep the answer for ``ttl`` seconds from now; False when the claim is not held any more. Idempotent."""

    async def free(self, claim: Claim) -> None:
        """Give the id back, if the claim is held and not finished. Idempotent."""


class Book:
    """The claims of one process. ``process`` is its name, new with every start; ``ttl`` in seconds."""

    def __init__(
        self,
        *,
        store: AnswerStore,
        vault: Vault,
        pepper: bytes,
        process: str,
        ttl: float,
        lease: float = _LEASE,
        beat: float = _BEAT,
        again: tuple[float, ...] = _AGAIN,
    ) -> None:
        self._store = store
        self._vault = vault
        self._pepper = pepper
        self._process = process
        self._ttl = ttl
        self._lease = lease
        self._beat = beat
        self._again = again
        self._runs = 0

    def claim_of(self, scope: str, key: str, route: str, body: bytes, request_id: str) -> Claim:
        """A claim on ``key`` for the caller ``scope``. Digests are keyed, so that nobody can guess texts from them."""
        self._runs += 1
        return Claim(
            id=self._digest(f"idempotency\n{scope}\n{key}".encode()),
            digest=self._digest(b"\n".join((b"request", route.encode(), body))),
            owner=f"{self._process}:{self._runs}",
            request_id=request_id,
        )

    def _digest(self, text: bytes) -> str:
        return hmac.digest(self._pepper, text, "sha256").hex()

    async def claim(self, claim: Claim) -> Answer | Literal["ours", "elsewhere"]:
        """Whether the request is ours to run, runs elsewhere, or what it was answered.

        Raises Unprocessable when the key stands for another request, Unavailable while the database is away, Conflict
        for an answer that cannot be opened any more.
        """
        try:
            found = await self._store.claim(claim, self._lease, self._ttl)
        except StoreUnavailable:
            raise Unavailable(
                "Whether this request has run already cannot be told at the moment.",
                code="database_unavailable",
                retry_after=5,
            ) from None
        if found.digest != claim.digest:
            raise _reused()
        if found.sealed is not None:
            try:
                return await asyncio.to_thread(_opened, self._vault, found.sealed)
            except VaultError:
                raise Conflict(
                    "The recorded answer was sealed with a key that FERNET_KEY no longer holds.",
                    code="idempotency_answer_lost",
                ) from None
        return "ours" if found.owner == claim.owner else "elsewhere"

    @asynccontextmanager
    async def held(self, claim: Claim) -> AsyncIterator[None]:
        """Renew a claim all the while."""
        renewing = asyncio.create_task(self._renew(claim))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, claim: Claim) -> None:
        held = True
        while held:
            await asyncio.sleep(self._beat)
            try:
                held = await self._store.renew(claim, self._lease, self._ttl)
            except StoreUnavailable:
                continue  # it may be back before the lease lapses

    async def keep(self, claim: Claim, answer: Answer) -> bool:
        """Store a finished answer; False when it could not be: the claim was lost, or the database stays away."""
        sealed = await asyncio.to_thread(_sealed, self._vault, answer)
        kept = await self._written(
            lambda: self._store.finish(claim, answer.status, sealed, self._vault.kid, self._ttl),
        )
        return kept is True

    async def free(self, claim: Claim) -> None:
        """Give the key back after a failure. With the database away the claim lapses by itself."""
        await self._written(lambda: self._store.free(claim))

    async def _written(self, write: Callable[[], Awaitable[bool | None]]) -> bool | None:
        for pause in self._again:
            try:
                return await write()
            except StoreUnavailable:
                await asyncio.sleep(pause)
        try:
            return await write()
        except StoreUnavailable:
            return False


def _reused() -> Unprocessable:
    """The key stands for another request."""
    return Unprocessable(
        "This Idempotency-Key was used with another request. Use a new key.",
        code="idempotency_key_reused",
        param="Idempotency-Key",
    )


def _sealed(vault: Vault, answer: Answer) -> bytes:
    return vault.seal(
        {
            "request_id": answer.request_id,
            "status": answer.status,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers],
            "lengths": [len(piece) for piece in answer.pieces],
            "body": base64.b64encode(b"".join(answer.pieces)).decode(),
        }
    )


def _opened(vault: Vault, sealed: bytes) -> Answer:
    stored: dict[str, Any] = vault.open(sealed)
    body = base64.b64decode(stored["body"])
    ends = accumulate(stored["lengths"], initial=0)
    return Answer(
        request_id=stored["request_id"],
        status=stored["status"],
        headers=tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in stored["headers"]),
        pieces=tuple(body[start:end] for start, end in pairwise(ends)),
    )
