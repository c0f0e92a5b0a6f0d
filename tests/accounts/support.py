"""The rooms around accounts, on memory stores and the mock upstream, with a clock that tests move by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.accounts.memory import MemoryBook
from poe_gateway.accounts.visits import Visitor
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.clock import Ids
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.pricelist import MemoryPriceRules, PriceList
from poe_gateway.metering.rows import Change
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.memory import MemoryAccounts, MemoryHub
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.routing.catalog import Catalog, Listing
from poe_gateway.routing.table import EMPTY
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.upstreams.mock import MockUpstream
from poe_gateway.vault import Vault, new_key

START = datetime(2026, 5, 20, 12, tzinfo=UTC)
ADMIN_KEY = "adm-0123456789-abcdefghijklmn"


class HandClock:
    """Both clocks, moved by ``pass_``."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._seconds = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._seconds

    def pass_(self, **delta: float) -> None:
        step = timedelta(**delta)
        self._now += step
        self._seconds += step.total_seconds()


class MemoryListings:
    """CatalogStore."""

    def __init__(self) -> None:
        self.listings: dict[str, Listing] = {}

    async def load(self) -> list[Listing]:
        return list(self.listings.values())

    async def put(self, listing: Listing) -> None:
        self.listings[listing.offer] = listing

    async def drop(self, offer: str) -> None:
        self.listings.pop(offer, None)


class House:
    """Everything wired as the composition root does it; also the ``Gateway`` of the admin routes."""

    def __init__(
        self,
        *,
        clock: HandClock | None = None,
        hub: MemoryHub | None = None,
        policy: PoolPolicy | None = None,
        book: MemoryBook | None = None,
        vault: Vault | None = None,
        upstreams: dict[str, Any] | None = None,
    ) -> None:
        self.clock = clock or HandClock()
        self.routes = SimpleNamespace(table=EMPTY, missing=lambda: ())
        self.models_fallback: tuple[str, ...] = ()
        self.hub = hub or MemoryHub(self.clock)
        self.book = book or MemoryBook(self.hub)
        self.store = MemoryAccounts(self.hub)
        self.ids = Ids(7)
        self.mock = MockUpstream(ids=self.ids)
        self.upstreams: dict[str, Any] = {"mock": self.mock, **(upstreams or {})}
        self.policy = policy or PoolPolicy()
        self.noted: list[Change] = []
        self.changes = Changes(self.noted.append, self.clock)
        self.pricelist = PriceList(MemoryPriceRules(), self.clock)
        self.broker = Broker(store=self.store, policy=self.policy, clock=self.clock)
        self.vault = vault or Vault((new_key(),))
        self.keychain = Keychain(self.book, self.vault, self.clock)
        self.catalog = Catalog()
        self.listings = MemoryListings()
        self.visitor = Visitor(
            book=self.book,
            broker=self.broker,
            keychain=self.keychain,
            upstreams=self.upstreams,
            clock=self.clock,
            seconds=5.0,
        )
        self.care = AccountCare(
            visitor=self.visitor,
            broker=self.broker,
            catalog=self.catalog,
            listings=self.listings,
            clock=self.clock,
        )
        self.forgotten: list[str] = []
        self.resized = 0

        async def forget_sessions(account_id: str) -> None:
            self.forgotten.append(account_id)

        def limits_changed() -> None:
            self.resized += 1

        self.desk = AccountDesk(
            book=self.book,
            store=self.store,
            broker=self.broker,
            keychain=self.keychain,
            vault=self.vault,
            upstreams=self.upstreams,
            care=self.care,
            visitor=self.visitor,
            clock=self.clock,
            ids=self.ids,
            forget_sessions=forget_sessions,
            limits_changed=limits_changed,
        )
        self.keyring = KeyRing(
            store=MemoryKeys(), pepper=b"pepper", admin_key=ADMIN_KEY, clock=self.clock, ids=self.ids
        )

    async def add(self, name: str, **credentials: Any) -> Account:
        """A mock account, stored and in the pool; its catalogue is read."""
        account, _ = await self.desk.upsert("mock", name, credentials)
        await self.settle()
        return account

    async def settle(self) -> None:
        """Let background reading end and news be stored."""
        for task in list(self.care.catalogues._loading.values()):
            with suppress(Exception):
                await task
        await self.broker.journal.flush()

    def now(self, account_id: str) -> Account:
        account = self.broker.account(account_id)
        assert account is not None
        return account

    def edit(self, account_id: str, step: Callable[[Account], Account]) -> Account:
        """Change a stored account by hand, as another process would."""
        stored = self.hub.put(step(self.hub.accounts[account_id]))
        self.broker.accept([stored])
        return stored

    def calls(self, account_id: str, operation: str) -> int:
        return self.mock.stats(account_id).calls.get(operation, 0)
