"""The way of a request: from a model's name by the routing table to an account's answer, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from poe_gateway.accounts.managed import ManagedAccounts
from poe_gateway.bootstrap.accounts import Accounts
from poe_gateway.bootstrap.books import Books
from poe_gateway.bootstrap.database import Stored
from poe_gateway.bootstrap.outside import Outside
from poe_gateway.bootstrap.pool import Pool
from poe_gateway.chat.tokens import Tokenizer
from poe_gateway.clock import Clock, Ids
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.dispatch.continuity import Continuity, SessionPolicy
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.planning import Planner
from poe_gateway.dispatch.prefixes import PrefixBook
from poe_gateway.dispatch.router import Router
from poe_gateway.routes import Routes
from poe_gateway.routing.catalog import Catalog
from poe_gateway.routing.plan import public_names
from poe_gateway.routing.table import Table
from poe_gateway.settings import Settings
from poe_gateway.settings.last_good import LastGood, this_boot
from poe_gateway.settings.routes import backends_of
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.storage.responses import MongoKept
from poe_gateway.telemetry.hub import Telemetry


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """``routes`` holds the table by which ``router`` goes; ``shelf`` keeps responses that may be asked for again."""

    shelf: Shelf
    planner: Planner
    router: Router
    routes: Routes


def open_walk(
    settings: Settings,
    *,
    stored: Stored,
    book: MongoAccountAdmin,
    outside: Outside,
    pool: Pool,
    books: Books,
    accounts: Accounts,
    catalog: Catalog,
    tokenizer: Tokenizer,
    clock: Clock,
    ids: Ids,
    telemetry: Telemetry,
    trouble: Callable[[str], None],
) -> Walk:
    """Its table is empty until ``routes`` were started."""
    session = settings.session
    prefixes = PrefixBook(max_uses=session.max_requests, max_seconds=session.max_seconds)
    pool.sessions.on_flush = prefixes.flush
    planner = Planner(broker=pool.broker, catalog=catalog, upstreams=outside.upstreams, clock=clock, prices=pool.prices)
    dispatcher = Dispatcher(
        broker=pool.broker,
        keychain=outside.keychain,
        planner=planner,
        continuity=Continuity(
            broker=pool.broker,
            sessions=pool.sessions,
            clock=clock,
            policy=SessionPolicy(
                strict=session.affinity == "strict",
                max_requests=session.max_requests,
                max_seconds=session.max_seconds,
            ),
            prefixes=prefixes if session.prefix_affinity else None,
        ),
        telemetry=telemetry,
        clock=clock,
        policy=walk_policy(settings),
        prices=pool.prices,
        decided=pool.witness.decided,
        charging=books.charging,
        count=tokenizer.count,
    )
    router = Router(
        dispatcher=dispatcher,
        planner=planner,
        catalog=catalog,
        telemetry=telemetry,
        clock=clock,
        table=lambda: routes.table,
        default_provider=settings.routing.default_provider,
        count=tokenizer.count,
    )

    def applied(table: Table) -> None:
        """Another routing table is in force."""
        router.health.keep(table.backends)
        books.keyring.public.let_in(public_names(table))

    options = settings.routing
    boot = this_boot()
    routes = Routes(
        path=options.routes_file,
        references=outside.references,
        managed=ManagedAccounts(
            desk=accounts.desk,
            book=book,
            broker=pool.broker,
            catalogues=accounts.care.catalogues,
            catalog=catalog,
            upstreams=outside.upstreams,
            references=outside.references,
            turns=MongoLeases(stored.db),
            changes=books.changes,
            clock=clock,
            secret=stored.pepper,
            owner=ids.new("routes", 8),
        ),
        keyring=books.keyring,
        guard=outside.guard,
        telemetry=telemetry,
        clock=clock,
        allowed=outside.allowed,
        given=backends_of(options.providers),
        applied=applied,
        kept=None if boot is None else LastGood(settings.mongo.data_dir / "routes.last.json", boot),
    )
    shelf = Shelf(
        store=MongoKept(stored.db), vault=stored.vault, ids=ids, ttl=options.responses_ttl_seconds, lost=trouble
    )
    return Walk(shelf=shelf, planner=planner, router=router, routes=routes)


def walk_policy(settings: Settings) -> WalkPolicy:
    """The walk's own policy value."""
    pool = settings.pool
    return WalkPolicy(
        acquire_timeout=pool.acquire_timeout_seconds,
        request_timeout=settings.serve.request_timeout_seconds,
        max_attempts=pool.max_attempts,
        hold_back=pool.hold_back_seconds,
        retry_delay=settings.routing.retry_delay_seconds,
    )
