"""The composition root: the only file that names every concrete part, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from poe_gateway import __version__
from poe_gateway.accounts.audit import BalanceAudit
from poe_gateway.accounts.books import AccountBooks
from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.accounts.managed import ManagedAccounts
from poe_gateway.accounts.references import References, files_from
from poe_gateway.accounts.visits import Visitor
from poe_gateway.api.admin import router as admin_router
from poe_gateway.api.application import Lifespan, create_app
from poe_gateway.api.asgi import Front, HotRoute, StartFailed
from poe_gateway.api.idempotent import Idempotent
from poe_gateway.api.second_door import TwoDoors
from poe_gateway.api.traffic import TrafficNotes
from poe_gateway.api.v1.hot import HotParts, hot_routes
from poe_gateway.api.v1.pictures import Pictures
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.chat.tokens import Tokenizer
from poe_gateway.clock import Ids, ServerClock
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.dispatch.charging import Charging
from poe_gateway.dispatch.dispatcher import Dispatcher, WalkPolicy
from poe_gateway.dispatch.prefixes import PrefixBook
from poe_gateway.dispatch.router import Router
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.explain.decisions import DecisionLog
from poe_gateway.explain.history import HistoryLog
from poe_gateway.explain.witness import Witness
from poe_gateway.idempotency.book import Book
from poe_gateway.limits.limiter import Limiter
from poe_gateway.limits.terms import Rates, Scope
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.amends import Price, Row, rule_price
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.learned import Learned
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.matching import BookEntry
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.metering.traffic import TrafficShape
from poe_gateway.outbound.allowed import Allowed, of_addresses, read_allowed
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.forecast import Forecast, forecast
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.policy import DailyReset, PoolPolicy, Strategy
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.reconcile import Reconciliation
from poe_gateway.pool.store import Changes as AccountChanges
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.pool.usage import ewma
from poe_gateway.routes import Routes
from poe_gateway.routing.catalog import Catalog
from poe_gateway.routing.health import Standing
from poe_gateway.routing.parse import RoutesError
from poe_gateway.routing.plan import public_names
from poe_gateway.routing.table import Table
from poe_gateway.routing.words import known_provider
from poe_gateway.scheduler.leadership import Leadership
from poe_gateway.scheduler.runner import Scheduler
from poe_gateway.scheduler.timetable import Schedule, timetable
from poe_gateway.settings import Settings
from poe_gateway.settings.last_good import LastGood, this_boot
from poe_gateway.settings.lookup import Lookup
from poe_gateway.settings.routes import backends_of
from poe_gateway.storage import schema
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.audit import MongoAudit
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.catalog import MongoCatalog
from poe_gateway.storage.client import (
    BadMongoUri,
    Client,
    Database,
    StoreRefused,
    connect,
    hosts,
    password_of,
    ping,
    server_time,
)
from poe_gateway.storage.decisions import MongoDecisions
from poe_gateway.storage.doorbell import Doorbell
from poe_gateway.storage.duties import MongoDuties
from poe_gateway.storage.embedded import EmbeddedMongo, MongoUnavailable, ensure_mongod
from poe_gateway.storage.grants import MongoGrants
from poe_gateway.storage.history import MongoHistory
from poe_gateway.storage.idempotency import MongoAnswers
from poe_gateway.storage.keys import MongoKeys
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.ledger import MongoLedger
from poe_gateway.storage.meta import MongoMeta, VaultMismatch
from poe_gateway.storage.migrations import MigrationStuck, SchemaTooNew, migrate
from poe_gateway.storage.orgs import MongoOrgs
from poe_gateway.storage.places import LinuxPlaces
from poe_gateway.storage.price_rules import MongoPriceRules
from poe_gateway.storage.prices import MongoPrices
from poe_gateway.storage.reports import MongoReports
from poe_gateway.storage.responses import MongoKept
from poe_gateway.storage.sessions import MongoSessions
from poe_gateway.storage.traffic import MongoTraffic
from poe_gateway.storage.usage import MongoUsage
from poe_gateway.telemetry.events import (
    Alert,
    GrantsChanged,
    LeaseLost,
    LoopLag,
    Notice,
    WaitFinished,
    WaitResult,
)
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.telemetry.lines import LogListener
from poe_gateway.telemetry.metrics import Metrics
from poe_gateway.telemetry.redaction import register_secret
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.upstreams.registry import build_upstreams
from poe_gateway.vault import Vault

_FOLLOW = 0.5
"""Seconds between two looks at what other processes changed; a doorbell shortens it."""
_TICK = 0.25
_DATABASE_PATIENCE = 15.0
"""Seconds that a start waits for the database."""
_SKEW = 5.0
"""Seconds by which this machine's calendar may be off before its operator is told."""
_USAGE_SEEN = timedelta(hours=48)
_DEMO_LEASE = "demo-pool"
_DEMO_PATIENCE = 20.0
"""Seconds after which the making of the demo pool by a process that died is taken over."""
_OPERATORS = (BadMongoUri, MigrationStuck, MongoUnavailable, SchemaTooNew, StoreUnavailable, VaultMismatch)
"""Failures of a start that are the operator's to put right; their messages say how."""
_FETCH_NEXT = 0.05
_FETCH_PAUSE = 1.0


