"""The scheduler: one process of all carries out what is due from time to time."""

from __future__ import annotations

from poe_gateway.bootstrap.accounts import Accounts
from poe_gateway.bootstrap.books import Books
from poe_gateway.bootstrap.database import Stored
from poe_gateway.bootstrap.pool import Pool
from poe_gateway.clock import Clock, Ids
from poe_gateway.scheduler.leadership import Leadership
from poe_gateway.scheduler.runner import Scheduler
from poe_gateway.scheduler.timetable import Schedule, timetable
from poe_gateway.settings import Settings
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.duties import MongoDuties
from poe_gateway.storage.leases import MongoLeases
from poe_gateway.telemetry.hub import Telemetry


def make_scheduler(
    settings: Settings,
    *,
    stored: Stored,
    book: MongoAccountAdmin,
    pool: Pool,
    books: Books,
    accounts: Accounts,
    clock: Clock,
    ids: Ids,
    telemetry: Telemetry,
) -> Scheduler:
    """To be run as long as the process lives."""
    schedule = settings.schedule
    return Scheduler(
        timetable=timetable(
            Schedule(
                refresh_interval=schedule.refresh_interval_seconds,
                recent_active_minutes=schedule.recent_active_minutes,
                revalidate_interval=schedule.revalidate_interval_seconds,
                models_ttl=settings.routing.models_ttl_seconds,
                prewarm_on_startup=schedule.prewarm_on_startup,
                prewarm_concurrency=schedule.prewarm_concurrency,
                prewarm_account_timeout=schedule.prewarm_account_timeout_seconds,
            ),
            care=accounts.care,
            broker=pool.broker,
            store=pool.accounts,
            records=MongoDuties(stored.db),
            sealed=book,
            vault=stored.vault,
            telemetry=telemetry,
            books=accounts.books,
            ledger=books.ledger,
        ),
        leadership=Leadership(lease=MongoLeases(stored.db), owner=ids.new("sched", 12), clock=clock),
        telemetry=telemetry,
        clock=clock,
    )
