"""One process of the gateway: the order in which its parts start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from poe_gateway import __version__
from poe_gateway.api.asgi import StartFailed
from poe_gateway.api.idempotent import Idempotent
from poe_gateway.bootstrap.accounts import Accounts, open_accounts
from poe_gateway.bootstrap.books import Books, open_books
from poe_gateway.bootstrap.database import Stored, open_database
from poe_gateway.bootstrap.demo_pool import ensure_demo_pool
from poe_gateway.bootstrap.door import raw_routes
from poe_gateway.bootstrap.duties import make_scheduler
from poe_gateway.bootstrap.following import Follower, fetch_credentials, tick
from poe_gateway.bootstrap.lifetime import Ending, Tasks
from poe_gateway.bootstrap.outside import Outside, open_outside
from poe_gateway.bootstrap.pool import Pool, open_pool
from poe_gateway.bootstrap.rooms import Rooms
from poe_gateway.bootstrap.walk import Walk, open_walk
from poe_gateway.chat.tokens import Tokenizer
from poe_gateway.clock import Ids, ServerClock
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Catalog
from poe_gateway.routing.parse import RoutesError
from poe_gateway.routing.words import known_provider
from poe_gateway.settings import Settings
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.catalog import MongoCatalog
from poe_gateway.storage.client import BadMongoUri, password_of
from poe_gateway.storage.doorbell import Doorbell
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.meta import VaultMismatch
from poe_gateway.storage.migrations import MigrationStuck, SchemaTooNew
from poe_gateway.storage.mongod import MongoUnavailable
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.telemetry.lines import LogListener
from poe_gateway.telemetry.metrics import Metrics
from poe_gateway.telemetry.redaction import register_secret

_OPERATORS = (BadMongoUri, MigrationStuck, MongoUnavailable, SchemaTooNew, StoreUnavailable, VaultMismatch)
"""Failures of a start that are the operator's to put right; their messages say how."""


