"""The duties: plain functions of their turn. Each may run late, twice, or in two processes without harm.

A duty answers with a short note for the operator, empty when there was nothing to do. Whatever it cannot do now it
leaves for its next turn; what it raises is told and harms nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from poe_gateway.accounts.books import AccountBooks
from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.rounds import Tally
from poe_gateway.accounts.sealing import SealedStore, reseal
from poe_gateway.accounts.summary import summarise
from poe_gateway.metering.ledger import Ledger
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.renewal import reset_day
from poe_gateway.pool.store import AccountStore
from poe_gateway.telemetry.events import LedgerSnapshot, PoolSnapshot
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.vault import Vault

DAILY_RESET = "daily-reset"
_BATCH = 500


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a duty. ``holds`` answers whether it may go on; ``token`` is the leader's fencing token."""

    now: datetime
    token: int = 0
    holds: Callable[[], bool] = lambda: True


class DutyRecords(Protocol):
    """What duties have done, kept between starts. Both methods raise StoreUnavailable."""

    async def get(self, name: str) -> dict[str, Any] | None:
        """The newest record ``{last_run_at, last_day, ok, detail, token}``, None when there is none."""

    async def put(
        self, name: str, *, last_run_at: datetime, last_day: str | None, ok: bool, detail: str = "", token: int = 0
    ) -> bool:
        """Replace the record; False when a later leader has written it already."""


async def daily_reset(turn: Turn, *, broker: Broker, store: AccountStore, records: DutyRecords) -> str:
    """Write down today's renewal of points for every account that is behind.

    The renewal is true by rule from its instant on (``transitions.as_of``); an account's ``reset_day`` in the same
    atomic change makes it happen once per local day, whoever writes and however often. The record spares the work for
    the rest of the day.
    """
    policy = broker.policy
    day = reset_day(turn.now, policy.reset)
    record = await records.get(DAILY_RESET)
    if record is not None and (record["last_day"] or "") >= day:
        return ""
    step = _reset_step(turn.now, policy, day)
    behind = [seat.account.id for seat in broker.seats.values() if seat.account.renews_daily]
    for start in range(0, len(behind), _BATCH):
        if not turn.holds():
            return "stopped: another process leads now"
        stored = await store.change(dict.fromkeys(behind[start : start + _BATCH], step))
        broker.accept(stored.values())
    detail = f"{len(behind)} accounts are at {day}"
    await records.put(DAILY_RESET, last_run_at=turn.now, last_day=day, ok=True, detail=detail, token=turn.token)
    return detail


def _reset_step(now: datetime, policy: PoolPolicy, day: str) -> Callable[[Account], Account]:
    def step(account: Account) -> Account:
        return transitions.as_of(account, now, policy, day) if account.renews_daily else account

    return step


async def refresh_points(
    turn: Turn, *, care: AccountCare, interval: float, recent_minutes: float, concurrency: int
) -> str:
    """Measure accounts used in the last ``recent_minutes`` whose balance was not read for ``interval`` seconds."""
    tally = await care.refresh_recent(
        since=turn.now - timedelta(minutes=recent_minutes),
        # A little less than the interval: a turn that comes early by jitter still measures.
        stale=turn.now - timedelta(seconds=0.8 * interval),
        concurrency=concurrency,
    )
    return _noted(tally)


async def revalidate(turn: Turn, *, care: AccountCare, interval: float) -> str:
    """Give a few invalid accounts another chance, never those that met a challenge."""
    return _noted(await care.revalidate(interval=interval))


async def seal_anew(turn: Turn, *, store: SealedStore, vault: Vault) -> str:
    """After a rotation of FERNET_KEY: the newest key seals what older ones sealed."""
    report = await reseal(store, vault)
    if not report.done and not report.unreadable:
        return ""
    return f"{report.done} credentials sealed with the newest key, {report.unreadable} cannot be opened"


async def purge_credentials(turn: Turn, *, store: SealedStore) -> str:
    """Remove credentials that no account points to (a process died between two writes)."""
    removed = await store.purge()
    return f"{removed} credentials without an account removed" if removed else ""


async def refresh_catalogues(turn: Turn, *, care: AccountCare, age: float) -> str:
    """Read the catalogues that are missing or older than ``age`` seconds; the old ones serve until they are read."""
    report = await care.catalogues.reload(older_than=turn.now - timedelta(seconds=age))
    if not report.models and not report.errors:
        return ""
    return f"{len(report.models)} catalogues read, {len(report.errors)} failed"


async def sync_catalogues(turn: Turn, *, care: AccountCare) -> str:
    """Take over the catalogues that other processes have read."""
    return "new catalogues" if await care.catalogues.sync() else ""


async def prewarm(
    turn: Turn, *, care: AccountCare, broker: Broker, concurrency: int, seconds: float, patience: float = 30.0
) -> str:
    """Open accounts of which this process holds slots, once it holds any. ``seconds`` per account."""
    try:
        async with asyncio.timeout(patience):
            while not any(seat.held for seat in broker.seats.values()):  # noqa: ASYNC110 - at start only, no bell
                await asyncio.sleep(0.1)
    except TimeoutError:
        return "this process holds no accounts"
    return _noted(await care.prewarm(concurrency=concurrency, seconds=seconds))


async def reconcile_books(turn: Turn, *, books: AccountBooks) -> str:
    """Hold the ledger against the upstreams' own books."""
    return str(await books.reconcile())


async def snapshot(turn: Turn, *, broker: Broker, telemetry: Telemetry) -> str:
    """Tell how the pool stands."""
    broker.tick()
    counts = summarise((seat.account for seat in broker.seats.values()), turn.now)
    telemetry.emit(
        PoolSnapshot(
            accounts=counts.by_provider,
            points=counts.points,
            inflight=broker.whole.used,
            waiting=len(broker.line),
        )
    )
    return ""


async def ledger_snapshot(turn: Turn, *, ledger: Ledger, telemetry: Telemetry) -> str:
    """Tell how this process's ledger stands."""
    state = ledger.state()
    telemetry.emit(
        LedgerSnapshot(waiting=state.waiting, oldest_seconds=state.oldest, open=state.open, orphans=state.orphans)
    )
    return ""


def _noted(tally: Tally) -> str:
    return str(tally) if tally.total else ""
