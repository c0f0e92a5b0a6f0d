"""Catalogues: which models each offer serves, read from its upstream, stored, and shared by all processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec

from poe_gateway.accounts.rounds import bounded
from poe_gateway.accounts.visits import Visitor
from poe_gateway.clock import Clock
from poe_gateway.errors import GatewayError, UpstreamFailed
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Intent, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Catalog, CatalogStore, Listing, Model
from poe_gateway.upstreams.base import AccountRef, Upstream

_OFFER_TRIES = 3
"""Accounts that are asked for the catalogue of their offer before it is given up for now."""
_OFFERS_AT_A_TIME = 4


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """How the catalogues were reloaded: number of models by offer, and code of the error by offer."""

    models: dict[str, int]
    errors: dict[str, str]


class Catalogues:
    """Reads catalogues through visits and keeps the catalogue in memory in step with the stored one."""

    def __init__(
        self, *, visitor: Visitor, broker: Broker, catalog: Catalog, listings: CatalogStore, clock: Clock
    ) -> None:
        self._visitor = visitor
        self._broker = broker
        self._catalog = catalog
        self._listings = listings
        self._clock = clock
        self._loading: dict[str, asyncio.Task[int]] = {}
        self._known: dict[str, datetime] = {}

    async def close(self) -> None:
        """Stop what runs in the background."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def load_soon(self, offer: str) -> None:
        """Read the catalogue of an offer in the background unless it is known or being read."""
        if not self._catalog.has(offer):
            self._load(offer)

    async def load(self, offer: str) -> int:
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
                await self.sync()
                return len(models)
            error = UpstreamFailed("The upstream told no models.", code="empty_catalogue")
        raise error

    async def reload(self, *, older_than: datetime | None = None) -> Reload:
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
                models[offer] = await self.load(offer)
            except GatewayError as error:
                errors[offer] = error.code or "failed"
            except StoreUnavailable:
                errors[offer] = "database_unavailable"

        await bounded(due, load, concurrency=_OFFERS_AT_A_TIME)
        await self.sync()
        return Reload(models=models, errors=errors)

    def _older(self, offer: str, moment: datetime) -> bool:
        fetched = self._catalog.fetched_at(offer)
        return fetched is None or fetched < moment

    async def sync(self) -> bool:
        """Take over the stored catalogues, whoever read them; True when something was new."""
        listings = await self._listings.load()
        known = {listing.offer: listing.fetched_at for listing in listings}
        if known == self._known:
            return False
        self._catalog.replace(listings)
        self._known = known
        return True


async def _list_models(upstream: Upstream, ref: AccountRef) -> Sequence[Model]:
    return await upstream.list_models(ref)


def _in_service(account: Account) -> bool:
    return account.intent is Intent.ENABLED and account.health.state is State.ACTIVE
