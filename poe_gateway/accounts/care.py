"""The daily care of accounts: balances, warm connections, second chances, catalogues.

All of it goes through visits, so a challenged account is never contacted and none is contacted twice at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from poe_gateway.accounts.visits import SetAside, VisitFailed, Visitor
from poe_gateway.clock import Clock
from poe_gateway.errors import Conflict, GatewayError, UpstreamFailed
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause, Intent, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.outcome import NetworkFault
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Catalog, CatalogStore, Listing, Model
from poe_gateway.upstreams.base import AccountRef, Reading, Upstream

T = TypeVar("T")
_LONGEST_WAIT = timedelta(days=1)
"""Between two tries to bring an invalid account back."""
_OFFER_TRIES = 3
"""Accounts that are asked for the catalogue of their offer before it is given up for now."""
_OFFERS_AT_A_TIME = 4


class NotMeasurable(Conflict):
    """The provider of this account tells no balance."""

    status = 400
    code = "balance_not_available"


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How a round over several accounts went. ``failures``: account id -> code of the error."""

    total: int
    succeeded: int
    skipped: int = 0
    """Not contacted: no longer fit when their turn came, gone, or set aside."""
    failures: dict[str, str] = {}

    def __str__(self) -> str:
        return f"{self.succeeded} of {self.total}, {self.skipped} skipped, {len(self.failures)} failed"


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """How the catalogues were reloaded: number of models by offer, and code of the error by offer."""

    models: dict[str, int]
    errors: dict[str, str]


