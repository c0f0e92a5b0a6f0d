"""A visit: one careful round trip to an account's upstream that is not a chat.

A visit takes no slot, so it has rules of its own: an account that met a challenge is not contacted at all (unless the
operator insists), and no account has two visits at a time in this process. What the visit taught goes to the broker as
news, without making the account look used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from msgspec.structs import replace

from poe_gateway.accounts.store import AccountBook
from poe_gateway.clock import Clock
from poe_gateway.errors import Conflict, NotFound, UpstreamFailed
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.outcome import AdapterDrift, Failure, Outcome, Transient
from poe_gateway.upstreams.base import AccountRef, Upstream, UpstreamFailure
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import VaultError

T = TypeVar("T")
Call = Callable[[Upstream, AccountRef], Awaitable[T]]


class AccountNotFound(NotFound):
    """There is no such account."""

    code = "account_not_found"


class SetAside(Conflict):
    """The account met a bot challenge and is not contacted. Look at it in a browser, then clear its cooldown."""

    code = "account_challenged"


class Unreadable(Conflict):
    """The stored credentials cannot be opened: hand them in again, or restore the key that sealed them."""

    code = "credentials_unreadable"


class VisitFailed(UpstreamFailed):
    """The upstream could not answer. ``outcome`` says how; ``seconds`` how long it took."""

    def __init__(self, account: Account, outcome: Failure, seconds: float) -> None:
        kind = type(outcome).__name__
        super().__init__(in_words(outcome), code=f"upstream_{kind.lower()}")
        self.account = account
        self.outcome = outcome
        self.seconds = seconds


_WORDS = {
    "RateLimited": "The upstream limits the rate of this account.",
    "Depleted": "The account has no points left.",
    "Unauthorized": "The upstream does not accept the credentials; hand in fresh ones.",
    "Challenged": "The upstream asks for a bot challenge. The account was set aside and is not contacted any more.",
    "Transient": "The upstream failed on its own side.",
    "Rejected": "The upstream refused the request.",
    "Cancelled": "The round trip was cancelled.",
    "NetworkFault": "The upstream could not be reached; the fault is between it and this gateway.",
    "AdapterDrift": "The upstream answered in a way that the adapter does not know; the site may have changed.",
}


def in_words(outcome: Outcome) -> str:
    """A sentence for the operator, without anything the upstream said."""
    if isinstance(outcome, Transient) and outcome.timeout:
        return "The upstream did not answer in time."
    return _WORDS.get(type(outcome).__name__, "The round trip ended.")


class Visitor:
    """Makes visits. ``seconds``: how long one may take by default."""

    def __init__(
        self,
        *,
        book: AccountBook,
        broker: Broker,
        keychain: Keychain,
        upstreams: Mapping[str, Upstream],
        clock: Clock,
        seconds: float = 30.0,
    ) -> None:
        self._book = book
        self._broker = broker
        self._keychain = keychain
        self._upstreams = upstreams
        self._clock = clock
        self._seconds = seconds
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    def upstream_of(self, account: Account) -> Upstream:
        """The adapter of an account. Raises Conflict when this gateway has none for its provider."""
        upstream = self._upstreams.get(account.provider)
        if upstream is None:
            raise Conflict(f"This gateway has no adapter for provider '{account.provider}'.", code="unknown_provider")
        return upstream

    async def account(self, account_id: str) -> Account:
        """The account as of now; as stored where this process does not follow it yet. Raises AccountNotFound."""
        account = self._broker.account(account_id) or await self._book.get(account_id)
        if account is None:
            raise AccountNotFound
        return transitions.as_of(account, self._clock.now(), self._broker.policy)

    async def _seated(self, account_id: str) -> Account:
        """The account in the pool as it is stored, taken in if it was not there: news of a visit needs a seat to go to.

        Raises AccountNotFound.
        """
        # As it is stored now: this process may have been frozen, and another one have met a challenge meanwhile.
        known = self._broker.account(account_id)
        stored = await self._book.get(account_id)
        if stored is None:
            self._broker.remove((account_id,))
            raise AccountNotFound
        self._broker.accept((stored,))
        if known is not None:
            return self._broker.account(account_id) or known
        # It may have been deleted behind that look, when the pool had no seat to remove: a second look tells.
        # Whoever deletes it from now on finds the seat.
        if await self._book.get(account_id) is None:
            self._broker.remove((account_id,))
        account = self._broker.account(account_id)
        if account is None:
            raise AccountNotFound
        return account

    async def visit(
        self,
        account_id: str,
        call: Call[T],
        *,
        evidence: str,
        seconds: float | None = None,
        forced: bool = False,
        news: Callable[[T], transitions.News | None] = lambda answer: None,
        wanted: Callable[[Account], bool] = lambda account: True,
    ) -> T | None:
        """The answer of ``call``; None when ``wanted`` says no once it is this visit's turn.

        ``news`` turns the answer into news for the pool; a failure is always news.
        ``seconds`` None means the default. Raises AccountNotFound, SetAside, Unreadable, VisitFailed, StoreUnavailable.
        """
        async with self._turn(account_id):
            account = await self._seated(account_id)
            if account.health.cause is Cause.CHALLENGED and not forced:
                raise SetAside
            if not wanted(account):
                return None
            upstream = self.upstream_of(account)
            ref = await self._open(account)
            answer = await self._call(account, upstream, ref, call, evidence, seconds)
            learnt = news(answer)
            if learnt is not None:
                self._tell(account, learnt)
            return answer

    async def _open(self, account: Account) -> AccountRef:
        try:
            return await self._keychain.ref(account)
        except VaultError as error:
            detail, now = str(error), self._clock.now()

            def step(present: Account) -> Account:
                if present.credential_rev != account.credential_rev or present.health.cause is Cause.CHALLENGED:
                    return present
                return transitions.unreadable(present, now, detail)

            self._broker.step(account.id, step)
            raise Unreadable from None

    async def _call(
        self, account: Account, upstream: Upstream, ref: AccountRef, call: Call[T], evidence: str, seconds: float | None
    ) -> T:
        started = self._clock.monotonic()
        outcome: Failure
        try:
            async with asyncio.timeout(seconds or self._seconds):
                return await call(upstream, ref)
        except UpstreamFailure as failure:
            outcome = failure.outcome
        except TimeoutError:
            outcome = Transient(detail="no answer in time", timeout=True)
        except Exception as error:  # noqa: BLE001 - whatever an adapter stumbles over is its own fault, not the account's
            outcome = AdapterDrift(detail=type(error).__name__)
        self._tell(
            account,
            transitions.Settled(
                outcome=outcome,
                at=self._clock.now(),
                model="",
                evidence=evidence,
                credential_rev=account.credential_rev,
            ),
        )
        raise VisitFailed(account, outcome, self._clock.monotonic() - started)

    def _tell(self, visited: Account, news: transitions.News) -> None:
        """News of the credentials that were visited; the account does not count as used by it."""
        policy = self._broker.policy

        def step(present: Account) -> Account:
            if present.credential_rev != visited.credential_rev:
                return present
            return replace(transitions.apply(present, news, policy), last_used_at=present.last_used_at)

        self._broker.step(visited.id, step)

    @asynccontextmanager
    async def _turn(self, account_id: str) -> AsyncIterator[None]:
        """One visit per account at a time; the lock lives as long as somebody needs it."""
        lock, users = self._turns.get(account_id, (asyncio.Lock(), 0))
        self._turns[account_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns[account_id]
            if users > 1:
                self._turns[account_id] = (lock, users - 1)
            else:
                del self._turns[account_id]