class Gateway:
    """``open`` and ``close`` are the lifespan; ``hot_routes`` are there in between."""

    def __init__(self, settings: Settings, metrics_directory: Path | None) -> None:
        self._settings = settings
        self._clock = ServerClock()
        self._ids = Ids()
        self._started = self._clock.monotonic()
        self._catalog = Catalog()
        self._tokenizer = Tokenizer()
        self.telemetry = Telemetry(LogListener())
        self._metrics = Metrics(known_model=self._catalog.knows, directory=metrics_directory, version=__version__)
        self.telemetry.add(self._metrics)
        self._tasks = Tasks(self.telemetry)
        self._ending = Ending()
        self._rooms: Rooms | None = None
        self.hot_routes: Mapping[str, Idempotent] = {}
        _register_secrets(settings)

    async def open(self) -> Rooms:
        """Start everything. Whatever was started is stopped again when a later part fails.

        Raises StartFailed for what the operator can put right.
        """
        try:
            self._rooms = await self._open()
        except BaseException as error:
            await self.close()
            if isinstance(error, _OPERATORS):
                raise StartFailed(f"The gateway cannot start. {error}") from None
            raise
        return self._rooms

    async def close(self) -> None:
        """Stop everything: requests, then loops, then what is due at the end (see ``lifetime``)."""
        if self._rooms is not None:
            self._rooms.draining = True
        try:
            await asyncio.gather(*[route.drain() for route in dict.fromkeys(self.hot_routes.values())])
            await self._tasks.stop()
        finally:
            await self._ending()

    async def _open(self) -> Rooms:
        settings, clock, ids, telemetry = self._settings, self._clock, self._ids, self.telemetry
        catalog, tasks, ending = self._catalog, self._tasks, self._ending

        stored = await open_database(settings, clock=clock, ids=ids, telemetry=telemetry, ending=ending)
        book, listings = MongoAccountAdmin(stored.db), MongoCatalog(stored.db)
        outside = open_outside(
            settings, book=book, vault=stored.vault, clock=clock, ids=ids, telemetry=telemetry, ending=ending
        )
        pool = await open_pool(
            settings,
            db=stored.db,
            clock=clock,
            ids=ids,
            telemetry=telemetry,
            forget=outside.forget,
            tasks=tasks,
            ending=ending,
        )
        books = await open_books(
            settings,
            stored=stored,
            clock=clock,
            ids=ids,
            prices=pool.prices,
            processes=lambda: len(pool.keeper.membership.live),
            telemetry=telemetry,
            trouble=self._trouble,
            ending=ending,
        )
        tasks.keep("ledger", books.ledger.run)
        tasks.keep("limits", books.limiter.run)
        accounts = open_accounts(
            settings,
            book=book,
            listings=listings,
            vault=stored.vault,
            outside=outside,
            pool=pool,
            books=books,
            catalog=catalog,
            clock=clock,
            ids=ids,
            telemetry=telemetry,
            ending=ending,
        )
        walk = open_walk(
            settings,
            stored=stored,
            book=book,
            outside=outside,
            pool=pool,
            books=books,
            accounts=accounts,
            catalog=catalog,
            tokenizer=self._tokenizer,
            clock=clock,
            ids=ids,
            telemetry=telemetry,
            trouble=self._trouble,
        )

        catalog.replace(await listings.load())
        pool.broker.accept(await pool.accounts.load())
        self._load_tokenizer(pool, outside)
        self._keep_up(stored, outside, pool, books, accounts)
        await self._first_table(walk)
        tasks.keep("routes", walk.routes.run)
        if settings.serve.demo_pool:
            await ensure_demo_pool(accounts, pool, leases=MongoLeases(stored.db), changes=books.changes, ids=ids)
        await accounts.desk.retire_demo(even_alone=not settings.serve.demo_pool)
        scheduler = make_scheduler(
            settings,
            stored=stored,
            book=book,
            pool=pool,
            books=books,
            accounts=accounts,
            clock=clock,
            ids=ids,
            telemetry=telemetry,
        )
        tasks.keep("scheduler", scheduler.run)

        self.hot_routes = raw_routes(
            settings,
            walk=walk,
            books=books,
            pictures=outside.pictures,
            clock=clock,
            ids=ids,
            telemetry=telemetry,
            trouble=self._trouble,
        )
        return Rooms(
            settings,
            stored=stored,
            outside=outside,
            pool=pool,
            books=books,
            accounts=accounts,
            walk=walk,
            catalog=catalog,
            clock=clock,
            metrics=self._metrics,
            started=self._started,
        )

    def _keep_up(self, stored: Stored, outside: Outside, pool: Pool, books: Books, accounts: Accounts) -> None:
        """Everything that goes on behind the requests' backs begins, but for what needs the routing table."""
        clock, tasks = self._clock, self._tasks
        doorbell = Doorbell(stored.db)
        self._ending.close(doorbell.close)
        follower = Follower(
            doorbell=doorbell,
            pool=pool,
            accounts=accounts,
            catalog=self._catalog,
            keyring=books.keyring,
            pricelist=books.pricelist,
            forget=outside.forget,
        )
        tasks.keep("grants", pool.keeper.run)
        tasks.keep("journal", pool.broker.journal.flush_forever)
        tasks.keep("prices", pool.prices.run)
        tasks.keep("decisions", pool.decisions.run)
        tasks.keep("history", pool.history.run)
        tasks.keep("follow", follower.run)
        tasks.keep("tick", partial(tick, pool.broker, pool.prices, clock, self.telemetry))
        tasks.keep("credentials", partial(fetch_credentials, outside.keychain, pool.broker))

    def _load_tokenizer(self, pool: Pool, outside: Outside) -> None:
        """Before the first request, where accounts are that do not tell tokens: it takes a moment, and memory."""
        providers, upstreams = {seat.account.provider for seat in pool.broker.seats.values()}, outside.upstreams
        if any(name in providers and not each.capabilities.tells_tokens for name, each in upstreams.items()):
            self._tokenizer.load()

    async def _first_table(self, walk: Walk) -> None:
        """The routing table comes into force. Raises StartFailed, StoreUnavailable."""
        try:
            await walk.routes.start()
        except RoutesError as error:
            raise StartFailed(f"The gateway cannot start. {error}") from None
        default = self._settings.routing.default_provider
        if default is not None and not known_provider(walk.routes.table, default):
            self._trouble(f"DEFAULT_PROVIDER names {default}, which is no provider and no backend of the routing file")

    def _trouble(self, what: str) -> None:
        self.telemetry.emit(Notice(level="error", message=what))


def _register_secrets(settings: Settings) -> None:
    """Whatever else happens, these texts never reach a log line."""
    secrets: list[SecretStr] = [settings.auth.admin_key, *settings.auth.bootstrap_keys, *settings.vault.keys]
    if settings.mongo.uri is not None and (password := password_of(settings.mongo.uri.get_secret_value())):
        secrets.append(SecretStr(password))
    for secret in secrets:
        register_secret(secret.get_secret_value())