class AccountCare:
    """Reads balances and catalogues, warms accounts up, gives invalid ones another chance."""

    def __init__(
        self, *, visitor: Visitor, broker: Broker, catalog: Catalog, listings: CatalogStore, clock: Clock
    ) -> None:
        self._visitor = visitor
        self._broker = broker
        self._catalog = catalog
        self._listings = listings
        self._clock = clock
        self._loading: dict[str, asyncio.Task[int]] = {}
        self._retried: dict[str, float] = {}
        self._known: dict[str, datetime] = {}

    async def close(self) -> None:
        """Stop what runs in the background."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Balances.

    async def refresh(self, account_id: str) -> Account:
        """Measure the balance now; the account after it.

        Raises NotMeasurable, AccountNotFound, SetAside, Unreadable, VisitFailed, StoreUnavailable.
        """
        await self.measure(account_id, evidence="operator-refresh")
        return await self._visitor.account(account_id)

    async def measure(
        self,
        account_id: str,
        *,
        evidence: str,
        forced: bool = False,
        wanted: Callable[[Account], bool] = lambda account: True,
    ) -> Reading | None:
        """The same for duties: None when ``wanted`` says no at the last moment."""
        account = await self._visitor.account(account_id)
        if not self._visitor.upstream_of(account).capabilities.balance:
            raise NotMeasurable
        return await self._visitor.visit(
            account_id,
            lambda upstream, ref: upstream.read_balance(ref),
            evidence=evidence,
            forced=forced,
            wanted=wanted,
            news=lambda reading: self._measurement(reading, evidence),
        )

    def _measurement(self, reading: Reading, evidence: str) -> transitions.Measurement:
        return transitions.Measurement(
            at=self._clock.now(),
            points=reading.points,
            subscription_active=reading.subscription_active,
            allotment=reading.allotment,
            next_grant_at=reading.next_grant_at,
            evidence=evidence,
        )

    async def refresh_many(
        self, account_ids: Iterable[str], *, concurrency: int, evidence: str = "refresh-all"
    ) -> Tally:
        """Measure several accounts, at most ``concurrency`` at a time. Failures are told in the tally."""
        return await _tally(
            list(account_ids), lambda account_id: self.measure(account_id, evidence=evidence), concurrency=concurrency
        )

    def measurable(self, states: Iterable[State]) -> list[str]:
        """Accounts in one of these states whose balance can be read, but for those that met a challenge."""
        wanted = frozenset(states)
        return [
            seat.account.id
            for seat in self._broker.seats.values()
            if seat.account.health.state in wanted
            and seat.account.health.cause is not Cause.CHALLENGED
            and self._can(seat.account, "balance")
        ]

    def recently_used(self, since: datetime, stale: datetime) -> list[str]:
        """Accounts used after ``since`` whose balance was last read before ``stale``.

        Not those that are paused or invalid, nor those that rest because they were too fast.
        """
        found: list[str] = []
        for seat in self._broker.seats.values():
            account = seat.account
            used, read = account.last_used_at, account.last_refresh_at
            if (
                used is not None
                and used >= since
                and (read is None or read <= stale)
                and _may_be_measured(account)
                and self._can(account, "balance")
            ):
                found.append(account.id)
        return found

    async def refresh_recent(self, *, since: datetime, stale: datetime, concurrency: int) -> Tally:
        """The duty over ``recently_used``."""
        return await _tally(
            self.recently_used(since, stale),
            lambda account_id: self.measure(account_id, evidence="refresh", wanted=_may_be_measured),
            concurrency=concurrency,
        )

    def _can(self, account: Account, capability: str) -> bool:
        try:
            return bool(getattr(self._visitor.upstream_of(account).capabilities, capability))
        except Conflict:
            return False

    # Warm connections.

    async def prewarm(self, *, concurrency: int, timeout: float, limit: int | None = None) -> Tally:
        """Open the accounts of which this process holds slots, those with most points first.

        ``timeout`` in seconds per account; at most ``limit`` accounts (default: as many as the pool can use at once).
        """
        policy = self._broker.policy
        limit = limit if limit is not None else policy.global_inflight
        seats = [
            seat
            for seat in self._broker.seats.values()
            if seat.held > 0 and seat.used == 0 and seat.allowed and self._can(seat.account, "prewarm")
        ]
        seats.sort(key=lambda seat: -(seat.account.balance.points or 0))

        async def warm(account_id: str) -> bool | None:
            return await self._visitor.visit(
                account_id, _prewarm, evidence="prewarm", timeout=timeout, wanted=self._may_be_warmed
            )

        return await _tally([seat.account.id for seat in seats[:limit]], warm, concurrency=concurrency)

    def _may_be_warmed(self, account: Account) -> bool:
        seat = self._broker.seats.get(account.id)
        return seat is not None and seat.held > 0 and transitions.why_not(account, self._clock.now()) is None

    # Second chances.

    def due_for_revalidation(self, interval: timedelta) -> list[str]:
        """Invalid accounts whose next try has come, longest untried first.

        The wait doubles with each failure (it is as long as the account has been invalid at its last failure), from
        ``interval`` up to a day. Never accounts that met a challenge or are paused.
        """
        now = self._clock.now()
        due: list[tuple[float, datetime, str]] = []
        for seat in self._broker.seats.values():
            account = seat.account
            if not _may_be_revalidated(account):
                continue
            failed = account.last_error.at if account.last_error is not None else account.health.since
            wait = min(max(interval, failed - account.health.since), _LONGEST_WAIT)
            if failed + wait <= now:
                due.append((self._retried.get(account.id, float("-inf")), failed, account.id))
        return [account_id for _, _, account_id in sorted(due)]

    async def revalidate(self, *, interval: float, limit: int = 3) -> Tally:
        """Try a few invalid accounts again, one after the other; stop when the network itself fails.

        ``interval``: seconds before the first second chance.
        """
        chosen = self.due_for_revalidation(timedelta(seconds=interval))[:limit]
        done, failures = 0, {}
        for account_id in chosen:
            self._retried[account_id] = self._clock.monotonic()
            try:
                done += await self._revalidate(account_id)
            except VisitFailed as failed:
                failures[account_id] = failed.code or "failed"
                if isinstance(failed.outcome, NetworkFault):
                    break
            except GatewayError as error:
                failures[account_id] = error.code or "failed"
        skipped = len(chosen) - done - len(failures)
        return Tally(total=len(chosen), succeeded=done, skipped=skipped, failures=failures)

    async def _revalidate(self, account_id: str) -> bool:
        account = await self._visitor.account(account_id)
        if self._can(account, "balance"):
            answer = await self.measure(account_id, evidence="revalidate", wanted=_may_be_revalidated)
            return answer is not None
        said = await self._visitor.visit(
            account_id,
            lambda upstream, ref: upstream.probe(ref),
            evidence="revalidate",
            wanted=_may_be_revalidated,
            news=lambda _: transitions.Measurement(at=self._clock.now(), points=None, evidence="revalidate"),
        )
        return said is not None

    # Catalogues.

    def load_models_soon(self, offer: str) -> None:
        """Read the catalogue of an offer in the background unless it is known or being read."""
        if not self._catalog.has(offer):
            self._load(offer)

    async def load_models(self, offer: str) -> int:
        """Read the catalogue of an offer, store it and use it; number of models.

        Joins a reading that runs already. Raises UpstreamFailed when no account of the offer could tell.
        """
        return await asyncio.shield(self._load(offer))

    def _load(self, offer: str) -> asyncio.Task[int]:
        task = self._loading.get(offer)
        if task is None:
            task = self._loading[offer] = asyncio.create_task(self._read_models(offer), name=f"catalogue {offer}")

            def finished(done: asyncio.Task[int]) -> None:
                self._loading.pop(offer, None)
                if not done.cancelled():
                    done.exception()  # told to whoever waits; in the background the next round tries again

            task.add_done_callback(finished)
        return task

    async def _read_models(self, offer: str) -> int:
        now = self._clock.now()
        fit = [seat for seat in self._broker.seats_of(offer) if transitions.why_not(seat.account, now) is None]
        fit.sort(key=lambda seat: (seat.used, seat.account.error_count))
        error: GatewayError = UpstreamFailed("No account of this offer is in service.", code="no_accounts")
        for seat in fit[:_OFFER_TRIES]:
            try:
                models = await self._visitor.visit(
                    seat.account.id, _list_models, evidence="catalogue", wanted=_in_service
                )
            except GatewayError as failed:
                error = failed
                continue
            if models:
                await self._listings.put(Listing(offer=offer, models=tuple(models), fetched_at=self._clock.now()))
                await self.sync_catalog()
                return len(models)
            error = UpstreamFailed("The upstream told no models.", code="empty_catalogue")
        raise error

    async def reload_models(self, *, older_than: datetime | None = None) -> Reload:
        """Read the catalogues of all offers that have accounts (only those older than a moment); forget the others'."""
        offers = self._broker.offers()
        for listing in await self._listings.load():
            if listing.offer not in offers:
                await self._listings.drop(listing.offer)
        due = [offer for offer in offers if older_than is None or self._older(offer, older_than)]
        models: dict[str, int] = {}
        errors: dict[str, str] = {}

        async def load(offer: str) -> None:
            try:
                models[offer] = await self.load_models(offer)
            except GatewayError as error:
                errors[offer] = error.code or "failed"

        await _bounded(due, load, concurrency=_OFFERS_AT_A_TIME)
        await self.sync_catalog()
        return Reload(models=models, errors=errors)

    def _older(self, offer: str, moment: datetime) -> bool:
        fetched = self._catalog.fetched_at(offer)
        return fetched is None or fetched < moment

    async def sync_catalog(self) -> bool:
        """Take over the stored catalogues, whoever read them; True when something was new."""
        listings = await self._listings.load()
        known = {listing.offer: listing.fetched_at for listing in listings}
        if known == self._known:
            return False
        self._catalog.replace(listings)
        self._known = known
        return True