def pool_policy(settings: Settings) -> PoolPolicy:
    """The pool's own policy value."""
    pool, schedule = settings.pool, settings.schedule
    return PoolPolicy(
        max_inflight=pool.max_inflight_per_account,
        global_inflight=pool.global_inflight_limit,
        depleted_threshold=pool.depleted_threshold,
        cooldown=pool.cooldown_seconds,
        cooldown_cap=pool.cooldown_max_seconds,
        retry_after_cap=pool.retry_after_max_seconds,
        strategy=Strategy(pool.strategy),
        model_strategies=tuple((pattern, Strategy(word)) for pattern, word in pool.model_strategies),
        acquire_timeout=pool.acquire_timeout_seconds,
        queue_limit=pool.queue_limit,
        grant_lifetime=pool.grant_lifetime_seconds,
        request_timeout=settings.serve.request_timeout_seconds,
        reset=DailyReset(zone=schedule.reset_timezone, hour=schedule.reset_hour, points=schedule.reset_point_balance),
    )


class Gateway:
    """All rooms of one process. ``open`` and ``close`` are the lifespan."""

    def __init__(self, settings: Settings, metrics_directory: Path | None) -> None:
        self.settings = settings
        self.clock = ServerClock()
        self.ids = Ids()
        self.draining = False
        self.tokenizer = Tokenizer()
        self.started = self.clock.monotonic()
        self.catalog = Catalog()
        self.telemetry = Telemetry(LogListener())
        self._metrics = Metrics(known_model=self._knows, directory=metrics_directory, version=__version__)
        self.telemetry.add(self._metrics)
        self._tasks: set[asyncio.Task[None]] = set()
        self._mongod: EmbeddedMongo | None = None
        self._idempotent: list[Idempotent] = []
        self.models_fallback = settings.routing.models_fallback
        self._closers: list[Callable[[], Awaitable[None]]] = []
        _register_secrets(settings)

    def _knows(self, model: str) -> bool:
        return self.catalog.knows(model)

    async def open(self) -> None:
        """Start everything. Whatever was started is stopped again when a later part fails.

        Raises StartFailed for what the operator can put right.
        """
        try:
            await self._open()
        except BaseException as error:
            await self.close()
            if isinstance(error, _OPERATORS):
                raise StartFailed(f"The gateway cannot start. {error}") from None
            raise

    async def _open(self) -> None:
        settings, clock, ids = self.settings, self.clock, self.ids
        vault = Vault(tuple(key.get_secret_value() for key in settings.vault.keys))
        uri = await self._mongo_uri()
        client = connect(uri)
        self._closers.append(client.close)
        await self._database_answers(client, hosts(uri))
        self._client = client
        db = client[settings.mongo.db]
        await self._set_clock(client)
        await migrate(db, ids.new("migrator", 8), clock)
        explain = settings.explain
        size = explain.decisions_store_mb
        if size and not await schema.ensure_capped(db, size):
            message = "the database does not let the store of decision records be resized"
            self.telemetry.emit(Notice(level="warning", message=message))
        meta = MongoMeta(db)
        await meta.self_test(vault)
        pepper = await meta.pepper(vault, ids)

        self.accounts = accounts = MongoAccounts(db, clock)
        book = MongoAccountAdmin(db)
        self.listings = MongoCatalog(db)
        sessions_store = MongoSessions(db, settings.session.ttl_seconds)
        references = References(Lookup(settings.config_file), files_from(self._routes_folder()))
        keychain = Keychain(book, vault, clock, references.resolved)
        self._keychain = keychain

        self.decisions = DecisionLog(MongoDecisions(db) if size else None)
        self.history = HistoryLog(MongoHistory(db, explain.history_days))
        self.witness = witness = Witness(
            telemetry=self.telemetry, history=self.history, decisions=self.decisions, clock=clock
        )
        self.usage = MongoUsage(db)
        self.prices = prices = PriceBook(MongoPrices(db), self.usage, ids)
        prices.on_changed = witness.price_changed
        await prices.load()

        self.broker = broker = Broker(
            store=accounts, policy=pool_policy(settings), clock=clock, changed=self._account_changed
        )
        broker.on_step = witness.stepped
        broker.on_incident = witness.incident
        self.grants = MongoGrants(db, LinuxPlaces())
        self.keeper = keeper = Keeper(broker=broker, store=self.grants, clock=clock, ids=ids)
        witness.process = keeper.instance
        keeper.on_lost = self._lease_lost
        broker.on_granted = self._granted
        broker.on_waited = self._waited
        self.sessions = SessionBook(
            sessions_store,
            alone=lambda: len(keeper.membership.live) == 1 and keeper.valid(),
            lost=lambda what: self.telemetry.emit(Notice(level="warning", message=what)),
        )
        await self._open_books(db, vault, pepper)

        allowed = self._allowed()
        self.guard = Guard(allowed, refused=self._refused_address)
        http = new_session(guard=self.guard)
        self._closers.append(http.close)
        # Callers' addresses: what the operator's own settings lead to is not for them.
        fetcher = ImageFetcher(Guard(read_allowed(settings.routing.outbound_allow)))
        self._closers.append(fetcher.close)
        self.pictures = Pictures(fetcher)
        self.upstreams = build_upstreams(
            session=http,
            clock=clock,
            ids=ids,
            poe_base_url=settings.poe.base_url,
            poe_ws_base_url=settings.poe.ws_base_url,
            poe_revision=settings.poe.revision or None,
            poe_auto_fetch_revision=settings.poe.auto_fetch_revision,
            images=fetcher,
        )
        for upstream in self.upstreams.values():
            self._closers.append(upstream.close)

        visitor = Visitor(book=book, broker=broker, keychain=keychain, upstreams=self.upstreams, clock=clock)
        self.books = AccountBooks(
            visitor=visitor,
            broker=broker,
            rows=self.rows,
            note=self.ledger.note,
            clock=clock,
            drift=self.telemetry.emit,
            price=self._price_of,
        )
        self.care = AccountCare(
            visitor=visitor,
            broker=broker,
            catalog=self.catalog,
            listings=self.listings,
            clock=clock,
            newcomers=settings.schedule.prewarm_concurrency,
            audit=BalanceAudit(policy=broker.policy, prices=prices, alert=witness.alert, judged=self._judged),
        )
        self._closers.append(self.care.close)
        self.desk = AccountDesk(
            book=book,
            store=accounts,
            broker=broker,
            keychain=keychain,
            vault=vault,
            upstreams=self.upstreams,
            care=self.care,
            visitor=visitor,
            clock=clock,
            ids=ids,
            forget_sessions=sessions_store.drop_account,
            limits_changed=keeper.limits_changed,
            acted=witness.acted,
            guard=self.guard,
        )
        self.shelf = Shelf(
            store=MongoKept(db), vault=vault, ids=ids, ttl=settings.routing.responses_ttl_seconds, lost=self._trouble
        )
        self.routes = self._routing(db, book, references, allowed, pepper)
        session = settings.session
        self.prefixes = PrefixBook(max_uses=session.max_requests, max_seconds=session.max_seconds)
        self.sessions.on_flush = self.prefixes.flush
        self.dispatcher = Dispatcher(
            prices=prices,
            prefixes=self.prefixes if session.prefix_affinity else None,
            decided=witness.decided,
            charging=self.charging,
            count=self.tokenizer.count,
            broker=broker,
            keychain=keychain,
            upstreams=self.upstreams,
            catalog=self.catalog,
            sessions=self.sessions,
            telemetry=self.telemetry,
            clock=clock,
            policy=WalkPolicy(
                acquire_timeout=settings.pool.acquire_timeout_seconds,
                request_timeout=settings.serve.request_timeout_seconds,
                max_attempts=settings.pool.max_attempts,
                strict_sessions=session.affinity == "strict",
                hold_back=settings.pool.hold_back_seconds,
                affinity_requests=session.max_requests,
                affinity_seconds=session.max_seconds,
                retry_delay=settings.routing.retry_delay_seconds,
            ),
        )
        self.router = Router(
            dispatcher=self.dispatcher,
            catalog=self.catalog,
            telemetry=self.telemetry,
            clock=clock,
            table=lambda: self.routes.table,
            default_provider=settings.routing.default_provider,
            count=self.tokenizer.count,
        )
        self.catalog.replace(await self.listings.load())
        broker.accept(await accounts.load())
        self._load_tokenizer()
        self._doorbell = Doorbell(db)
        self._closers.append(self._doorbell.close)
        self._keep_running("grants", keeper.run)
        self._keep_running("journal", broker.journal.flush_forever)
        self._keep_running("prices", prices.run)
        self._keep_running("decisions", self.decisions.run)
        self._keep_running("history", self.history.run)
        self._keep_running("follow", self._follow)
        self._keep_running("tick", self._tick)
        self._keep_running("credentials", self._fetch_credentials)
        try:
            await self.routes.start()
        except RoutesError as error:
            raise StartFailed(f"The gateway cannot start. {error}") from None
        self._keep_running("routes", self.routes.run)
        default = settings.routing.default_provider
        if default is not None and not known_provider(self.routes.table, default):
            self._trouble(f"DEFAULT_PROVIDER names {default}, which is no provider and no backend of the routing file")
        if settings.serve.demo_pool:
            await self._ensure_demo_pool(MongoLeases(db))
        await self.desk.retire_demo(even_alone=not settings.serve.demo_pool)
        self._keep_running("scheduler", self._scheduler(db, vault).run)

    def _load_tokenizer(self) -> None:
        """Before the first request, where accounts are that do not tell tokens: it takes a moment, and memory."""
        providers = {seat.account.provider for seat in self.broker.seats.values()}
        if any(name in providers and not each.capabilities.tells_tokens for name, each in self.upstreams.items()):
            self.tokenizer.load()

    def _routes_folder(self) -> Path | None:
        """Where relative paths of the routing file begin."""
        file = self.settings.routing.routes_file
        return file.parent if file is not None else None

    def _allowed(self) -> Allowed:
        """What may be connected to although it is not public, whatever the routing file says. Raises StartFailed."""
        settings = self.settings
        own = [each for each in (settings.poe.base_url, settings.poe.ws_base_url) if each is not None]
        own += [each.base_url for each in settings.routing.providers if each.base_url is not None]
        try:
            return read_allowed(settings.routing.outbound_allow) | of_addresses(own)
        except ValueError as error:
            raise StartFailed(f"The gateway cannot start. OUTBOUND_ALLOW: {error}.") from None

    def _refused_address(self, where: str) -> None:
        message = "a connection into a private network was refused; see OUTBOUND_ALLOW"
        self.telemetry.emit(Notice(level="warning", message=message, fields={"where": where}))

    def _routing(
        self, db: Database, book: MongoAccountAdmin, references: References, allowed: Allowed, secret: bytes
    ) -> Routes:
        options = self.settings.routing
        boot = this_boot()
        managed = ManagedAccounts(
            desk=self.desk,
            book=book,
            broker=self.broker,
            catalogues=self.care.catalogues,
            catalog=self.catalog,
            upstreams=self.upstreams,
            references=references,
            turns=MongoLeases(db),
            changes=self.changes,
            clock=self.clock,
            secret=secret,
            owner=self.ids.new("routes", 8),
        )
        return Routes(
            path=options.routes_file,
            references=references,
            managed=managed,
            keyring=self.keyring,
            guard=self.guard,
            telemetry=self.telemetry,
            clock=self.clock,
            allowed=allowed,
            given=backends_of(options.providers),
            applied=self._routed,
            kept=None if boot is None else LastGood(self.settings.mongo.data_dir / "routes.last.json", boot),
        )

    def _routed(self, table: Table) -> None:
        """Another routing table is in force."""
        self.router.health.keep(table.backends)
        self.keyring.public.let_in(public_names(table))

    def backends_health(self) -> Mapping[str, Standing]:
        """How the backends of the routing file do, as this process saw it."""
        return self.router.health.standings(self.clock.monotonic())

    async def _open_books(self, db: Database, vault: Vault, pepper: bytes) -> None:
        """Who calls, what he may use, what it costs, and where that is written."""
        settings, clock, ids, limits = self.settings, self.clock, self.ids, self.settings.limits
        self.buckets = MongoBuckets(db, ids)
        self.rows = MongoLedger(db, settings.money.ledger_days)
        self.audit = MongoAudit(db, pepper, clock, settings.audit.changes_days)
        self.traffic = MongoTraffic(db, settings.audit.traffic_days, vault)
        self.shape = TrafficShape(pepper)
        self.ledger = Ledger(
            directory=settings.mongo.data_dir / "spool",
            rows=self.rows,
            charger=self.buckets,
            clock=clock,
            ids=ids,
            traffic=self.traffic,
            changes=self.audit,
        )
        self.ledger.on_trouble = self._trouble
        await self.ledger.start()
        self.repetitions = Book(
            store=MongoAnswers(db),
            vault=vault,
            pepper=pepper,
            process=self.ledger.process,
            ttl=settings.idempotency.ttl_seconds,
        )
        self.changes = Changes(self.ledger.note, clock)
        self.limiter = Limiter(
            store=self.buckets,
            process=self.ledger.process,
            clock=clock,
            live=lambda: len(self.keeper.membership.live),
        )
        self.reports = MongoReports(db, settings.money.budget_zone)
        self.unpriced = settings.money.unpriced
        self.windows = Windows(ZoneInfo(settings.money.budget_zone))
        self.pricelist = PriceList(MongoPriceRules(db, clock), clock)
        await self.pricelist.load()
        self.keyring = KeyRing(
            store=MongoKeys(db, clock),
            orgs=MongoOrgs(db, clock),
            pepper=pepper,
            admin_key=settings.auth.admin_key.get_secret_value(),
            clock=clock,
            ids=ids,
            defaults=Rates(
                requests_minute=limits.requests_per_minute_default, tokens_minute=limits.tokens_per_minute_default
            ),
            everywhere=Scope(
                kind="global",
                id="",
                rates=Rates(
                    requests_minute=limits.requests_per_minute_global, tokens_minute=limits.tokens_per_minute_global
                ),
            ),
            failures_per_minute=limits.auth_failures_per_minute,
        )
        for key in await self.keyring.start(key.get_secret_value() for key in settings.auth.bootstrap_keys):
            made = {"name": key.name, "bootstrap": True}
            self.changes.record("key.create", f"key:{key.id}", after=made, actor="settings")
        self.charging = Charging(
            ledger=self.ledger,
            limiter=self.limiter,
            windows=self.windows,
            prices=self.pricelist,
            learned=Learned(),
            points=self.prices,
            clock=clock,
            unpriced=settings.money.unpriced,
            trouble=self._trouble,
        )
        self._keep_running("ledger", self.ledger.run)
        self._keep_running("limits", self.limiter.run)

    def _price_of(self, row: Row, entry: BookEntry) -> Price | None:
        """What an exchange costs by the upstream's book, in the row's unit."""
        return rule_price(self.pricelist.rule(row["org"], row["provider"], row["model"], row["at"]), row, entry)

    def _judged(self, account_id: str, judged: Reconciliation) -> None:
        self.witness.judged(account_id, judged)
        self.books.measured(account_id, judged)

    def _trouble(self, what: str) -> None:
        self.telemetry.emit(Notice(level="error", message=what))

    def _scheduler(self, db: Database, vault: Vault) -> Scheduler:
        schedule = self.settings.schedule
        return Scheduler(
            timetable=timetable(
                Schedule(
                    refresh_interval=schedule.refresh_interval_seconds,
                    recent_active_minutes=schedule.recent_active_minutes,
                    revalidate_interval=schedule.revalidate_interval_seconds,
                    models_ttl=self.settings.routing.models_ttl_seconds,
                    prewarm_on_startup=schedule.prewarm_on_startup,
                    prewarm_concurrency=schedule.prewarm_concurrency,
                    prewarm_account_timeout=schedule.prewarm_account_timeout_seconds,
                ),
                care=self.care,
                broker=self.broker,
                store=self.accounts,
                records=MongoDuties(db),
                sealed=MongoAccountAdmin(db),
                vault=vault,
                telemetry=self.telemetry,
                books=self.books,
                ledger=self.ledger,
            ),
            leadership=Leadership(lease=MongoLeases(db), owner=self.ids.new("sched", 12), clock=self.clock),
            telemetry=self.telemetry,
            clock=self.clock,
        )

    async def _mongo_uri(self) -> str:
        mongo = self.settings.mongo
        if mongo.uri is not None:
            return mongo.uri.get_secret_value()
        self._mongod = await ensure_mongod(mongo.data_dir, self.clock)
        return self._mongod.uri

    async def _database_answers(self, client: Client, where: str) -> None:
        """Wait a little for the database: it may be starting too, or be away just when a worker is replaced."""
        deadline = self.clock.monotonic() + _DATABASE_PATIENCE
        told = False
        while True:
            try:
                return await ping(client)
            except StoreRefused:
                raise
            except StoreUnavailable as error:
                if self.clock.monotonic() >= deadline:
                    raise StartFailed(f"The gateway cannot start. {error} at {where}; see MONGODB_URI.") from None
                if not told:
                    message = f"{error} at {where}; trying again for {_DATABASE_PATIENCE:g} seconds"
                    self.telemetry.emit(Notice(level="warning", message=message))
                    told = True
            await asyncio.sleep(0.5)

    async def _set_clock(self, client: Client) -> None:
        """Everything that expires goes by the database's clock."""
        sent = self.clock.monotonic()
        self.clock.sync(await server_time(client), sent, self.clock.monotonic())
        if abs(self.clock.skew) > _SKEW:
            self.telemetry.emit(
                Alert(
                    kind="clock_skew",
                    message="this machine's calendar is off; the database's is used",
                    fields={"seconds": round(self.clock.skew, 1)},
                )
            )

    def hot_routes(self) -> Mapping[str, HotRoute]:
        """The raw ASGI routes, with and without the ``/v1`` prefix."""
        settings = self.settings
        routes = hot_routes(
            HotParts(
                router=self.router,
                keyring=self.keyring,
                telemetry=self.telemetry,
                clock=self.clock,
                ids=self.ids,
                book=self.repetitions,
                shelf=self.shelf,
                pictures=self.pictures,
                traffic=self._traffic_notes(),
                max_body=settings.serve.max_body_bytes,
                notice_after=settings.pool.queue_notice_seconds,
                streams=settings.idempotency.streams,
                patience=settings.pool.acquire_timeout_seconds + settings.serve.request_timeout_seconds,
            )
        )
        self._idempotent = list(dict.fromkeys(routes.values()))
        return routes

    def _traffic_notes(self) -> TrafficNotes | None:
        if not self.settings.audit.traffic_days:
            return None
        return TrafficNotes(
            shape=self.shape, note=self.ledger.note, seal=self.traffic.seal, clock=self.clock, trouble=self._trouble
        )

    def exposition(self) -> tuple[bytes, str]:
        """Prometheus metrics over all processes."""
        return self._metrics.exposition()

    async def forecast(self, hours: int) -> Forecast:
        """What the pool can still pay, hour by hour. Raises StoreUnavailable."""
        policy, now = self.broker.policy, self.clock.now()
        rates = ewma(await self.usage.read(now - _USAGE_SEEN), now)
        accounts = [seat.account for seat in self.broker.seats.values()]
        # A large pool takes a while to reckon: not on the event loop.
        return await asyncio.to_thread(
            forecast,
            accounts,
            rates,
            self.prices.prices(),
            now,
            reset=policy.reset,
            threshold=policy.depleted_threshold,
            kept=lambda account: transitions.kept_for_owner(account, policy),
            hours=hours,
        )

    async def ping(self) -> None:
        """Return when the database answers. Raises StoreUnavailable."""
        await ping(self._client)

    # What goes on all the time.

    def _keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for ever; an unforeseen end is told and the loop begun again."""

        async def forever() -> None:
            while True:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - a loop of the house must not die silently
                    detail = {"task": name, "error": type(error).__name__, "detail": str(error)[:200]}
                    self.telemetry.emit(Notice(level="error", message="a background task failed", fields=detail))
                await asyncio.sleep(1.0)

        task = asyncio.create_task(forever(), name=name)
        self._tasks.add(task)

    async def _follow(self) -> None:
        """Take over what other processes stored: accounts and keys."""
        while True:
            await self._doorbell.wait(_FOLLOW)
            try:
                changes = await self.accounts.changes()
            except StoreUnavailable:
                await asyncio.sleep(_FOLLOW)
                continue
            # Told only once: whatever fails from here on, they must be taken over.
            await self._take_over(changes)
            try:
                await self.keyring.refresh()
                await self.pricelist.refresh()
            except StoreUnavailable:
                await asyncio.sleep(_FOLLOW)

    async def _take_over(self, changes: AccountChanges) -> None:
        """Changed and removed accounts come into force here."""
        limits = any(
            (known := self.broker.account(account.id)) is not None and known.max_inflight != account.max_inflight
            for account in changes.stored
        )
        fresh = any(self.broker.account(account.id) is None for account in changes.stored)
        self.broker.accept(changes.stored)
        self.broker.remove(changes.removed)
        if fresh:
            with contextlib.suppress(StoreUnavailable):
                await self.desk.retire_demo()
                if not all(self.catalog.has(account.offer) for account in changes.stored):
                    await self.care.catalogues.sync()
        for account_id in changes.removed:
            self.sessions.forget_account(account_id)
            await self._forget(account_id)
        if limits:
            self.keeper.limits_changed()
        self.keeper.ring()

    async def _fetch_credentials(self) -> None:
        """Sealed credentials of the accounts held here are at hand before a request needs them."""
        while True:
            held = (seat.account for seat in self.broker.seats.values() if seat.held and seat.allowed)
            try:
                fetched = await self._keychain.prefetch(held)
            except StoreUnavailable:
                fetched = 0
            await asyncio.sleep(_FETCH_NEXT if fetched else _FETCH_PAUSE)

    async def _tick(self) -> None:
        """Due moments of the pool happen even when nobody asks; and the event loop's lag is measured."""
        while True:
            before = self.clock.monotonic()
            await asyncio.sleep(_TICK)
            self.telemetry.emit(LoopLag(seconds=max(0.0, self.clock.monotonic() - before - _TICK)))
            self.broker.tick()
            self.broker.price_rungs(self.prices.rungs(self.broker.policy.depleted_threshold))

    def _account_changed(self, old: Account, new: Account) -> None:
        self.witness.changed(old, new)
        lifted = old.health.cause is Cause.CHALLENGED and new.health.cause is not Cause.CHALLENGED
        if new.credential_rev != old.credential_rev or lifted:
            task = asyncio.ensure_future(self._forget(new.id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forget(self, account_id: str) -> None:
        self._keychain.forget(account_id)
        for upstream in self.upstreams.values():
            await upstream.forget(account_id)

    def _waited(self, request_id: str, seconds: float, result: WaitResult) -> None:
        self.telemetry.emit(WaitFinished(request_id=request_id, seconds=seconds, result=result))

    def _granted(self, old: int, new: int) -> None:
        self.telemetry.emit(GrantsChanged(account_id=None, old=old, new=new))

    def _lease_lost(self, slots: int) -> None:
        self.telemetry.emit(LeaseLost(account_id=None, slots=slots, cause="declared dead by another process"))

    async def _ensure_demo_pool(self, leases: MongoLeases) -> None:
        """A few accounts on the mock upstream while there are no others: a first request works at once.

        One of the processes that start together makes them, the others take them over.
        """
        owner = self.ids.new("demo", 8)
        while not await self._has_accounts():
            if not await leases.acquire(_DEMO_LEASE, owner, _DEMO_PATIENCE):
                await asyncio.sleep(0.05)
                continue
            try:
                if not await self._has_accounts():
                    await self._make_demo_pool()
            finally:
                await leases.release(_DEMO_LEASE, owner)
        self.broker.accept(await self.accounts.load())
        await self.care.catalogues.sync()

    async def _has_accounts(self) -> bool:
        _, total = await self.desk.page(page=1, page_size=1)
        return total > 0

    async def _make_demo_pool(self) -> None:
        credentials = {"models": ["gpt-4o-mini"], "points": 3000, "price": 1}
        for number in range(1, 4):
            account, _ = await self.desk.upsert("mock", f"demo-{number}", credentials, demo=True)
            made = {"provider": "mock", "name": account.name, "demo": True}
            self.changes.record("account.upsert", f"account:{account.id}", after=made, actor="settings")
        await self.care.catalogues.load(account.offer)

    async def _close_books(self) -> None:
        """Everything is written and given back, as far as the database is there; else the next process does it."""
        try:
            async with asyncio.timeout(5.0):
                await self.limiter.leave()
        except (StoreUnavailable, TimeoutError):
            pass  # the slices go with the spool
        if not await self.ledger.leave():
            message = "the ledger could not be shipped to its end; the next process on this data folder does it"
            self.telemetry.emit(Notice(level="warning", message=message))

    async def close(self) -> None:
        """Stop everything, in the opposite order; slots and news are handed over."""
        self.draining = True
        await asyncio.gather(*[route.drain() for route in self._idempotent])
        running = set(self._tasks)
        while running:  # the driver may lose a cancellation, see ``storage.client``
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=3.0)
        if hasattr(self, "keeper"):
            await self.sessions.drain()
            try:
                async with asyncio.timeout(5.0):
                    await self.broker.journal.flush()
                    await self.prices.flush()
                    await self.history.flush()
                    await self.decisions.flush()
            except TimeoutError:
                self.telemetry.emit(Notice(level="error", message="news about accounts could not be stored"))
            await self.keeper.leave()
        if hasattr(self, "limiter"):
            await self._close_books()
        for closer in reversed(self._closers):
            await closer()
        self._closers.clear()
        if self._mongod is not None:
            await self._mongod.release()
            self._mongod = None


def _register_secrets(settings: Settings) -> None:
    """Whatever else happens, these texts never reach a log line."""
    secrets: list[SecretStr] = [settings.auth.admin_key, *settings.auth.bootstrap_keys, *settings.vault.keys]
    if settings.mongo.uri is not None and (password := password_of(settings.mongo.uri.get_secret_value())):
        secrets.append(SecretStr(password))
    for secret in secrets:
        register_secret(secret.get_secret_value())


def front(lifespan: Lifespan, settings: Settings) -> Front | TwoDoors:
    """The ASGI application: raw routes before FastAPI. The raw routes come with the lifespan (``Front.serve``)."""
    application = create_app(lifespan, [admin_router()], docs=settings.serve.docs_enabled)
    one = Front(application, ids=Ids())
    return TwoDoors(one, Ids()) if settings.serve.admin_port else one
