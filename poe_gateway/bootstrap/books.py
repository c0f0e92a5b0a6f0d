"""The books: who calls, what he may use, what it costs, and where that is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from zoneinfo import ZoneInfo

import msgspec

from poe_gateway.api.asgi import StartFailed
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.bootstrap.database import Stored
from poe_gateway.bootstrap.lifetime import Ending
from poe_gateway.clock import Clock, Ids
from poe_gateway.dispatch.charging import Charging
from poe_gateway.idempotency.book import Book
from poe_gateway.limits.limiter import Limiter
from poe_gateway.limits.terms import Rates, Scope
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.learned import Learned
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.metering.spool import SpoolFailed
from poe_gateway.metering.traffic import TrafficShape
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.settings import Settings
from poe_gateway.storage.audit import MongoAudit
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.idempotency import MongoAnswers
from poe_gateway.storage.keys import MongoKeys
from poe_gateway.storage.ledger import MongoLedger
from poe_gateway.storage.orgs import MongoOrgs
from poe_gateway.storage.price_rules import MongoPriceRules
from poe_gateway.storage.reports import MongoReports
from poe_gateway.storage.traffic import MongoTraffic
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry

_LEAVE = 5.0
"""Seconds that giving back slices of limits may take."""


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """The callers and their limits (``keyring``, ``buckets``, ``limiter``, ``windows``); prices (``pricelist``,
    ``charging``); and what is written down: attempts (``ledger``, ``rows``, ``reports``), the operator's changes
    (``changes``, ``audit``), the shape of requests (``shape``, ``traffic``), answers that may be asked for again
    (``repetitions``)."""

    keyring: KeyRing
    buckets: MongoBuckets
    limiter: Limiter
    windows: Windows
    pricelist: PriceList
    charging: Charging
    ledger: Ledger
    rows: MongoLedger
    reports: MongoReports
    changes: Changes
    audit: MongoAudit
    shape: TrafficShape
    traffic: MongoTraffic
    repetitions: Book


async def open_books(
    settings: Settings,
    *,
    stored: Stored,
    clock: Clock,
    ids: Ids,
    prices: PriceBook,
    processes: Callable[[], int],
    telemetry: Telemetry,
    trouble: Callable[[str], None],
    ending: Ending,
) -> Books:
    """``processes``: how many share the limits. The keys of the settings are stored where they are new.

    Raises StartFailed where the data folder takes no spool, and StoreUnavailable.
    """
    db, pepper = stored.db, stored.pepper
    buckets = MongoBuckets(db, ids)
    rows = MongoLedger(db, settings.money.ledger_days)
    audit = MongoAudit(db, pepper, clock, settings.audit.changes_days)
    traffic = MongoTraffic(db, settings.audit.traffic_days, stored.vault)
    ledger = Ledger(
        directory=settings.mongo.data_dir / "spool",
        rows=rows,
        charger=buckets,
        clock=clock,
        ids=ids,
        traffic=traffic,
        changes=audit,
    )
    ledger.on_trouble = trouble
    try:
        await ledger.start()
    except SpoolFailed as error:
        raise StartFailed(f"The gateway cannot start. In GATEWAY_DATA_DIR, {error}.") from None
    limiter = Limiter(store=buckets, process=ledger.process, clock=clock, live=processes)
    ending.hand_over(partial(_leave, limiter, ledger, telemetry))
    windows = Windows(ZoneInfo(settings.money.budget_zone))
    changes = Changes(ledger.note, clock)
    pricelist = PriceList(MongoPriceRules(db, clock), clock)
    await pricelist.load()
    keyring = _keyring(settings, stored, clock, ids)
    for key in await keyring.start(key.get_secret_value() for key in settings.auth.bootstrap_keys):
        made = {"name": key.name, "bootstrap": True}
        changes.record("key.create", f"key:{key.id}", after=made, actor="settings")
    return Books(
        keyring=keyring,
        buckets=buckets,
        limiter=limiter,
        windows=windows,
        pricelist=pricelist,
        charging=Charging(
            ledger=ledger,
            limiter=limiter,
            windows=windows,
            prices=pricelist,
            learned=Learned(),
            points=prices,
            clock=clock,
            unpriced=settings.money.unpriced,
            trouble=trouble,
        ),
        ledger=ledger,
        rows=rows,
        reports=MongoReports(db, settings.money.budget_zone),
        changes=changes,
        audit=audit,
        shape=TrafficShape(pepper),
        traffic=traffic,
        repetitions=Book(
            store=MongoAnswers(db),
            vault=stored.vault,
            pepper=pepper,
            process=ledger.process,
            ttl=settings.idempotency.ttl_seconds,
        ),
    )


def _keyring(settings: Settings, stored: Stored, clock: Clock, ids: Ids) -> KeyRing:
    limits = settings.limits
    return KeyRing(
        store=MongoKeys(stored.db, clock),
        orgs=MongoOrgs(stored.db, clock),
        pepper=stored.pepper,
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


async def _leave(limiter: Limiter, ledger: Ledger, telemetry: Telemetry) -> None:
    """Everything is written and given back, as far as the database is there; else the next process does it."""
    try:
        async with asyncio.timeout(_LEAVE):
            await limiter.leave()
    except (StoreUnavailable, TimeoutError):
        pass  # the slices go with the spool
    if not await ledger.leave():
        message = "the ledger could not be shipped to its end; the next process on this data folder does it"
        telemetry.emit(Notice(level="warning", message=message))