async def _prewarm(upstream: Upstream, ref: AccountRef) -> bool:
    await upstream.prewarm(ref)
    return True


async def _list_models(upstream: Upstream, ref: AccountRef) -> Sequence[Model]:
    return await upstream.list_models(ref)


def _in_service(account: Account) -> bool:
    return account.intent is Intent.ENABLED and account.health.state is State.ACTIVE


def _may_be_measured(account: Account) -> bool:
    return (
        account.intent is Intent.ENABLED
        and account.health.state is not State.INVALID
        and account.health.cause is not Cause.RATE_LIMITED
    )


def _may_be_revalidated(account: Account) -> bool:
    return (
        account.intent is Intent.ENABLED
        and account.health.state is State.INVALID
        and account.health.cause in (Cause.UNAUTHORIZED, Cause.VAULT)
    )


async def _bounded(keys: Iterable[str], act: Callable[[str], Awaitable[None]], *, concurrency: int) -> None:
    """``act`` on every key, ``concurrency`` at a time, in order."""
    line = iter(keys)

    async def worker() -> None:
        for key in line:
            await act(key)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(max(1, concurrency)):
            tasks.create_task(worker())


async def _tally(account_ids: list[str], act: Callable[[str], Awaitable[object]], *, concurrency: int) -> Tally:
    """``act`` on every account; None counts as skipped, a GatewayError as failure."""
    succeeded = skipped = 0
    failures: dict[str, str] = {}

    async def one(account_id: str) -> None:
        nonlocal succeeded, skipped
        try:
            if await act(account_id) is None:
                skipped += 1
            else:
                succeeded += 1
        except SetAside:
            skipped += 1
        except StoreUnavailable:
            failures[account_id] = "database_unavailable"
        except GatewayError as error:
            failures[account_id] = error.code or "failed"

    await _bounded(account_ids, one, concurrency=concurrency)
    return Tally(total=len(account_ids), succeeded=succeeded, skipped=skipped, failures=failures)
