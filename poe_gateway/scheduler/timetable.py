"""The timetable: which duty runs when and where, as data. A new duty is one row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from functools import partial

import msgspec

from poe_gateway.accounts.books import AccountBooks
from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.sealing import SealedStore
from poe_gateway.metering.ledger import Ledger
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.renewal import next_reset
from poe_gateway.pool.store import AccountStore
from poe_gateway.scheduler import duties
from poe_gateway.scheduler.duties import DutyRecords, Turn
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.vault import Vault


class Place(StrEnum):
    """Where a duty runs."""

    LEADER = "leader"
    EVERYWHERE = "everywhere"


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Durations in seconds."""

    name: str
    act: Callable[[Turn], Awaitable[str]]
    place: Place
    every: float | None
    """Between two turns; None: once, at the start of the process."""
    also_at: Callable[[datetime], datetime] | None = None
    """The next fixed moment after the given one."""
    jitter: float = 0.0
    """Turns are moved at random by up to this much."""
    at_once: bool = False
    """The first turn is at the start (of the process, or of its leadership), not after ``every``."""
    limit: float = 600.0
    """A turn that takes longer is broken off."""
    quiet: bool = False
    """Told only when there was something to do or it failed."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator may decide. Durations in seconds but for ``recent_active_minutes``."""

    refresh_interval: float = 600.0
    recent_active_minutes: float = 120.0
    revalidate_interval: float = 3600.0
    """0 turns second chances off."""
    models_ttl: float = 3600.0
    """Age at which a provider's list of models is read again."""
    prewarm_on_startup: bool = True
    prewarm_concurrency: int = 5
    prewarm_account_timeout: float = 20.0


def timetable(
    schedule: Schedule,
    *,
    care: AccountCare,
    broker: Broker,
    store: AccountStore,
    records: DutyRecords,
    sealed: SealedStore,
    vault: Vault,
    telemetry: Telemetry,
    books: AccountBooks | None = None,
    ledger: Ledger | None = None,
) -> tuple[Duty, ...]:
    """All duties; those of ``books`` and ``ledger`` where there are such."""
    rows = [
        Duty(
            name=duties.DAILY_RESET,
            act=partial(duties.daily_reset, broker=broker, store=store, records=records),
            place=Place.LEADER,
            every=60.0,
            also_at=lambda now: next_reset(now, broker.policy.reset),
            at_once=True,
            quiet=True,
        ),
        Duty(
            name="refresh-points",
            act=partial(
                duties.refresh_points,
                care=care,
                interval=schedule.refresh_interval,
                recent_minutes=schedule.recent_active_minutes,
                concurrency=schedule.prewarm_concurrency,
            ),
            place=Place.LEADER,
            every=schedule.refresh_interval,
            jitter=0.1 * schedule.refresh_interval,
            limit=max(600.0, schedule.refresh_interval),
        ),
        Duty(
            name="seal-anew",
            act=partial(duties.seal_anew, store=sealed, vault=vault),
            place=Place.LEADER,
            every=3600.0,
            jitter=60.0,
            at_once=True,
            quiet=True,
        ),
        Duty(
            name="purge-credentials",
            act=partial(duties.purge_credentials, store=sealed),
            place=Place.LEADER,
            every=86_400.0,
            jitter=600.0,
            at_once=True,
            quiet=True,
        ),
        Duty(
            name="refresh-catalogues",
            act=partial(duties.refresh_catalogues, care=care, age=schedule.models_ttl),
            place=Place.LEADER,
            # Missing ones are looked for more often than old ones.
            every=max(1.0, min(300.0, schedule.models_ttl)),
            jitter=0.1 * min(300.0, schedule.models_ttl),
            at_once=True,
            quiet=True,
        ),
        Duty(
            name="sync-catalogues",
            act=partial(duties.sync_catalogues, care=care),
            place=Place.EVERYWHERE,
            every=15.0,
            jitter=3.0,
            at_once=True,
            quiet=True,
        ),
        Duty(
            name="pool-snapshot",
            act=partial(duties.snapshot, broker=broker, telemetry=telemetry),
            place=Place.EVERYWHERE,
            every=10.0,
            at_once=True,
            quiet=True,
        ),
    ]
    if schedule.revalidate_interval > 0:
        rows.append(
            Duty(
                name="revalidate",
                act=partial(duties.revalidate, care=care, interval=schedule.revalidate_interval),
                place=Place.LEADER,
                # Which accounts are due is the accounts' own affair; a short round keeps each round small.
                every=max(1.0, min(300.0, schedule.revalidate_interval)),
                jitter=0.1 * min(300.0, schedule.revalidate_interval),
                quiet=True,
            )
        )
    if books is not None:
        rows.append(
            Duty(
                name="books",
                act=partial(duties.reconcile_books, books=books),
                place=Place.LEADER,
                every=schedule.refresh_interval,
                jitter=0.1 * schedule.refresh_interval,
                limit=max(600.0, schedule.refresh_interval),
                quiet=True,
            )
        )
    if ledger is not None:
        rows.append(
            Duty(
                name="ledger-snapshot",
                act=partial(duties.ledger_snapshot, ledger=ledger, telemetry=telemetry),
                place=Place.EVERYWHERE,
                every=10.0,
                at_once=True,
                quiet=True,
            )
        )
    if schedule.prewarm_on_startup:
        rows.append(
            Duty(
                name="prewarm",
                act=partial(
                    duties.prewarm,
                    care=care,
                    broker=broker,
                    concurrency=schedule.prewarm_concurrency,
                    seconds=schedule.prewarm_account_timeout,
                ),
                place=Place.EVERYWHERE,
                every=None,
                limit=3600.0,
            )
        )
    return tuple(rows)
